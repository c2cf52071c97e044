/**
 * Jobs: the list with search, one job with its tasks and log, the editor that submits, queues and nodes.
 *
 * #/jobs?q=&state=&page= · #/jobs/ID · #/jobs/new?from=ID · #/jobs/queues
 */

import { call, get, live, path, send, withQuery } from "./api.js";
import { ganttBar } from "./charts.js";
import {
  act,
  button,
  card,
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
  troublePlace,
} from "./dom.js";
import { editor } from "./editor.js";
import { ago, between, duration, exact, time, value, word } from "./format.js";
import { logView } from "./logview.js";
import { toYaml } from "./yaml.js";

const SIZE = 20;
const STATES = ["PENDING", "SCHEDULED", "RUNNING", "COMPLETED", "FAILED", "CANCELLED"];
const UNDER_WAY = ["PENDING", "SCHEDULED", "RUNNING", "CREATED"];
const TABS = [
  ["#/jobs", "Jobs"],
  ["#/jobs/queues", "Queues and nodes"],
];
const AGAIN = ["name", "description", "tags", "inputs", "secrets", "tasks", "defaults", "output", "webhooks", "permissions", "autoDelete"];
const LIGHTS = { COMPLETED: "ok", FAILED: "bad", RUNNING: "run", CANCELLED: "warn" };
const LOG_PARTS = 100; // of a page
const STARTER = `name: my first job
tasks:
  - name: count
    run: |
      for i in 1 2 3 4 5; do echo "step $i"; sleep 1; done
  - name: say goodbye
    run: echo bye
`;
const STARTER_CONTAINERS = STARTER.replaceAll("\n    run:", "\n    image: alpine:3.20\n    run:");

export function show(view) {
  const [first] = view.path;
  if (first === "new") return showEditor(view);
  if (first === "queues") return showQueues(view);
  return first ? showJob(view, first) : showList(view);
}

// The list

function showList({ main, query, session, signal, keepQuery }) {
  const chosen = { q: query.get("q") ?? "", state: query.get("state") ?? "", page: Number(query.get("page")) || 1 };
  const trouble = troublePlace();
  const words = h("input", { type: "search", value: chosen.q, placeholder: "name, description, tag:nightly" });
  const states = select([["", "Any state"], ...STATES.map((each) => [each, word(each)])], chosen.state);
  const list = table({
    label: "Jobs",
    key: (job) => job.id,
    columns: jobColumns(session, () => again()),
    empty: () => emptyList(chosen, session),
  });
  const turn = pager((page) => move({ page }));
  function move(given) {
    Object.assign(chosen, given);
    keepQuery({ ...chosen, page: chosen.page > 1 ? chosen.page : "" });
    again();
  }
  let timer = 0;
  words.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(() => move({ q: words.value.trim(), page: 1 }), 250);
  });
  states.addEventListener("change", () => move({ state: states.value, page: 1 }));
  main.append(
    h(
      "div",
      { class: "head" },
      h("h1", {}, "Jobs"),
      session.may("write") ? link("New job", "#/jobs/new", { class: "button primary" }) : null,
    ),
    tabs(TABS, "#/jobs", "Parts of jobs"),
    trouble.node,
    h(
      "section",
      { class: "card" },
      h("h2", { class: "unseen" }, "List"),
      h("div", { class: "tools" }, h("div", { class: "grow" }, field("Search", words)), field("State", states)),
      list.node,
      turn.node,
    ),
  );
  const again = live(
    async () => {
      const { page, ...wanted } = chosen;
      const found = await get(withQuery("/jobs", { ...wanted, page, size: SIZE }), { signal });
      if (page !== chosen.page || wanted.q !== chosen.q || wanted.state !== chosen.state) return 0; // the reader went on
      list.update(found.items.map(withRuntime));
      turn.update(page, found.totalPages, exact(found.totalItems));
      return null;
    },
    3,
    signal,
    trouble.show,
  );
}

