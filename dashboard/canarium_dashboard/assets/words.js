// Times and numbers in words. The clock is the server's: a wrong clock of this machine shows nothing wrong.

import { h } from "./dom.js";

let offset = 0;
export const setNow = (text) => (offset = Date.parse(text) - performance.now());
export const now = () => performance.now() + offset;

const two = (number) => String(number).padStart(2, "0");

export function spoken(milliseconds) {
  const seconds = Math.max(0, Math.round(milliseconds / 1000));
  const days = Math.floor(seconds / 86400);
  const hours = Math.floor(seconds / 3600) % 24;
  const minutes = Math.floor(seconds / 60) % 60;
  if (days) return hours ? `${days} d ${hours} h` : `${days} d`;
  if (hours) return minutes ? `${hours} h ${minutes} min` : `${hours} h`;
  if (minutes) return minutes < 10 && seconds % 60 ? `${minutes} min ${seconds % 60} s` : `${minutes} min`;
  return `${seconds} s`;
}

function relative(at, kind) {
  const passed = now() - at;
  if (kind === "until") return passed < -500 ? `${spoken(-passed)} left` : "over";
  if (kind === "eta") return passed < -500 ? `in ${spoken(-passed)}` : "at any moment";
  return passed < 1500 ? "just now" : `${spoken(passed)} ago`;
}

export const stamp = (text) => text.replace("T", " ").replace(/(\.\d+)?(Z|\+00:00)$/, " UTC");

// A moment as words that are kept true by `tickTimes`; the exact time is its title.
export function moment(text, kind = "ago") {
  if (!text) return null;
  return h("time", { datetime: text, title: stamp(text), "data-kind": kind }, relative(Date.parse(text), kind));
}

export function tickTimes(root) {
  for (const element of root.querySelectorAll("time[data-kind]")) {
    const words = relative(Date.parse(element.dateTime), element.dataset.kind);
    if (element.textContent !== words) element.textContent = words;
  }
}

// A tick of an axis: seconds where ticks are that close, the date where they are days apart.
export function axisTime(milliseconds, spacing) {
  const at = new Date(milliseconds);
  if (spacing >= 86400000) return `${two(at.getUTCMonth() + 1)}-${two(at.getUTCDate())}`;
  const words = `${two(at.getUTCHours())}:${two(at.getUTCMinutes())}`;
  return spacing < 60000 ? `${words}:${two(at.getUTCSeconds())}` : words;
}

export function valueText(value, unit) {
  if (value == null) return "–";
  const short = (number) => String(Number(number.toPrecision(3)));
  if (unit === "share") return `${short(value * 100)}%`;
  if (unit === "seconds") return Math.abs(value) >= 1 ? `${short(value)}s` : `${short(value * 1000)}ms`;
  return String(Number(value.toPrecision(4)));
}
