// The page of all ModelDeployments.

import { h, s } from "./dom.js";
import { badge } from "./icons.js";
import { moment } from "./words.js";

const NAMES = { degraded: "Needs attention", waiting: "Waiting", progressing: "In progress", healthy: "Healthy", unknown: "Not seen yet" };

export function listPage(view, filter) {
  const words = filter.text.trim().toLowerCase();
  const rows = view.rows.filter((row) =>
    (!filter.health || row.health === filter.health) && `${row.namespace}/${row.name}`.toLowerCase().includes(words));
  return [
    h("div", { class: "head" },
      h("h1", { tabindex: "-1" }, "Model deployments"),
      h("p", { class: "muted" }, headline(view))),
    notices(view),
    h("div", { class: "filters", role: "group", "aria-label": "Filter by health" },
      chip("", `All ${view.rows.length}`, filter),
      Object.entries(view.counts).map(([health, count]) => chip(health, `${NAMES[health]} ${count}`, filter))),
    h("form", { class: "search", role: "search", "data-form": "search" },
      field("Name contains", h("input", { id: "text", type: "search", autocomplete: "off", value: filter.text })),
      field("Namespace", h("input", { id: "namespace", autocomplete: "off", placeholder: "all", value: filter.namespace }))),
    rows.length
      ? h("ul", { class: "rows" }, rows.map(line))
      : h("p", { class: "empty" }, view.rows.length ? "Nothing matches." : "There is no ModelDeployment here yet."),
  ];
}

function headline(view) {
  const total = view.rows.length;
  const needs = (view.counts.degraded ?? 0) + (view.counts.waiting ?? 0);
  const moving = view.counts.progressing ?? 0;
  const parts = [`${total} ${total === 1 ? "deployment" : "deployments"}`];
  if (needs) parts.push(`${needs} ${needs === 1 ? "needs" : "need"} somebody`);
  if (moving) parts.push(`${moving} in progress`);
  return parts.join(", ");
}

export function notices(view) {
  const found = [];
  if (view.problem) found.push(`What you see may be old: ${view.problem}`);
  if (view.truncated) found.push("There are more than are shown: choose a namespace.");
  for (const note of view.notes ?? []) found.push(note);
  return found.map((words) => h("p", { class: "notice" }, words));
}

const field = (label, input) => h("label", { for: input.id }, h("span", {}, label), input);

const chip = (health, words, filter) =>
  h("button", { type: "button", class: `chip ${health}`, "data-health": health, "aria-pressed": String(filter.health === health) }, words);

function line(row) {
  return h("li", { class: `row ${row.health}`, "data-key": `${row.namespace}/${row.name}` },
    h("h2", { class: "name" }, h("a", { href: `/d/${row.namespace}/${row.name}`, "data-route": true },
      h("span", { class: "space" }, `${row.namespace} /`), " ", row.name)),
    h("div", { class: "state" }, badge(row.health, row.healthWords)),
    h("div", { class: "versions" }, versions(row)),
    h("div", { class: "progress" }, progress(row)),
    h("div", { class: "when muted" }, moment(row.since)),
    h("p", { class: "says" }, row.message));
}

function versions(row) {
  if (row.versions.length) return h("span", {}, row.versions.join(", "));
  return [
    row.stable && h("span", { class: "who-stable" }, h("span", { class: "unseen" }, "stable "), row.stable),
    row.canary && h("span", { class: "who-canary" }, h("span", { class: "unseen" }, "canary "), row.canary),
  ];
}

// Where the rollout is: one mark for each step, and the weight.
function progress(row) {
  if (row.weight == null || !row.weights.length) return null;
  const size = 12;
  const marks = row.weights.map((_, i) => s("rect", {
    x: i * (size + 3), y: 0, width: size, height: 7, rx: 2, class: i + 1 < row.step ? "done" : i + 1 === row.step ? "now" : "todo" }));
  const width = row.weights.length * (size + 3) - 3;
  return [
    s("svg", { class: "marks", viewBox: `0 0 ${width} 7`, width, height: 7, role: "img",
      "aria-label": `step ${row.step} of ${row.weights.length}` }, marks),
    h("span", {}, h("strong", {}, `${row.weight}%`), " to the canary"),
    row.failing.length ? h("span", { class: "failing" }, `fails: ${row.failing.join(", ")}`) : null,
  ];
}
