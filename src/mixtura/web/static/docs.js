/** /docs: what openapi.json says, route by route, each with a command to try it. */

import { ask, here } from "./api.js";
import { find, h, replace } from "./dom.js";

const METHODS = ["get", "post", "patch", "put", "delete"];
const PHOTO = "--data-binary @photo.jpg -H 'Content-Type: image/jpeg'";

async function show() {
  const root = find("#routes");
  try {
    const api = await ask("/openapi.json");
    replace(
      root,
      start(),
      Object.entries(api.paths).map(([path, methods]) => routes(api, path, methods)),
    );
  } catch (error) {
    replace(root, h("p", { class: "trouble", role: "alert" }, error.message));
  }
  root.removeAttribute("aria-busy");
}

function start() {
  return [
    h("p", {}, "Changes need the token that ", h("code", {}, "mixtura serve"), " printed; here it is in a variable:"),
    code("MIXTURA_TOKEN=..."),
  ];
}

function routes(api, path, methods) {
  return METHODS.filter((method) => methods[method]).map((method) => route(api, path, method, methods[method]));
}

function route(api, path, method, operation) {
  const id = `${method}${path}`.replace(/[^a-z0-9]+/gi, "-");
  return h(
    "section",
    { class: "route", "aria-labelledby": id },
    h("h2", { id }, h("span", { class: "method" }, method.toUpperCase()), " ", h("code", {}, path)),
    h("p", {}, operation.description || operation.summary || ""),
    parameters(operation.parameters ?? []),
    code(curl(api, path, method, operation)),
    responses(operation.responses ?? {}),
  );
}

function parameters(list) {
  const shown = list.filter(({ in: where }) => where === "query" || where === "path");
  if (!shown.length) return null;
  const range = ({ minimum, maximum, pattern, default: preset }) =>
    [
      minimum !== undefined && `from ${minimum}`,
      maximum !== undefined && `to ${maximum}`,
      pattern,
      preset !== undefined && `${preset} if left out`,
    ]
      .filter(Boolean)
      .join(", ");
  const item = ({ name, description, schema = {} }) => [
    h("dt", {}, h("code", {}, name)),
    h("dd", {}, [description?.replace(/[.]$/, ""), range(schema)].filter(Boolean).join("; ")),
  ];
  return h("dl", {}, shown.map(item));
}

/** A command that asks this route; photos go as they are. */
function curl(api, path, method, operation) {
  const parts = ["curl"];
  if (method !== "get") parts.push(`-X ${method.toUpperCase()}`);
  const body = bodyOf(api, operation);
  if (body) parts.push(body);
  if (operation.security?.length) parts.push('-H "Authorization: Bearer $MIXTURA_TOKEN"');
  const query = (operation.parameters ?? []).filter(
    ({ in: where, schema }) => where === "query" && schema?.default !== undefined,
  );
  const asked = query.map(({ name, schema }) => `${name}=${schema.default}`).join("&");
  parts.push(`'${here(".").replace(/[/]$/, "")}${path}${asked ? `?${asked}` : ""}'`);
  return parts.join(" ").replace(/^curl -X POST --data/, "curl --data");
}

function bodyOf(api, { requestBody }) {
  const content = requestBody?.content;
  if (!content) return null;
  if (Object.keys(content).some((type) => type.startsWith("image/"))) return PHOTO;
  const json = content["application/json"];
  if (!json) return null;
  const example = json.example ?? Object.values(json.examples ?? {})[0]?.value ?? sample(api, json.schema);
  return `-H 'Content-Type: application/json' --data '${JSON.stringify(example).replaceAll("'", "'\\''")}'`;
}

/** Something that fits a schema: its example, or its parts'. */
function sample(api, schema, depth = 0) {
  if (!schema || depth > 6) return null;
  if (schema.$ref) return sample(api, resolved(api, schema.$ref), depth + 1);
  const example = schema.example ?? schema.examples?.[0] ?? schema.default ?? schema.const ?? schema.enum?.[0];
  if (example !== undefined) return example;
  const choices = schema.anyOf ?? schema.oneOf ?? schema.allOf;
  if (choices) return sample(api, choices[0], depth + 1);
  if (schema.type === "array") return [sample(api, schema.items, depth + 1)];
  if (schema.type === "object") return fields(api, schema, depth);
  return { integer: 1, number: 0.5, boolean: true, string: "..." }[schema.type] ?? null;
}

function fields(api, { properties = {}, required }, depth) {
  const names = required?.length ? required : Object.keys(properties);
  return Object.fromEntries(names.map((name) => [name, sample(api, properties[name], depth + 1)]));
}

const resolved = (api, ref) =>
  ref
    .slice(2)
    .split("/")
    .reduce((at, key) => at?.[key], api);

/** What is answered, and in one line how it can be refused. */
function responses(all) {
  const good = Object.entries(all).filter(([status]) => status < "400");
  const refused = Object.entries(all)
    .filter(([status]) => status >= "400")
    .map(([status]) => status);
  return h(
    "ul",
    { class: "responses" },
    good.map(([status, { description }]) => h("li", {}, h("b", {}, status), " ", description ?? "")),
    refused.length > 0 && h("li", { class: "soft" }, `May be refused with ${refused.join(", ")}`),
  );
}

function code(text) {
  return h("pre", {}, h("code", {}, text));
}

show();
