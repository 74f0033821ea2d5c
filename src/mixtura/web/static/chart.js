/** Drawings of days: bars of shares, and a line of means. */

import { percent, svg } from "./dom.js";

const DAY = 86_400_000; // milliseconds
const SHORT = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short", timeZone: "UTC" });
const HEIGHT = 190;
const TOP = 14;
const BOTTOM = 26;
const LEFT = 44;

export const dayName = (date) => SHORT.format(new Date(`${date}T00:00:00Z`));

/** Where things are: days from left to right, shares from 0 at the foot to `most` at the top. */
function area(days, period, most) {
  const width = innerWidth < 700 ? 330 : 560; // so that letters keep their size on a phone
  const last = Date.parse(days[days.length - 1].date);
  const step = (width - LEFT - 8) / period;
  return {
    width,
    step,
    x: (date) => width - 8 - step * ((last - Date.parse(date)) / DAY + 0.5),
    y: (share) => HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (share / most),
  };
}

function frame(place, days, ticks, reference) {
  const { width, x, y } = place;
  const lines = ticks.map((at) => [
    svg("line", { class: at ? "grid" : "axis", x1: LEFT, x2: width, y1: y(at), y2: y(at) }),
    svg("text", { class: "tick", x: LEFT - 6, y: y(at) + 4, "text-anchor": "end" }, percent(at)),
  ]);
  const ends = days.length > 1 ? [days[0], days[days.length - 1]] : [days[0]];
  const dates = ends.map(({ date }, place) => {
    const anchor = ends.length === 1 || place ? "end" : "start";
    const at = anchor === "end" ? Math.min(x(date) + 24, width) : Math.max(x(date) - 24, LEFT);
    return svg("text", { class: "tick", x: at, y: HEIGHT - 6, "text-anchor": anchor }, dayName(date));
  });
  const expected = svg("line", { class: "expected", x1: LEFT, x2: width, y1: y(reference), y2: y(reference) });
  return [lines, dates, expected];
}

function drawing(place, label, ...parts) {
  return svg(
    "svg",
    { viewBox: `0 0 ${place.width} ${HEIGHT}`, role: "img", "aria-label": label, class: "chart" },
    ...parts,
  );
}

const STEPS = [0.1, 0.2, 0.5, 1];

/** Unknown below, unsure above it; the dashed line is the share of unknown that is meant to be. */
export function bars(days, period, meant) {
  const shown = days.filter(({ unknown }) => unknown.count > 0 && typeof unknown.value === "number");
  if (!shown.length) return null;
  const most =
    STEPS.find((step) => step >= Math.max(1.4 * meant, ...shown.map((day) => day.unknown.value + day.unsure.value))) ??
    1;
  const place = area(days, period, most);
  const bar = (kind, date, from, to) =>
    svg("rect", {
      class: `bar ${kind}`,
      x: place.x(date) - 0.36 * place.step,
      width: Math.max(0.72 * place.step, 2),
      y: place.y(to),
      height: place.y(from) - place.y(to),
    });
  const drawn = shown.map(({ date, unknown, unsure }) => [
    bar("unknown", date, 0, unknown.value),
    bar("unsure", date, unknown.value, unknown.value + unsure.value),
  ]);
  const said = shown.map(
    ({ date, unknown, unsure }) =>
      `${dayName(date)}: ${percent(unknown.value)} unknown, ${percent(unsure.value)} unsure`,
  );
  return drawing(
    place,
    `Unknown and unsure by day. ${said.join("; ")}.`,
    ...frame(place, days, [0, most / 2, most], meant),
    drawn,
  );
}

/** Mean typicality; one half is what photos like those of the catalog give. */
export function line(days, period) {
  const shown = days.filter(({ typicality }) => typeof typicality === "number");
  if (!shown.length) return null;
  const place = area(days, period, 1);
  const points = shown.map(({ date, typicality }) => [place.x(date), place.y(typicality)]);
  const said = shown.map(({ date, typicality }) => `${dayName(date)}: ${percent(typicality)}`);
  return drawing(
    place,
    `Mean typicality by day. ${said.join("; ")}.`,
    ...frame(place, days, [0, 0.5, 1], 0.5),
    svg("polyline", { class: "line", points: points.map((point) => point.join(",")).join(" ") }),
    points.map(([cx, cy]) => svg("circle", { class: "point", cx, cy, r: 3.5 })),
  );
}