/** What changes by the clock alone is part of the row, so that the table draws it anew. */
function withRuntime(job) {
  const end = job.completedAt ?? job.failedAt;
  const isTimed = job.startedAt && (end || UNDER_WAY.includes(job.state));
  return { ...job, runtime: isTimed ? duration(between(job.startedAt, end)) : "", age: ago(job.createdAt) };
}

function jobColumns(session, again) {
  const columns = [
    ["Name", "name", (job) => [link(job.name || job.id, path`#/jobs/${job.id}`), ...badges(job)]],
    ["State", "tight", (job) => state(job.state)],
    [
      "Progress",
      "tight wide",
      (job) => h("progress", { max: 100, value: job.progress ?? 0, "aria-label": `${Math.round(job.progress ?? 0)} %` }),
    ],
    ["Tasks", "number wide", (job) => exact(job.taskCount)],
    ["Created", "tight wide", (job) => h("span", { title: time(job.createdAt) }, job.age)],
    ["Runtime", "tight wide", (job) => job.runtime],
  ];
  return session.may("write") ? [...columns, ["", "actions", (job) => jobButtons(job, again, "small")]] : columns;
}

function badges(job) {
  const texts = [...(job.parentId ? ["sub"] : []), ...(job.schedule ? ["Scheduled"] : []), ...(job.tags ?? [])];
  return texts.length
    ? [
        " ",
        h(
          "span",
          { class: "tags" },
          texts.map((text) => h("span", { class: "badge" }, text)),
        ),
      ]
    : [];
}

function emptyList(chosen, session) {
  if (chosen.q || chosen.state) return nothing("No job fits.", "Change the words or the state.");
  return nothing(
    "There are no jobs yet.",
    session.may("write") ? link("Submit the first one.", "#/jobs/new") : "Somebody with permission to write has to submit one.",
  );
}

function jobButtons(job, again, size = "") {
  const path_ = (verb) => path`/jobs/${job.id}/` + verb;
  if (["SCHEDULED", "RUNNING"].includes(job.state)) {
    const cancel = async (event) => {
      const pressed = { currentTarget: event.currentTarget };
      if (await sure("Cancel this job?", `“${job.name || job.id}” is stopped with everything that runs of it.`, "Cancel the job")) {
        await act(pressed, () => call("PUT", path_("cancel")), "Cancelled");
        again();
      }
    };
    return [button("Cancel", cancel, { class: `${size} danger`, "aria-label": `Cancel ${job.name}` })];
  }
  if (["FAILED", "CANCELLED"].includes(job.state)) {
    return [
      button("Restart", (event) => act(event, () => call("PUT", path_("restart")), "Restarted").then(again), {
        class: size,
        "aria-label": `Restart ${job.name}`,
      }),
    ];
  }
  return [];
}

// One job

