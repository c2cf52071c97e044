/**
 * Fleet: machines and who of them is there; one machine with facts, tags, commands and history; enrolment.
 *
 * #/fleet?q=&page= · #/fleet/runs · #/fleet/machine/ID · #/fleet/machine/ID/run/REQUEST
 */

import { call, get, getPage, live, path, post, send, withQuery } from "./api.js";
import {
  act,
  button,
  card,
  copyable,
  dialog,
  facts,
  failure,
  field,
  form,
  h,
  link,
  nothing,
  pager,
  select,
  state,
  sure,
  table,
  tabs,
  toast,
  troublePlace,
} from "./dom.js";
import { ago, between, duration, exact, time, value } from "./format.js";
import { logView } from "./logview.js";

const PER_PAGE = 25;
const SHOWN_FACTS = "os,platform,platform_version,ipaddress";
const EXAMPLES = [
  '@online = "true"',
  '@online = "false"',
  '@os = "linux"',
  '@hostname ^ "press*"',
  'site = "north" AND NOT @os = "windows"',
  "@cpu_count = 4",
];
const TABS = [
  ["#/fleet", "Machines"],
  ["#/fleet/runs", "Commands"],
];
const ACTIONS = [
  ["execute script", "Shell script"],
  ["execute command", "Command without a shell"],
  ["rpc ping", "Ping the agent"],
  ["rpc version", "Version of the agent"],
  ["", "Another plug-in"],
];
const DIRECTORY = "/opt/arc"; // of the agent on its machine
const ENDED = ["complete", "failed"];
const NOT_SHOWN = "online"; // a fact that the light shows already

export function show(view) {
  const [part, id, , request] = view.path;
  if (part === "runs") return showRuns(view);
  if (request) return showRun(view, id, request);
  return id ? showMachine(view, id) : showMachines(view);
}

function light(isOnline) {
  return state(isOnline ? "ONLINE" : "idle", isOnline ? "Online" : "Offline");
}

// Machines

function showMachines({ main, query, session, signal, keepQuery }) {
  const chosen = { q: query.get("q") ?? "", page: Number(query.get("page")) || 1 };
  const trouble = troublePlace();
  const filter = h("input", {
    type: "search",
    value: chosen.q,
    class: "mono",
    spellcheck: "false",
    placeholder: '@os = "linux" AND site = "north"',
  });
  const examples = select([["", "Examples"], ...EXAMPLES], "", { "aria-label": "Examples of filters", class: "examples" });
  const list = table({
    label: "Machines",
    key: (agent) => agent.agent_id,
    columns: [
      ["State", "tight", (agent) => light(agent.online)],
      [
        "Machine",
        "name",
        (agent) =>
          [
            link(agent.display_name, path`#/fleet/machine/${agent.agent_id}`),
            agent.display_name === agent.agent_id ? null : h("small", {}, ` ${agent.agent_id}`),
          ].filter(Boolean),
      ],
      [
        "System",
        "wide",
        (agent) =>
          [[agent.facts?.platform ?? agent.facts?.os, agent.facts?.platform_version].filter(Boolean).join(" "), agent.facts?.ipaddress]
            .filter(Boolean)
            .join(" · "),
      ],
      ["Tags", "wide", (agent) => tagBadges(agent.tags)],
      ["Last seen", "tight", (agent) => h("span", { title: time(agent.last_seen_at) }, agent.seen)],
    ],
    empty: () =>
      chosen.q
        ? nothing("No machine fits the filter.")
        : nothing(
            "No machine has an agent yet.",
            session.may("admin") ? "“Enrol a machine” shows the line to run there." : "Somebody with permission admin has to enrol one.",
          ),
  });
  const turn = pager((page) => move({ page }));
  function move(given) {
    Object.assign(chosen, given);
    keepQuery({ q: chosen.q, page: chosen.page > 1 ? chosen.page : "" });
    again();
  }
  const search = () => move({ q: filter.value.trim(), page: 1 });
  examples.addEventListener("change", () => {
    if (examples.value) filter.value = examples.value;
    examples.selectedIndex = 0;
    search();
  });
  filter.addEventListener("search", search);
  main.append(
    h("div", { class: "head" }, h("h1", {}, "Fleet"), session.may("admin") ? button("Enrol a machine", enrol, { class: "primary" }) : null),
    tabs(TABS, "#/fleet", "Parts of the fleet"),
    trouble.node,
    h(
      "section",
      { class: "card" },
      h("h2", { class: "unseen" }, "Machines"),
      form(
        search,
        h(
          "div",
          { class: "tools" },
          h("div", { class: "grow" }, field("Filter: @fact or tag, = != ^ !^, AND OR NOT", filter)),
          h("button", {}, "Filter"),
          examples,
        ),
      ),
      list.node,
      turn.node,
    ),
  );
  const again = live(
    async () => {
      const { page, q } = chosen;
      const found = await getPage(withQuery("/api/v1/agents", { q, page, per_page: PER_PAGE, facts: SHOWN_FACTS }), { signal });
      if (page !== chosen.page || q !== chosen.q) return 0; // the reader went on
      list.update(found.items.map((agent) => ({ ...agent, seen: ago(agent.last_seen_at) })));
      turn.update(page, found.pages, exact(found.total));
      return null;
    },
    4,
    signal,
    trouble.show,
  );
}

