/**
 * Parts of a page, built as nodes: no text of the server ever becomes markup.
 *
 * h("a", { href, class, onclick }, ...children); strings are text. The rest are the components that several pages share.
 */

import { word } from "./format.js";

const SVG = "http://www.w3.org/2000/svg";
const ICONS = {
  overview: "M3 13h7V3H3zM14 21h7V3h-7zM3 21h7v-5H3z",
  metrics: "M3 20h18M5 16l4-6 4 3 6-9",
  jobs: "M4 6h10M4 12h16M4 18h7M18 4v4",
  fleet: "M4 4h16v6H4zM4 14h16v6H4zM8 7h.01M8 17h.01",
  actions: "M13 3 5 14h6l-1 7 8-11h-6z",
  system:
    "M12 15a3 3 0 1 0 0-6 3 3 0 0 0 0 6M12 3v3M12 18v3M3 12h3M18 12h3M5.6 5.6l2.2 2.2M16.2 16.2l2.2 2.2M18.4 5.6l-2.2 2.2M7.8 16.2l-2.2 2.2",
  theme: "M12 3a9 9 0 1 0 0 18zM12 3a9 9 0 0 1 0 18",
  leave: "M10 4H5v16h5M15 8l4 4-4 4M19 12H9",
};
const LIGHTS = {
  ok: ["COMPLETED", "DONE", "UP", "READY", "ONLINE", "COMPLETE", "PASS", "ENABLED", "ACTIVE"],
  bad: ["FAILED", "DOWN", "ERROR", "CRITICAL", "FAIL", "TIMED_OUT"],
  warn: ["CANCELLED", "WARNING", "PAUSED", "REVOKED", "EXPIRED", "NOT_READY"],
  run: ["RUNNING", "EXECUTING"],
};

function fill(node, props, children) {
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "value") node.value = value;
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

export function h(tag, props, ...children) {
  return fill(document.createElement(tag), props, children);
}

export function svg(tag, props, ...children) {
  return fill(document.createElementNS(SVG, tag), props, children);
}

export function icon(name) {
  return svg("svg", { class: "icon", viewBox: "0 0 24 24", "aria-hidden": "true" }, svg("path", { d: ICONS[name] }));
}

/** A light and a word, so that colour is never all there is. */
export function state(name, text = word(name)) {
  const key = String(name).toUpperCase();
  const light = Object.keys(LIGHTS).find((found) => LIGHTS[found].includes(key)) ?? "idle";
  return h("span", { class: `state ${light}` }, h("i", { "aria-hidden": "true" }), text);
}

export function button(text, onclick, props = {}) {
  return h("button", { type: "button", onclick, ...props }, text);
}

export function link(text, href, props = {}) {
  return h("a", { href, ...props }, text);
}

let ids = 0;
/** A label above its control, with a hint below. */
export function field(label, control, hint) {
  ids += 1;
  control.id ||= `f${ids}`;
  if (hint) control.setAttribute("aria-describedby", `h${ids}`);
  return h("div", { class: "field" }, h("label", { for: control.id }, label), control, hint && h("small", { id: `h${ids}` }, hint));
}

export function check(label, props = {}) {
  const box = h("input", { type: "checkbox", ...props });
  return { box, node: h("label", { class: "check" }, box, label) };
}

export function select(options, chosen, props = {}) {
  const made = options.map((each) => {
    const [value, text] = Array.isArray(each) ? each : [each, each];
    return h("option", { value, selected: value === chosen }, text);
  });
  return h("select", props, made);
}

/** What a place says while there is nothing in it. */
export function nothing(title, ...more) {
  return h("div", { class: "nothing" }, h("p", {}, h("strong", {}, title)), more.length ? h("p", {}, ...more) : null);
}

/** What went wrong, in the words of the server. */
export function failure(error) {
  return h("div", { class: "failure", role: "alert" }, error.message);
}

/** Where a page says what goes wrong while it asks again and again. */
export function troublePlace() {
  const node = h("div");
  return { node, show: (error) => node.replaceChildren(...(error ? [failure(error)] : [])) };
}

export function card(title, ...children) {
  return h("section", { class: "card" }, h("h2", {}, title), ...children);
}

/** Names and values; a pair without a value is left out. */
export function facts(pairs) {
  const shown = pairs.filter(([, value]) => value !== undefined && value !== null && value !== "");
  return h(
    "dl",
    { class: "facts" },
    shown.flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]),
  );
}

/**
 * A table whose rows can be replaced while somebody reads or uses it: a row that has not changed stays the same node.
 * columns: [title, class, cell(row)]; `wide` columns leave on narrow screens. key(row): what a row is known by.
 */
