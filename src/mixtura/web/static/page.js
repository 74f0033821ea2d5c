/** Which part of the page is shown, by the address: #classify, #products, #products/ID, #new, #history, #drift. */

import { ask } from "./api.js";
import { find, h, replace } from "./dom.js";
import { show as classify } from "./classify.js";
import { show as drift } from "./drift.js";
import { show as history } from "./history.js";
import { show as unknowns } from "./new.js";
import { show as products } from "./products.js";
import { complain, hush } from "./notice.js";
import { askForToken, keep, takeFromAddress, token } from "./token.js";

const VIEWS = { classify, products, new: unknowns, history, drift };
const SHOP = document.title;

let shown = null;
let turn = 0;

function place() {
  const [name, rest] = decodeURIComponent(location.hash.slice(1)).split("/");
  return Object.hasOwn(VIEWS, name) ? { name, rest } : { name: "classify", rest: undefined };
}

/** Show what the address says; a heading takes the focus when the person went there. */
async function go({ moved }) {
  const { name, rest } = place();
  const section = find(`[data-view=${name}]`);
  document.querySelectorAll("[data-view]").forEach((each) => (each.hidden = each !== section));
  document.querySelectorAll("header nav a").forEach((link) => mark(link, name));
  document.title = `${find("h1", section).textContent} · ${SHOP}`;
  if (moved) find("h1", section).focus({ preventScroll: true });
  if (moved) scrollTo(0, 0);
  await draw(name, rest, find(".body", section));
}

function mark(link, name) {
  if (link.getAttribute("href") === `#${name}`) link.setAttribute("aria-current", "page");
  else link.removeAttribute("aria-current");
}

async function draw(name, rest, body) {
  const mine = ++turn;
  const current = `${name}/${rest ?? ""}`;
  if (shown !== current && name !== "classify") replace(body, h("p", { class: "soft" }, "One moment …"));
  shown = current;
  body.setAttribute("aria-busy", "true");
  const screen = name === "classify" ? body : h("div");
  try {
    await VIEWS[name](screen, rest);
    if (mine === turn && screen !== body) swap(body, screen);
  } catch (error) {
    if (mine === turn) complain(error, () => draw(name, rest, body));
  } finally {
    body.removeAttribute("aria-busy");
  }
}

/** Put the new in place of the old; what had the focus may be gone, then the heading gets it. */
function swap(body, screen) {
  const { activeElement: had } = document;
  const first = !body.dataset.drawn;
  body.dataset.drawn = "true";
  replace(body, ...screen.childNodes);
  if (first || (had.isConnected && had !== document.body)) return;
  const same = had.id && document.getElementById(had.id);
  (same || find("h1", body.closest("section"))).focus({ preventScroll: true });
}

function tokenButton() {
  replace(find("#token"), token() ? "Forget the token" : "Enter token");
}

async function sayModel() {
  const { model, classes } = await ask("/v1/model");
  if (model) replace(find("#model"), ` · model ${model} · ${classes} products`);
}

addEventListener("hashchange", () => {
  if (takeFromAddress()) return;
  go({ moved: true });
});
document.addEventListener("catalog", () => {
  sayModel().catch(() => null);
  if (place().name !== "classify") go({ moved: false });
});
find("header nav").addEventListener("click", hush);
find(".skip").addEventListener("click", (event) => {
  event.preventDefault(); // the part of the address behind # names what is shown
  find("#main").focus();
});
document.addEventListener("token", tokenButton);
find("#token").addEventListener("click", () =>
  token() ? keep(null) : askForToken("With the token the catalog can be changed."),
);

takeFromAddress();
tokenButton();
classify(find("[data-view=classify] .body")); // takes what is dropped on any part of the page
go({ moved: false });
sayModel().catch(() => null);
