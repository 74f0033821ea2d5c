/** What a person knows better: the right product of a photo, or a product that is not there yet. */

import { ask } from "./api.js";
import { count, find, h, replace } from "./dom.js";
import { dialog } from "./dialog.js";
import { nameKey } from "./name.js";
import { tell, tellEffect } from "./notice.js";
import { encoded, MAX_PHOTOS, photosOf } from "./photo.js";

/** Choose the right product of a photo; on request the photo is added to it. */
export async function correct(decision, file) {
  const { products } = await ask("/v1/products");
  const choice = select(
    "correct-product",
    products,
    decision.candidates.map(({ id }) => id),
  );
  const add = h("input", { type: "checkbox" });
  dialog("What is it?", {
    body: [
      h("label", { for: "correct-product" }, "The right product"),
      choice,
      h(
        "label",
        { class: "check" },
        add,
        h("span", {}, "Add this photo to the product, so that it is recognized next time"),
      ),
    ],
    submit: "That is it",
    work: async () => {
      const product = products.find(({ id }) => id === choice.value);
      await ask("/v1/feedback", { method: "POST", json: { decision: decision.decision_id, product: product.id } });
      if (add.checked) tellEffect(await enroll(product.name, [file]));
      else tell(`Noted: it was ${product.name}.`);
    },
  });
}

/** A list of products to choose one of, the likely ones first. */
export function select(id, products, likely = []) {
  const option = (product) => h("option", { value: product.id }, product.name);
  const first = likely.map((wanted) => products.find((product) => product.id === wanted)).filter(Boolean);
  const rest = products.filter((product) => !first.includes(product));
  if (!first.length) return h("select", { id }, products.map(option));
  const groups = [
    ["Likely", first],
    ["All others", rest],
  ].filter(([, members]) => members.length);
  return h(
    "select",
    { id },
    groups.map(([label, members]) => h("optgroup", { label }, members.map(option))),
  );
}

/** Ask for the name of a new product, and for more photos of it. */
export async function addProduct({ decision_id: decision }, file, url, done) {
  const { products } = await ask("/v1/products");
  const name = nameField("new-name", products);
  const more = h("input", { type: "file", id: "more-photos", accept: "image/*", multiple: true });
  dialog("Add as new product", {
    body: [
      h(
        "div",
        { class: "with-photo" },
        h("img", { src: url, alt: "The photo to add", width: 96, height: 96 }),
        h("div", {}, name),
      ),
      h("label", { for: "more-photos" }, "More photos of it (optional)"),
      more,
      h(
        "p",
        { class: "soft" },
        "Two or three from other sides make it much surer. Nothing is trained again; it takes a few seconds.",
      ),
    ],
    submit: "Add it",
    work: async () => {
      const files = [file, ...photosOf(more.files)];
      if (files.length > MAX_PHOTOS) throw new Error(`At most ${MAX_PHOTOS} photos at once; these are ${files.length}.`);
      const effect = await enroll(find("#new-name").value.trim(), files);
      await ask("/v1/feedback", { method: "POST", json: { decision, product: effect.product.id } }); // no longer a riddle
      tellEffect(effect);
      setTimeout(done); // after the dialog has given the focus back
    },
  });
}

/** A field for a name, which says when the name is taken already. */
export function nameField(id, products) {
  const taken = new Map(products.map((product) => [nameKey(product.name), product]));
  const hint = h("p", { class: "hint", id: `${id}-hint`, "aria-live": "polite" });
  const said = ({ target }) => {
    const product = taken.get(nameKey(target.value));
    replace(
      hint,
      product
        ? `${product.name} is there already, with ${count(product.items, "photo")}. What you add here is added to it.`
        : null,
    );
  };
  const field = h("input", {
    id,
    required: true,
    maxlength: 128,
    autocomplete: "off",
    "aria-describedby": `${id}-hint`,
    oninput: said,
  });
  return [h("label", { for: id }, "Name"), field, hint];
}

/** Add photos to the product of a name, which is made if there is none. */
export async function enroll(name, files) {
  return ask("/v1/products", { method: "POST", json: { name, images: await encoded(files) } });
}