function tagBadges(tags) {
  return h(
    "span",
    { class: "tags" },
    Object.entries(tags ?? {})
      .filter(([key]) => key !== "name")
      .map(([key, text]) => h("span", { class: "badge" }, `${key}: ${text}`)),
  );
}

/** Shows the line to run on a new machine; what is in it is good once and for an hour. */
function enrol() {
  return dialog("Enrol a machine", (close) => {
    const name = h("input", { placeholder: "press-07", pattern: "[A-Za-z0-9._\\-]{1,64}" });
    const place = h("div");
    const make = async () => {
      place.replaceChildren();
      try {
        const made = await post("/api/v1/agents/init", name.value ? { CN: name.value } : {});
        place.replaceChildren(
          h("h3", {}, "Run this on the machine, as root"),
          copyable(oneLine(made, name.value), "Command that enrols a machine"),
          h(
            "p",
            {},
            h("small", {}, "It needs Python 3.11 with psutil (Debian: python3-psutil). The token in it works once, within an hour."),
          ),
          h(
            "div",
            { class: "buttons" },
            button("Show as cloud-config instead", (event) => act(event, cloudConfig)),
          ),
        );
      } catch (error) {
        place.replaceChildren(failure(error));
      }
    };
    const cloudConfig = async () => {
      const response = await send("POST", "/api/v1/agents/init", {
        body: name.value ? { CN: name.value } : {},
        headers: { Accept: "text/cloud-config" },
      });
      place.replaceChildren(h("h3", {}, "Give this to the new machine as user data"), copyable(await response.text(), "cloud-config"));
    };
    return [
      form(
        make,
        field("Name of the machine", name, "Without one the machine takes its host name, and the token is good for any name."),
        h(
          "div",
          { class: "buttons" },
          button("Close", () => close()),
          h("button", { class: "primary" }, "Make the command"),
        ),
      ),
      place,
    ];
  });
}

function oneLine(made, name) {
  const named = name ? ` --identity ${name}` : "";
  return (
    `mkdir -p ${DIRECTORY} && curl -fsS -H 'X-Enrolment-Token: ${made.token}' -o ${DIRECTORY}/arc-agent.pyz ${made.update_url} && ` +
    `python3 ${DIRECTORY}/arc-agent.pyz agent init --server ${made.endpoint_url} --enrolment-token ${made.token}${named} --install-dir ${DIRECTORY} --start`
  );
}

// One machine

async function showMachine({ main, session, signal, go }, id) {
  const trouble = troublePlace();
  const head = h("div", { class: "head" });
  const about = h("div");
  const tags = h("div");
  const known = h("div");
  const events = h("div");
  const runs = runTable(false);
  const mayRun = session.may("admin");
  main.append(
    link("All machines", "#/fleet"),
    head,
    trouble.node,
    h("div", { class: "columns" }, card("About", about), card("Tags", tags)),
    mayRun ? card("Run a command", runForm(id, go)) : "",
    card("Commands run here", runs.node),
    h("div", { class: "columns" }, card("Facts", known), card("History", events)),
  );
  let drawn = "";
  let editing = false;
  const again = live(
    async () => {
      const [agent, past, ran] = await Promise.all([
        get(path`/api/v1/agents/${id}?facts=all`, { signal }),
        get(path`/api/v1/agents/${id}/events?limit=20`, { signal }),
        getPage(withQuery("/api/v1/jobs", { agent_id: id, per_page: 10 }), { signal }),
      ]);
      document.title = `${agent.display_name} · Arc`;
      about.replaceChildren(
        facts([
          ["Id", h("code", {}, agent.agent_id)],
          ["Last seen", `${time(agent.last_seen_at)} (${ago(agent.last_seen_at)})`],
          ["Enrolled", time(agent.created_at)],
          ["Project", agent.project],
          ["Organization", agent.organization],
        ]),
      );
      events.replaceChildren(
        past.length
          ? h(
              "ul",
              { class: "list" },
              past.map((each) =>
                h(
                  "li",
                  {},
                  h("span", { class: "grow" }, each.event, each.detail ? ` · ${each.detail}` : ""),
                  h("small", {}, time(each.at)),
                ),
              ),
            )
          : nothing("Nothing has happened yet."),
      );
      runs.update(ran.items.map(withTook));
      const signature = JSON.stringify([agent.facts, agent.tags, agent.online, agent.display_name]);
      if (signature === drawn || editing) return;
      drawn = signature;
      head.replaceChildren(
        h("div", {}, h("h1", {}, agent.display_name), light(agent.online)),
        session.may("admin") ? button("Remove", (event) => remove(event, agent, go), { class: "danger" }) : "",
      );
      tags.replaceChildren(
        tagEditor(
          agent,
          session,
          (is) => (editing = is),
          () => again(),
        ),
      );
      known.replaceChildren(factList(agent.facts ?? {}));
    },
    4,
    signal,
    trouble.show,
  );
}

