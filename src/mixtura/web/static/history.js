/** Every edit of the catalog, newest first, and the way back. */

import { ask } from "./api.js";
import { button, h, moment, replace } from "./dom.js";
import { complain, undo } from "./notice.js";

export async function show(body) {
  const { edits } = await ask("/v1/history");
  const last = edits.find(({ kind, undone }) => kind !== "undo" && !undone);
  const way = last
    ? h(
        "p",
        { class: "buttons" },
        button("Undo the last edit", undo, { failed: (error) => complain(error), "aria-describedby": "last-edit" }),
        h("span", { id: "last-edit", class: "soft" }, last.summary),
      )
    : h(
        "p",
        { class: "lead soft" },
        edits.length
          ? "Everything is undone."
          : "Nothing has been changed since the catalog was learned from your folders.",
      );
  replace(body, way, edits.length > 0 && table(edits));
}

function table(edits) {
  const head = ["Number", "When", "What", ""].map((title) =>
    h("th", { scope: "col" }, title || h("span", { class: "unseen" }, "State")),
  );
  return h("table", { class: "history" }, h("thead", {}, h("tr", {}, head)), h("tbody", {}, edits.map(row)));
}

function row({ number, at, summary, undone }) {
  return h(
    "tr",
    { class: undone ? "undone" : null },
    h("td", { class: "num" }, number),
    h("td", {}, moment(at)),
    h("td", {}, summary),
    h("td", {}, undone ? "undone" : ""),
  );
}
