// The page of one ModelDeployment.

import { weightChart } from "./charts.js";
import { checkCards } from "./checks.js";
import { h, s } from "./dom.js";
import { badge, icon } from "./icons.js";
import { notices } from "./list.js";
import { moment, stamp } from "./words.js";

export function detailPage(view, width) {
  return [
    hero(view),
    notices(view),
    view.failure ? failure(view.failure) : null,
    view.steps.length ? section("steps", "Steps", steps(view)) : null,
    view.chart ? section("traffic", view.chart.end ? "Traffic in the latest rollout" : "Traffic", traffic(view, width)) : null,
    view.checks.length ? section("checks", "Checks", view.checksWords ? h("p", { class: "muted" }, view.checksWords) : null,
      checkCards(view.checks, width)) : null,
    experiment(view),
    view.gates.length ? section("gates", "Outside systems", gates(view.gates)) : null,
    view.revisions.length ? section("revisions", "Revisions", view.revisions.map(revision)) : null,
    h("div", { class: "columns" },
      section("history", "How rollouts ended", endings(view.endings)),
      section("deeds", "What people did", deeds(view.deeds))),
    section("events", "Events", events(view.events)),
  ];
}

const section = (id, title, ...content) =>
  h("section", { class: `part p-${id}`, "data-key": id, "aria-labelledby": `h-${id}` }, h("h2", { id: `h-${id}` }, title), content);

function hero(view) {
  return h("div", { class: "hero" },
    h("div", { class: "title" },
      h("h1", { tabindex: "-1" }, h("span", { class: "space" }, `${view.namespace} /`), " ", view.name),
      badge(view.health, view.healthWords),
      h("span", { class: "phase muted" }, view.phase),
      view.nextCheckAt ? h("span", { class: "muted" }, "looks again ", moment(view.nextCheckAt, "eta")) : null),
    view.failure ? null : message(view.message),
    h("div", { class: "acts" },
      view.mayAct && view.offers.length
        ? h("div", { class: "buttons", role: "group", "aria-label": "Act on the rollout" }, view.offers.map(button))
        : null,
      !view.mayAct && view.offers.length ? h("p", { class: "muted" }, view.whyNot) : null));
}

// What it waits for comes first; what the checks say is below in full.
function message(words) {
  const [first, ...rest] = words.split("; ");
  return h("div", { class: "message" }, h("p", {}, first), rest.length ? h("p", { class: "muted" }, rest.join("; ")) : null);
}

const button = (offer) =>
  h("button", { type: "button", "data-verb": offer.verb, "data-key": offer.verb, class: offer.danger ? "danger" : offer.urgent ? "urgent" : "" }, offer.title);

const failure = (found) =>
  h("div", { class: "taken-back", "data-key": "failure" }, icon("degraded"),
    h("div", {},
      h("h2", {}, `${found.label} was taken back`, found.place ? ` (${found.place})` : ""),
      h("p", {}, found.message),
      found.then ? h("p", {}, found.then) : null,
      h("p", { class: "then" }, `${found.reason}, `, moment(found.at))));

function steps(view) {
  return h("ol", { class: "steps" }, view.steps.map((step) =>
    h("li", { class: step.state, "data-key": step.number, "aria-current": step.state === "current" ? "step" : null },
      h("span", { class: "knob" }, { passed: icon("good"), failed: icon("bad") }[step.state] ?? String(step.number)),
      h("strong", {}, step.title),
      h("span", { class: "words" }, step.until ? moment(step.until, "until") : step.words),
      step.approval ? h("span", { class: `ask ${step.approved ? "given" : ""}` }, icon("person"), step.approved ? "approved" : "needs approval") : null)));
}

function traffic(view, width) {
  const chart = view.chart;
  const told = chart.points.some((point) => point.source === "event");
  return [
    split(view),
    h("figure", {},
      weightChart(chart, width),
      h("figcaption", { class: "legend" },
        h("span", { class: "key canary" }, "weight of the canary"),
        told ? h("span", { class: "key told" }, "as an Event told") : null,
        chart.planned.length ? h("span", { class: "key planned" }, "planned") : null,
        chart.traffic.length ? h("span", { class: "key measured" }, "share of the requests, as Prometheus counted") : null,
        h("span", { class: "muted" }, "times are UTC"))),
    chart.points.length ? null : h("p", { class: "muted" },
      "Nobody watched this rollout: a chart begins when the dashboard does, or with the Events that are still there."),
    table("Weights as a table", ["Since", "Weight", "Known from"], chart.points.map((p) => [stamp(p.at), `${p.weight}%`, p.source])),
  ];
}

