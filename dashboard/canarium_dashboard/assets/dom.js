// Making elements, and bringing what is shown to what shall be shown without losing focus, scroll or open details.
// Elements carry no listeners of their own: what a click means is in data attributes, and app.js listens.

const SVG = "http://www.w3.org/2000/svg";

function make(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children.flat(Infinity).filter((child) => child != null && child !== false));
  return element;
}

export const h = (tag, attributes, ...children) => make(document.createElement(tag), attributes, children);
export const s = (tag, attributes, ...children) => make(document.createElementNS(SVG, tag), attributes, children);

// What a person changes on the page itself stays as it is.
const OWN = { DETAILS: ["open"], DIALOG: ["open"] };

export function morph(live, fresh) {
  if (live.nodeType !== Node.ELEMENT_NODE) {
    if (live.nodeValue !== fresh.nodeValue) live.nodeValue = fresh.nodeValue;
    return;
  }
  const kept = OWN[live.nodeName] ?? [];
  for (const { name } of [...live.attributes]) {
    if (!fresh.hasAttribute(name) && !kept.includes(name)) live.removeAttribute(name);
  }
  for (const { name, value } of fresh.attributes) {
    if (live.getAttribute(name) !== value && !kept.includes(name)) live.setAttribute(name, value);
  }
  morphChildren(live, [...fresh.childNodes]);
}

export function morphChildren(parent, wanted) {
  const left = [...parent.childNodes];
  let place = parent.firstChild;
  for (const fresh of wanted) {
    const index = left.findIndex((node) => alike(node, fresh));
    if (index < 0) {
      parent.insertBefore(fresh, place);
      continue;
    }
    const [live] = left.splice(index, 1);
    if (live === place) place = place.nextSibling;
    else parent.insertBefore(live, place);
    morph(live, fresh);
  }
  for (const node of left) node.remove();
}

const keyOf = (node) => (node.nodeType === Node.ELEMENT_NODE ? node.getAttribute("data-key") : null);
const alike = (a, b) => a.nodeName === b.nodeName && keyOf(a) === keyOf(b);
