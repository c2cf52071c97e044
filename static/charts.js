/**
 * Charts in SVG: lines over time, bars, sparklines, and the bars of a Gantt chart.
 *
 * lineChart -> update(series) -> draw: scales -> axes -> paths. A chart draws itself again when its width changes.
 * A path has about two points per pixel, whatever comes in, so a hundred thousand rows are drawn as fast as a thousand.
 */

import { button, h, svg } from "./dom.js";
import { compact } from "./format.js";

const MARGIN = { top: 8, right: 10, bottom: 22, left: 50 };
const COLOURS = 8;
const STEPS_S = [
  1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400, 172_800, 604_800, 1_209_600, 2_592_000,
  7_776_000, 31_536_000,
];
const CLOCK = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });
const SECONDS = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const DAY = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });
const YEAR = new Intl.DateTimeFormat("en-GB", { month: "short", year: "numeric" });
const FULL = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "medium" });

/**
 * Lines over time. update(series): [{ name, points: [[ms, number | null], ...] }], each by time.
 * Where a value is missing, or nothing came for much longer than usual, the line has a gap.
 */
export function lineChart({ label, height = 190, format = compact, fromZero = true }) {
  const picture = svg("svg", { role: "img", "aria-label": label, tabindex: "0", height });
  const tip = h("div", { class: "tip", hidden: true });
  const legend = h("div", { class: "legend" });
  const node = h("div", { class: "chart" }, picture, tip, legend);
  const reset = button("Whole time", () => setZoom(null), { class: "small" });
  const hidden = new Set();
  const above = svg("g"); // what follows the pointer, so that the lines are drawn once
  let series = [];
  let shown = [];
  let zoom = null; // [from, to] in ms
  let scale = null;
  let cursor = null; // ms

  function setZoom(range) {
    zoom = range;
    cursor = null;
    draw();
    drawLegend();
  }
  function draw() {
    const width = picture.clientWidth;
    if (!width) return;
    picture.setAttribute("viewBox", `0 0 ${width} ${height}`);
    shown = series.map((each, at) => ({ ...each, colour: at % COLOURS })).filter((each) => !hidden.has(each.name));
    scale = scales(shown, zoom, width, height, fromZero);
    if (!scale) return picture.replaceChildren(svg("text", { x: width / 2, y: height / 2, "text-anchor": "middle" }, "No values yet"));
    const lines = shown.map((each) => svg("path", { class: `line c${each.colour}`, d: pathOf(each.points, scale) }));
    picture.replaceChildren(...axes(scale, width, height, format), ...lines, above);
    point();
    return undefined;
  }
  /** The line and the figures under the pointer, or where the arrow keys went. */
  function point() {
    tip.hidden = cursor === null;
    above.replaceChildren(...(cursor === null || !scale ? [] : cross()));
  }
  function cross() {
    const found = shown.map((each) => ({ ...each, point: nearest(each.points, cursor) })).filter((each) => each.point);
    tip.hidden = !found.length;
    if (!found.length) return [];
    const at = found.reduce(
      (best, each) => (Math.abs(each.point[0] - cursor) < Math.abs(best - cursor) ? each.point[0] : best),
      found[0].point[0],
    );
    const x = scale.x(at);
    const here = found.filter((each) => Math.abs(scale.x(each.point[0]) - x) < 3);
    const rows = here
      .slice(0, 12)
      .map((each) => h("div", { class: `c${each.colour}` }, h("i"), each.name, h("b", {}, format(each.point[1]))));
    tip.replaceChildren(FULL.format(at), ...rows);
    const isLeft = x > picture.clientWidth / 2;
    tip.style.left = isLeft ? "auto" : `${x + 12}px`;
    tip.style.right = isLeft ? `${picture.clientWidth - x + 12}px` : "auto";
    const dots = here
      .filter((each) => each.point[1] !== null)
      .map((each) => svg("circle", { class: `dot c${each.colour}`, cx: x, cy: scale.y(each.point[1]), r: 3 }));
    return [svg("line", { class: "cross", x1: x, x2: x, y1: MARGIN.top, y2: height - MARGIN.bottom }), ...dots];
  }
  function drawLegend() {
    const toggles =
      series.length < 2
        ? []
        : series.map((each, at) => {
            const flip = () => {
              if (!hidden.delete(each.name)) hidden.add(each.name);
              draw();
              drawLegend();
            };
            return h(
              "button",
              { type: "button", class: `c${at % COLOURS}`, "aria-pressed": String(!hidden.has(each.name)), onclick: flip },
              h("i"),
              each.name,
            );
          });
    legend.replaceChildren(...toggles, ...(zoom ? [reset] : []));
  }
  listen(picture, {
    range: () => scale?.range,
    ms: (x) => scale?.ms(x),
    hover: (ms) => {
      cursor = ms;
      point();
    },
    cursor: () => cursor,
    zoom: setZoom,
    height,
  });
  new ResizeObserver(draw).observe(picture);
  return {
    node,
    update(given) {
      const names = series.map((each) => each.name).join();
      series = given;
      draw();
      if (given.map((each) => each.name).join() !== names) drawLegend();
    },
  };
}

