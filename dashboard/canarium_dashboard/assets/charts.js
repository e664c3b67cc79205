// Charts as SVG. Only what was measured is drawn: a line breaks where a value is missing, and what was not watched is
// hatched. Each chart is an image with a name for who does not see it; the figures are in a table beside it.

import { s } from "./dom.js";
import { axisTime, now, valueText } from "./words.js";

const MARGIN = { left: 46, right: 14, top: 10, bottom: 22 };

function frame(width, height, from, to, low, high) {
  const right = width - MARGIN.right;
  const bottom = height - MARGIN.bottom;
  const span = Math.max(to - from, 1);
  return {
    width, height, from, to, low, high, right, bottom,
    x: (at) => MARGIN.left + ((at - from) / span) * (right - MARGIN.left),
    y: (value) => bottom - ((value - low) / (high - low || 1)) * (bottom - MARGIN.top),
  };
}

const image = (box, name, ...children) =>
  s("svg", { class: "chart", viewBox: `0 0 ${box.width} ${box.height}`, width: box.width, height: box.height,
    role: "img", "aria-label": name }, children);

const text = (x, y, words, attributes) => s("text", { x: round(x), y: round(y), ...attributes }, words);
const round = (number) => Math.round(number * 10) / 10;
const line = (x1, y1, x2, y2, kind) =>
  s("line", { x1: round(x1), y1: round(y1), x2: round(x2), y2: round(y2), class: kind });

const SPACINGS = [5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400, 172800, 604800];

function timeAxis(box) {
  const most = Math.max(2, Math.floor((box.right - MARGIN.left) / 110));
  const seconds = (box.to - box.from) / 1000;
  const spacing = (SPACINGS.find((each) => seconds / each <= most) ?? Math.ceil(seconds / most)) * 1000;
  const ticks = [];
  for (let at = Math.ceil(box.from / spacing) * spacing; at <= box.to; at += spacing) ticks.push(at);
  return ticks.map((at) => {
    const x = box.x(at);
    const place = x > box.right - 24 ? "end" : x < MARGIN.left + 18 ? "start" : "middle";
    return [line(x, box.bottom, x, box.bottom + 4, "grid"),
      text(x, box.height - 5, axisTime(at, spacing), { class: "tick", "text-anchor": place })];
  });
}

function valueAxis(box, ticks, words) {
  return ticks.map((value) => [
    line(MARGIN.left, box.y(value), box.right, box.y(value), "grid"),
    text(MARGIN.left - 7, box.y(value) + 3.5, words(value), { class: "tick", "text-anchor": "end" }),
  ]);
}

// The canary's weight as steps from each change to the next.
export function weightChart(chart, width) {
  const from = Date.parse(chart.start);
  const to = Math.max(chart.end ? Date.parse(chart.end) : now(), from + 1000);
  // As high as the next step that is planned: 1 % and 5 % would be one line on a scale of 100.
  const seen = Math.max(0, ...chart.points.map((p) => p.weight), ...chart.traffic.map((p) => p.share * 100));
  const ticks = niceTicks(0, chart.planned.find((weight) => weight > seen) ?? 100);
  const box = frame(width, width < 500 ? 190 : 230, from, to, 0, ticks[ticks.length - 1]);
  const points = chart.points.map((p) => ({ ...p, t: Math.max(from, Date.parse(p.at)) }));
  const ends = points.map((p, i) => (i + 1 < points.length ? points[i + 1].t : to));
  let path = "";
  points.forEach((p, i) => {
    path += `${i ? "V" : `M${round(box.x(p.t))} `}${round(box.y(p.weight))}H${round(box.x(ends[i]))}`;
  });
  const parts = [valueAxis(box, ticks, (v) => `${v}%`), plannedMarks(box, chart)];
  const known = points.length ? points[0].t : to;
  if (known - from > (to - from) * 0.01) parts.push(unknown(box, from, known));
  if (points.length) {
    const start = round(box.x(points[0].t));
    parts.push(s("path", { class: "area", d: `${path}V${round(box.y(0))}H${start}Z` }));
    parts.push(s("path", { class: "canary", d: path }));
  }
  const traffic = chart.traffic.map((p) => ({ t: Date.parse(p.at), v: p.share * 100 })).filter((p) => p.t >= from && p.t <= to);
  if (traffic.length) {
    parts.push(s("path", { class: "measured", d: broken(box, traffic.map((p) => [p.t, p.v])) }));
    parts.push(traffic.map((p) => s("circle", { class: "measured-dot", cx: round(box.x(p.t)), cy: round(box.y(p.v)), r: 1.8 })));
  }
  parts.push(points.map((p) => s("circle", {
    class: p.source === "event" ? "dot told" : "dot", cx: round(box.x(p.t)), cy: round(box.y(p.weight)), r: 3.2 })));
  parts.push(timeAxis(box));
  return image(box, chart.alternative, parts);
}

