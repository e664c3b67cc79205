// Which page is shown, and what clicks mean.

import { detailPage } from "./detail.js";
import { confirm } from "./dialog.js";
import { h, morphChildren } from "./dom.js";
import { icon } from "./icons.js";
import { listPage } from "./list.js";
import { ask, follow, forgetToken, hasToken, setToken, takeTokenFromAddress } from "./session.js";
import { setNow, tickTimes } from "./words.js";

const main = document.getElementById("main");
const THEMES = ["auto", "light", "dark"];
let session = null;
let page = null; // { kind, key, path, stream, view, seen }
const filter = { text: "", health: "", namespace: "" };

// --- drawing

const show = (...content) => morphChildren(main, content.flat(Infinity).filter(Boolean));

function draw() {
  if (!page?.view) return;
  show(page.kind === "list" ? listPage(page.view, filter) : detailPage(page.view, width()));
  if (!page.seen) {
    page.seen = true;
    if (page.focus) main.querySelector("h1")?.focus();
  }
}

function width() {
  const style = getComputedStyle(main);
  return Math.floor(main.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight));
}

function say(words) {
  const place = document.getElementById("said");
  place.textContent = words;
  place.classList.add("shown");
  clearTimeout(say.timer);
  say.timer = setTimeout(() => place.classList.remove("shown"), 8000);
}

// What has changed, for who does not see it: once for each phase and step, and not what moves all the time.
function announce(before, view) {
  if (!before || page.kind !== "detail") return;
  const words = ({ name, healthWords, phase, steps }) => {
    const step = steps.find((each) => each.state === "current");
    return `${name}: ${healthWords}, ${phase}${step ? `, step ${step.number}, ${step.title}` : ""}`;
  };
  if (words(before) !== words(view)) document.getElementById("news").textContent = words(view);
}

function live(state) {
  const place = document.getElementById("live");
  const words = { live: "Live", lost: "Reconnecting", off: "" }[state];
  place.dataset.state = state;
  if (place.textContent !== words) place.textContent = words;
}

// --- going from page to page

function open(path, focus) {
  page?.stream?.close();
  const match = path.match(/^\/d\/([^/]+)\/([^/]+)$/);
  const crumb = document.getElementById("crumb");
  if (match) {
    const [namespace, name] = match.slice(1).map(decodeURIComponent);
    page = { kind: "detail", key: `${namespace}/${name}`, path: `/api/deployments/${namespace}/${name}`, focus };
    document.title = `${name} · ${namespace} · Canarium`;
    crumb.replaceChildren(h("span", { "aria-hidden": "true" }, "/"), h("span", { "aria-current": "page" }, page.key));
  } else {
    page = { kind: "list", path: "/api/deployments", focus };
    document.title = "Model deployments · Canarium";
    crumb.replaceChildren();
  }
  show(h("p", { class: "empty", "aria-busy": "true" }, "Loading…"));
  listen();
}

function listen() {
  if (!page || page.stream || document.hidden) return;
  const current = page;
  const query = new URLSearchParams({ follow: "true" });
  if (page.kind === "list" && filter.namespace) query.set("namespace", filter.namespace);
  current.stream = follow(`${page.path}?${query}`, {
    view(view) {
      if (page !== current) return;
      setNow(view.now);
      announce(current.view, view);
      current.view = view;
      draw();
    },
    tick(now) {
      setNow(now);
      if (page === current) draw();
    },
    problem(error) {
      if (page !== current) return;
      if (error.status === 401) return signIn(error.message);
      if (current.view && error.status !== 404) return say(error.message);
      current.view = null;
      show(h("div", { class: "trouble" }, h("h1", { tabindex: "-1" }, error.status === 404 ? "Not found" : "That cannot be shown"),
        h("p", {}, error.message), current.kind === "list" && error.status === 403 ? namespaceForm() : h("p", {}, h("a", { href: "/", "data-route": true }, "All model deployments"))));
    },
    state: (state) => page === current && live(state),
  });
}

const namespaceForm = () =>
  h("form", { class: "search", "data-form": "search" },
    h("label", { for: "namespace" }, h("span", {}, "Namespace"), h("input", { id: "namespace", autocomplete: "off", value: filter.namespace })),
    h("button", { type: "submit", class: "urgent" }, "Show"));

function go(path) {
  history.pushState(null, "", path);
  open(location.pathname, true);
}

function chooseNamespace(name) {
  if (filter.namespace === name) return;
  filter.namespace = name;
  history.replaceState(null, "", name ? `/?namespace=${encodeURIComponent(name)}` : "/");
  page.stream?.close();
  page.stream = null;
  listen();
}