/** Pointer and keyboard: hover, drag to zoom, double click for all; arrows move, + and - zoom, Escape lets go. */
function listen(picture, chart) {
  let from = null;
  const mark = svg("rect", { class: "zoom", y: MARGIN.top, height: chart.height - MARGIN.top - MARGIN.bottom });
  const place = (event) => event.clientX - picture.getBoundingClientRect().left;
  picture.addEventListener("pointerdown", (event) => {
    if (event.button === 0 && event.pointerType === "mouse") from = place(event);
  });
  picture.addEventListener("pointermove", (event) => {
    const x = place(event);
    chart.hover(chart.ms(x) ?? null);
    if (from === null) return;
    mark.setAttribute("x", Math.min(from, x));
    mark.setAttribute("width", Math.abs(x - from));
    picture.append(mark);
  });
  picture.addEventListener("pointerup", (event) => {
    const x = place(event);
    if (from !== null && Math.abs(x - from) > 6 && chart.range()) chart.zoom([chart.ms(Math.min(from, x)), chart.ms(Math.max(from, x))]);
    from = null;
    mark.remove();
  });
  picture.addEventListener("pointerleave", () => {
    from = null;
    chart.hover(null);
  });
  picture.addEventListener("dblclick", () => chart.zoom(null));
  picture.addEventListener("blur", () => chart.hover(null));
  picture.addEventListener("keydown", (event) => {
    const range = chart.range();
    if (!range) return;
    const [start, end] = range;
    const at = chart.cursor() ?? (event.key === "ArrowLeft" ? end : start);
    const step = (end - start) / 60;
    const done = {
      ArrowRight: () => chart.hover(Math.min(at + step, end)),
      ArrowLeft: () => chart.hover(Math.max(at - step, start)),
      "+": () => chart.zoom([at - (at - start) / 2, at + (end - at) / 2]),
      "-": () => chart.zoom(null),
      Escape: () => chart.hover(null),
    }[event.key];
    if (done) {
      event.preventDefault();
      done();
    }
  });
}

function scales(series, zoom, width, height, fromZero) {
  let [start, end, low, high] = [Infinity, -Infinity, Infinity, -Infinity];
  for (const { points } of series) {
    for (const [ms, number] of points) {
      if (zoom && (ms < zoom[0] || ms > zoom[1])) continue;
      start = Math.min(start, ms);
      end = Math.max(end, ms);
      if (number === null) continue;
      low = Math.min(low, number);
      high = Math.max(high, number);
    }
  }
  if (zoom) [start, end] = zoom;
  if (low > high || !Number.isFinite(start)) return null;
  if (start === end) [start, end] = [start - 500, end + 500];
  if (fromZero && low > 0) low = 0;
  if (low === high) high = low + (low ? Math.abs(low) : 1);
  const ticks = niceTicks(low, high, Math.max(2, Math.round(height / 48)));
  [low, high] = [Math.min(low, ticks[0]), Math.max(high, ticks.at(-1))];
  const inner = { width: Math.max(1, width - MARGIN.left - MARGIN.right), height: height - MARGIN.top - MARGIN.bottom };
  return {
    range: [start, end],
    ticks,
    x: (ms) => MARGIN.left + ((ms - start) / (end - start)) * inner.width,
    y: (number) => MARGIN.top + (1 - (number - low) / (high - low)) * inner.height,
    ms: (x) => Math.min(end, Math.max(start, start + ((x - MARGIN.left) / inner.width) * (end - start))),
    width: inner.width,
  };
}

/** Round numbers that cover a range. */
function niceTicks(low, high, count) {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((each) => each * power).find((each) => each >= rough);
  const first = Math.floor(low / step) * step;
  const ticks = [];
  for (let tick = first; tick < high + step * 0.999; tick += step) ticks.push(Math.round(tick / step) * step);
  return ticks;
}

function axes(scale, width, height, format) {
  const made = [];
  for (const tick of scale.ticks) {
    const y = scale.y(tick);
    made.push(svg("line", { class: "grid", x1: MARGIN.left, x2: width - MARGIN.right, y1: y, y2: y }));
    made.push(svg("text", { x: MARGIN.left - 6, y: y + 4, "text-anchor": "end" }, format(tick)));
  }
  for (const { ms, text } of timeTicks(scale)) {
    made.push(svg("text", { x: scale.x(ms), y: height - 6, "text-anchor": "middle" }, text));
  }
  return made;
}

function timeTicks(scale) {
  const [start, end] = scale.range;
  const most = Math.max(2, Math.floor(scale.width / 70));
  const step = (STEPS_S.find((each) => (end - start) / 1000 / each <= most) ?? STEPS_S.at(-1)) * 1000;
  const zone = new Date(start).getTimezoneOffset() * 60_000; // so that days begin at the reader's midnight
  const ticks = [];
  for (let ms = Math.ceil((start - zone) / step) * step + zone; ms <= end; ms += step) {
    const isEdge = scale.x(ms) < MARGIN.left + 14 || scale.x(ms) > MARGIN.left + scale.width - 8;
    if (!isEdge) ticks.push({ ms, text: tickText(ms, step) });
  }
  return ticks;
}