// Who gets what now, as one bar.
function split(view) {
  if (view.weight == null || !view.stable) return null;
  return h("div", { class: "split" },
    h("span", { class: "who-stable" }, `${view.stable} ${100 - view.weight}%`),
    s("svg", { class: "bar", viewBox: "0 0 100 10", preserveAspectRatio: "none", role: "img",
      "aria-label": `${100 - view.weight}% to stable, ${view.weight}% to the canary` },
      s("rect", { class: "rest", width: 100, height: 10 }), s("rect", { class: "kept", width: 100 - view.weight, height: 10 })),
    h("span", { class: "who-canary" }, `${view.canary} ${view.weight}%`));
}

export const table = (title, head, rows) =>
  rows.length
    ? h("details", { class: "figures" }, h("summary", {}, title),
        h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": title },
          h("table", {}, h("thead", {}, h("tr", {}, head.map((cell) => h("th", { scope: "col" }, cell)))),
            h("tbody", {}, rows.map((row) => h("tr", {}, row.map((cell) => h("td", {}, cell ?? "–"))))))))
    : null;

function experiment(view) {
  if (!view.goals.length) return null;
  return section("goals", "A/B test", h("p", {}, view.experiment),
    h("ul", { class: "plain" }, view.goals.map((goal) => h("li", {}, h("strong", {}, goal.name), ` ${goal.verdict}: ${goal.message} `,
      h("span", { class: "muted" }, goal.evidence)))));
}

const gates = (found) =>
  h("ul", { class: "plain" }, found.map((gate) =>
    h("li", {}, h("strong", {}, gate.name), gate.approved ? " agrees" : " has not agreed", gate.message ? `: ${gate.message} ` : " ",
      gate.askedAt ? h("span", { class: "muted" }, moment(gate.askedAt)) : null)));

const WIDE = ["Digest", "Model", "Note"];

function revision(found) {
  const facts = [
    ["Weight", found.weight == null ? null : `${found.weight}%`],
    ["Pods", found.pods],
    ["Digest", found.digest ? h("code", {}, `sha256:${found.digest.replace(/^sha256:/, "")}`) : found.role === "stable" || found.role === "canary" ? "not pinned by the spec" : null],
    ["Model", found.source ? h("code", {}, found.source) : null],
    ["Lineage", found.lineage],
    ["Takes", found.inputs ? h("code", {}, found.inputs) : null],
    ["Gives", found.outputs ? h("code", {}, found.outputs) : null],
    ["Note", found.note],
  ].filter(([, value]) => value != null);
  return h("article", { class: `revision r-${found.role.replace(/ .*/, "")}`, "data-key": found.role + found.revision },
    h("h3", {}, h("span", { class: "role" }, found.role), " ", h("span", { class: "label" }, found.label)),
    h("dl", {}, facts.map(([name, value]) => h("div", { class: WIDE.includes(name) ? "wide" : "" }, h("dt", {}, name), h("dd", {}, value)))));
}

const OUTCOMES = { Promoted: "good", Deployed: "good", RolledBack: "bad", Superseded: "wait" };

const endings = (found) =>
  found.length
    ? h("ol", { class: "log" }, found.map((each) => h("li", { "data-key": each.finishedAt + each.label },
        h("span", { class: `badge ${OUTCOMES[each.outcome] ?? "wait"}` }, icon(OUTCOMES[each.outcome] ?? "wait"), each.outcome.replace("RolledBack", "Rolled back")),
        h("span", { class: "label" }, each.label), h("span", { class: "muted" }, moment(each.finishedAt)), h("p", {}, each.message))))
    : h("p", { class: "empty" }, "No rollout has ended yet.");

const deeds = (found) =>
  found.length
    ? h("ol", { class: "log" }, found.map((each) => h("li", { "data-key": each.at + each.verb },
        h("span", { class: "badge wait" }, icon("person"), each.verb), h("span", { class: "label" }, each.by),
        h("span", { class: "muted" }, moment(each.at)), h("p", {}, each.message))))
    : h("p", { class: "empty" }, "Nobody has given a command.");

const EVENTS_AT_ONCE = 6;

function events(found) {
  if (!found.length) return h("p", { class: "empty" }, "No Events: Kubernetes keeps them for an hour as a rule.");
  const earlier = found.slice(EVENTS_AT_ONCE);
  return [
    h("ol", { class: "log" }, found.slice(0, EVENTS_AT_ONCE).map(eventLine)),
    earlier.length ? h("details", { class: "figures" }, h("summary", {}, `${earlier.length} earlier`), h("ol", { class: "log" }, earlier.map(eventLine))) : null,
  ];
}

const eventLine = (each) =>
  h("li", { "data-key": `${each.at}${each.reason}${each.message.slice(0, 40)}` },
    h("span", { class: `badge ${each.warning ? "bad" : "plain"}` }, each.warning ? icon("degraded") : null, each.reason),
    h("span", { class: "muted" }, moment(each.at)), h("p", {}, each.message));
