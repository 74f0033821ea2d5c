/** Photos that were judged unknown, in groups that look alike: each may be a product that is missing. */

import { ask } from "./api.js";
import { count, find, h, moment, replace } from "./dom.js";
import { photoOf } from "./classify.js";
import { complain, tellEffect } from "./notice.js";
import { picture } from "./pictures.js";
import { nameField } from "./teach.js";

const SHOWN = 8; // pictures of a group

export async function show(body) {
  const [{ groups }, { products }] = await Promise.all([ask("/v1/unknowns"), ask("/v1/products")]);
  const lead = groups.length
    ? "These photos were like nothing in the catalog, but like one another. Give a group a name, and it becomes a product."
    : "No photo has been judged unknown yet, or all of them are settled.";
  const cards = groups.map((group, place) => card(group, place, products));
  replace(body, h("p", { class: "lead" }, lead), h("ul", { class: "groups" }, cards));
}

function card(group, place, products) {
  const pictures = group.ids.map((id, at) => photoOf(id) ?? group.pictures?.[at]).filter(Boolean);
  const title = `Group ${place + 1}: ${count(group.size, "photo")}`;
  const id = `group-${place + 1}`;
  return h(
    "li",
    { class: "panel" },
    h("h2", { id }, title),
    pictures.length
      ? h(
          "div",
          { class: "thumbs" },
          pictures.slice(0, SHOWN).map((address, at) => picture(address, `Photo ${at + 1} of group ${place + 1}`)),
        )
      : h(
          "p",
          { class: "soft" },
          "These photos were not kept. To see them here, start mixtura serve with ",
          h("code", {}, "--keep-photos"),
          ".",
        ),
    h(
      "p",
      { class: "soft" },
      `Nearest to ${group.nearest}. ${alike(group)} Last asked about `,
      moment(group.last),
      ".",
    ),
    naming(group, place, products),
  );
}

const alike = ({ tightness, usual }) =>
  tightness >= usual
    ? "As alike as the photos of one product usually are."
    : "Less alike than the photos of one product usually are.";

function naming(group, place, products) {
  const field = `group-name-${place + 1}`;
  const form = h("form", { "aria-labelledby": `group-${place + 1}` });
  const failed = (error) => complain(error);
  const add = async () => {
    const name = find("input", form).value.trim();
    if (!name) throw new Error("Give the new product a name first.");
    tellEffect(await ask("/v1/products", { method: "POST", json: { name, decisions: group.ids } }));
  };
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    add().catch(failed);
  });
  form.append(...nameField(field, products), h("button", { type: "submit", class: "primary" }, "Add as new product"));
  return form;
}