function plannedMarks(box, chart) {
  return chart.planned.filter((weight) => weight <= box.high).map((weight) => line(box.right, box.y(weight), box.right + 8, box.y(weight), "planned"));
}

function unknown(box, from, to) {
  const x = box.x(from);
  const size = box.x(to) - x;
  const id = "hatch";
  return [
    s("defs", {}, s("pattern", { id, width: 7, height: 7, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" },
      s("rect", { width: 1.2, height: 7, class: "hatch" }))),
    s("rect", { x: round(x), y: MARGIN.top, width: round(size), height: round(box.bottom - MARGIN.top), fill: `url(#${id})` }),
    size > 90 ? text(x + size / 2, (MARGIN.top + box.bottom) / 2, "not watched", { class: "note", "text-anchor": "middle" }) : null,
  ];
}

// A check: stable's value, the canary's with its confidence band, and the limits.
export function checkChart(check, width) {
  const points = check.points.map((p) => ({ ...p, t: Date.parse(p.at) }));
  if (!points.length) return null;
  // One measurement alone stands in the middle, with its band as a bar.
  const alone = points.length === 1 ? 5000 : 0;
  const [from, to] = [points[0].t - alone, points[points.length - 1].t + alone];
  const known = points.flatMap((p) => [p.value, p.baseline]).concat(check.limits.map((l) => l.value)).filter((v) => v != null);
  const [least, usual] = [Math.min(...known), Math.max(...known)];
  // The band of the last measurement is shown whole, unless it is so wide that nothing else could be seen.
  const widest = points[points.length - 1].high ?? usual;
  const most = widest < usual * 2 ? Math.max(usual, widest) : usual;
  const positive = check.unit !== "number" || least >= 0;
  const low = positive && (check.unit !== "number" || least < most * 0.5) ? 0 : least - (most - least || 1) * 0.25;
  const ticks = niceTicks(low, most + (most - low || 0.001) * 0.18);
  const box = frame(width, 158, from, to, low === 0 ? 0 : ticks[0], ticks[ticks.length - 1]);
  const shown = ticks.filter((t) => t >= box.low);
  const parts = [
    s("defs", {}, s("clipPath", { id: `clip-${check.name}` },
      s("rect", { x: MARGIN.left, y: MARGIN.top - 2, width: box.right - MARGIN.left, height: box.bottom - MARGIN.top + 3 }))),
    valueAxis(box, shown, (v) => valueText(v, check.unit)),
  ];
  const curves = [];
  for (const area of runs(points, (p) => p.low != null && p.high != null)) {
    if (area.length === 1) {
      const [only] = area;
      curves.push(s("rect", { class: "band", x: round(box.x(only.t) - 7), width: 14, y: round(box.y(only.high)), height: round(box.y(only.low) - box.y(only.high)) }));
      continue;
    }
    const upper = area.map((p) => `${round(box.x(p.t))} ${round(box.y(p.high))}`);
    const lower = area.map((p) => `${round(box.x(p.t))} ${round(box.y(p.low))}`).reverse();
    curves.push(s("path", { class: "band", d: `M${[...upper, ...lower].join("L")}Z` }));
  }
  for (const limit of check.limits) curves.push(line(MARGIN.left, box.y(limit.value), box.right, box.y(limit.value), "limit"));
  curves.push(s("path", { class: "stable", d: broken(box, points.map((p) => [p.t, p.baseline])) }));
  curves.push(s("path", { class: "canary", d: broken(box, points.map((p) => [p.t, p.value])) }));
  parts.push(s("g", { "clip-path": `url(#clip-${check.name})` }, curves));
  const last = points.findLast((p) => p.value != null);
  if (alone && points[0].baseline != null) parts.push(s("circle", { class: "dot-stable", cx: round(box.x(points[0].t)), cy: round(box.y(points[0].baseline)), r: 3.4 }));
  if (last) parts.push(s("circle", { class: "dot", cx: round(box.x(last.t)), cy: round(box.y(last.value)), r: 3.4 }));
  parts.push(timeAxis(box));
  return image(box, check.alternative, parts);
}

function broken(box, pairs) {
  return runs(pairs, ([, value]) => value != null)
    .map((run) => `M${run.map(([t, v]) => `${round(box.x(t))} ${round(box.y(v))}`).join("L")}${run.length === 1 ? "h.1" : ""}`)
    .join("");
}

function runs(items, keeps) {
  const found = [];
  let open = null;
  for (const item of items) {
    if (!keeps(item)) open = null;
    else if (open) open.push(item);
    else found.push((open = [item]));
  }
  return found;
}

function niceTicks(low, high) {
  const rough = (high - low) / 3;
  const size = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((n) => n * size).find((n) => n >= rough) ?? 10 * size;
  const first = Math.floor(low / step) * step;
  const ticks = [];
  for (let value = first; ticks.length < 8; value += step) {
    ticks.push(Number(value.toPrecision(12)));
    if (value >= high) break;
  }
  return ticks;
}
