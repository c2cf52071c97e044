/**
 * Overview: the whole installation at a glance, every few seconds anew.
 *
 * Figures come from /api/v1/metrics, their last hour from its time series; lists only from what the token may read.
 */

import { get, getPage, live, path, withQuery } from "./api.js";
import { lineChart, sparkline } from "./charts.js";
import { card, h, link, nothing, state, troublePlace } from "./dom.js";
import { ago, bytes, compact, duration, exact, plural } from "./format.js";

const EVERY_S = 5;

export async function show({ main, session, signal }) {
  const tiles = h("div", { class: "tiles" });
  const trouble = troublePlace();
  const rate = lineChart({ label: "Rows written per second, last hour" });
  const asked = lineChart({ label: "Queries per minute, last hour" });
  const load = lineChart({ label: "Load of the server's host in percent, last hour" });
  const failures = h("div");
  const status = h("span", { class: "buttons" });
  main.append(
    h("div", { class: "head" }, h("h1", {}, "Overview"), status),
    trouble.node,
    tiles,
    h(
      "div",
      { class: "columns narrow" },
      card("Rows per second", rate.node),
      card("Queries per minute", asked.node),
      card("Host: CPU and memory %", load.node),
    ),
  );
  if (session.may("read")) main.append(card("Recent failures", failures));

  let before = null;
  const past = { rows: [], queries: [] };
  const figures = async () => {
    const found = await get("/api/v1/metrics", { signal });
    const now = { at: performance.now(), rows: found.ingest_records_total };
    const seconds = before && (now.at - before.at) / 1000;
    const rowRate = seconds ? Math.max(0, now.rows - before.rows) / seconds : past.rows.at(-1)?.[1];
    before = now;
    const counted = await counts(session, signal);
    tiles.replaceChildren(...tilesOf({ found, counted, rowRate, past }, session));
    status.replaceChildren(state("UP", `Up for ${duration(found.uptime_seconds * 1000)}`), h("small", {}, `Arc ${session.version}`));
  };
  const history = async () => {
    const [application, system] = await Promise.all(
      ["application", "system"].map((kind) => get(`/api/v1/metrics/timeseries/${kind}?duration_minutes=60`, { signal })),
    );
    past.rows = rates(application.data, "ingest_records_total", 1);
    past.queries = rates(application.data, "query_requests_total", 60);
    rate.update([{ name: "rows/s", points: past.rows }]);
    asked.update([{ name: "queries/min", points: past.queries }]);
    load.update(
      [
        ["CPU", "cpu_percent"],
        ["memory", "memory_percent"],
        ["disk", "disk_percent"],
      ].map(([name, key]) => ({ name, points: system.data.map((sample) => [Date.parse(sample.timestamp), sample[key] ?? null]) })),
    );
  };
  const recent = async () => failures.replaceChildren(await failureList(session, signal));

  live(history, 2 * EVERY_S, signal, trouble.show);
  live(figures, EVERY_S, signal, trouble.show);
  if (session.may("read")) live(recent, 2 * EVERY_S, signal, trouble.show);
}

/** Counters of a time series as rates; a restart of the server is a gap. */
function rates(samples, key, perSeconds) {
  return samples.slice(1).map((sample, at) => {
    const before = samples[at];
    const seconds = (Date.parse(sample.timestamp) - Date.parse(before.timestamp)) / 1000;
    const grown = sample[key] - before[key];
    return [Date.parse(sample.timestamp), grown < 0 || seconds <= 0 ? null : (grown / seconds) * perSeconds];
  });
}

/** What no figure of the server says: machines and what waits. */
async function counts(session, signal) {
  if (!session.may("read")) return {};
  const agents = async (q) => (await getPage(withQuery("/api/v1/agents", { q, per_page: 1 }), { signal })).total;
  const [machines, online, queues, actions] = await Promise.all([
    session.has("fleet") ? agents("") : null,
    session.has("fleet") ? agents('@online = "true"') : null,
    session.has("jobs") ? get("/queues", { signal }) : null,
    session.has("actions") ? get("/api/unstable/actions/queue", { signal }) : null,
  ]);
  return { machines, online, waiting: queues?.reduce((sum, queue) => sum + queue.size, 0), actions: actions?.length };
}