export function table({ label, columns, key, empty }) {
  const body = h("tbody");
  const head = h(
    "tr",
    {},
    columns.map(([title, kind]) => h("th", { scope: "col", class: kind || null }, title)),
  );
  const inner = h("table", {}, h("caption", { class: "unseen" }, label), h("thead", {}, head), body);
  const scroll = h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": label }, inner);
  const node = h("div", {}, scroll);
  let known = new Map();
  function made(row) {
    const signature = JSON.stringify(row);
    const old = known.get(key(row));
    if (old?.signature === signature) return old;
    const cells = columns.map(([, kind, cell]) => h("td", { class: kind || null }, cell(row) ?? ""));
    return { signature, node: h("tr", { "data-key": key(row) }, cells) };
  }
  function update(rows) {
    const now = new Map(rows.map((row) => [key(row), made(row)]));
    known = now;
    const wanted = [...now.values()].map((each) => each.node);
    wanted.forEach((each, at) => {
      if (body.children[at] !== each) body.insertBefore(each, body.children[at] ?? null);
    });
    while (body.children.length > wanted.length) body.lastElementChild.remove();
    node.replaceChildren(rows.length ? scroll : empty());
  }
  return { node, update };
}

/** Older and newer, with where one is. onPage(number). */
export function pager(onPage) {
  const back = button("Previous", () => onPage(at - 1));
  const on = button("Next", () => onPage(at + 1));
  const where = h("span", {});
  const node = h("nav", { class: "pager", "aria-label": "Pages", hidden: true }, back, where, on);
  let at = 1;
  function update(page, pages, total) {
    at = page;
    node.hidden = pages <= 1 && page <= 1;
    back.disabled = page <= 1;
    on.disabled = page >= pages;
    where.textContent = `Page ${page} of ${Math.max(pages, 1)} · ${total} in all`;
  }
  return { node, update };
}

/** Links beside each other, the present one marked. entries: [href, text]. */
export function tabs(entries, chosen, label) {
  return h(
    "nav",
    { class: "tabs", "aria-label": label },
    entries.map(([href, text]) => link(text, href, { "aria-current": href === chosen ? "page" : null })),
  );
}

/** A modal dialog; closes with Escape. build(close) gives its content. Resolves to what close() was called with. */
export function dialog(title, build, props = {}) {
  return new Promise((resolve) => {
    const heading = h("h2", { id: `d${++ids}` }, title);
    const box = h("dialog", { "aria-labelledby": heading.id, ...props }, heading);
    let isDone = false;
    const close = (result) => {
      isDone = true;
      box.close();
      box.remove();
      resolve(result);
    };
    box.append(...[build(close)].flat());
    box.addEventListener("cancel", (event) => {
      event.preventDefault();
      if (!props["data-stays"]) close();
    });
    box.addEventListener("close", () => isDone || box.showModal()); // a second Escape closes without asking
    document.body.append(box);
    box.showModal();
  });
}

/** Whether the reader means it. */
export async function sure(title, text, verb) {
  return await dialog(title, (close) => [
    h("p", {}, text),
    h(
      "div",
      { class: "buttons" },
      button("Keep", () => close(false)),
      button(verb, () => close(true), { class: "danger" }),
    ),
  ]);
}

export function toast(text, kind = "") {
  const node = h("p", { class: `toast ${kind}` }, text);
  document.getElementById("toasts").append(node);
  setTimeout(() => node.remove(), kind === "bad" ? 8000 : 4000);
}

/** Do something for a button: disabled meanwhile, its error shown. */
export async function act(event, work, done) {
  const pressed = event.currentTarget;
  pressed.disabled = true;
  try {
    const result = await work();
    if (done) toast(done);
    return result;
  } catch (error) {
    if (error.name !== "AbortError") toast(error.message, "bad");
    return undefined;
  } finally {
    pressed.disabled = false;
  }
}

/** Text to take away, with a button that copies it. */
export function copyable(text, label) {
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
      toast("Copied");
    } catch {
      toast("The browser does not allow copying here; select the text instead", "bad");
    }
  };
  return h("div", { class: "copyable" }, h("pre", { tabindex: "0", "aria-label": label }, text), button("Copy", copy));
}

export function download(blob, name) {
  const url = URL.createObjectURL(blob);
  h("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

/** A form whose Enter key and button do the same. */
export function form(onsubmit, ...children) {
  const submit = (event) => {
    event.preventDefault();
    onsubmit(event);
  };
  return h("form", { onsubmit: submit }, ...children);
}
