/** The first page: a photo in, a verdict out, and what a person knows better. */

import { ask } from "./api.js";
import { correct, addProduct } from "./teach.js";
import { button, count, find, h, replace, say } from "./dom.js";
import { complain, tell } from "./notice.js";
import { chooser, hasCamera, MAX_PHOTOS, photosOf, ready } from "./photo.js";
import { chip, evidence, headline, mark } from "./verdict.js";

const KEPT = 12; // photos in the row of what was asked

/**
 * What was asked in this tab, newest first; nothing of it outlives the tab.
 * @type {{file: File, url: string, decision?: any, trouble?: Error, stale?: boolean}[]}
 */
const asked = [];
let current = null;
let parts = null;

/** The photo of a decision that was made in this tab, or null. */
export const photoOf = (id) => asked.find(({ decision }) => decision?.decision_id === id)?.url ?? null;

/** Draw the page; the first time, also begin to listen for what is dropped and pasted anywhere. */
export async function show(body) {
  if (!parts) {
    parts = made();
    replace(body, parts.photo, parts.answer, parts.kept);
    listen();
    ask("/v1/model").then(sayWhatIsKept, () => null);
  }
  draw();
}

function made() {
  const preview = h("div", { class: "preview" });
  const row = h("ul", { class: "asked", "aria-label": "Photos asked about" });
  const buttons = h(
    "p",
    { class: "buttons" },
    hasCamera() && chooser("Take a photo", { camera: true, kind: "primary", chosen: take }),
    chooser("Choose a photo", { kind: hasCamera() ? "" : "primary", chosen: take }),
  );
  return {
    preview,
    row,
    photo: h("div", { class: "photo" }, preview, buttons, row),
    kept: h("p", { class: "soft kept", id: "kept" }),
    answer: h("div", { class: "answer", role: "region", tabindex: -1, "aria-label": "Answer" }),
  };
}

function sayWhatIsKept({ keep_photos: keep }) {
  const words = keep
    ? "A small copy of each photo is kept beside the catalog, on the server."
    : "The photo is not kept, only the numbers that were computed from it.";
  replace(find("#kept"), words);
}

function listen() {
  document.addEventListener("paste", (event) => {
    const files = photosOf(event.clipboardData?.files ?? []);
    if (files.length && !find("dialog[open]")) take(files);
  });
  let depth = 0; // of dragenter: one more for each element on the way
  const over = (by) => {
    depth = by === 0 ? 0 : depth + by;
    document.body.classList.toggle("over", depth > 0);
  };
  document.addEventListener("dragenter", () => over(1));
  document.addEventListener("dragleave", () => over(-1));
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    over(0);
    const files = photosOf(event.dataTransfer?.files ?? []);
    if (files.length) take(files);
    else tell("That was no photo. Drop a JPEG, PNG, WebP, GIF or BMP file.");
  });
  document.addEventListener("catalog", () => {
    asked.forEach((entry) => (entry.stale = true));
    draw();
  });
}

/** Ask about photos, one after another. */
async function take(files) {
  location.hash = "#classify";
  if (files.length > MAX_PHOTOS) tell(`The first ${MAX_PHOTOS} of ${count(files.length, "photo")} are classified.`);
  const entries = [...files].slice(0, MAX_PHOTOS).map((file) => ({ file, url: URL.createObjectURL(file) }));
  asked.unshift(...entries);
  asked.splice(Math.max(KEPT, entries.length)).forEach(({ url }) => URL.revokeObjectURL(url));
  current = entries[0];
  for (const entry of entries) await decide(entry);
}

async function decide(entry) {
  delete entry.decision;
  delete entry.trouble;
  entry.stale = false;
  draw();
  try {
    const body = await ready(entry.file);
    const type = body.type || "image/jpeg";
    const answer = await ask("/v1/classify?neighbors=3", { method: "POST", body, type });
    entry.decision = answer.decisions[0];
    const { components, classes } = answer.model;
    entry.kinds = components > classes || entry.decision.subclass > 0;
  } catch (error) {
    entry.trouble = error;
  }
  draw();
  if (entry !== current) return;
  say(spoken(entry));
  find(".verdict", parts.answer)?.scrollIntoView({ block: "nearest" });
}

