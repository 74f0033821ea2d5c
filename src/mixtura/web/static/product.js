/** One product: its photos, and everything that can be done to it. */

import { ask } from "./api.js";
import { button, count, h, moment, replace } from "./dom.js";
import { kindsOf } from "./kinds.js";
import { complain, tellEffect } from "./notice.js";
import { chooser } from "./photo.js";
import { picture, removing } from "./pictures.js";
import { statusLabel } from "./status.js";
import { enroll, select } from "./teach.js";

const failed = (error) => complain(error);

export async function showProduct(body, id, products) {
  const product = products.find((each) => each.id === id);
  const back = h("p", {}, h("a", { href: "#products" }, "← All products"));
  if (!product) return replace(body, back, h("p", { class: "lead" }, "This product is not in the catalog any more."));
  const [{ items }, kinds] = await Promise.all([ask(`/v1/products/${id}/items`), kindsOf(product)]);
  replace(
    body,
    back,
    h("h2", { class: "name" }, product.name),
    h(
      "p",
      { class: "soft" },
      `${count(product.items, "photo")}${forTesting(items)}, ${statusLabel(product.status)}, since `,
      moment(product.created),
      ".",
    ),
    provisional(product),
    h("div", { class: "forms" }, rename(product), products.length > 1 && merge(product, products), other(product)),
    kinds,
    photos(product, items),
  );
}

/** Photos that nothing is learned from, which the number of a product's photos leaves out. */
function forTesting(items) {
  const tested = items.filter((item) => item.split === "test").length;
  return tested ? ` and ${tested} for testing` : "";
}

/** Change a product, and go where it is then. */
async function patch(id, change, then) {
  const effect = await ask(`/v1/products/${id}`, { method: "PATCH", json: change });
  tellEffect(effect);
  if (then) location.hash = then;
}

function provisional({ id, status }) {
  if (status !== "provisional") return null;
  const words =
    "Added from few photos: its answers are less sure than those of the others. Confirm it when they prove right.";
  return h(
    "p",
    { class: "hinted" },
    words,
    " ",
    button("Confirm", () => patch(id, { confirmed: true }), { failed }),
  );
}

function form(title, submit, fields, work) {
  const send = h("button", { type: "submit" }, submit);
  const submitted = (event) => {
    event.preventDefault();
    work().catch(failed);
  };
  return h("form", { onsubmit: submitted }, h("h3", {}, title), fields, send);
}

function rename({ id, name }) {
  const field = h("input", { id: "rename", value: name, required: true, maxlength: 128, autocomplete: "off" });
  const label = h("label", { for: "rename" }, "New name");
  return form("Rename", "Rename", [label, field], () => patch(id, { name: field.value.trim() }));
}

function merge({ id, name }, products) {
  const choice = select(
    "merge",
    products.filter((each) => each.id !== id),
  );
  const label = h("label", { for: "merge" }, `Put all photos of ${name} into`);
  return form("Merge", "Merge", [label, choice], () =>
    patch(id, { merge_into: choice.value }, `#products/${choice.value}`),
  );
}

function other({ id, name }) {
  const add = (files) => enroll(name, files).then(tellEffect).catch(failed);
  const remove = async () => {
    tellEffect(await removing(() => ask(`/v1/products/${id}`, { method: "DELETE" })));
    location.hash = "#products";
  };
  return h(
    "div",
    { class: "form" },
    h("h3", {}, "Photos"),
    chooser("Add photos", { chosen: add }),
    button("Remove this product", remove, { kind: "danger", failed }),
  );
}

function photos({ id, name }, items) {
  const list = h("ul", { class: "thumbs items", onchange: countChosen });
  const said = h("span", { "aria-live": "polite" });
  const chosen = () => [...list.querySelectorAll("input:checked")].map((box) => Number(box.value));
  function countChosen() {
    const number = chosen().length;
    replace(said, number ? `${count(number, "photo")} chosen` : "Choose the photos that are something else");
  }
  const field = h("input", { id: "split", required: true, maxlength: 128, autocomplete: "off" });
  const work = async () => {
    if (!chosen().length) throw new Error("Choose the photos that belong to the other product first.");
    await patch(id, { split: { items: chosen(), name: field.value.trim() } });
  };
  const label = h("label", { for: "split" }, "Name of the new product");
  replace(
    list,
    items.map((item, place) => row(item, `${name}, photo ${place + 1}`)),
  );
  countChosen();
  return [
    h("h3", {}, "All its photos"),
    list,
    items.length > 1 && form("Split", "Split off", [h("p", {}, said), label, field], work),
  ];
}

function row(item, called) {
  const box = h("input", { type: "checkbox", value: item.id, "aria-label": `Choose ${called}` });
  const remove = async () =>
    tellEffect(await removing(() => ask(`/v1/items/${item.id}`, { method: "DELETE" })));
  const part =
    item.split === "train"
      ? null
      : h("span", { class: "soft" }, `for ${item.split === "test" ? "testing" : item.split}`);
  return h(
    "li",
    {},
    h("label", {}, box, picture(item.thumbnail, called)),
    h("span", { class: "name file", title: item.source }, item.source.split("/").pop()),
    part,
    button("Remove", remove, { kind: "small", failed, "aria-label": `Remove ${called}` }),
  );
}