async function showJob({ main, session, signal, go }, id) {
  const head = h("div", { class: "head" });
  const trouble = troublePlace();
  const about = h("div");
  const tasks = table({
    label: "Tasks",
    key: (task) => task.id ?? `todo ${task.position}`,
    columns: taskColumns((task) => follow(task)),
    empty: () => nothing("No task has begun.", "The job waits for its start."),
  });
  const log = logView("Log of the job");
  const whose = h("span", {});
  const all = button("Log of all tasks", () => follow(null), { hidden: true, class: "small" });
  main.append(
    link("All jobs", "#/jobs"),
    head,
    trouble.node,
    card("About", about),
    card("Tasks", tasks.node),
    card("Log", h("div", { class: "buttons" }, whose, all), log.node),
  );

  let source = logSource(path`/jobs/${id}/log`, log, signal);
  let job = null;
  function follow(task) {
    log.clear();
    source = logSource(task ? path`/tasks/${task.id}/log` : path`/jobs/${id}/log`, log, signal);
    whose.textContent = task ? `Task “${task.name ?? task.position}”` : "";
    all.hidden = !task;
    source.more();
  }
  async function remove(event) {
    const pressed = { currentTarget: event.currentTarget };
    if (!(await sure("Delete this job?", "Its tasks, logs and events go with it.", "Delete"))) return;
    if (await act(pressed, () => call("DELETE", path`/jobs/${id}`), "Deleted")) go("#/jobs");
  }
  const again = live(
    async () => {
      job = await get(path`/jobs/${id}`, { signal });
      document.title = `${job.name || "Job"} · Arc`;
      const isOver = !UNDER_WAY.includes(job.state);
      const buttons = session.may("write")
        ? [
            ...jobButtons(job, () => again()),
            link("Run again with changes", path`#/jobs/new?from=${id}`, { class: "button" }),
            isOver ? button("Delete", remove, { class: "danger" }) : null,
          ]
        : [];
      redraw(head, [job.state, job.name], () => [
        h("div", {}, h("h1", {}, job.name || id), state(job.state), ...badges(job)),
        h("div", {}, buttons),
      ]);
      redraw(about, [job, isOver || Math.floor(Date.now() / 1000)], () => [aboutJob(job)]);
      tasks.update(timed(job));
      await source.more();
      log.say(isOver ? "The tasks wrote nothing." : "Nothing yet.");
      return isOver ? 10 : null;
    },
    1.5,
    signal,
    trouble.show,
  );
}

/** Replace what a node holds, but only when what it shows has changed: buttons keep their focus. */
function redraw(node, shown, make) {
  const signature = JSON.stringify(shown);
  if (node.dataset.shown === signature) return;
  node.dataset.shown = signature;
  node.replaceChildren(...make());
}

function aboutJob(job) {
  const end = job.completedAt ?? job.failedAt;
  return facts([
    ["Description", job.description && h("pre", {}, job.description)],
    ["Error", job.error && h("pre", { class: "wrong-text" }, job.error)],
    ["Result", job.result && h("pre", {}, job.result)],
    ["Progress", [h("progress", { max: 100, value: job.progress ?? 0, "aria-label": "Progress" }), ` ${Math.round(job.progress ?? 0)} %`]],
    ["Created", `${time(job.createdAt)} by ${job.createdBy?.name ?? "?"}`],
    ["Runtime", job.startedAt && job.state !== "CANCELLED" ? duration(between(job.startedAt, end)) : ""],
    ["Inputs", job.inputs && h("pre", {}, toYaml(job.inputs).trimEnd())],
    ["Part of", job.parentId && link("another job", path`#/jobs/${job.parentId}`)],
    ["Id", h("code", {}, job.id)],
  ]);
}

/** Tasks as they ran, then those that are still to come, all with the ends of the common time axis. */
function timed(job) {
  const ran = job.execution ?? [];
  const reached = new Set(ran.map((task) => task.position));
  const isOver = !UNDER_WAY.includes(job.state);
  const waiting = isOver
    ? []
    : job.tasks.map((task, at) => ({ name: task.name, position: at + 1, state: "TO_COME" })).filter((task) => !reached.has(task.position));
  const from = Date.parse(job.startedAt ?? job.createdAt);
  const ends = ran.map((task) => Date.parse(task.completedAt ?? task.failedAt ?? task.startedAt ?? task.createdAt));
  const to = isOver ? Math.max(from + 1, ...ends, job.completedAt ? Date.parse(job.completedAt) : 0) : Date.now();
  return [...ran, ...waiting].map((task) => ({ ...task, from, to }));
}