function tilesOf({ found, counted, rowRate, past }, session) {
  const reads = session.may("read");
  const to = (where) => (reads ? where : null);
  const tiles = [
    tile(
      "Ingest",
      rowRate === undefined ? "…" : `${compact(rowRate)}/s`,
      `${compact(found.ingest_records_total)} rows since start`,
      to("#/metrics"),
      past.rows,
    ),
    tile(
      "Rows stored",
      compact((found.lake_records ?? 0) + found.buffer_records_buffered),
      `${compact(found.buffer_records_buffered)} in the buffer`,
      to("#/metrics"),
    ),
    tile("Storage", bytes((found.lake_bytes ?? 0) + found.wal_size_bytes), plural(found.lake_files ?? 0, "file"), to("#/metrics/upkeep")),
    tile(
      "Queries",
      exact(found.query_mgmt_active_queries),
      `running · ${compact(found.query_requests_total)} so far`,
      to("#/metrics/queries"),
      past.queries,
    ),
  ];
  if (session.has("jobs")) {
    tiles.push(tile("Jobs", exact(found.jobs_running), `running · ${plural(found.tasks_running, "task")}`, to("#/jobs")));
    if (counted.waiting !== undefined) tiles.push(tile("Queue", exact(counted.waiting), "tasks wait", to("#/jobs/queues")));
  }
  if (counted.machines !== undefined && counted.machines !== null) {
    const offline = counted.machines - counted.online;
    tiles.push(tile("Machines", `${counted.online} / ${counted.machines}`, offline ? `${offline} offline` : "online", "#/fleet"));
  }
  if (counted.actions !== undefined) tiles.push(tile("Actions", exact(counted.actions), "queued or running", "#/actions"));
  return tiles;
}

function tile(what, figure, more, href, past = []) {
  const numbers = past.slice(-60).map(([, number]) => number ?? 0);
  const content = [
    h("span", { class: "what" }, what),
    h("span", { class: "figure" }, figure),
    h("span", { class: "more" }, more),
    numbers.length > 2 ? sparkline(numbers) : null,
  ];
  return href ? h("a", { class: "tile", href }, content) : h("div", { class: "tile" }, content);
}

/** The last failures of every surface, the newest first. */
async function failureList(session, signal) {
  const found = (await Promise.all([jobs, commands, actions, queries].map((each) => each(session, signal)))).flat();
  const shown = found.sort((a, b) => Date.parse(b.at) - Date.parse(a.at)).slice(0, 10);
  if (!shown.length) return nothing("Nothing has failed.", "Failed jobs, commands and queries appear here.");
  return h(
    "ul",
    { class: "list" },
    shown.map((each) =>
      h(
        "li",
        {},
        state("FAILED", each.what),
        h("span", { class: "grow" }, each.href ? link(each.name, each.href) : each.name, each.why ? ` ${each.why}` : ""),
        h("small", {}, ago(each.at)),
      ),
    ),
  );
}

async function jobs(session, signal) {
  if (!session.has("jobs")) return [];
  const { items } = await get("/jobs?state=FAILED&size=10", { signal });
  return items.map((job) => ({
    what: "Job",
    name: job.name || job.id,
    href: path`#/jobs/${job.id}`,
    at: job.failedAt ?? job.createdAt,
    why: firstLine(job.error),
  }));
}

async function commands(session, signal) {
  if (!session.has("fleet")) return [];
  const { items } = await getPage("/api/v1/jobs?state=failed&per_page=10", { signal });
  return items.map((run) => ({
    what: "Command",
    name: `${run.action} on ${run.to}`,
    href: path`#/fleet/machine/${run.to}/run/${run.request_id}`,
    at: run.updated_at,
    why: run.exit_code === null ? "" : `exit status ${run.exit_code}`,
  }));
}

const ended = new Map(); // failed actions by id: what has ended never changes

async function actions(session, signal) {
  if (!session.has("actions")) return [];
  const failed = (await get("/api/unstable/actions/finished?limit=20", { signal })).filter((each) => each.state === "FAILED").slice(0, 5);
  return Promise.all(
    failed.map(async ({ id }) => {
      if (!ended.has(id)) ended.set(id, (await get(path`/api/unstable/actions/info/${id}`, { signal })).action);
      const action = ended.get(id);
      return {
        what: "Action",
        name: action.kind,
        href: path`#/actions/${id}`,
        at: action.finished_ts,
        why: firstLine(action.state_payload?.error),
      };
    }),
  );
}

async function queries(session, signal) {
  const { queries: past } = await get("/api/v1/queries/history?limit=50", { signal });
  return past
    .filter((query) => ["failed", "timed_out"].includes(query.status))
    .slice(0, 10)
    .map((query) => ({ what: "Query", name: firstLine(query.sql), href: "#/metrics/queries", at: query.start_time, why: "" }));
}

function firstLine(text) {
  const line = (text ?? "").trim().split("\n")[0];
  return line.length > 120 ? `${line.slice(0, 120)}…` : line;
}
