/** The token that changes need: from the address that `mixtura serve` prints, or typed in; gone with the tab. */

import { h } from "./dom.js";
import { dialog } from "./dialog.js";

const KEY = "mixtura-token";
let current = stored();
let asking = null;

function stored() {
  try {
    return sessionStorage.getItem(KEY);
  } catch {
    return null; // storage is switched off: the token lives as long as the page
  }
}

export const token = () => current;

export function keep(value) {
  current = value || null;
  try {
    if (current) sessionStorage.setItem(KEY, current);
    else sessionStorage.removeItem(KEY);
  } catch {
    /* as above */
  }
  document.dispatchEvent(new Event("token"));
}

/** Take `#token=...` out of the address, so that it is in no bookmark, screenshot or history. */
export function takeFromAddress() {
  const found = /^#token=(.+)$/.exec(location.hash);
  if (!found) return false;
  keep(decodeURIComponent(found[1]));
  history.replaceState(null, "", location.pathname + location.search);
  return true;
}

/**
 * Ask for the token, once for all requests that wait for it.
 * @param {string} why
 * @returns {Promise<string | null>} null if the person would rather not
 */
export function askForToken(why) {
  asking ??= new Promise((resolve) => {
    const field = h("input", {
      id: "token-field",
      name: "token",
      required: true,
      autocomplete: "off",
      spellcheck: "false",
    });
    dialog("Token", {
      body: [
        h("p", {}, why),
        h(
          "p",
          { class: "soft" },
          "It is the part after #token= in the address that ",
          h("code", {}, "mixtura serve"),
          " printed.",
        ),
        h("label", { for: "token-field" }, "Token"),
        field,
      ],
      submit: "Use this token",
      work: async () => keep(field.value.trim()),
      closed: (done) => resolve(done ? current : null),
    });
  }).finally(() => (asking = null));
  return asking;
}
