/** Photos that were judged unknown, in groups that look alike: each may be a product that is missing. */

import { ask } from "./api.js";
import { count, find, h, moment, replace } from "./dom.js";
import { photoOf } from "./classify.js";
import { complain, tellEffect } from "./notice.js";
import { picture } from "./pictures.js";
import { nameField } from "./teach.js";

const SHOWN = 8; // pictures of a group
const MAX_DECISIONS = 500; // that the server takes into a product at once

export async function show(body) {
  const [{ groups, unsettled }, { products }] = await Promise.all([ask("/v1/unknowns"), ask("/v1/products")]);
  const cards = groups.map((group, place) => card(group, place, products));
  replace(body, h("p", { class: "lead" }, lead(groups, unsettled)), h("ul", { class: "groups" }, cards));
}

function lead(groups, unsettled) {
  if (groups.length)
    return `Of ${count(unsettled, "unknown photo")}, these look like one another. Name a group, and it becomes a product.`;
  if (unsettled) return `${count(unsettled, "unknown photo")}, and none look enough alike to be one product.`;
  return "No photo has been judged unknown yet, or all of them are settled.";
}

function card(group, place, products) {
  const id = `group-${place + 1}`;
  return h(
    "li",
    { class: "panel" },
    h("h2", { id }, `Group ${place + 1}: ${count(group.size, "photo")}`),
    pictures(group, `group ${place + 1}`),
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

/** The photos of a group, as far as the server or this tab has them. */
function pictures({ ids, pictures: kept }, called) {
  const addresses = ids.map((id) => photoOf(id) ?? kept.find((address) => address.includes(id))).filter(Boolean);
  if (addresses.length) {
    const shown = addresses.slice(0, SHOWN).map((address, at) => picture(address, `Photo ${at + 1} of ${called}`));
    return h("div", { class: "thumbs" }, shown);
  }
  const how = ["To see photos here, start mixtura serve with ", h("code", {}, "--keep-photos"), "."];
  return h("p", { class: "soft" }, "These photos were not kept, so the product will have no pictures. ", how);
}

function alike({ tightness, usual }) {
  if (usual === null) return "";
  const how = tightness >= usual ? "As alike as" : "Less alike than";
  return `${how} the photos of one product usually are.`;
}

function naming(group, place, products) {
  const field = `group-name-${place + 1}`;
  const form = h("form", { "aria-labelledby": `group-${place + 1}` });
  const none = h("option", { value: "" }, "No, it is a new product");
  const others = products.map((product) => h("option", { value: product.name }, product.name));
  const under = h("select", { id: `under-${place + 1}` }, none, others);
  const failed = (error) => complain(error);
  const add = async () => {
    const name = find("input", form).value.trim();
    if (!name) throw new Error("Give the new product a name first.");
    const named = under.value ? { name: under.value, kind: name } : { name };
    tellEffect(await ask("/v1/products", { method: "POST", json: { ...named, decisions: group.ids.slice(0, MAX_DECISIONS) } }));
  };
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    add().catch(failed);
  });
  const submit = h("button", { type: "submit", class: "primary" }, "Add as new product");
  under.addEventListener("change", () => replace(submit, under.value ? "Add as a kind of it" : "Add as new product"));
  const label = h("label", { for: under.id }, "Is it a kind of a product?");
  form.append(...nameField(field, products), label, under, submit);
  return form;
}