function tickText(ms, step) {
  if (step >= 2_592_000_000) return YEAR.format(ms);
  if (step >= 86_400_000) return DAY.format(ms);
  const isMidnight = CLOCK.format(ms) === "00:00";
  if (isMidnight) return DAY.format(ms);
  return (step < 60_000 ? SECONDS : CLOCK).format(ms);
}

/** The path of a line: of each pixel column the first, least, greatest and last value. */
function pathOf(points, scale) {
  const [start, end] = scale.range;
  const gap = usualStep(points) * 3.5;
  let d = "";
  let column = [];
  let pixel = null; // of the column
  let pen = false;
  let last = null;
  const flush = () => {
    for (const [ms, number] of thinned(column)) {
      const place = `${scale.x(ms).toFixed(1)},${scale.y(number).toFixed(1)}`;
      d += pen ? `L${place}` : `M${place}h0`; // a value between two gaps is a dot
      pen = true;
    }
    column = [];
  };
  for (const point of points) {
    if (point[0] < start || point[0] > end) continue;
    const isGap = point[1] === null || (last !== null && point[0] - last > gap);
    if (isGap) {
      flush();
      pen = false;
    }
    if (point[1] === null) continue;
    const here = Math.round(scale.x(point[0]));
    if (here !== pixel) flush();
    pixel = here;
    column.push(point);
    last = point[0];
  }
  flush();
  return d || "M0,0";
}

function thinned(column) {
  if (column.length <= 4) return column;
  let [low, high] = [column[0], column[0]];
  for (const point of column) {
    if (point[1] < low[1]) low = point;
    if (point[1] > high[1]) high = point;
  }
  return [...new Set([column[0], low, high, column.at(-1)])].sort((a, b) => a[0] - b[0]);
}

/** The median time between two points. */
function usualStep(points) {
  const steps = [];
  const every = Math.max(1, Math.floor(points.length / 500));
  for (let at = 1; at < points.length; at += every) steps.push(points[at][0] - points[at - 1][0]);
  steps.sort((a, b) => a - b);
  return steps[Math.floor(steps.length / 2)] || Infinity;
}

function nearest(points, ms) {
  let [low, high] = [0, points.length - 1];
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (points[middle][0] < ms) low = middle;
    else high = middle;
  }
  const [a, b] = [points[low], points[high]];
  if (!a || !b) return a ?? b;
  return ms - a[0] < b[0] - ms ? a : b;
}

/** Horizontal bars, one per row: [[name, number], ...]. */
export function barChart(rows, label, format = compact) {
  const greatest = Math.max(...rows.map(([, number]) => Math.abs(number)), 0) || 1;
  const body = rows.map(([name, number]) =>
    h(
      "tr",
      {},
      h("th", { scope: "row" }, name),
      h(
        "td",
        {},
        svg(
          "svg",
          { viewBox: "0 0 100 8", preserveAspectRatio: "none", class: "spark c0", "aria-hidden": "true" },
          svg("rect", { class: "bar", width: (Math.abs(number) / greatest) * 100, height: 8, y: 0 }),
        ),
      ),
      h("td", { class: "number" }, format(number)),
    ),
  );
  return h(
    "div",
    { class: "scroll", tabindex: "0", role: "region", "aria-label": label },
    h("table", { class: "bars" }, h("caption", { class: "unseen" }, label), h("tbody", {}, body)),
  );
}

/** A small line without axes. */
export function sparkline(numbers) {
  const least = Math.min(...numbers, 0);
  const most = Math.max(...numbers);
  const span = most - least || 1;
  const points = numbers.map(
    (number, at) => `${((at / Math.max(1, numbers.length - 1)) * 100).toFixed(1)},${(19 - ((number - least) / span) * 18).toFixed(1)}`,
  );
  return svg(
    "svg",
    { class: "spark", viewBox: "0 0 100 20", preserveAspectRatio: "none", "aria-hidden": "true" },
    svg("polyline", { class: "line c0", points: points.join(" "), "vector-effect": "non-scaling-stroke" }),
  );
}

/** One row of a Gantt chart. from, to: the ends of its time axis; waits, starts, ends: ms. */
export function ganttBar({ from, to, waits, starts, ends, light, label }) {
  const x = (ms) => ((ms - from) / Math.max(1, to - from)) * 1000;
  const part = (kind, start, end) =>
    svg("rect", { class: kind, x: x(start), width: Math.max(4, x(end) - x(start)), y: 2, height: 10, rx: 2 });
  const parts = [];
  if (waits !== null && starts !== null && starts > waits) parts.push(part("wait", waits, starts));
  if (starts !== null) parts.push(part(light, starts, ends));
  else if (waits !== null) parts.push(part("wait", waits, ends));
  return svg("svg", { class: "gantt", viewBox: "0 0 1000 14", preserveAspectRatio: "none", role: "img", "aria-label": label }, ...parts);
}