function factList(found) {
  const shown = Object.entries(found)
    .filter(([name]) => name !== NOT_SHOWN)
    .sort(([a], [b]) => a.localeCompare(b));
  if (!shown.length) return nothing("The machine has told nothing about itself yet.");
  return facts(shown.map(([name, each]) => [name, h("span", { class: "mono" }, value(each))]));
}

/** Tags in place: a new value counts when one leaves its box or presses Enter. */
function tagEditor(agent, session, editing, again) {
  const entries = Object.entries(agent.tags ?? {}).sort(([a], [b]) => a.localeCompare(b));
  if (!session.may("admin")) return entries.length ? facts(entries) : nothing("There are no tags.");
  const url = path`/api/v1/agents/${agent.agent_id}/tags`;
  const save = async (key, text) => {
    try {
      await post(url, { [key]: text });
      toast("Tag saved");
    } catch (error) {
      toast(error.message, "bad");
    }
    editing(false);
    again();
  };
  const rows = entries.map(([key, text]) => {
    const box = h("input", {
      value: text,
      "aria-label": `Tag ${key}`,
      onfocus: () => editing(true),
      onblur: () => (box.value === text ? editing(false) : save(key, box.value)),
      onkeydown: (event) => event.key === "Enter" && box.blur(),
    });
    const drop = button(
      "Remove",
      (event) => act(event, () => call("DELETE", `${url}/${encodeURIComponent(key)}`), "Tag removed").then(again),
      { class: "small", "aria-label": `Remove tag ${key}` },
    );
    return [key, h("span", { class: "buttons" }, box, drop)];
  });
  const key = h("input", { required: true, pattern: "[A-Za-z0-9_]+", placeholder: "site", size: 8, onfocus: () => editing(true) });
  const text = h("input", { required: true, placeholder: "north", size: 12, onfocus: () => editing(true) });
  return h(
    "div",
    {},
    rows.length ? facts(rows) : nothing("There are no tags yet.", "A tag “name” is shown in place of the id."),
    form(
      () => save(key.value, text.value),
      h("div", { class: "tools" }, field("New tag", key), field("Value", text), h("button", {}, "Add")),
    ),
  );
}

async function remove(event, agent, go) {
  const pressed = { currentTarget: event.currentTarget };
  if (
    !(await sure(
      `Remove ${agent.display_name}?`,
      "Its facts and tags go; what was run on it stays. An agent that still runs comes back.",
      "Remove",
    ))
  )
    return;
  await act(pressed, () => call("DELETE", path`/api/v1/agents/${agent.agent_id}`), "Removed");
  go("#/fleet");
}

// Commands

function runForm(id, go) {
  const kind = select(ACTIONS, "execute script");
  const plugin = h("input", { placeholder: "pump" });
  const action = h("input", { placeholder: "flush" });
  const other = h("div", { class: "tools", hidden: true }, field("Plug-in", plugin), field("Action", action));
  const payload = h("textarea", { class: "code", rows: 4, spellcheck: "false", value: "uptime" });
  const input = field("Input", payload);
  const timeout = h("input", { type: "number", min: 1, max: 86_400, value: 60, required: true });
  const place = h("div");
  kind.addEventListener("change", () => {
    other.hidden = kind.value !== "";
    input.hidden = kind.value.startsWith("rpc");
  });
  const run = async () => {
    const [agent, verb] = kind.value ? kind.value.split(" ") : [plugin.value, action.value];
    try {
      const made = await post("/api/v1/jobs", {
        to: id,
        timeout: Number(timeout.value),
        agent,
        action: verb,
        payload: input.hidden ? "" : payload.value,
      });
      go(path`#/fleet/machine/${id}/run/${made.request_id}`);
    } catch (error) {
      place.replaceChildren(failure(error));
    }
  };
  return h(
    "div",
    { class: "form" },
    form(
      run,
      h("div", { class: "tools" }, field("What", kind), field("Seconds it may take", timeout)),
      other,
      input,
      h("div", { class: "buttons" }, h("button", { class: "primary" }, "Run")),
    ),
    place,
  );
}

