/** Whether photos still look as they did when the catalog was made: alarms in words, the days, the mix of products. */

import { ask } from "./api.js";
import { bars, dayName, line } from "./chart.js";
import { count, h, percent, replace } from "./dom.js";

const ROWS = 12; // of the mix; the rest on request

export async function show(body) {
  const drift = await ask("/v1/drift");
  const days = drift.days.filter((day) => day.count > 0);
  if (!days.length) {
    return replace(
      body,
      h("p", { class: "lead soft" }, "No photo has been asked about yet. Look again after some days of use."),
    );
  }
  replace(body, alarms(drift), figures(days, drift), table(days), mix(drift.mix));
}

function alarms({ alarms: all, count: number, window, period, false_alarms: often }) {
  const raised = all.filter((alarm) => alarm.raised);
  const seen = `${count(number, "photo")} in the last ${period} days; the latest ${window} are compared with those before.`;
  const meaning = `If nothing changes, an alarm comes in at most ${percent(often)} of such periods.`;
  const tested = all.some((alarm) => alarm.p !== null);
  if (!raised.length)
    return h(
      "p",
      { class: "lead" },
      h("b", {}, tested ? "Nothing unusual. " : `${all[0].sentence} `),
      h("span", { class: "soft" }, `${seen} ${meaning}`),
    );
  return [
    h(
      "ul",
      { class: "alarms" },
      raised.map(({ sentence }) => h("li", {}, h("b", {}, "Attention: "), sentence)),
    ),
    h("p", { class: "soft" }, `${seen} ${meaning}`),
  ];
}

function figures(days, { period, stated_false_reject: meant }) {
  const figure = (title, chart, key) => chart && h("figure", {}, h("h2", {}, title), chart, h("figcaption", {}, key));
  const key = (kind, words) => h("span", {}, h("i", { class: `key ${kind}` }), words);
  const keys = [
    key("unknown", "unknown"),
    key("unsure", "unsure"),
    key("expected", `share of genuine photos that is meant to be unknown, ${percent(meant)}`),
  ];
  const typical = [key("expected", "photos like those of the catalog"), "Well below it, photos have changed."];
  return h(
    "div",
    { class: "figures" },
    figure("Unknown and unsure photos, by day", bars(days, period, meant), keys),
    figure("How typical photos are, by day", line(days, period), typical),
  );
}

function table(days) {
  const share = ({ value, count: number }) => (number && typeof value === "number" ? percent(value) : "–");
  const row = (day) => [
    h("th", { scope: "row" }, dayName(day.date)),
    ...[day.count, day.bad, share(day.unknown), share(day.unsure)].map((text) => h("td", { class: "num" }, text)),
    h("td", { class: "num" }, typeof day.typicality === "number" ? percent(day.typicality) : "–"),
  ];
  const head = ["Day", "Photos", "Bad", "Unknown", "Unsure", "Typicality"];
  return h("details", {}, h("summary", {}, "The same in numbers"), numbers(head, [...days].reverse().map(row)));
}

function numbers(head, rows) {
  const titles = head.map((title, place) => h("th", { scope: "col", class: place ? "num" : null }, title));
  const made = h(
    "table",
    {},
    h("thead", {}, h("tr", {}, titles)),
    h(
      "tbody",
      {},
      rows.map((cells) => h("tr", {}, cells)),
    ),
  );
  return h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": head.join(", ") }, made);
}

/** Which products are asked about, the ones that changed most first. */
function mix(parts) {
  if (!parts.length) return null;
  const change = ({ now, before }) => Math.abs((now ?? 0) - (before ?? 0));
  const share = (value) => h("td", { class: "num" }, typeof value === "number" ? percent(value) : "–");
  const rows = [...parts]
    .sort((a, b) => change(b) - change(a))
    .map(({ product, now, before, catalog }) => [
      h("th", { scope: "row", class: "name" }, product),
      share(now),
      share(before),
      share(catalog),
    ]);
  const head = ["Product", "Now", "Before", "Catalog"];
  const rest = rows.splice(ROWS);
  return [
    h("h2", {}, "Which products are asked about"),
    numbers(head, rows),
    rest.length > 0 && h("details", {}, h("summary", {}, `${count(rest.length, "more product")}`), numbers(head, rest)),
  ];
}
