/**
 * System: health, tokens, configuration in force, and the server's own log.
 *
 * #/system · #/system/tokens · #/system/configuration · #/system/logs; all but the first need permission admin.
 */

import { call, get, live, path, post, withQuery } from "./api.js";
import {
  act,
  button,
  card,
  check,
  copyable,
  dialog,
  facts,
  failure,
  field,
  form,
  h,
  link,
  nothing,
  select,
  state,
  sure,
  table,
  tabs,
  troublePlace,
} from "./dom.js";
import { ago, bytes, clock, duration, exact, plural, time } from "./format.js";

const PERMISSIONS = [
  ["read", "see everything"],
  ["write", "write metrics, submit jobs"],
  ["delete", "delete rows by condition"],
  ["admin", "all of this, tokens and machines"],
  ["agent", "be the agent of a machine"],
];
const LEVELS = ["DEBUG", "INFO", "WARNING", "ERROR"];

export function show(view) {
  const [tab] = view.path;
  const isAdmin = view.session.may("admin");
  const offered = [
    ["#/system", "Health"],
    ...(isAdmin
      ? [
          ["#/system/tokens", "Tokens"],
          ["#/system/configuration", "Configuration"],
          ["#/system/logs", "Logs"],
        ]
      : []),
  ];
  view.main.append(h("h1", {}, "System"), tabs(offered, tab ? `#/system/${tab}` : "#/system", "Parts of system"));
  const page = { tokens: showTokens, configuration: showConfiguration, logs: showLogs }[isAdmin ? tab : ""] ?? showHealth;
  return page(view);
}

// Health

function showHealth({ main, session, signal }) {
  const trouble = troublePlace();
  const server = h("div");
  const checks = h("div");
  const process = h("div");
  const who = facts([
    ["Token", session.name],
    ["May", session.permissions.join(", ") || "nothing"],
    ["Project", session.project],
    ["Organization", session.organization],
  ]);
  main.append(
    trouble.node,
    h("div", { class: "columns" }, card("Server", server), card("Ready", checks), card("Process", process), card("You", who)),
    card(
      "Interface",
      h(
        "p",
        {},
        "The same routes that this page uses are for your programs: ",
        link("try them", "/docs"),
        ", or ",
        link("read the reference", "/redoc"),
        ".",
      ),
    ),
  );
  live(
    async () => {
      const [health, ready, figures] = await Promise.all([
        get("/health", { signal }),
        get("/ready", { signal }),
        get("/api/v1/metrics", { signal }),
      ]);
      server.replaceChildren(
        facts([
          ["State", state(health.status)],
          ["Version", health.version],
          ["Up for", duration(health.uptime_sec * 1000)],
          ["Time", time(health.time)],
          ["Says", health.message],
        ]),
      );
      checks.replaceChildren(
        state(ready.status === "ready" ? "READY" : "NOT_READY", ready.message),
        facts(
          Object.entries(ready.checks).map(([name, is]) => [name.replaceAll("_", " "), state(is ? "PASS" : "FAIL", is ? "Good" : "Bad")]),
        ),
      );
      process.replaceChildren(
        facts([
          ["Memory", bytes(figures.memory_sys_bytes)],
          ["CPU", figures.application.cpu_percent === undefined ? "" : `${figures.application.cpu_percent} %`],
          ["Threads", exact(figures.threads)],
          [
            "Query engine",
            `${bytes(figures.duckdb_memory_bytes)}, ${exact(figures.db_connections_in_use)} of ${exact(figures.db_connections_open)} places`,
          ],
          ["Requests", `${exact(figures.http_requests_total)}, ${exact(figures.http_requests_error)} refused`],
          ["Log of writes", `${bytes(figures.wal_size_bytes)} in ${plural(figures.wal_files, "file")}`],
          ["Disk in use", figures.system.disk_percent === undefined ? "" : `${figures.system.disk_percent} %`],
        ]),
      );
    },
    5,
    signal,
    trouble.show,
  );
}

// Tokens