// --- signing in

async function signIn(message) {
  page?.stream?.close();
  page = null;
  live("off");
  document.getElementById("leave").hidden = true;
  document.getElementById("who").textContent = "";
  const { signIn: way } = await ask("/api/about").catch(() => ({ signIn: "kubeconfig" }));
  const help = way === "token"
    ? ["Paste a bearer token of yours. The page has no rights of its own: you see and do what you may. For an account of a service, ",
        h("code", {}, "kubectl create token NAME"), " makes one."]
    : ["Open the link that ", h("code", {}, "canarium dashboard"), " told when it started, or paste the token in it."];
  show(h("form", { class: "sign-in", "data-form": "sign-in" },
    h("h1", { tabindex: "-1" }, "Sign in"), h("p", {}, help),
    message ? h("p", { class: "answer wrong", role: "alert" }, message) : null,
    h("label", { for: "token" }, h("span", {}, "Token"), h("input", { id: "token", type: "password", autocomplete: "off", spellcheck: "false" })),
    h("button", { type: "submit", class: "urgent" }, "Sign in")));
  main.querySelector("#token").focus();
}

async function start() {
  try {
    session = await ask("/api/session");
  } catch (error) {
    if (error.status === 401) return signIn(hasToken() ? error.message : "");
    if (error.status === 0 || error.status >= 500) {
      live("lost");
      show(h("div", { class: "trouble" }, h("h1", {}, "No answer"), h("p", {}, error.message)));
      setTimeout(start, 3000);
      return;
    }
    return signIn(error.message);
  }
  document.getElementById("who").textContent = session.user;
  document.getElementById("leave").hidden = !hasToken();
  filter.namespace = new URLSearchParams(location.search).get("namespace") ?? session.namespace;
  open(location.pathname, false);
}

// --- the theme

function theme(chosen) {
  if (chosen === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = chosen;
  const button = document.getElementById("theme");
  button.replaceChildren(icon(chosen));
  button.setAttribute("aria-label", `Theme: ${chosen}`);
  button.title = `Theme: ${chosen}`;
  localStorage.setItem("canarium-theme", chosen);
}

// --- what people do

document.addEventListener("click", (event) => {
  const target = event.target.closest("a[data-route], a.skip, button");
  if (!target || event.ctrlKey || event.metaKey || event.shiftKey) return;
  if (target.matches("a.skip")) {
    event.preventDefault();
    main.focus();
  } else if (target.matches("a[data-route]")) {
    event.preventDefault();
    go(target.getAttribute("href"));
  } else if (target.id === "theme") {
    const now = document.documentElement.dataset.theme ?? "auto";
    theme(THEMES[(THEMES.indexOf(now) + 1) % THEMES.length]);
  } else if (target.id === "leave") {
    forgetToken();
    signIn("");
  } else if (target.dataset.health !== undefined) {
    filter.health = target.dataset.health;
    draw();
  } else if (target.dataset.verb && page?.view) {
    const offer = page.view.offers.find((each) => each.verb === target.dataset.verb);
    if (offer) confirm(`${page.path}/commands`, offer, say);
  }
});

document.addEventListener("input", (event) => {
  if (event.target.id !== "text") return;
  filter.text = event.target.value;
  draw();
});

document.addEventListener("change", (event) => {
  if (event.target.id === "namespace") chooseNamespace(event.target.value.trim());
});

document.addEventListener("submit", (event) => {
  const form = event.target.dataset.form;
  if (!form) return;
  event.preventDefault();
  if (form === "sign-in") {
    setToken(document.getElementById("token").value.trim());
    start();
  } else {
    chooseNamespace(document.getElementById("namespace").value.trim());
  }
});

// A hidden tab needs no stream: browsers allow few connections to one server.
document.addEventListener("visibilitychange", () => {
  if (document.hidden) {
    page?.stream?.close();
    if (page) page.stream = null;
  } else {
    listen();
  }
});

let known = 0;
addEventListener("resize", () => {
  if (page?.kind === "detail" && width() !== known) {
    known = width();
    draw();
  }
});
addEventListener("popstate", () => session && open(location.pathname, true));
addEventListener("hashchange", () => {
  takeTokenFromAddress();
  if (!session) start();
});
setInterval(() => tickTimes(main), 1000);

theme(localStorage.getItem("canarium-theme") ?? "auto");
takeTokenFromAddress();
start();
