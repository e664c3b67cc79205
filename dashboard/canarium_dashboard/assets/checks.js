// Cards of the checks: value, limit, baseline, how sure that is, and what evidence is missing.

import { checkChart } from "./charts.js";
import { table } from "./detail.js";
import { h } from "./dom.js";
import { verdict } from "./icons.js";
import { moment, stamp, valueText } from "./words.js";

const GAP = 16;
const PADDING = 34;

export function checkCards(checks, width) {
  const columns = Math.min(width >= 1020 ? 3 : width >= 640 ? 2 : 1, Math.max(2, checks.length));
  const inner = Math.floor((width - GAP * (columns - 1)) / columns) - PADDING;
  return h("div", { class: `cards of-${columns}` }, checks.map((check) => card(check, inner)));
}

function card(check, width) {
  const id = `check-${check.name}`;
  return h("article", { class: `card ${check.tone}`, "data-key": check.name, "aria-labelledby": id },
    h("header", {}, h("h3", { id }, check.name),
      verdict(check.tone, check.verdictWords), check.dryRun ? h("span", { class: "badge plain" }, "dry run") : null),
    h("dl", { class: "figures-now" },
      fact("Canary", check.value, "who-canary"), fact("Stable", check.baseline, "who-stable"), fact("Limit", check.limit, "limit-words")),
    check.points.length
      ? h("figure", {}, checkChart(check, width),
          h("figcaption", { class: "legend" },
            h("span", { class: "key canary" }, "canary"), h("span", { class: "key stable" }, "stable"),
            check.points.some((p) => p.low != null) ? h("span", { class: "key band" }, "where it may lie") : null,
            check.limits.map((limit) => h("span", { class: "key limit" }, limit.words))))
      : h("p", { class: "empty" }, "No measurement was watched yet."),
    check.effect ? h("p", { class: "effect" }, check.effect, check.pValue ? h("span", { class: "muted" }, ` (${check.pValue})`) : null) : h("p", { class: "effect" }, check.message),
    check.evidence.map(evidence),
    check.eta ? h("p", { class: "muted" }, "Enough at the present rate ", moment(check.eta, "eta")) : null,
    check.failures ? h("p", { class: "muted" }, `${check.failures} measurements of this step broke a limit`) : null,
    check.errors ? h("p", { class: "muted" }, `${check.errors} measurements in a row failed`) : null,
    table(`Measurements of ${check.name}`, ["At", "Canary", "Stable", "May lie between"],
      check.points.slice(-40).reverse().map((p) => [stamp(p.at), valueText(p.value, check.unit), valueText(p.baseline, check.unit),
        p.low == null ? null : `${valueText(p.low, check.unit)} and ${valueText(p.high, check.unit)}`])),
    check.query ? h("details", { class: "figures" }, h("summary", {}, `Query of ${check.name}`), h("pre", { tabindex: "0" }, check.query)) : null);
}

const fact = (name, value, kind) => h("div", {}, h("dt", {}, name), h("dd", { class: kind }, value ?? "–"));

function evidence(found) {
  const enough = found.have >= found.need;
  return h("label", { class: `evidence ${enough ? "enough" : ""}` },
    h("span", {}, found.words), h("progress", { max: found.need, value: Math.min(found.have, found.need) }));
}
