/** One decision, drawn: the verdict, whether the photo is in the catalog at all, which product, and the evidence. */

import { h, percent, svg } from "./dom.js";
import { picture } from "./pictures.js";

const TITLES = { match: "Match", unsure: "Unsure", unknown: "Unknown" };
const REASONS = {
  far_from_all: "It is far from every product of the catalog.",
  between_classes: "It lies between two products.",
  unusual_for_class: "It is near one product, but unusual for it.",
  bad_photo: "The photo itself is the trouble.",
};

/** The verdict in a few words, for headings and screen readers. */
export function headline(decision) {
  const [first, second] = decision.candidates;
  if (decision.verdict === "match") return decision.label;
  if (decision.verdict === "unsure" && second) return `${first.label} or ${second.label}?`;
  return decision.reason === "bad_photo" ? "Take another photo" : "Not in the catalog";
}

/** The whole evidence; `kinds` says whether products have kinds of their own. */
export function evidence(decision, kinds) {
  return [why(decision, kinds), inCatalog(decision), whichProduct(decision), nearest(decision)];
}

/** The verdict as a mark with a form of its own, so that it does not rest on color. */
export function chip(verdict) {
  return h("span", { class: `chip ${verdict}` }, mark(verdict), TITLES[verdict] ?? verdict);
}

/** The mark alone. */
export function mark(verdict) {
  const ring = { cx: 8, cy: 8, r: 6.5, class: "ring" };
  const drawings = {
    match: [svg("circle", { ...ring, class: "full" }), svg("path", { d: "M4.8 8.3l2.2 2.2 4.3-4.6", class: "stroke" })],
    unsure: [svg("circle", ring), svg("path", { d: "M8 1.5a6.5 6.5 0 0 1 0 13z", class: "full" })],
    unknown: [svg("circle", { ...ring, class: "ring dashed" })],
  };
  return svg("svg", { viewBox: "0 0 16 16", "aria-hidden": "true" }, drawings[verdict] ?? []);
}

/** Which kind of the product it is, in a sentence: by its name with its own numbers, or by number. */
function whichKind(decision, kinds) {
  const { label, reason, subclass, subclass_probability, subclass_typicality, subclass_typicality_of } = decision;
  if (reason === "bad_photo" || subclass === null || subclass === label) return null;
  if (typeof subclass === "number") return kinds && `The nearest is kind ${subclass + 1} of ${label}.`;
  const kind = `The kind is ${subclass}, with ${percent(subclass_probability)} if it is ${label}.`;
  return subclass_typicality_of === "subclass"
    ? `${kind} ${percent(subclass_typicality)} of genuine photos of this kind look at least this unusual.`
    : `${kind} It has too few photos for a typicality of its own.`;
}

function why(decision, kinds) {
  const subclass = whichKind(decision, kinds);
  return h(
    "div",
    { class: "why" },
    h("p", { class: "sentence" }, decision.sentence),
    decision.reason && h("p", {}, h("b", {}, "Why: "), REASONS[decision.reason] ?? decision.reason),
    decision.advice && h("p", {}, h("b", {}, "What helps: "), decision.advice),
    subclass && h("p", { class: "soft" }, subclass),
  );
}

/** Rare values get room: the scale is of square roots, and its marks say so. */
const place = (share) => `${100 * Math.sqrt(Math.min(Math.max(share, 0), 1))}%`;

function inCatalog({ typicality, threshold }) {
  const inside = typicality >= threshold;
  const said = `${percent(typicality)} of genuine photos look at least this unusual.`;
  const limit = `Below ${percent(threshold)} a photo counts as unknown.`;
  const meter = h(
    "div",
    {
      class: "meter",
      role: "meter",
      "aria-label": "Typicality",
      "aria-valuemin": 0,
      "aria-valuemax": 1,
      "aria-valuenow": typicality,
      "aria-valuetext": `${percent(typicality)}; the limit is ${percent(threshold)}`,
      style: { "--limit": place(threshold), "--value": place(typicality) },
    },
    h("i", { class: "outside" }),
    h("i", { class: "limit" }),
    h("i", { class: inside ? "needle" : "needle out" }),
  );
  const apart = (at) => Math.sqrt(at) - Math.sqrt(threshold) > 0.2; // so that the words do not touch
  const marks = [threshold, ...[0.25, 0.5, 1].filter(apart)].map((at) =>
    h("span", { style: { "--at": place(at) } }, at === threshold ? `limit ${percent(at)}` : percent(at)),
  );
  return h(
    "section",
    { class: "panel" },
    h("h3", {}, "Is it in the catalog at all?"),
    h("p", { class: "strong" }, inside ? "It looks as if it is." : "It does not look so."),
    meter,
    h("p", { class: "marks", "aria-hidden": "true" }, marks),
    h("p", { class: "soft" }, `${said} ${limit}`),
  );
}

function whichProduct({ candidates, verdict }) {
  const rows = candidates.map(({ label, probability, id }) =>
    h(
      "li",
      {},
      id ? h("a", { href: `#products/${id}` }, label) : h("span", {}, label),
      h("span", { class: "num" }, percent(probability)),
      h("span", { class: "bar", "aria-hidden": "true", style: { "--share": `${100 * probability}%` } }),
    ),
  );
  return h(
    "section",
    { class: verdict === "unknown" ? "panel faint" : "panel" },
    h("h3", {}, "If it is in the catalog, which product?"),
    h("ol", { class: "bars" }, rows),
  );
}

function nearest({ neighbors }) {
  if (!neighbors?.length) return null;
  const items = neighbors.map(({ label, similarity, thumbnail }) =>
    h(
      "li",
      {},
      picture(thumbnail, ""),
      h("span", { class: "name" }, label),
      h("span", { class: "soft" }, `similarity ${similarity.toFixed(2)}`),
    ),
  );
  return h(
    "section",
    { class: "panel wide" },
    h("h3", {}, "The nearest photos of the catalog"),
    h("ul", { class: "thumbs" }, items),
  );
}
