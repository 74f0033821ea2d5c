/** The kinds of one product: those that it has, and those that its photos suggest, to be named and accepted. */

import { ask } from "./api.js";
import { button, count, find, h, replace } from "./dom.js";
import { complain, tellEffect } from "./notice.js";
import { picture } from "./pictures.js";

const failed = (error) => complain(error);

/** What the product has now, and the action that looks for kinds. */
export async function kindsOf({ id, name }) {
  const { kinds } = await ask(`/v1/products/${id}/kinds`);
  const named = kinds.length > 1 || kinds.some((kind) => kind.name !== name);
  const place = h("div", { "aria-live": "polite" });
  const look = button("Find kinds", () => propose(place, id, name), { failed });
  return [
    h("h3", {}, "Kinds"),
    named ? h("ul", { class: "groups" }, kinds.map((kind, at) => owned(id, name, kind, at))) : null,
    h("p", { class: "soft" }, named ? "" : "Its photos are one kind so far. ", "Finding kinds changes nothing yet."),
    h("p", { class: "buttons" }, look),
    place,
  ];
}

function owned(id, product, kind, at) {
  const none = kind.name === product;
  const field = h("input", { id: `kind-${at}`, value: none ? "" : kind.name, maxlength: 128, required: true, autocomplete: "off" });
  const rename = (name) => patch(id, { rename_kinds: [{ kind: kind.name, name }] });
  const form = h(
    "form",
    { onsubmit: (event) => (event.preventDefault(), rename(field.value.trim()).catch(failed)) },
    h("label", { for: `kind-${at}` }, none ? "Make them a kind named" : "Name of this kind"),
    field,
    h(
      "p",
      { class: "buttons" },
      h("button", { type: "submit" }, none ? "Name it" : "Rename"),
      none ? null : button("Not a kind", () => rename(""), { failed, "aria-label": `${kind.name} is not a kind` }),
    ),
  );
  const title = none ? `Of no kind: ${count(kind.items.length, "photo")}` : `${kind.name}: ${count(kind.items.length, "photo")}`;
  return h("li", { class: "panel" }, h("h4", { class: "name" }, title), pictures(kind, none ? "of no kind" : kind.name), form);
}

const patch = async (id, json) => tellEffect(await ask(`/v1/products/${id}`, { method: "PATCH", json }));

function pictures(kind, called) {
  const row = (addresses, words) =>
    addresses.length > 0 && [
      h("p", { class: "soft fine" }, words),
      h("div", { class: "thumbs" }, addresses.map((at, n) => picture(at, `${words}, ${called}, photo ${n + 1}`))),
    ];
  return [row(kind.typical, "Most typical"), row(kind.borderline, "Borderline")];
}

async function propose(place, id, name) {
  replace(place, h("p", { class: "soft" }, "Looking for kinds…"));
  try {
    const found = await ask(`/v1/products/${id}/kinds/found`);
    replace(place, found.kinds.length ? proposal(id, found) : h("p", { class: "hinted" }, oneKind(name, found)));
    find("input", place)?.focus();
  } catch (error) {
    replace(place);
    throw error;
  }
}

const oneKind = (name, { why }) => `${name} stays ${why}.`;

function proposal(id, found) {
  const cards = found.kinds.map(card);
  const accept = async () => {
    const kinds = cards.map(({ kind, named }) => ({ name: named(), items: kind.items }));
    await patch(id, { kinds });
  };
  return h(
    "form",
    { class: "kinds", onsubmit: (event) => (event.preventDefault(), accept().catch(failed)) },
    h("p", { class: "lead" }, sure(found)),
    h("ul", { class: "groups" }, cards.map(({ node }) => node)),
    h("p", { class: "soft" }, "Kinds with the same name become one. Undo takes all of it back."),
    h("button", { type: "submit", class: "primary" }, "Accept these kinds"),
  );
}

function sure({ kinds, stability, p_value }) {
  const words = [`${count(kinds.length, "kind")}.`];
  if (stability !== null) words.push(`Half of the photos find the same kinds: an overlap of at least ${(100 * stability).toFixed(0)}%.`);
  if (p_value !== null) words.push(`A single kind would look as divided in ${(100 * p_value).toFixed(1)}% of cases (p = ${p_value.toFixed(3)}).`);
  return words.join(" ");
}

function card(kind) {
  const id = `found-${kind.name}`;
  const field = h("input", { id, value: kind.name, maxlength: 128, required: true, autocomplete: "off" });
  const none = h("input", { type: "checkbox", onchange: () => (field.disabled = none.checked) });
  const node = h(
    "li",
    { class: "panel" },
    h("h4", {}, `Kind ${kind.name}: ${count(kind.items.length, "photo")}`),
    h("p", { class: "soft" }, `Half of the photos find it with an overlap of ${(100 * kind.stability).toFixed(0)}%.`),
    pictures(kind, `kind ${kind.name}`),
    h("label", { for: id }, `Name of kind ${kind.name}`),
    field,
    h("label", { class: "check" }, none, h("span", {}, `Kind ${kind.name} is not a kind`)),
  );
  return { kind, node, named: () => (none.checked ? "" : field.value.trim()) };
}