function taskColumns(follow) {
  return [
    [
      "Task",
      "name",
      (task) =>
        [task.name || `Task ${task.position}`, task.retry?.attempts ? h("small", {}, ` attempt ${task.retry.attempts + 1}`) : null].filter(
          Boolean,
        ),
    ],
    ["State", "tight", (task) => (task.state === "TO_COME" ? state("idle", "To come") : state(task.state))],
    ["Timing", "name", gantt],
    [
      "Took",
      "tight wide",
      (task) =>
        task.startedAt
          ? duration(between(task.startedAt, task.completedAt ?? task.failedAt ?? (task.state === "RUNNING" ? null : task.startedAt)))
          : "",
    ],
    ["Output", "wide", (task) => h("span", { title: task.error ?? task.result ?? "" }, short(task.error ?? task.result))],
    ["Node", "tight wide", (task) => (task.nodeId ? h("code", { title: task.nodeId }, task.nodeId.slice(0, 8)) : "")],
    [
      "",
      "actions",
      (task) =>
        task.id && task.startedAt
          ? button("Log", () => follow(task), { class: "small", "aria-label": `Log of ${task.name ?? "task"}` })
          : "",
    ],
  ];
}

function gantt(task) {
  if (!task.id) return "";
  const at = (text) => (text ? Date.parse(text) : null);
  const ends = at(task.completedAt ?? task.failedAt) ?? task.to;
  return ganttBar({
    from: task.from,
    to: task.to,
    waits: at(task.scheduledAt ?? task.createdAt),
    starts: at(task.startedAt),
    ends,
    light: LIGHTS[task.state] ?? "idle",
    label: `${task.name ?? "task"}: ${duration(between(task.startedAt, task.completedAt ?? task.failedAt))}`,
  });
}

function short(text) {
  const line = value(text ?? "").split("\n")[0];
  return line.length > 60 ? `${line.slice(0, 60)}…` : line;
}

/** Follows a log: new parts are on the first pages, newest first; what was shown before ends the search. */
function logSource(url, log, signal) {
  const seen = new Set();
  let older = null;
  let reading = null;
  const more = () => (reading ??= read().finally(() => (reading = null)));
  async function read() {
    const fresh = [];
    const isFirst = seen.size === 0;
    for (let page = 1; ; page += 1) {
      const found = await get(withQuery(url, { page, size: LOG_PARTS }), { signal });
      const parts = found.items.filter((part) => !seen.has(part.id));
      fresh.push(...parts);
      if (isFirst && found.totalPages > 1) older = { page: 2, pages: found.totalPages };
      if (isFirst || parts.length < found.items.length || page >= found.totalPages) break;
    }
    fresh.forEach((part) => seen.add(part.id));
    if (signal.aborted || !fresh.length) return;
    log.append(
      fresh
        .reverse()
        .map((part) => part.contents)
        .join(""),
    );
    log.offerOlder(older && loadOlder);
  }
  async function loadOlder() {
    const found = await get(withQuery(url, { page: older.page, size: LOG_PARTS }), { signal });
    const parts = found.items.filter((part) => !seen.has(part.id));
    parts.forEach((part) => seen.add(part.id));
    log.prepend(
      parts
        .reverse()
        .map((part) => part.contents)
        .join(""),
    );
    older = older.page < found.totalPages ? { page: older.page + 1 } : null;
    log.offerOlder(older && loadOlder);
  }
  return { more };
}

// The editor

