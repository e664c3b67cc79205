// Shapes beside words: no state is told by colour alone.

import { h, s } from "./dom.js";

const PATHS = {
  healthy: "M8 1.500a6.500 6.500 0 1 0 0 13 6.500 6.500 0 0 0 0-13zM5 8.200l2.100 2.100 4-4.300",
  degraded: "M8 1.800 15 14H1zM8 6.300v3.600M8 12v.1",
  waiting: "M8 1.500a6.500 6.500 0 1 0 0 13 6.500 6.500 0 0 0 0-13zM6.300 5.600v4.800M9.700 5.600v4.800",
  progressing: "M8 1.500a6.500 6.500 0 1 0 0 13 6.500 6.500 0 0 0 0-13zM8 4.600V8l2.400 1.600",
  unknown: "M8 1.500a6.500 6.500 0 1 0 0 13 6.500 6.500 0 0 0 0-13zM6.300 6.200a1.700 1.700 0 1 1 2.500 1.500c-.6.300-.8.600-.8 1.200M8 11.300v.1",
  good: "M3.500 8.300l3 3 6-6.600",
  bad: "M4.300 4.300l7.400 7.400M11.700 4.300l-7.400 7.400",
  wait: "M8 1.500a6.500 6.500 0 1 0 0 13 6.500 6.500 0 0 0 0-13zM8 4.600V8l2.400 1.600",
  auto: "M8 1.500a6.500 6.500 0 1 0 0 13 6.500 6.500 0 0 0 0-13zM8 1.500v13M8 4h4.500M8 8h6.400M8 12h4.500",
  light: "M8 5a3 3 0 1 0 0 6 3 3 0 0 0 0-6zM8 1v1.500M8 13.500V15M1 8h1.500M13.500 8H15M3 3l1.100 1.100M11.900 11.900 13 13M13 3l-1.100 1.100M4.100 11.900 3 13",
  dark: "M13.500 9.600A6 6 0 1 1 6.400 2.500a4.800 4.800 0 0 0 7.100 7.100z",
  person: "M8 7.500a2.600 2.600 0 1 0 0-5.200 2.600 2.600 0 0 0 0 5.200zM3 14c.4-3 2.300-4.600 5-4.600s4.600 1.600 5 4.600",
};

export const icon = (name) =>
  s("svg", { class: "icon", viewBox: "0 0 16 16", "aria-hidden": "true" }, s("path", { d: PATHS[name] ?? PATHS.unknown }));

export const badge = (health, words) => h("span", { class: `badge ${health}` }, icon(health), words);
export const verdict = (tone, words) => h("span", { class: `badge ${tone}` }, icon(tone), words);
