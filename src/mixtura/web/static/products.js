/** The list of products, with a field to search it. */

import { ask } from "./api.js";
import { count, find, h, replace } from "./dom.js";
import { nameKey } from "./name.js";
import { picture, whenSeen } from "./pictures.js";
import { showProduct } from "./product.js";
import { statusLabel } from "./status.js";

let wanted = ""; // what the search field holds, kept while one product is looked at

export async function show(body, id) {
  const { products } = await ask("/v1/products");
  if (id) await showProduct(body, id, products);
  else showList(body, products);
}

function showList(body, products) {
  const said = h("p", { class: "soft", role: "status" });
  const list = h("ul", { class: "products" });
  const field = h("input", { type: "search", id: "product-search", value: wanted, autocomplete: "off", oninput: draw });
  function draw() {
    wanted = field.value;
    const words = nameKey(wanted).split(" ").filter(Boolean);
    const found = products.filter((product) => words.every((word) => text(product).includes(word)));
    replace(list, found.map(card));
    replace(
      said,
      found.length === products.length
        ? count(found.length, "product")
        : `${found.length} of ${count(products.length, "product")}`,
    );
  }
  const search = h(
    "div",
    { class: "search" },
    h("label", { for: "product-search" }, "Search by name or status"),
    field,
  );
  const had = document.activeElement?.id === "product-search";
  replace(body, search, said, list);
  draw();
  if (had) find("#product-search").focus();
}

const text = ({ name, status }) => nameKey(`${name} ${status} ${statusLabel(status)}`);

function card(product) {
  const three = h("span", { class: "three" });
  whenSeen(three, () => fill(three, product.id).catch(() => null)); // without its pictures it can be chosen all the same
  return h(
    "li",
    {},
    h("a", { href: `#products/${product.id}` }, three, h("b", { class: "name" }, product.name)),
    h(
      "span",
      { class: "soft" },
      `${count(product.items, "photo")} · `,
      h("span", { class: `status ${product.status}` }, statusLabel(product.status)),
    ),
  );
}

/** The first pictures of a product. */
async function fill(place, id) {
  const { items } = await ask(`/v1/products/${id}/items`);
  replace(
    place,
    items.slice(0, 3).map(({ thumbnail }) => picture(thumbnail, "")),
  );
}
