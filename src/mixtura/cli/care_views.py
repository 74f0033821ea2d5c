"""Print inspections, drift, groups of unknowns and recalibrations."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from mixtura.cli.output import one_line, plain_table, shown
from mixtura.cli.views import problem_record, problems_view, written
from mixtura.formats import percent
from mixtura.records.catalog import EditResult
from mixtura.records.decision import Interval
from mixtura.records.inspection import Inspection
from mixtura.records.journal import Drift, UnknownGroup
from mixtura.tasks.recalibrate import Recalibration

MAX_TABLE_ROWS = 15
"""Maximum rows in a table; the rest is only counted."""

ALARM_STYLES = {True: ("alarm", "red"), False: ("quiet", "green")}


def care_record(care: Inspection, page: Path | None) -> dict[str, Any]:
    """Return all findings of an inspection, JSON-ready."""
    return asdict(care) | {"html": page}


def care_lines(care: Inspection) -> list[str]:
    """Return one suspected label per line: item, label, suggestion."""
    return [f"{shown(one.source)}\t{shown(one.given)}\t{shown(one.suggested)}" for one in care.suspects]


def care_view(care: Inspection, page: Path | None) -> list[RenderableType]:
    """Return the findings as tables, clearest first."""
    head = (
        f"{care.items} items of {care.classes} classes. A model that has not seen them ({care.family}) judged "
        f"{care.judged}; it agrees with {percent(care.accuracy)} of their labels."
    )
    views: list[RenderableType] = [Text(head)]
    rows = [
        (one.source, one.given, one.suggested, percent(one.given_probability), percent(one.suggested_probability))
        for one in care.suspects
    ]
    views += _table(
        "label looks wrong", "labels look wrong", rows, ("Item", "Label", "Looks like", "P(label)", "P(other)")
    )
    clashes = [(", ".join(i.source for i in g.items), ", ".join(g.labels), f"{g.highest:.4f}") for g in care.clashes]
    views += _table("photo has several labels", "photos have several labels", clashes, ("Items", "Labels", "Cosine"))
    copies = [(", ".join(i.source for i in g.items), g.labels[0], f"{g.highest:.4f}") for g in care.copies]
    views += _table("photo is there twice", "photos are there twice", copies, ("Items", "Label", "Cosine"))
    far = [(one.source, one.label, percent(one.typicality), f"{-one.spreads:.1f}") for one in care.outliers]
    views += _table(
        "photo looks like no other", "photos look like no other", far, ("Item", "Label", "Typical", "Spreads off")
    )
    views += [Text(one_line(care.strangers))] if care.strangers else []
    return views + ([written(page)] if page else [])


def drift_record(drift: Drift, page: Path | None) -> dict[str, Any]:
    """Return the days, the alarms and the mix of classes, JSON-ready."""
    return asdict(drift) | {"html": page}


def drift_lines(drift: Drift) -> list[str]:
    """Return one test per line: kind, alarm or quiet, p-value and limit."""
    return [f"{one.kind}\t{ALARM_STYLES[one.raised][0]}\t{one.p:.3g}\t{one.limit:.3g}" for one in drift.alarms]


def drift_view(drift: Drift, page: Path | None) -> list[RenderableType]:
    """Return a table of the days, a table of the tests, and the notes."""
    if not drift.count:
        said = f"The journal has no decisions from the last {drift.period} days. mixtura serve writes it."
        return [Text(said), *([written(page)] if page else [])]
    table = plain_table(("Day (UTC)", "Photos", "Unknown", "95% interval", "Unsure", "Typical"), right=5)
    for day in drift.days:
        unknown = percent(day.unknown.value), _between(day.unknown)
        table.add_row(day.date, str(day.count), *unknown, percent(day.unsure.value), percent(day.typicality))
    tests = plain_table(("", "Latest photos", "p", "Limit", "What it says"))
    for one in drift.alarms:
        word, style = ALARM_STYLES[one.raised] if not math.isnan(one.p) else ("not tested", "dim")
        numbers = ("-" if math.isnan(one.p) else f"{one.p:.2g}"), f"{one.limit:.2g}"
        tests.add_row(Text(word, style), one.kind, *numbers, Text(one_line(one.sentence)))
    said = (
        f"Compares the latest {drift.window} photos with the {drift.before} before them. If nothing has changed, "
        f"a daily check raises an alarm in at most {percent(drift.false_alarms)} of months."
    )
    notes = [Text(note, style="yellow") for note in drift.notes]
    return [table, tests, *notes, Text(said, style="dim"), *([written(page)] if page else [])]


def groups_record(groups: Iterable[UnknownGroup]) -> list[dict[str, Any]]:
    """Return all groups, JSON-ready."""
    return [asdict(group) for group in groups]


def groups_view(
    groups: Sequence[UnknownGroup], waiting: int, catalog: str, page: Path | None, notes: Sequence[str] = ()
) -> list[RenderableType]:
    """Return a table with one row per group, and the command to enroll one."""
    last = [*(Text(note, style="yellow") for note in notes), *([written(page)] if page else [])]
    if not groups:
        return [Text(f"The journal has {waiting} unknown photos. No three of them look like one product."), *last]
    table = plain_table(("Group", "Photos", "Nearest product", "Alike", "Usual", "First seen", "Last seen"))
    for one in groups:
        alike = f"{one.tightness:.2f}", "-" if math.isnan(one.usual) else f"{one.usual:.2f}"
        table.add_row(one.id, str(one.size), Text(shown(one.nearest)), *alike, one.first[:10], one.last[:10])
    inside = sum(group.size for group in groups)
    said = (
        f"{inside} of {waiting} unknown photos. Alike: mean cosine to their center; usual: of the catalog's products."
    )
    hint = f'mixtura discover {shown(catalog)} --accept {groups[0].id} --name "..."'
    return [table, Text(said, style="dim"), Text.assemble(("Enroll   ", "dim"), hint), *last]


def effect_record(effect: EditResult) -> dict[str, Any]:
    """Return an edit and its effect, JSON-ready."""
    return asdict(effect)


def effect_view(effect: EditResult) -> list[RenderableType]:
    """Return an edit in one sentence, and the accuracy of the existing products."""
    views: list[RenderableType] = [Text(one_line(effect.edit.summary))]
    views += [
        Text(f"{shown(one.product)}: {_kinds(one.before)} before, {_kinds(one.after)} after") for one in effect.kinds
    ]
    if effect.before is not None and effect.after is not None:
        pair = f"{percent(effect.before)} before, {percent(effect.after)} after"
        views.append(Text(f"Accuracy of the existing products: {pair} ({effect.tested} test items)."))
    return [*views, *(Text(one_line(note), style="yellow") for note in effect.notes)]


def _kinds(items: Mapping[str, int]) -> str:
    """Return the kinds of a product with their numbers of photos."""
    return ", ".join(f"{shown(name)} {number}" for name, number in items.items())


def recalibration_record(made: Recalibration, problems: Sequence[Any], effect: EditResult | None) -> dict[str, Any]:
    """Return the figures before and after, and the edit if any, JSON-ready."""
    record = made.to_dict() | {"problems": [problem_record(problem) for problem in problems]}
    return record | {"written": effect is not None, "effect": None if effect is None else effect_record(effect)}


def recalibration_lines(made: Recalibration) -> list[str]:
    """Return one figure per line: name, before, after."""
    pairs = [
        (name, getattr(made.before, name).value, getattr(made.after, name).value)
        for name in ("false_reject", "right", "found")
    ]
    return [f"{name}\t{before:.4f}\t{after:.4f}" for name, before, after in pairs]


def recalibration_view(
    made: Recalibration, problems: Sequence[Any], effect: EditResult | None, catalog: str, asked: bool
) -> list[RenderableType]:
    """Return the figures before and after, the expected rate, and the command to keep the change.

    ``asked`` says whether the change was to be written.
    """
    table = plain_table(
        (
            f"{made.count} confirmed photos, {made.products} products",
            "Before",
            "95% interval",
            "After",
            "95% interval",
        ),
        right=4,
    )
    for name, words in (
        ("false_reject", f"Called unknown (stated {percent(made.stated)})"),
        ("right", "Right product"),
        ("found", "Right product and not called unknown"),
    ):
        pair = getattr(made.before, name), getattr(made.after, name)
        table.add_row(words, *(text for one in pair for text in (percent(one.value), _between(one))))
    table.add_row("Loss of the probabilities (nats)", f"{made.before.nll:.3f}", "", f"{made.after.nll:.3f}", "")
    table.add_row("Temperature", f"{made.old_temperature:.3g}", "", f"{made.temperature:.3g}", "")
    expected = made.expected
    said = (
        f"The After columns use limits set by other photos. A limit from {made.count} photos will reject "
        f"{percent(expected.value)} of genuine photos, standard error {100 * made.error:.1f} points (95% interval "
        f"{percent(expected.low)} to {percent(expected.high)})."
    )
    notes = [Text(note, style="yellow") for note in (*made.notes, *made.objections)]
    return [table, Text(said), *problems_view(problems), *notes, _kept(made, effect, catalog, asked)]


def _kept(made: Recalibration, effect: EditResult | None, catalog: str, asked: bool) -> Text:
    """Return what became of the change, and the command to undo it or to keep it."""
    if effect is not None:
        return Text.assemble(
            (one_line(effect.edit.summary) + " ", ""), ("Undo  ", "dim"), f"mixtura undo {shown(catalog)}"
        )
    option = "--write --force" if made.objections else "--write"
    advice = "to keep the new limits all the same" if made.objections else "to keep the new limits"
    return Text(f"Nothing was {'written' if asked else 'changed'}. Add {option} {advice}.")


def _table(one: str, many: str, rows: Sequence[Sequence[str]], names: Sequence[str]) -> list[RenderableType]:
    """A heading with the count, and the first rows; nothing below where there are none."""
    title = Text(f"{len(rows) or 'No'} {one if len(rows) < 2 else many}", "bold" if rows else "dim")
    if not rows:
        return [title]
    table = plain_table(names, [[shown(cell) for cell in row] for row in rows[:MAX_TABLE_ROWS]])
    rest = (
        [Text(f"and {len(rows) - MAX_TABLE_ROWS} more (all of them with --json or --html)", "dim")]
        if len(rows) > MAX_TABLE_ROWS
        else []
    )
    return [title, table, *rest]


def _between(interval: Interval) -> str:
    return f"{percent(interval.low)} to {percent(interval.high)}"