function showTokens({ main, signal }) {
  const trouble = troublePlace();
  const list = table({
    label: "Tokens",
    key: (token) => token.id,
    columns: [
      ["Token", "name", (token) => [token.name, token.description ? h("small", {}, ` ${token.description}`) : null].filter(Boolean)],
      ["State", "tight", tokenState],
      [
        "May",
        "",
        (token) =>
          h(
            "span",
            { class: "tags" },
            token.permissions.map((each) => h("span", { class: "badge" }, each)),
          ),
      ],
      ["Project", "wide", (token) => token.project ?? ""],
      ["Last used", "tight wide", (token) => (token.last_used_at ? ago(token.last_used_at) : "never")],
      ["Expires", "tight wide", (token) => (token.expires_at ? time(token.expires_at) : "never")],
      ["", "actions", (token) => tokenButtons(token, () => again())],
    ],
    empty: () => nothing("There are no tokens."),
  });
  main.append(
    h(
      "div",
      { class: "head" },
      h("h2", {}, "Tokens"),
      button("New token", () => newToken(() => again()), { class: "primary" }),
    ),
    trouble.node,
    h("section", { class: "card" }, list.node),
  );
  const again = live(async () => list.update((await get("/api/v1/auth/tokens", { signal })).tokens), 10, signal, trouble.show);
}

function tokenState(token) {
  if (!token.enabled) return state("REVOKED");
  return token.expires_at && Date.parse(token.expires_at) < Date.now() ? state("EXPIRED") : state("ACTIVE");
}

function tokenButtons(token, again) {
  const url = path`/api/v1/auth/tokens/${token.id}`;
  const asked = (title, text, verb, work, done) => async (event) => {
    const pressed = { currentTarget: event.currentTarget };
    if (!(await sure(title, text, verb))) return;
    await act(pressed, work, done);
    again();
  };
  const rotate = asked(`Rotate ${token.name}?`, "The old secret stops working at once.", "Rotate", async () =>
    showSecret("New secret", await post(`${url}/rotate`)),
  );
  const revoke = asked(
    `Revoke ${token.name}?`,
    "Who uses it is refused from the next request on.",
    "Revoke",
    () => post(`${url}/revoke`),
    "Revoked",
  );
  const drop = asked(`Delete ${token.name}?`, "It cannot be switched on again.", "Delete", () => call("DELETE", url), "Deleted");
  const name = (verb) => ({ class: "small", "aria-label": `${verb} ${token.name}` });
  return [
    token.enabled
      ? button("Rotate", rotate, name("Rotate"))
      : button(
          "Switch on",
          (event) => act(event, () => call("PATCH", url, { body: { enabled: true } }), "On again").then(again),
          name("Switch on"),
        ),
    token.enabled ? button("Revoke", revoke, name("Revoke")) : button("Delete", drop, { ...name("Delete"), class: "small danger" }),
  ];
}

async function newToken(again) {
  const made = await dialog("New token", (close) => {
    const name = h("input", { required: true, maxlength: 100, placeholder: "telegraf" });
    const description = h("input", { maxlength: 500 });
    const project = h("input", { maxlength: 100 });
    const expires = select(
      [
        ["", "Never"],
        ["24h", "In a day"],
        ["30d", "In 30 days"],
        ["365d", "In a year"],
      ],
      "",
    );
    const boxes = PERMISSIONS.map(([permission, meaning]) => ({
      permission,
      ...check([h("strong", {}, permission), ` ${meaning}`], { checked: permission === "read" }),
    }));
    const place = h("div");
    const submit = async () => {
      const permissions = boxes.filter((each) => each.box.checked).map((each) => each.permission);
      try {
        close(
          await post("/api/v1/auth/tokens", {
            name: name.value,
            description: description.value || null,
            permissions,
            expires_in: expires.value || null,
            project: project.value || null,
          }),
        );
      } catch (error) {
        place.replaceChildren(failure(error));
      }
    };
    return form(
      submit,
      field("Name", name),
      field("Description", description),
      h(
        "fieldset",
        {},
        h("legend", {}, "May"),
        boxes.map((each) => h("div", {}, each.node)),
      ),
      field("Expires", expires),
      field("Project", project, "Empty: all projects"),
      place,
      h(
        "div",
        { class: "buttons" },
        button("Close", () => close()),
        h("button", { class: "primary" }, "Create"),
      ),
    );
  });
  if (!made) return;
  again();
  await showSecret(`Token ${made.name}`, made);
}

