/** What has just happened: said once, shown at the foot of the page until something else happens. */

import { ask } from "./api.js";
import { button, count, find, h, replace } from "./dom.js";

const region = (role) => find(`#notice [role=${role}]`);

/** Say that something is done; `more` is a button to go on with. */
export function tell(words, more) {
  replace(region("alert"));
  replace(region("status"), h("p", {}, words), more, closer());
}

/** Say what went wrong; with `again`, offer to repeat it. */
export function complain(error, again) {
  replace(region("status"));
  const repeat = again && button("Try again", () => (hush(), again()), { failed: (next) => complain(next, again) });
  replace(region("alert"), h("p", {}, error.message || String(error)), repeat, closer());
}

export function hush() {
  replace(region("status"));
  replace(region("alert"));
}

const closer = () =>
  h("button", { type: "button", class: "quiet", "aria-label": "Close the message", onclick: hush }, "✕");

/** Whatever shows the catalog draws itself again. */
export const changed = () => document.dispatchEvent(new Event("catalog"));

/**
 * Say what an edit did, and offer to undo it.
 * @param {{edit: {summary: string}}} effect
 */
export function tellEffect(effect) {
  tell(effectWords(effect), button("Undo", undo, { failed: (error) => complain(error) }));
  changed();
}

/** Undo the last edit. */
export async function undo() {
  const effect = await ask("/v1/undo", { method: "POST" });
  tell(effectWords(effect));
  changed();
}

/** An edit and what it did to the products that were there before. */
export function effectWords({ edit, before, after, tested, notes }) {
  return [sentence(edit.summary), accuracyWords(before, after, tested), ...(notes ?? []).map(sentence)]
    .filter(Boolean)
    .join(" ");
}

function accuracyWords(before, after, tested) {
  if (typeof before !== "number" || typeof after !== "number") return "";
  const photos = count(tested, "test photo");
  const [was, is] = [before, after].map((share) => `${(100 * share).toFixed(1)}\u00a0%`);
  if (was === is) return `The earlier products are recognized as before: ${is} of ${photos}.`;
  return `Of ${photos} of the earlier products, ${was} were right before and ${is} are now.`;
}

function sentence(text) {
  const start = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?]$/.test(start) ? start : `${start}.`;
}
