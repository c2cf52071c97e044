/**
 * Metrics: ask in SQL, see a table or a chart, take it away; what runs, and how compaction and retention stand.
 *
 * run -> POST /query/stream (JSON, read up to a limit) -> result.js draws it.
 */

import { call, get, live, path, post, send } from "./api.js";
import { act, button, card, download, facts, failure, field, h, nothing, select, state, table, tabs, troublePlace } from "./dom.js";
import { editor } from "./editor.js";
import { ago, bytes, compact, duration, exact, plural, time, word } from "./format.js";
import { resultView } from "./result.js";

const HISTORY = "arc.queries";
const KEPT = 30;
const MAX_BYTES = 32 * 2 ** 20; // of an answer; what is larger is for downloads
const KEYWORDS = (
  "SELECT FROM WHERE GROUP BY ORDER BY LIMIT DESC ASC AND OR NOT IN LIKE BETWEEN IS NULL AS JOIN LEFT ON USING WITH DISTINCT HAVING CASE WHEN THEN ELSE END" +
  " INTERVAL UNION ALL SHOW TABLES DESCRIBE EXPLAIN"
).split(" ");
const FUNCTIONS =
  "avg(|sum(|min(|max(|count(|median(|quantile_cont(|stddev(|first(|last(|time_bucket(|date_trunc(|now()|round(|coalesce(|extract(|lag(|row_number()".split(
    "|",
  );

const TABS = [
  ["#/metrics", "Query"],
  ["#/metrics/queries", "Running queries"],
  ["#/metrics/upkeep", "Compaction and retention"],
];

export function show(view) {
  const [tab] = view.path;
  view.main.append(h("h1", {}, "Metrics"), tabs(TABS, tab ? `#/metrics/${tab}` : "#/metrics", "Parts of metrics"));
  if (tab === "queries") return showQueries(view);
  if (tab === "upkeep") return showUpkeep(view);
  return showEditor(view);
}

// The editor

async function showEditor({ main, query, session, signal, keepQuery }) {
  const catalogue = makeCatalogue(signal);
  const databases = await catalogue.databases();
  const names = databases.map((each) => each.name);
  const asked = query.get("db");
  const chooser = select(names, names.includes(asked) ? asked : (names.find((name) => name === "default") ?? names[0]));
  const place = h("div");
  const first = query.get("sql") ?? past()[0]?.sql ?? "SHOW TABLES";
  const sql = editor({
    label: "SQL",
    value: first,
    rows: 7,
    onRun: () => run(),
    complete: (before) => catalogue.complete(before, chooser.value),
  });
  const runButton = button("Run", () => run(), { class: "primary", title: "Ctrl + Enter" });
  const stopButton = button("Stop", () => running?.abort(), { hidden: true });
  const schema = h("div", { class: "schema" });
  let running = null;

  const headers = () => ({ "x-arc-database": chooser.value });
  async function run() {
    running?.abort();
    running = new AbortController();
    const mine = running;
    const text = sql.value.trim();
    if (!text) return;
    keepQuery({ sql: text, db: chooser.value });
    remember(text, chooser.value);
    drawPast();
    [runButton.disabled, stopButton.hidden] = [true, false];
    place.replaceChildren(h("p", { role: "status" }, "Running …"));
    try {
      const result = await ask(text, headers(), AbortSignal.any([mine.signal, signal]));
      if (mine === running) place.replaceChildren(resultView(result));
    } catch (error) {
      if (mine === running) place.replaceChildren(error.name === "AbortError" ? nothing("Stopped.") : failure(error));
    }
    if (mine === running) [runButton.disabled, stopButton.hidden] = [false, true];
  }
  async function take(event, format, name) {
    await act(event, async () => {
      const response = await send("POST", "/query/stream", { body: { sql: sql.value, format }, headers: headers(), signal });
      download(await response.blob(), name);
    });
  }
  const old = h("select", {
    "aria-label": "Earlier queries",
    onchange: () => {
      const found = past()[old.selectedIndex - 1];
      if (!found) return;
      sql.value = found.sql;
      if (names.includes(found.db)) chooser.value = found.db;
      drawSchema();
      old.selectedIndex = 0;
    },
  });
  function drawPast() {
    old.replaceChildren(
      h("option", {}, "History"),
      ...past().map((each) => h("option", {}, `${each.db}: ${each.sql.replace(/\s+/g, " ").slice(0, 90)}`)),
    );
    old.hidden = !past().length;
  }
  async function drawSchema() {
    const found = await catalogue.measurements(chooser.value);
    const entries = found.map((each) =>
      h(
        "details",
        {},
        h("summary", {}, h("span", { class: "mono" }, each.name), " ", h("small", {}, `${compact(each.row_count)} rows`)),
        button(
          "Latest rows",
          () => {
            sql.value = `SELECT *\nFROM ${quoted(each.name)}\nORDER BY time DESC\nLIMIT 100`;
            run();
          },
          { class: "small" },
        ),
        h(
          "ul",
          {},
          each.columns.map((column) =>
            h(
              "li",
              {},
              h("span", {}, column.name),
              h("small", {}, column.type.toLowerCase().replace("timestamp with time zone", "timestamptz")),
            ),
          ),
        ),
      ),
    );
    schema.replaceChildren(
      ...(entries.length
        ? entries
        : [nothing("No measurements yet.", "Write the first rows, for example: ", h("code", {}, "POST /write?db=", chooser.value))]),
    );
  }
  chooser.addEventListener("change", drawSchema);
  drawPast();
  main.append(
    h(
      "div",
      { class: "split" },
      h(
        "section",
        { class: "card" },
        h("h2", { class: "unseen" }, "Query"),
        sql.node,
        h(
          "div",
          { class: "tools buttons", id: "querytools" },
          runButton,
          stopButton,
          old,
          button("CSV", (event) => take(event, "csv", "result.csv"), {
            title: "Download the whole result as CSV",
            "aria-label": "Download as CSV",
          }),
          button("Arrow", (event) => take(event, "arrow", "result.arrows"), {
            title: "Download the whole result as an Arrow stream",
            "aria-label": "Download as Arrow",
          }),
          h("small", {}, "Ctrl + Enter runs, Ctrl + Space suggests"),
        ),
      ),
      h("section", { class: "card" }, h("h2", { class: "unseen" }, "What there is"), field("Database", chooser), schema),
    ),
    place,
  );
  await drawSchema();
  if (query.get("sql") && session.may("read")) run();
}

