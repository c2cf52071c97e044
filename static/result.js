/**
 * The result of a query as a table of pages and as a chart.
 *
 * A chart needs a time and a number: each number column is a line, once for each combination of the text columns.
 * Without a time, a text and a number make bars.
 */

import { barChart, lineChart } from "./charts.js";
import { button, h, nothing, pager } from "./dom.js";
import { duration, exact, plural, value } from "./format.js";

const ROWS = 100; // of a page
const MAX_LINES = 12;
const MAX_BARS = 50;
const NUMBERS = /^(TINYINT|SMALLINT|INTEGER|BIGINT|HUGEINT|U\w+INT\w*|UINTEGER|FLOAT|DOUBLE|DECIMAL.*)$/;

export function resultView(result) {
  const { columns, data } = result;
  const chart = chartOf(result);
  const place = h("div");
  const views = { Table: () => tableOf(columns, result.types, data), ...(chart ? { Chart: chart } : {}) };
  const switches = Object.keys(views).map((name) => button(name, () => showView(name)));
  function showView(name) {
    switches.forEach((each) => each.setAttribute("aria-pressed", String(each.textContent === name)));
    place.replaceChildren(views[name]());
  }
  showView("Table");
  return h(
    "section",
    { class: "card result", "aria-label": "Result" },
    h(
      "div",
      { class: "head" },
      h("div", {}, chart ? switches : []),
      h("span", { role: "status" }, `${plural(data.length, "row")} in ${duration(result.ms)}`),
    ),
    place,
  );
}

function tableOf(columns, types, rows) {
  if (!rows.length) return nothing("The query gave no rows.");
  const body = h("tbody");
  const isNumber = types.map((type) => NUMBERS.test(type));
  const pages = Math.ceil(rows.length / ROWS);
  const turn = pager((page) => draw(page));
  function draw(page) {
    const shown = rows.slice((page - 1) * ROWS, page * ROWS);
    body.replaceChildren(
      ...shown.map((row) =>
        h(
          "tr",
          {},
          row.map((each, at) =>
            h("td", { class: isNumber[at] ? "number" : null, title: String(value(each)).length > 60 ? value(each) : null }, value(each)),
          ),
        ),
      ),
    );
    turn.update(page, pages, exact(rows.length));
  }
  draw(1);
  const head = columns.map((name, at) => h("th", { scope: "col", class: isNumber[at] ? "number" : null, title: types[at] }, name));
  return h(
    "div",
    {},
    h(
      "div",
      { class: "scroll rows", tabindex: "0", role: "region", "aria-label": "Rows" },
      h("table", {}, h("caption", { class: "unseen" }, "Rows of the result"), h("thead", {}, h("tr", {}, head)), body),
    ),
    turn.node,
  );
}

/** What makes the chart, when it is wanted; null when there is none to make. */
function chartOf({ columns, types, data }) {
  const at = (test) => types.flatMap((type, index) => (test(type) ? [index] : []));
  const [times, numbers] = [at((type) => /^(TIMESTAMP|DATE)/.test(type)), at((type) => NUMBERS.test(type))];
  const texts = at((type) => /^(VARCHAR|BOOLEAN|ENUM.*)$/.test(type));
  if (!data.length || !numbers.length) return null;
  if (times.length) return () => lines(columns, data, times[0], numbers, texts);
  if (texts.length && data.length <= MAX_BARS) {
    return () =>
      barChart(
        data.map((row) => [texts.map((index) => value(row[index])).join(" · "), row[numbers[0]] ?? 0]),
        columns[numbers[0]],
      );
  }
  return null;
}

function lines(columns, data, time, numbers, texts) {
  const groups = new Map(); // of text values -> points of each number
  for (const row of data) {
    const ms = Date.parse(row[time]);
    if (Number.isNaN(ms)) continue;
    const group = texts.map((index) => value(row[index])).join(" · ");
    let points = groups.get(group);
    if (!points) groups.set(group, (points = numbers.map(() => [])));
    for (let at = 0; at < numbers.length; at += 1) points[at].push([ms, row[numbers[at]]]);
  }
  const found = [...groups].flatMap(([group, points]) =>
    points.map((each, at) => ({ name: nameOf(group, columns[numbers[at]], numbers.length), points: each })),
  );
  const series = found.slice(0, MAX_LINES);
  for (const each of series) each.points.sort((a, b) => a[0] - b[0]);
  const chart = lineChart({ label: `${numbers.map((index) => columns[index]).join(", ")} over time`, height: 320, fromZero: false });
  chart.update(series);
  const note =
    found.length > MAX_LINES
      ? h("p", {}, h("small", {}, `The first ${MAX_LINES} of ${plural(found.length, "line")}; group or filter for the others.`))
      : null;
  return h(
    "div",
    {},
    chart.node,
    note,
    h("p", {}, h("small", {}, "Drag to zoom, double click for all. With the keyboard: arrows, + and -.")),
  );
}

function nameOf(group, column, count) {
  if (!group) return column;
  return count > 1 ? `${column} ${group}` : group;
}
