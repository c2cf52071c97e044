/**
 * The frame: sign-in, navigation, themes, and which page is in front.
 *
 * #/jobs/ID?q=... -> page `jobs` -> import("./jobs.js") -> show(view). The address says everything, so reload keeps it.
 */

import * as api from "./api.js";
import { button, card, check, dialog, failure, field, form, h, icon, link, nothing } from "./dom.js";

const PAGES = [
  { name: "overview", title: "Overview", isOffered: () => true },
  { name: "metrics", title: "Metrics", isOffered: (session) => session.has("metrics") && session.may("read") },
  { name: "jobs", title: "Jobs", isOffered: (session) => session.has("jobs") && session.may("read") },
  { name: "fleet", title: "Fleet", isOffered: (session) => session.has("fleet") && session.may("read") },
  { name: "actions", title: "Actions", isOffered: (session) => session.has("actions") && session.may("read") },
  { name: "system", title: "System", isOffered: () => true },
];
const main = document.getElementById("main");
let session = null;
let leaving = new AbortController();

api.onUnauthorized(async () => {
  const before = session?.permissions.join();
  await signIn();
  await openSession();
  drawBar();
  if (before !== undefined && before !== session.permissions.join()) show(false); // another token: other controls
});
start();

async function start() {
  try {
    if (!api.token() && (await api.get("/", { secret: "" })).auth) await signIn();
    await openSession();
  } catch (error) {
    main.replaceChildren(
      failure(error),
      button("Try again", () => location.reload()),
    );
    return;
  }
  window.addEventListener("hashchange", () => show(true));
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawBar());
  show(false);
}

async function openSession() {
  const found = await api.get("/api/v1/session");
  session = { ...found, may: (permission) => found.permissions.includes(permission), has: (surface) => found.surfaces.includes(surface) };
}

/** Ask for a token until one works. */
function signIn() {
  return dialog(
    "Sign in to Arc",
    (close) => {
      const secret = h("input", { type: "password", autocomplete: "current-password", required: true, autofocus: true });
      const remember = check("Remember on this computer");
      const place = h("div");
      const submit = async () => {
        place.replaceChildren();
        try {
          await api.get("/api/v1/session", { secret: secret.value.trim() });
          api.keepToken(secret.value.trim(), remember.box.checked);
          close(true);
        } catch (error) {
          place.replaceChildren(failure(error));
          secret.select();
        }
      };
      return form(
        submit,
        h(
          "p",
          {},
          "Paste an API token. The first start of the server printed one; ",
          h("code", {}, "python arc.py token"),
          " makes others.",
        ),
        field("Token", secret, "Kept until this tab is closed, unless it is remembered."),
        remember.node,
        place,
        h("div", { class: "buttons" }, h("button", { class: "primary" }, "Sign in")),
      );
    },
    { "data-stays": "true", class: "signin" },
  );
}

function signOut() {
  api.forgetToken();
  location.hash = "";
  location.reload();
}

/** Page, path and query of the address. */
function address() {
  const [way, query = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const [name, ...rest] = way.split("/");
  return { name: name || "overview", path: rest.filter(Boolean).map(decoded), query: new URLSearchParams(query) };
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text; // typed by hand
  }
}

async function show(isMove) {
  leaving.abort();
  leaving = new AbortController();
  const { name, path, query } = address();
  const page = PAGES.find((each) => each.name === name && each.isOffered(session));
  drawBar();
  main.replaceChildren();
  if (isMove) main.focus({ preventScroll: true }); // before the page is there: later it could take the focus from somebody
  window.scrollTo(0, 0);
  document.title = page ? `${page.title} · Arc` : "Arc";
  if (!page) {
    main.append(card("Not here", nothing("There is no such page, or your token does not allow it.", link("Go to the overview", "#/"))));
    return;
  }
  const view = { main, path, query, session, signal: leaving.signal, go, keepQuery };
  try {
    const module = await import(`./${page.name}.js`);
    if (view.signal.aborted) return;
    await module.show(view);
  } catch (error) {
    if (!view.signal.aborted && error.name !== "AbortError") main.append(failure(error));
  }
}

function go(where) {
  location.hash = where;
}

/** Write what the page shows into the address, without leaving it. */
function keepQuery(given) {
  const base = location.hash.split("?")[0] || "#/";
  history.replaceState(null, "", api.withQuery(base, given));
}

function drawBar() {
  const { name } = address();
  const entries = PAGES.filter((page) => page.isOffered(session)).map((page) =>
    h("a", { href: `#/${page.name}`, "aria-current": page.name === name ? "page" : null }, icon(page.name), h("span", {}, page.title)),
  );
  const isDark = document.documentElement.dataset.theme
    ? document.documentElement.dataset.theme === "dark"
    : window.matchMedia("(prefers-color-scheme: dark)").matches;
  const theme = h(
    "button",
    {
      type: "button",
      class: "quiet",
      onclick: () => setTheme(isDark ? "light" : "dark"),
      title: isDark ? "Light theme" : "Dark theme",
      "aria-label": isDark ? "Light theme" : "Dark theme",
    },
    icon("theme"),
  );
  const leave = api.token()
    ? h("button", { type: "button", class: "quiet", onclick: signOut, title: "Sign out", "aria-label": "Sign out" }, icon("leave"))
    : null;
  document
    .getElementById("bar")
    .replaceChildren(
      h("a", { class: "brand", href: "#/" }, h("img", { src: "/static/icon.svg", alt: "", width: 26, height: 26 }), "Arc"),
      h("nav", { class: "main", "aria-label": "Pages of the dashboard" }, entries),
      h("div", { class: "who" }, h("span", { class: "name", title: "The token you signed in with" }, session.name), theme, leave),
    );
}

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  localStorage.setItem("arc.theme", theme);
  drawBar();
}
