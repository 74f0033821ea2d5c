"""Print what another class prior does to a model."""

from dataclasses import asdict
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from mixtura.cli.output import one_line, plain_table, shown
from mixtura.formats import percent
from mixtura.records.catalog import EditResult
from mixtura.tasks.prior import PriorChange

ROWS = {
    "right": "Right, classes as frequent as in the fit",
    "balanced": "Right, mean over classes",
    "right_as_asked": "Right, classes as frequent as asked",
    "false_reject": "Called unknown, classes as frequent as asked",
}
"""The shares that are printed, by name."""


def prior_record(change: PriorChange, effect: EditResult | None) -> dict[str, Any]:
    """Return the figures before and after, and the edit if any, JSON-ready."""
    return change.to_dict() | {"written": effect is not None, "effect": None if effect is None else asdict(effect)}


def prior_lines(change: PriorChange) -> list[str]:
    """Return one figure per line: name, before, after."""
    return [f"{name}\t{getattr(change.before, name):.4f}\t{getattr(change.after, name):.4f}" for name in (*ROWS, "nll")]


def prior_view(change: PriorChange, effect: EditResult | None, folder: str) -> list[RenderableType]:
    """Return the figures before and after, and the command to keep or to undo the change."""
    names = f"{change.count} items of the fit, out of fold", f"Before: {change.earlier}", f"After: {change.prior}"
    table = plain_table(tuple(map(shown, names)), right=2)
    for name, words in ROWS.items():
        stated = f" (stated {percent(change.stated)})" if name == "false_reject" else ""
        table.add_row(words + stated, percent(getattr(change.before, name)), percent(getattr(change.after, name)))
    table.add_row("Loss of the probabilities (nats)", f"{change.before.nll:.3f}", f"{change.after.nll:.3f}")
    table.add_row("Temperature", f"{change.old_temperature:.3g}", f"{change.temperature:.3g}")
    notes = [Text(one_line(note), style="yellow") for note in change.notes]
    if effect is None:
        return [table, *notes, Text("Nothing was changed. Add --write to keep the new prior and its limits.")]
    said = Text.assemble((one_line(effect.edit.summary) + " ", ""), ("Undo  ", "dim"), f"mixtura undo {shown(folder)}")
    return [table, *notes, said]
