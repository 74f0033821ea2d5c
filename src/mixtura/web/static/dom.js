/** Elements, numbers and dates: what every part of the page draws with. */

const SVG = "http://www.w3.org/2000/svg";

/**
 * An element. Attributes that are null, undefined or false are left out; `on...` are listeners; `style` is an object
 * (the content security policy allows style only by script).
 * @param {string} tag
 * @param {Object<string, any>} [attributes]
 * @param {...any} children nodes and texts, nested lists of them, or null
 * @returns {any}
 */
export function h(tag, attributes, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

/** The same for drawings. */
export function svg(tag, attributes, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

function filled(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "style") Object.entries(value).forEach(([key, set]) => node.style.setProperty(key, String(set)));
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...flat(children));
  return node;
}

function flat(children) {
  return children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false);
}

/** Put new children in place of the old. */
export function replace(node, ...children) {
  node.replaceChildren(...flat(children));
}

export const find = (selector, within = document) => within.querySelector(selector);

/** Say something to a screen reader, also when it is the same as before. */
export function say(text) {
  const region = find("#said");
  region.textContent = "";
  setTimeout(() => (region.textContent = text), 50);
}

/** A share as people read it, as the command line writes it: 0.003 is "0.3%", 0.43 is "43%". */
export function percent(share) {
  const value = 100 * share;
  if (value > 99.9) return value < 100 ? "over\u00a099.9%" : "100%";
  if (value >= 10 || value === Math.round(value)) return `${value.toFixed(0)}%`;
  return value >= 0.1 ? `${value.toFixed(1)}%` : "under\u00a00.1%";
}

/** "1 photo", "2 photos". */
export const count = (number, one, many = `${one}s`) => `${number} ${number === 1 ? one : many}`;

const MOMENT = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });

/** A moment in the reader's time zone. */
export function moment(iso) {
  const date = new Date(iso);
  return h("time", { datetime: iso }, Number.isNaN(date.getTime()) ? iso : MOMENT.format(date));
}

export const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

/** Run work that a button started: no second click meanwhile, and the focus stays where it is. */
export async function busy(button, work) {
  if (button.getAttribute("aria-disabled") === "true") return;
  button.setAttribute("aria-disabled", "true");
  try {
    await work();
  } finally {
    button.removeAttribute("aria-disabled");
  }
}

/** A button that runs work; trouble goes to `failed`. */
export function button(label, work, { kind = "", failed, ...rest } = {}) {
  const node = h("button", { type: "button", class: kind, ...rest }, label);
  node.addEventListener("click", () => busy(node, () => Promise.resolve(work(node)).catch(failed)));
  return node;
}