function spoken({ decision, trouble }) {
  return trouble ? trouble.message : `${decision.verdict}: ${headline(decision)}. ${decision.sentence}`;
}

function draw() {
  const focused =
    parts.answer.contains(document.activeElement) || (current && document.activeElement === document.body);
  drawPreview();
  drawRow();
  replace(parts.answer, answer());
  if (focused) (find("#again") ?? parts.answer).focus(); // what had it is gone
}

function drawPreview() {
  const empty = h("p", {}, h("b", {}, "Drop a photo here"), h("span", {}, "or paste one"));
  const name = current && (current.file.name || "pasted photo");
  const old = find("img", parts.preview);
  if (!current) replace(parts.preview, empty);
  else if (old?.src !== current.url) replace(parts.preview, h("img", { src: current.url, alt: `Your photo: ${name}` }));
}

function drawRow() {
  const items = asked.map((entry, index) => {
    const said = entry.decision ? headline(entry.decision) : entry.trouble ? "not read" : "asking";
    const node = h(
      "button",
      {
        type: "button",
        "aria-current": entry === current ? "true" : null,
        "aria-label": `Photo ${index + 1}: ${said}`,
        onclick: () => choose(entry),
      },
      h("img", { src: entry.url, alt: "", width: 56, height: 56 }),
      entry.decision && h("span", { class: `dot ${entry.decision.verdict}` }, mark(entry.decision.verdict)),
    );
    return h("li", {}, node);
  });
  replace(parts.row, asked.length > 1 ? items : null);
}

function choose(entry) {
  current = entry;
  draw();
  find("[aria-current=true]", parts.row)?.focus();
  if (entry.decision || entry.trouble) say(spoken(entry));
}

function answer() {
  if (!current) return meanings();
  if (current.trouble) return troubled(current);
  if (!current.decision) return h("p", { class: "lead soft" }, "Looking …");
  const { decision, kinds } = current;
  return [
    h("div", { class: "verdict" }, chip(decision.verdict), h("h2", {}, headline(decision))),
    actions(current),
    h("div", { class: "evidence" }, evidence(decision, kinds)),
    h("p", { class: "soft fine" }, `Answered by model ${decision.model}.`),
  ];
}

/** What the three verdicts mean, before there is one. */
function meanings() {
  const words = {
    match: "It is this product.",
    unsure: "It is one of yours, but two of them compete.",
    unknown: "It is none of yours, or nothing like the photos they were learned from.",
  };
  const rows = Object.entries(words).map(([verdict, said]) => h("li", {}, chip(verdict), h("span", {}, said)));
  return [
    h("p", { class: "lead soft" }, "The answer comes here. It is one of three:"),
    h("ul", { class: "meanings" }, rows),
  ];
}

function troubled(entry) {
  const again = button("Try again", () => decide(entry), { kind: "primary" });
  return [
    h("h2", {}, "No answer"),
    h("p", { class: "lead trouble" }, entry.trouble.message),
    h("p", { class: "buttons" }, again),
  ];
}

function actions(entry) {
  const { decision, file, url } = entry;
  const failed = (error) => complain(error);
  const kind = (verdict) =>
    decision.verdict === verdict && decision.reason !== "bad_photo" && !entry.stale ? "primary" : "";
  const again = entry.stale && button("Ask again", () => decide(entry), { kind: "primary", id: "again" });
  const right =
    decision.verdict !== "unknown" &&
    button("That is right", () => feedback(decision, candidate(decision)), { failed });
  return h(
    "p",
    { class: "buttons" },
    again,
    right,
    button("Correct this", () => correct(decision, file), { kind: kind("unsure"), failed }),
    button("Not in the catalog", () => feedback(decision, null), { failed }),
    button("Add as new product", () => addProduct(decision, file, url, focusAgain), { kind: kind("unknown"), failed }),
  );
}

const candidate = ({ candidates }) => candidates[0];
const focusAgain = () => find("#again")?.focus();

/** Tell the server what it was; it learns from that when its limits are set anew. */
async function feedback({ decision_id }, product) {
  await ask("/v1/feedback", { method: "POST", json: { decision: decision_id, product: product?.id ?? null } });
  tell(product ? `Noted: it was ${product.label}.` : "Noted: it is not in the catalog.");
}
