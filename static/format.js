/** Values as people read them: numbers, bytes, durations and times. Everything takes what the API sends. */

const COMPACT = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const EXACT = new Intl.NumberFormat("en", { maximumFractionDigits: 3 });
const TIME = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "medium" });
const CLOCK = new Intl.DateTimeFormat("en-GB", { timeStyle: "medium" });
const UNITS = ["B", "KB", "MB", "GB", "TB", "PB"];

export const NONE = "–";

/** 1234567 -> 1.2M; small numbers stay exact. */
export function compact(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return NONE;
  return Math.abs(value) < 1000 ? EXACT.format(Math.round(value * 100) / 100) : COMPACT.format(value);
}

export function exact(value) {
  return value === null || value === undefined ? NONE : EXACT.format(value);
}

export function bytes(value) {
  if (value === null || value === undefined) return NONE;
  let unit = 0;
  while (Math.abs(value) >= 1024 && unit < UNITS.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${value < 10 && unit ? value.toFixed(1) : Math.round(value)} ${UNITS[unit]}`;
}

/** Milliseconds -> 3.2 ms, 12.4 s, 2 min 5 s, 3 h 20 min, 5 d 2 h. */
export function duration(ms) {
  if (ms === null || ms === undefined || Number.isNaN(ms)) return NONE;
  if (ms < 1000) return `${ms < 10 ? Math.round(ms * 10) / 10 : Math.round(ms)} ms`;
  const s = ms / 1000;
  if (s < 60) return `${s < 10 ? s.toFixed(1) : Math.round(s)} s`;
  const minutes = Math.floor(s / 60);
  if (minutes < 60) return `${minutes} min ${Math.floor(s % 60)} s`;
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours} h ${minutes % 60} min` : `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

/** An RFC 3339 text in the time zone of the reader. */
export function time(text) {
  return text ? TIME.format(new Date(text)) : NONE;
}

/** Only the time of day. */
export function clock(text) {
  return CLOCK.format(new Date(text));
}

export function ago(text) {
  if (!text) return NONE;
  const ms = Date.now() - Date.parse(text);
  return ms < 5000 ? "just now" : `${duration(ms).replace(/ \d+ (s|min|h)$/, "")} ago`;
}

/** Milliseconds from one instant to another, or to now. */
export function between(start, end) {
  return start ? Math.max(0, (end ? Date.parse(end) : Date.now()) - Date.parse(start)) : null;
}

/** A value of a result or of a fact, as one line. */
export function value(found) {
  if (found === null || found === undefined) return NONE;
  return typeof found === "object" ? JSON.stringify(found) : String(found);
}

/** COMPLETED -> Completed. */
export function word(state) {
  const text = String(state ?? "").replaceAll("_", " ");
  return text.charAt(0).toUpperCase() + text.slice(1).toLowerCase();
}

export function plural(count, one, many = `${one}s`) {
  return `${exact(count)} ${count === 1 ? one : many}`;
}