async function showEditor({ main, query, session, signal, go }) {
  if (!session.may("write")) return main.append(nothing("Your token may not submit jobs."));
  const from = query.get("from");
  const old = from ? await get(path`/jobs/${from}`, { signal }) : null;
  const text = old ? documentOf(old) : session.may("admin") ? STARTER : STARTER_CONTAINERS;
  const yaml = editor({ label: "Job document in YAML", value: text, rows: 20, onRun: () => submit() });
  const place = h("div");
  const run = h("button", { class: "primary" }, "Submit");
  async function submit() {
    place.replaceChildren();
    run.disabled = true;
    try {
      const response = await send("POST", "/jobs", { body: yaml.value, headers: { "Content-Type": "text/yaml" }, signal });
      const job = await response.json();
      go(path`#/jobs/${job.id}`);
    } catch (error) {
      if (error.name === "AbortError") return;
      place.replaceChildren(failure(error));
      const lines = [...error.message.matchAll(/^line (\d+)/gm)].map((match) => Number(match[1]));
      yaml.mark(lines);
    }
    run.disabled = false;
  }
  const hidden = text.includes("[REDACTED]")
    ? h("p", { class: "failure" }, "Secrets are not shown again: put the real values in place of [REDACTED].")
    : null;
  main.append(
    h("div", { class: "head" }, h("h1", {}, old ? `Run “${old.name}” again` : "New job")),
    hidden ?? "",
    form(
      submit,
      h(
        "section",
        { class: "card" },
        h("h2", { class: "unseen" }, "Document"),
        yaml.node,
        h(
          "div",
          { class: "buttons", id: "submit" },
          run,
          h(
            "small",
            {},
            session.may("admin")
              ? "Tasks with an image run as containers, those without as processes of the server's host. Ctrl + Enter submits."
              : "Your token may run tasks with an image, as containers. Ctrl + Enter submits.",
          ),
        ),
      ),
    ),
    place,
  );
  return undefined;
}

function documentOf(job) {
  const filled = AGAIN.filter((key) => job[key] !== undefined && JSON.stringify(job[key]) !== "{}" && JSON.stringify(job[key]) !== "[]");
  return toYaml(Object.fromEntries(filled.map((key) => [key, job[key]])));
}

// Queues and nodes

function showQueues({ main, session, signal }) {
  const trouble = troublePlace();
  const purge = async (event, queue) => {
    const pressed = { currentTarget: event.currentTarget };
    if (await sure(`Empty queue ${queue.name}?`, "The jobs whose tasks wait in it are cancelled.", "Empty it")) {
      await act(pressed, () => call("DELETE", path`/queues/${queue.name}`), "Emptied");
      again();
    }
  };
  const queues = table({
    label: "Queues",
    key: (queue) => queue.name,
    columns: [
      ["Queue", "name", (queue) => queue.name],
      ["Waiting", "number", (queue) => exact(queue.size)],
      ["Running", "number", (queue) => exact(queue.unacked)],
      ["Places", "number", (queue) => exact(queue.subscribers)],
      ...(session.may("write")
        ? [["", "actions", (queue) => (queue.size ? button("Empty", (event) => purge(event, queue), { class: "small danger" }) : "")]]
        : []),
    ],
    empty: () => nothing("No node serves a queue.", "Name some in [worker] queues."),
  });
  const nodes = table({
    label: "Nodes",
    key: (node) => node.id,
    columns: [
      ["Node", "name", (node) => [node.name, " ", h("small", {}, node.hostname ?? "")]],
      ["State", "tight", (node) => state(node.status)],
      ["Says", "wide", (node) => node.detail ?? ""],
      ["Tasks", "number", (node) => exact(node.taskCount)],
      ["CPU", "number", (node) => `${node.cpuPercent.toFixed(1)} %`],
      [
        "Serves",
        "wide",
        (node) =>
          Object.entries(node.queues ?? {})
            .map(([name, places]) => `${name} (${places})`)
            .join(", "),
      ],
      ["Up for", "tight wide", (node) => duration(between(node.startedAt))],
      ["Version", "tight wide", (node) => node.version],
    ],
    empty: () => nothing("No node was heard of in the last five minutes."),
  });
  main.append(
    h("h1", {}, "Jobs"),
    tabs(TABS, "#/jobs/queues", "Parts of jobs"),
    trouble.node,
    card("Queues", queues.node),
    card("Nodes", nodes.node),
  );
  const again = live(
    async () => {
      const [foundQueues, foundNodes] = await Promise.all([get("/queues", { signal }), get("/nodes", { signal })]);
      queues.update(foundQueues.sort((a, b) => b.size - a.size || a.name.localeCompare(b.name)));
      nodes.update(foundNodes);
    },
    3,
    signal,
    trouble.show,
  );
}
