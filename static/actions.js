/**
 * Actions of the server's own node: queue, finished, one with its history, and the form that schedules.
 *
 * #/actions · #/actions/new?kind= · #/actions/ID
 */

import { get, live, path, post, send, withQuery } from "./api.js";
import { act, button, card, facts, failure, field, form, h, link, nothing, select, state, table, troublePlace } from "./dom.js";
import { exact, time } from "./format.js";
import { schemaForm } from "./schemaform.js";

const BASE = "/api/unstable/actions";
const SIZE = 25;

export function show(view) {
  const [first] = view.path;
  if (first === "new") return showForm(view);
  return first ? showAction(view, first) : showLists(view);
}

function kindOf(name) {
  const [scope, short] = [name.slice(0, name.indexOf("/")), name.slice(name.indexOf("/") + 1)];
  return [h("strong", {}, short), " ", h("small", {}, scope)];
}

// Queue and finished

function showLists({ main, session, signal }) {
  const trouble = troublePlace();
  const columns = [
    ["Action", "name", (each) => h("a", { href: path`#/actions/${each.id}` }, kindOf(each.kind))],
    ["State", "tight", (each) => state(each.state)],
    ["Id", "tight wide", (each) => h("code", {}, each.id)],
  ];
  const queue = table({
    label: "Queue",
    key: (each) => each.id,
    columns,
    empty: () => nothing("Nothing waits.", session.may("write") ? link("Schedule an action", "#/actions/new") : ""),
  });
  const finished = table({ label: "Finished actions", key: (each) => each.id, columns, empty: () => nothing("No action has ended yet.") });
  const older = [];
  const more = button("Older", (event) => act(event, loadOlder), { hidden: true });
  const count = h("small");
  main.append(
    h(
      "div",
      { class: "head" },
      h("h1", {}, "Actions"),
      session.may("write") ? link("Schedule an action", "#/actions/new", { class: "button primary" }) : null,
    ),
    trouble.node,
    card("Queue", queue.node),
    card("Finished", finished.node, h("div", { class: "buttons" }, more, count)),
  );
  let newest = [];
  let total = 0;
  function draw() {
    const rows = [...new Map([...newest, ...older].map((each) => [each.id, each])).values()];
    finished.update(rows);
    more.hidden = rows.length >= total;
    count.textContent = total ? `${exact(Math.min(rows.length, total))} of ${exact(total)}` : "";
  }
  async function loadOlder() {
    const last = [...newest, ...older].at(-1);
    older.push(...(await get(withQuery(`${BASE}/finished`, { limit: SIZE, before: last.id }), { signal })));
    draw();
  }
  live(
    async () => {
      queue.update(await get(`${BASE}/queue`, { signal })); // before the finished ones, so that none is missed
      const response = await send("GET", `${BASE}/finished?limit=${SIZE}`, { signal });
      newest = await response.json();
      total = Number(response.headers.get("X-Total-Count"));
      draw();
    },
    2,
    signal,
    trouble.show,
  );
}

// Schedule

async function showForm({ main, query, session, signal, go, keepQuery }) {
  const all = await get(`${BASE}/available`, { signal });
  const isOurs = (kind) => kind.kind.startsWith("arc.");
  const kinds = all.filter((kind) => session.may(kind.permission === "actions" ? "write" : "admin")).sort((a, b) => isOurs(b) - isOurs(a));
  if (!kinds.length) return main.append(h("h1", {}, "Schedule an action"), nothing("Your token may schedule nothing here."));
  const wanted = kinds.find((kind) => kind.kind === query.get("kind")) ?? kinds[0];
  const chooser = select(
    kinds.map((kind) => kind.kind),
    wanted.kind,
  );
  const about = h("div");
  const place = h("div");
  let args = null;
  function draw() {
    const kind = kinds.find((each) => each.kind === chooser.value);
    keepQuery({ kind: kind.kind });
    args = schemaForm(kind.args_schema);
    about.replaceChildren(
      facts([
        ["Does", kind.description],
        ["Stages", kind.stages.join(" → ")],
        ["Can be cancelled", kind.cancellable ? "while it runs" : "only while it waits"],
      ]),
      h("h3", {}, "Arguments"),
      args.node,
    );
    place.replaceChildren();
  }
  const submit = async () => {
    try {
      const made = await post(`${BASE}/schedule/${chooser.value}`, args.read());
      go(path`#/actions/${made.id}`);
    } catch (error) {
      place.replaceChildren(failure(error));
    }
  };
  chooser.addEventListener("change", draw);
  draw();
  main.append(
    link("All actions", "#/actions"),
    h("h1", {}, "Schedule an action"),
    h(
      "section",
      { class: "card form" },
      h("h2", { class: "unseen" }, "Kind and arguments"),
      form(submit, field("Kind", chooser), about, place, h("div", { class: "buttons" }, h("button", { class: "primary" }, "Schedule"))),
    ),
  );
  return undefined;
}

// One action

function showAction({ main, session, signal }, id) {
  const trouble = troublePlace();
  const head = h("div", { class: "head" });
  const about = h("div");
  const past = h("ol", { class: "timeline" });
  main.append(link("All actions", "#/actions"), head, trouble.node, card("About", about), card("History, newest first", past));
  const done = new AbortController();
  signal.addEventListener("abort", () => done.abort());
  const cancel = (event) =>
    act(event, () => post(`${BASE}/cancel/${encodeURIComponent(id)}`, { reason: "asked for in the dashboard" }), "Cancelled");
  live(
    async () => {
      const { action, history } = await get(`${BASE}/info/${encodeURIComponent(id)}`, { signal });
      const isOver = ["DONE", "FAILED"].includes(action.state);
      head.replaceChildren(
        h("div", {}, h("h1", {}, action.kind), state(action.state)),
        !isOver && session.may("write") ? button("Cancel", cancel, { class: "danger" }) : "",
      );
      about.replaceChildren(
        facts([
          ["Arguments", action.args === null ? "none" : h("code", {}, JSON.stringify(action.args))],
          ["Scheduled", time(action.scheduled_ts)],
          ["Asked first", action.created_ts === action.scheduled_ts ? "" : time(action.created_ts)],
          ["Ended", action.finished_ts && time(action.finished_ts)],
          ["Requester", action.requester],
          ["Id", h("code", {}, action.id)],
        ]),
      );
      past.replaceChildren(
        ...history.map((event) =>
          h(
            "li",
            {},
            state(event.state),
            " ",
            h("small", {}, time(event.timestamp)),
            event.state_payload === null ? null : h("pre", { tabindex: "0" }, JSON.stringify(event.state_payload, null, 2)),
          ),
        ),
      );
      if (isOver) done.abort();
    },
    1,
    done.signal,
    trouble.show,
  );
}
