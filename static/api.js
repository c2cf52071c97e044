/**
 * The one place that talks to the server.
 *
 * call -> fetch with the token -> JSON | text | blob; an error becomes ApiError with the server's `detail`.
 * A 401 asks for a token through onUnauthorized and then repeats the call, so the page in front stays as it is.
 */

const KEY = "arc.token";
let askForToken = () => Promise.reject(new Error("nobody asks for a token yet"));
let asking = null;

export class ApiError extends Error {
  constructor(status, detail, body = {}) {
    super(detail);
    this.status = status;
    this.body = body;
  }
}

export function token() {
  return sessionStorage.getItem(KEY) ?? localStorage.getItem(KEY) ?? "";
}

/** Keep a token for this tab, or, remembered, until sign-out. */
export function keepToken(secret, remember) {
  forgetToken();
  (remember ? localStorage : sessionStorage).setItem(KEY, secret);
}

export function forgetToken() {
  sessionStorage.removeItem(KEY);
  localStorage.removeItem(KEY);
}

/** ask: shows the sign-in, resolves when there is a token that works. */
export function onUnauthorized(ask) {
  askForToken = ask;
}

/** A path with its values encoded: path`/jobs/${id}/log`. */
export function path(texts, ...values) {
  return texts.reduce((made, text, at) => made + text + (at < values.length ? encodeURIComponent(values[at]) : ""), "");
}

/** A path with a query string of what is neither empty nor missing. */
export function withQuery(base, given) {
  const filled = Object.entries(given).filter(([, value]) => value !== "" && value !== undefined && value !== null);
  return filled.length ? `${base}?${new URLSearchParams(filled)}` : base;
}

/** The Response of a good answer. options: body (an object goes as JSON), headers, signal, secret. */
export async function send(method, url, options = {}) {
  const { body, headers = {}, signal, secret } = options;
  const sent = { Accept: "application/json", ...headers };
  const used = secret ?? token();
  if (used) sent.Authorization = `Bearer ${used}`;
  if (method === "GET") sent["X-Arc-Live"] = "1"; // asked again and again: not worth a line of the server's log
  const isJson = body !== undefined && typeof body !== "string";
  if (isJson) sent["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(url, { method, headers: sent, body: isJson ? JSON.stringify(body) : body, signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "The server cannot be reached.");
  }
  if (response.ok) return response;
  if (response.status === 401 && secret === undefined) {
    await newToken(used);
    return send(method, url, options);
  }
  throw await errorOf(response);
}

/** One sign-in for all calls that wait for it. used: the token that was refused. */
async function newToken(used) {
  if (token() !== used && token()) return;
  asking ??= askForToken().finally(() => (asking = null));
  await asking;
}

async function errorOf(response) {
  const body = await response.json().catch(() => ({}));
  return new ApiError(response.status, body.detail ?? `The server answered ${response.status}.`, body);
}

export async function call(method, url, options) {
  const response = await send(method, url, options);
  return response.headers.get("Content-Type")?.startsWith("application/json") ? response.json() : response.text();
}

export const get = (url, options) => call("GET", url, options);
export const post = (url, body = {}, options = {}) => call("POST", url, { ...options, body });

/** One page of a bare list: { items, total, pages }, out of its Pagination headers. */
export async function getPage(url, options) {
  const response = await send("GET", url, options);
  const number = (name) => Number(response.headers.get(name) ?? 0);
  return { items: await response.json(), total: number("Pagination-Elements"), pages: number("Pagination-Pages") };
}

/**
 * Repeat step() until the signal is aborted, the next time `seconds` after the one before has ended, or what it returned.
 * Nothing is asked while the tab is hidden. onError gets what went wrong, and null when it works again.
 * Returns a function that does the next step at once.
 */
export function live(step, seconds, signal, onError = () => {}) {
  let timer = 0;
  let isRunning = false;
  const next = (pause) => {
    clearTimeout(timer);
    if (!signal.aborted && !document.hidden) timer = setTimeout(run, pause * 1000);
  };
  const run = async () => {
    if (isRunning || signal.aborted) return;
    isRunning = true;
    let pause = seconds;
    try {
      pause = (await step()) ?? seconds;
      if (!signal.aborted) onError(null);
    } catch (error) {
      if (!signal.aborted && error.name !== "AbortError") onError(error);
    }
    isRunning = false;
    next(pause);
  };
  document.addEventListener("visibilitychange", () => (document.hidden ? clearTimeout(timer) : run()), { signal });
  signal.addEventListener("abort", () => clearTimeout(timer));
  run();
  return run;
}