function withTook(run) {
  return { ...run, took: run.started_at ? duration(between(run.started_at, run.ended_at)) : "", age: ago(run.created_at) };
}

function runTable(withMachine) {
  return table({
    label: "Commands",
    key: (run) => run.request_id,
    columns: [
      ["Command", "name", (run) => link(`${run.agent} ${run.action}`, path`#/fleet/machine/${run.to}/run/${run.request_id}`)],
      ...(withMachine ? [["Machine", "", (run) => link(run.to, path`#/fleet/machine/${run.to}`)]] : []),
      ["Input", "wide", (run) => h("code", {}, run.payload.length > 70 ? `${run.payload.slice(0, 70)}…` : run.payload)],
      ["State", "tight", (run) => state(run.status)],
      ["Exit", "number wide", (run) => exact(run.exit_code)],
      ["By", "tight wide", (run) => run.user.name],
      ["Asked", "tight", (run) => run.age],
      ["Took", "tight wide", (run) => run.took],
    ],
    empty: () => nothing("No command was run yet.", withMachine ? "Open a machine to run one." : ""),
  });
}

function showRuns({ main, query, signal, keepQuery }) {
  const chosen = { state: query.get("state") ?? "", page: Number(query.get("page")) || 1 };
  const trouble = troublePlace();
  const states = select([["", "Any state"], "queued", "executing", "complete", "failed"], chosen.state);
  const list = runTable(true);
  const turn = pager((page) => move({ page }));
  function move(given) {
    Object.assign(chosen, given);
    keepQuery({ state: chosen.state, page: chosen.page > 1 ? chosen.page : "" });
    again();
  }
  states.addEventListener("change", () => move({ state: states.value, page: 1 }));
  main.append(
    h("h1", {}, "Fleet"),
    tabs(TABS, "#/fleet/runs", "Parts of the fleet"),
    trouble.node,
    h(
      "section",
      { class: "card" },
      h("h2", { class: "unseen" }, "Commands"),
      h("div", { class: "tools" }, field("State", states)),
      list.node,
      turn.node,
    ),
  );
  const again = live(
    async () => {
      const found = await getPage(withQuery("/api/v1/jobs", { ...chosen, per_page: PER_PAGE }), { signal });
      list.update(found.items.map(withTook));
      turn.update(chosen.page, found.pages, exact(found.total));
    },
    3,
    signal,
    trouble.show,
  );
}

function showRun({ main, session, signal, go }, id, request) {
  const trouble = troublePlace();
  const head = h("div", { class: "head" });
  const about = h("div");
  const log = logView("Output of the command");
  main.append(link(`Machine ${id}`, path`#/fleet/machine/${id}`), head, trouble.node, card("About", about), card("Output", log.node));
  const poll = new AbortController();
  signal.addEventListener("abort", () => poll.abort());
  let last = -1;
  const cancel = (event) => act(event, () => call("PUT", path`/api/v1/jobs/${request}/cancel`), "Asked to stop");
  const repeat = (run) => (event) =>
    act(event, async () => {
      const made = await post("/api/v1/jobs", {
        to: run.to,
        timeout: run.timeout,
        agent: run.agent,
        action: run.action,
        payload: run.payload,
      });
      go(path`#/fleet/machine/${id}/run/${made.request_id}`);
    });
  live(
    async () => {
      const run = await get(path`/api/v1/jobs/${request}`, { signal });
      const isOver = ENDED.includes(run.status);
      const buttons = !session.may("admin")
        ? []
        : isOver
          ? [button("Run again", repeat(run))]
          : [button("Cancel", cancel, { class: "danger" })];
      head.replaceChildren(h("div", {}, h("h1", {}, `${run.agent} ${run.action}`), state(run.status)), h("div", {}, buttons));
      about.replaceChildren(
        facts([
          ["Machine", link(run.to, path`#/fleet/machine/${run.to}`)],
          ["Input", run.payload && h("pre", {}, run.payload)],
          ["Exit status", run.exit_code === null ? "" : exact(run.exit_code)],
          ["Asked", `${time(run.created_at)} by ${run.user.name}`],
          ["Took", run.started_at && duration(between(run.started_at, run.ended_at))],
          ["Limit", duration(run.timeout * 1000)],
          ["Waits until", run.status === "queued" ? time(run.deliver_until) : ""],
        ]),
      );
      const found = await get(path`/api/v1/jobs/${request}/log?after=${last}`, { signal });
      for (const part of found.parts) {
        last = Math.max(last, part.number);
        log.append(part.content);
      }
      log.say(isOver ? "It wrote nothing." : run.status === "queued" ? "Waits for the machine to fetch it." : "Nothing yet.");
      if (isOver && ENDED.includes(found.status) && found.parts.length === 0) poll.abort(); // all of it is here
    },
    1,
    poll.signal,
    trouble.show,
  );
}