function showSecret(title, made) {
  return dialog(
    title,
    (close) => [
      h("p", {}, "Copy it now: it is not shown again."),
      copyable(made.token, "Secret of the token"),
      h(
        "div",
        { class: "buttons" },
        button("Done", () => close(), { class: "primary" }),
      ),
    ],
    { "data-stays": "true" },
  );
}

// Configuration

async function showConfiguration({ main, signal }) {
  const { options } = await get("/api/v1/configuration", { signal });
  const words = h("input", { type: "search", placeholder: "buffer" });
  const changed = check("Only what was changed");
  const list = table({
    label: "Options",
    key: (option) => `${option.section}.${option.name}`,
    columns: [
      ["Option", "option", (option) => h("code", {}, `[${option.section}] ${option.name}`)],
      ["Value", "", (option) => h("code", {}, option.value)],
      ["From", "wide", (option) => option.source],
      ["Meaning", "wide", (option) => option.help + (option.unit ? ` (${option.unit})` : "")],
    ],
    empty: () => nothing("No option fits."),
  });
  const draw = () => {
    const wanted = words.value.trim().toLowerCase();
    list.update(
      options.filter(
        (option) =>
          (!changed.box.checked || !option.is_default) && `${option.section} ${option.name} ${option.help}`.toLowerCase().includes(wanted),
      ),
    );
  };
  words.addEventListener("input", draw);
  changed.box.addEventListener("change", draw);
  main.append(
    h(
      "section",
      { class: "card" },
      h("h2", {}, "Configuration in force"),
      h("div", { class: "tools" }, h("div", { class: "grow" }, field("Search", words)), changed.node),
      list.node,
    ),
  );
  draw();
}

// Logs

function showLogs({ main, query, signal, keepQuery }) {
  const chosen = { level: query.get("level") ?? "INFO", limit: query.get("limit") ?? "100", request_id: query.get("request_id") ?? "" };
  const trouble = troublePlace();
  const level = select(LEVELS, chosen.level);
  const limit = select(["100", "300", "1000"], chosen.limit);
  const request = h("input", { value: chosen.request_id, placeholder: "of X-Request-Id" });
  const list = table({
    label: "Log",
    key: (record) => record.key,
    columns: [
      ["Time", "tight", (record) => h("span", { class: "mono", title: time(record.timestamp) }, clock(record.timestamp))],
      ["Level", "tight", (record) => state(record.level === "INFO" || record.level === "DEBUG" ? "idle" : record.level, record.level)],
      ["Message", "name", message],
      ["Logger", "wide tight", (record) => h("small", {}, record.logger)],
    ],
    empty: () => nothing("No record in the last hour.", "Choose a lower level, or nothing has happened."),
  });
  const move = () => {
    Object.assign(chosen, { level: level.value, limit: limit.value, request_id: request.value.trim() });
    keepQuery(chosen);
    again();
  };
  for (const each of [level, limit]) each.addEventListener("change", move);
  main.append(
    trouble.node,
    h(
      "section",
      { class: "card" },
      h("h2", {}, "Log of the server"),
      form(
        move,
        h(
          "div",
          { class: "tools" },
          field("Least level", level),
          field("At most", limit),
          field("Request", request),
          h("button", {}, "Show"),
        ),
      ),
      list.node,
    ),
  );
  const again = live(
    async () => {
      const found = await get(withQuery("/api/v1/logs", chosen), { signal });
      list.update(found.logs.map((record, at) => ({ ...record, key: `${record.timestamp} ${record.message} ${found.logs.length - at}` })));
    },
    5,
    signal,
    trouble.show,
  );
}

function message(record) {
  const extra = Object.entries(record.extra ?? {})
    .map(([name, value]) => `${name}=${value}`)
    .join(" ");
  return [
    record.message,
    extra ? h("small", {}, ` ${extra}`) : null,
    record.exception ? h("pre", {}, `${record.exception.type} ${record.exception.message}\n${record.exception.traceback}`) : null,
  ].filter(Boolean);
}
