/**
 * The editor of SQL and YAML: a text area with line numbers, marks at wrong lines, and completion.
 *
 * complete(before) -> Promise of [{ text, kind }] for what stands before the cursor; the list opens below it. Tab takes
 * a suggestion only while the list is open, so that the keyboard can always leave the editor.
 */

import { h } from "./dom.js";

const SHOWN = 40;
const CONTROL = { ArrowDown: 1, ArrowUp: -1 };
let ids = 0;

export function editor({ label, value = "", rows = 8, complete, onRun }) {
  ids += 1;
  const listId = `hints${ids}`;
  const numbers = h("div", { class: "numbers", "aria-hidden": "true" });
  const area = h("textarea", {
    "aria-label": label,
    rows,
    spellcheck: "false",
    autocapitalize: "off",
    autocomplete: "off",
    wrap: "off",
    value,
    "aria-autocomplete": complete ? "list" : null,
  });
  const hints = h("ul", { class: "hints", id: listId, role: "listbox", "aria-label": "Suggestions", hidden: true });
  const node = h("div", { class: "editor" }, numbers, area, hints);
  let wrong = new Set();
  let found = [];
  let chosen = 0;

  function drawNumbers() {
    const count = area.value.split("\n").length;
    numbers.replaceChildren(
      ...Array.from({ length: count }, (_, at) => h("div", { class: wrong.has(at + 1) ? "wrong" : null }, String(at + 1))),
    );
    numbers.scrollTop = area.scrollTop;
  }
  function close() {
    hints.hidden = true;
    area.removeAttribute("aria-activedescendant");
  }
  function drawHints() {
    hints.replaceChildren(
      ...found.map((each, at) =>
        h(
          "li",
          {
            role: "option",
            id: `${listId}-${at}`,
            "aria-selected": String(at === chosen),
            onpointerdown: (event) => {
              event.preventDefault();
              take(each);
            },
          },
          each.text,
          h("small", {}, each.kind),
        ),
      ),
    );
    hints.hidden = !found.length;
    if (!found.length) return close();
    area.setAttribute("aria-controls", listId);
    area.setAttribute("aria-activedescendant", `${listId}-${chosen}`);
    hints.children[chosen].scrollIntoView({ block: "nearest" });
    return undefined;
  }
  async function suggest(isAsked) {
    if (!complete) return;
    const before = area.value.slice(0, area.selectionStart);
    const word = /[\w"]*$/.exec(before)[0];
    if (!isAsked && !word && !before.endsWith(".")) return close();
    const all = await complete(before);
    if (before !== area.value.slice(0, area.selectionStart) || document.activeElement !== area) return;
    const wanted = word.toLowerCase().replaceAll('"', "");
    found = all.filter((each) => each.text.toLowerCase().replaceAll('"', "").startsWith(wanted) && each.text !== word).slice(0, SHOWN);
    chosen = 0;
    drawHints();
    place(before.slice(0, before.length - word.length));
  }
  /** Below the word that is being written. The text area does not wrap, and its letters have one width. */
  function place(before) {
    const lines = before.split("\n");
    const style = getComputedStyle(area);
    const line = parseFloat(style.lineHeight);
    const left = numbers.offsetWidth + 8 + lines.at(-1).length * letterWidth(style.font) - area.scrollLeft;
    hints.style.top = `${8 + lines.length * line - area.scrollTop}px`;
    hints.style.left = `${Math.max(0, Math.min(left, node.clientWidth - 200))}px`;
  }
  function take(each) {
    const end = area.selectionStart;
    const start = end - /[\w"]*$/.exec(area.value.slice(0, end))[0].length;
    area.setRangeText(each.text, start, end, "end");
    close();
    drawNumbers();
    area.focus();
  }
  function keepIndent(event) {
    const line = area.value.slice(0, area.selectionStart).split("\n").at(-1);
    const indent = /^\s*(- )?/.exec(line)[0].replace("-", " ");
    if (!indent) return;
    event.preventDefault();
    area.setRangeText(`\n${indent}`, area.selectionStart, area.selectionEnd, "end");
    drawNumbers();
  }
  function onKey(event) {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      close();
      return onRun?.();
    }
    if (event.key === " " && event.ctrlKey) {
      event.preventDefault();
      return suggest(true);
    }
    if (hints.hidden) return event.key === "Enter" ? keepIndent(event) : undefined;
    if (event.key === "Escape") return close();
    if (event.key in CONTROL) {
      event.preventDefault();
      chosen = (chosen + CONTROL[event.key] + found.length) % found.length;
      return drawHints();
    }
    if (event.key === "Enter" || event.key === "Tab") {
      event.preventDefault();
      return take(found[chosen]);
    }
    return undefined;
  }
  area.addEventListener("keydown", onKey);
  area.addEventListener("scroll", () => (numbers.scrollTop = area.scrollTop));
  area.addEventListener("blur", close);
  area.addEventListener("input", () => {
    wrong = new Set();
    drawNumbers();
    suggest(false);
  });
  drawNumbers();
  return {
    node,
    area,
    get value() {
      return area.value;
    },
    set value(text) {
      area.value = text;
      wrong = new Set();
      drawNumbers();
    },
    /** Mark lines, and go to the first. */
    mark(lines) {
      wrong = new Set(lines);
      drawNumbers();
      if (!lines.length) return;
      const starts =
        area.value
          .split("\n")
          .slice(0, lines[0] - 1)
          .join("\n").length + (lines[0] > 1 ? 1 : 0);
      area.focus();
      area.setSelectionRange(starts, starts);
    },
  };
}

let measured = {};
function letterWidth(font) {
  if (!(font in measured)) {
    const context = document.createElement("canvas").getContext("2d");
    context.font = font;
    measured = { [font]: context.measureText("0123456789").width / 10 };
  }
  return measured[font];
}