/** The whole answer of a query, read piece by piece, so that a result without end does not fill the browser. */
async function ask(sql, headers, signal) {
  const started = performance.now();
  const response = await send("POST", "/query/stream", { body: { sql, format: "json" }, headers, signal });
  const reader = response.body.getReader();
  const pieces = [];
  let size = 0;
  for (let piece = await reader.read(); !piece.done; piece = await reader.read()) {
    pieces.push(piece.value);
    size += piece.value.length;
    if (size > MAX_BYTES) {
      await reader.cancel();
      throw new Error(`The result is larger than ${bytes(MAX_BYTES)}. Add a LIMIT, or download it as CSV or Arrow.`);
    }
  }
  return { ...JSON.parse(await new Blob(pieces).text()), ms: performance.now() - started };
}

function past() {
  return JSON.parse(localStorage.getItem(HISTORY) ?? "[]");
}

function remember(sql, db) {
  const others = past().filter((each) => each.sql !== sql || each.db !== db);
  localStorage.setItem(HISTORY, JSON.stringify([{ sql, db }, ...others].slice(0, KEPT)));
}

function quoted(name) {
  return /^[a-z_][a-z0-9_]*$/i.test(name) ? name : `"${name.replaceAll('"', '""')}"`;
}

/** What there is to complete, asked once per page. */
function makeCatalogue(signal) {
  const known = new Map();
  const once = (key, load) => known.get(key) ?? known.set(key, load()).get(key);
  const databases = () => once("", async () => (await get("/api/v1/databases", { signal })).databases);
  const measurements = (database) =>
    once(`m ${database}`, async () => (await get(path`/api/v1/databases/${database}/measurements`, { signal })).measurements);

  /** After `database.` its measurements, after `measurement.` its columns, else all of it and the words of SQL. */
  async function complete(before, database) {
    const owner = /([\w]+|"[^"]+")\.[\w"]*$/.exec(before)?.[1]?.replaceAll('"', "");
    const [there, here] = await Promise.all([databases(), measurements(database)]);
    if (owner) {
      if (there.some((each) => each.name === owner))
        return (await measurements(owner)).map((each) => ({ text: quoted(each.name), kind: "measurement" }));
      return columnsOf(here.filter((each) => each.name === owner));
    }
    const named = here.filter((each) => before.includes(each.name));
    return [
      ...columnsOf(named.length ? named : here),
      ...here.map((each) => ({ text: quoted(each.name), kind: "measurement" })),
      ...there.map((each) => ({ text: quoted(each.name), kind: "database" })),
      ...[...new Set(KEYWORDS)].map((text) => ({ text, kind: "" })),
      ...FUNCTIONS.map((text) => ({ text, kind: "function" })),
    ];
  }
  return { databases, measurements, complete };
}

function columnsOf(measurements) {
  const names = new Set(measurements.flatMap((each) => each.columns.map((column) => column.name)));
  return [...names].map((name) => ({ text: quoted(name), kind: "column" }));
}

// Running queries

