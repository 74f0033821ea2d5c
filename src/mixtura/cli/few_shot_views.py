"""Print a few-shot evaluation: for people (a table) and for programs (JSON-ready values)."""

import math
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from mixtura.cli.output import one_line, plain_table
from mixtura.cli.views import written
from mixtura.formats import count, duration, interval, percent
from mixtura.records.few_shot import FewShot, FewShotResult


def few_shot_view(found: FewShot, paths: Sequence[Path]) -> list[RenderableType]:
    """Return a line on the episodes, a row for each classifier, notes, and what was written."""
    names = ("Classifier", "Accuracy", "95% interval", f"Against {found.results[0].classifier}", "Time")
    table = plain_table(names, map(_row, found.results), right=4)
    return [Text(heading(found)), table, *(Text(one_line(note)) for note in found.notes), *map(written, paths)]


def heading(found: FewShot) -> str:
    """Return what was measured, in one line.

    >>> import numpy as np
    >>> heading(FewShot("nway", np.array([5, 5]), 1, 15, 0, 20, 900, 60, (), {}))
    '5-way 1-shot, 2 episodes of 20 new classes (900 items), 15 queries a class; 60 base classes. Inductive.'
    """
    base = f"{count(found.base, 'base class', 'base classes')}" if found.base else "no base classes"
    return (
        f"{found.named}, {count(len(found.way), 'episode')} of {count(found.classes, 'new class', 'new classes')} "
        f"({count(found.items, 'item')}), {count(found.query, 'query', 'queries')} a class; {base}. "
        f"{found.setting.capitalize()}."
    )


def few_shot_lines(found: FewShot) -> list[str]:
    """Return classifier and mean accuracy, one line each."""
    return [f"{one.classifier}\t{one.mean:.4f}" for one in found.results]


def few_shot_record(found: FewShot, paths: Sequence[Path]) -> dict[str, Any]:
    """Return everything but the accuracies of single episodes, JSON-ready."""
    record = {field.name: getattr(found, field.name) for field in fields(found) if field.name not in ("way", "results")}
    record |= {"way": [int(found.way.min()), int(found.way.max())], "episodes": len(found.way)}
    results = [
        {field.name: getattr(one, field.name) for field in fields(one) if field.name != "accuracy"}
        for one in found.results
    ]
    return record | {"results": results, "written": list(paths)}


def _row(one: FewShotResult) -> tuple[str, ...]:
    sure = "" if math.isnan(one.low) else interval(one.low, one.high)
    gap = "" if math.isnan(one.difference_half) else f"{100 * one.difference:+.1f} ± {100 * one.difference_half:.1f}"
    return one.classifier, percent(one.mean), sure, gap, duration(one.seconds)
