"""The drift page: the queries day by day, and whether they still look like the catalog's photos."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from markupsafe import Markup

from mixtura.formats import count, listing, percent
from mixtura.records.journal import Alarm, Day, Drift
from mixtura.report import svg
from mixtura.report.page import assemble, save
from mixtura.report.parts import Figure, Section, render

MAX_ROWS = 15
ALARM_NAMES = {
    "unknown": "Share of unknown photos",
    "typicality": "Typicality of the others",
    "mix": "Mix of classes",
    "classes": "Centers of the classes",
}


@dataclass(frozen=True)
class Row:
    """One alarm, formatted for the page."""

    name: str
    word: str
    raised: bool
    p: str
    limit: str
    sentence: str


def write_drift(drift: Drift, path: Path, *, title: str) -> Path:
    """Write the drift page of a catalog as one self-contained HTML file.

    Raises:
        CannotWrite, OutOfSpace: the page cannot be written.
    """
    return save(path, drift_page(drift, title))


def drift_page(drift: Drift, title: str) -> str:
    """Return the page as HTML."""
    sections = {"summary": _summary(drift), "days": _days(drift), "mix": _mix(drift)}
    kept = {name: section for name, section in sections.items() if section is not None}
    return assemble(f"Drift of {title}", kept, "drift.css")


def _summary(drift: Drift) -> Section:
    tested = [alarm for alarm in drift.alarms if not math.isnan(alarm.p)]
    if not drift.count:
        say = f"The journal has no decisions from the last {count(drift.period, 'day')}."
    elif not tested:
        say = f"{count(drift.count, 'photo')} in {count(drift.period, 'day')} are too few to tell."
    elif drift.raised:
        names = [ALARM_NAMES[alarm.kind].lower() for alarm in drift.raised]
        say = f"Something has changed: {listing(names)}."
    else:
        say = "The tests detect no change."
    lead = (
        f"{say} The latest {count(drift.window, 'photo')} are compared with the {count(drift.before)} before them and "
        f"with the photos the catalog was calibrated on. If nothing has changed, a daily check raises an alarm in at "
        f"most {percent(drift.false_alarms, 0)} of months."
    ) + "".join(f" {note}" for note in drift.notes)
    return Section("In short", lead, render("drift.html", alarms=[_row(alarm) for alarm in drift.alarms]))


def _row(alarm: Alarm) -> Row:
    word = "not tested" if math.isnan(alarm.p) else "alarm" if alarm.raised else "quiet"
    p = "–" if math.isnan(alarm.p) else f"{alarm.p:.2g}"
    return Row(ALARM_NAMES[alarm.kind], word, alarm.raised, p, f"{alarm.limit:.2g}", alarm.sentence)


def _days(drift: Drift) -> Section | None:
    if not drift.days:
        return None
    stated = drift.stated_false_reject
    figures = [
        Figure(
            _shares(
                drift.days, [(d.unknown.value, d.unknown.low, d.unknown.high) for d in drift.days], stated, "Unknown"
            ),
            "Share of photos called unknown, with its 95% interval. For photos like the catalog's, it would be "
            f"{percent(stated)} (dashed).",
        ),
        Figure(
            _shares(drift.days, [(d.typicality, math.nan, math.nan) for d in drift.days], 0.5, "Mean typicality"),
            "Mean typicality of all photos. For photos like the catalog's, it would be 50% (dashed).",
        ),
        Figure(_counts(drift.days), "Photos per day, including those too blurred, dark or blank to judge."),
    ]
    total = f"{count(drift.count, 'photo')} on {count(len(drift.days), 'day')} (UTC)"
    lead = f"{total}, with the answers given at the time. Days with few photos have wide intervals."
    return Section("Day by day", lead, render("figures.html", figures=figures))


def _place(days: Sequence[Day]) -> tuple[list[int], tuple[float, float]]:
    """Return the days since the first as numbers, and the range to draw."""
    numbers = [date.fromisoformat(day.date).toordinal() for day in days]
    numbers = [number - numbers[0] for number in numbers]
    return numbers, (-0.5, max(numbers[-1], 1) + 0.5)


def _shares(days: Sequence[Day], values: Sequence[tuple[float, float, float]], usual: float, title: str) -> Markup:
    """Draw a dot per day, with its interval if there is one, and a dashed line at the usual value."""
    numbers, span = _place(days)
    highest = max([usual, *(v for three in values for v in three if not math.isnan(v))])
    top = min(1.0, 1.15 * highest)
    area = svg.Plot(44, 34, 384, 230, span, (0.0, top))
    parts = [area.y_axis(svg.ticks(0, top, 4), lambda v: percent(v, 0), title)]
    for number, (value, low, high) in zip(numbers, values, strict=True):
        if not math.isnan(low):
            parts.append(svg.line((area.x(number), area.y(low)), (area.x(number), area.y(min(high, top))), "range"))
        if not math.isnan(value):
            parts.append(svg.tag("circle", cx=area.x(number), cy=area.y(value), r=3.5, class_="dot"))
    parts.append(svg.line((area.left, area.y(usual)), (area.right, area.y(usual)), "cut"))
    last = values[-1][0]
    spoken = f"{title} by day. On {days[-1].date}: {percent(last)}; usual is {percent(usual)}."
    return svg.drawing(spoken, svg.DRAWING_WIDTH, 272, *parts, _dates(area, days, numbers))


def _counts(days: Sequence[Day]) -> Markup:
    """Draw a bar per day."""
    numbers, span = _place(days)
    most = max(day.count for day in days)
    area = svg.Plot(44, 34, 384, 230, span, (0, most))
    ticks = sorted({float(int(tick)) for tick in svg.ticks(0, most, 4)})
    parts = [area.y_axis(ticks, lambda v: f"{v:,.0f}", "Photos")]
    parts += [area.bar(n - 0.4, n + 0.4, day.count, "bar known") for n, day in zip(numbers, days, strict=True)]
    spoken = f"Photos by day, at most {most}. On {days[-1].date}: {days[-1].count}."
    return svg.drawing(spoken, svg.DRAWING_WIDTH, 272, *parts, _dates(area, days, numbers))


def _dates(area: svg.Plot, days: Sequence[Day], numbers: Sequence[int]) -> Markup:
    """Draw the base line with the first and the last date."""
    parts = [svg.line((area.left, area.bottom), (area.right, area.bottom), "axis")]
    parts.append(svg.text(area.x(numbers[0]), area.bottom + 16, days[0].date, "tick"))
    if len(days) > 1:
        parts.append(svg.text(area.right, area.bottom + 16, days[-1].date, "tick", "end"))
    return Markup("").join(parts)


def _mix(drift: Drift) -> Section | None:
    if not drift.mix or not drift.window:
        return None
    lead = (
        "Shares of the classes among the latest photos not called unknown, among those before them, and among "
        "the photos in the catalog. Some products are queried more than others, so the test compares only now with "
        "before."
    )
    return Section(
        "Which classes", lead, render("drift_mix.html", shown=drift.mix[:MAX_ROWS], rest=drift.mix[MAX_ROWS:])
    )