function showQueries({ main, signal }) {
  const trouble = troublePlace();
  const columns = (isRunning) => [
    ["Query", "name", (row) => h("code", { class: "clamp", title: row.sql }, row.sql)],
    ["State", "tight", (row) => state(row.status)],
    ["Database", "tight wide", (row) => row.database],
    ["Token", "tight wide", (row) => row.token_name],
    ["Started", "tight wide", (row) => ago(row.start_time)],
    ["Took", "number", (row) => duration(row.duration_ms)],
    ["Rows", "number", (row) => exact(row.row_count)],
    ...(isRunning
      ? [
          [
            "",
            "actions",
            (row) =>
              button("Cancel", (event) => act(event, () => call("DELETE", path`/api/v1/queries/${row.id}`), "Cancelled").then(again), {
                class: "small danger",
              }),
          ],
        ]
      : []),
  ];
  const running = table({
    label: "Running queries",
    key: (row) => row.id,
    columns: columns(true),
    empty: () => nothing("No query runs now."),
  });
  const ended = table({
    label: "Past queries",
    key: (row) => row.id,
    columns: columns(false),
    empty: () => nothing("No query has run yet.", "Start one on the page Query, or over HTTP."),
  });
  main.append(trouble.node, card("Running", running.node), card("Past", ended.node));
  const again = live(
    async () => {
      const [now, before] = await Promise.all([
        get("/api/v1/queries/active", { signal }),
        get("/api/v1/queries/history?limit=100", { signal }),
      ]);
      running.update(now.queries);
      ended.update(before.queries);
    },
    2,
    signal,
    trouble.show,
  );
}

// Compaction and retention

function showUpkeep({ main, session, signal }) {
  const trouble = troublePlace();
  const status = h("div");
  const policies = table({
    label: "Retention policies",
    key: (row) => row.id,
    columns: [
      ["Policy", "name", (row) => row.name],
      ["Covers", "", (row) => `${row.database}.${row.measurement ?? "*"}`],
      ["Keeps", "tight", (row) => plural(row.retention_days, "day")],
      ["State", "tight", (row) => state(row.is_active ? "ACTIVE" : "PAUSED", row.is_active ? "Active" : "Off")],
      [
        "Last run",
        "wide",
        (row) => (row.last_execution_time ? `${word(row.last_execution_status)} ${ago(row.last_execution_time)}` : "never"),
      ],
      ["Removed", "number wide", (row) => exact(row.last_deleted_count)],
    ],
    empty: () => nothing("No policy: rows stay for ever.", "Make one with ", h("code", {}, "POST /api/v1/retention"), "."),
  });
  const merges = table({
    label: "Latest merges",
    key: (row) => row.job_id,
    columns: [
      ["Measurement", "name", (row) => `${row.database}.${row.measurement}`],
      ["Tier", "tight", (row) => row.tier],
      ["State", "tight", (row) => state(row.status)],
      ["Files", "number", (row) => exact(row.files_compacted)],
      ["When", "tight wide", (row) => ago(row.started_at)],
    ],
    empty: () => nothing("Nothing was merged yet.", "Small files are merged by schedule."),
  });
  const schedules = h("div");
  const buttons = session.may("admin")
    ? h(
        "div",
        { class: "buttons" },
        button("Flush now", (event) => act(event, () => post("/write/flush"), "Buffered rows are in files now")),
        button("Compact now", (event) => act(event, () => post("/api/v1/compaction/trigger"), "Compaction has begun").then(again)),
      )
    : null;
  main.append(
    trouble.node,
    h("div", { class: "columns" }, card("Compaction", status, buttons), card("Schedulers", schedules)),
    card("Latest merges", merges.node),
    card("Retention policies", policies.node),
  );
  const again = live(
    async () => {
      const [compaction, stats, retention, schedulers] = await Promise.all(
        ["/api/v1/compaction/status", "/api/v1/compaction/stats", "/api/v1/retention?envelope=true", "/api/v1/schedulers"].map((url) =>
          get(url, { signal }),
        ),
      );
      status.replaceChildren(
        facts([
          [
            "State",
            compaction.running
              ? state("RUNNING")
              : state(compaction.enabled ? "READY" : "OFF", compaction.enabled ? "Waits for its time" : "Off"),
          ],
          ["Next run", time(compaction.next_run)],
          ["Jobs", `${exact(stats.total_jobs_completed)} done, ${exact(stats.total_jobs_failed)} failed`],
          ["Files merged", exact(stats.total_files_compacted)],
          ["Saved", bytes(stats.total_bytes_saved)],
        ]),
      );
      schedules.replaceChildren(
        facts([
          ["Retention", onOff(schedulers.retention_scheduler)],
          ["Next run", time(schedulers.retention_scheduler.next_run)],
          ["Continuous queries", `${onOff(schedulers.cq_scheduler)} · ${plural(schedulers.cq_scheduler.job_count, "query", "queries")}`],
        ]),
      );
      merges.update(stats.recent_jobs);
      policies.update(retention.policies);
    },
    5,
    signal,
    trouble.show,
  );
}

function onOff(scheduler) {
  return scheduler.enabled ? "On" : "Off";
}
