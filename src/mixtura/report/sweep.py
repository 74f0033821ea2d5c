"""The sweep page: the best cell of each head, accuracy by variance kept and by size, every cell, and failures.

Sections use only the long-format records; test rows are never used for selection on this page.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from mixtura.formats import compared, count, listing
from mixtura.metrics.paired import comparisons
from mixtura.metrics.replicates import METRIC_DIRECTIONS, best_rows, selected, summarize
from mixtura.records.sweep import DONE, Cell, Summary, Sweep
from mixtura.report.facts import grouped
from mixtura.report.page import assemble, save
from mixtura.report.parts import Section, render
from mixtura.report.sweep_plots import HeadStyle, by_size, by_variance, head_styles

MAX_NOTES = 30  # notes shown; the rest is collapsed


@dataclass(frozen=True)
class Column:
    """A metric in a table: its label, which direction is better, and its number format."""

    metric: str
    label: str
    better: str
    write: Callable[[float], str]


def _fixed(digits: int, factor: float = 1.0) -> Callable[[float], str]:
    return lambda value: f"{factor * value:,.{digits}f}"


TABLE_COLUMNS = (
    Column("accuracy", "Accuracy, %", METRIC_DIRECTIONS["accuracy"], _fixed(2, 100.0)),
    Column("nll", "NLL, nats", METRIC_DIRECTIONS["nll"], _fixed(4)),
    Column("ece", "ECE, %", METRIC_DIRECTIONS["ece"], _fixed(2, 100.0)),
    Column("brier", "Brier", METRIC_DIRECTIONS["brier"], _fixed(4)),
    Column("parameters", "Parameters", "lower", _fixed(0)),
    Column("sparsity", "Sparsity, %", "higher", _fixed(1, 100.0)),
    Column("seconds", "Seconds", "lower", lambda value: f"{value:,.3g}" if value < 1000 else f"{value:,.0f}"),
    Column("memory", "Memory, MiB", "lower", _fixed(1)),
)
SHORT_TABLE_COLUMNS = TABLE_COLUMNS[:4]
"""The metrics with a table of components by explained variance."""


@dataclass(frozen=True)
class Entry:
    """A mean formatted for a table; ``exact`` is the full number for programs and tests."""

    exact: str
    text: str
    margin: str
    best: bool = False


@dataclass(frozen=True)
class Row:
    """The best cell of a head, and how its accuracy compares with that of the selected cell."""

    look: HeadStyle
    summary: Summary
    entries: tuple[Entry, ...]
    against: str


@dataclass(frozen=True)
class Grid:
    """The cells of one head and method: one row per explained variance, one column per number of components.

    A cell without a finished run is ``None``.
    """

    look: HeadStyle
    method: str
    n_components: tuple[int, ...]
    rows: tuple[tuple[str, tuple[Entry | None, ...]], ...]


def write_sweep(sweep: Sweep, path: Path, *, title: str) -> Path:
    """Write one self-contained HTML file that needs no network and runs no script.

    Args:
        sweep: what to report.
        path: the file to write; its folder is created, an existing file is replaced atomically.
        title: the heading of the page.

    Raises:
        CannotWrite: the folder or file cannot be written.
        OutOfSpace: the disk is full.
    """
    return save(path, sweep_page(sweep, title))


def sweep_page(sweep: Sweep, title: str) -> str:
    """Return the page as HTML."""
    summaries = [one for one in summarize(sweep.runs) if math.isfinite(one.mean["accuracy"])]
    look = head_styles(sweep.runs)
    made = {
        "summary": _summary(sweep, look),
        "variance": _variance(summaries, look),
        "sizes": _sizes(sweep, summaries, look),
        "cells": _cells(summaries, look),
        "notes": _notes(sweep),
        "facts": _facts(sweep),
    }
    return assemble(title, {name: one for name, one in made.items() if one is not None}, "sweep.css")


def _summary(sweep: Sweep, look: dict[str, HeadStyle]) -> Section:
    best = best_rows(sweep)
    columns = [entries(column, best) for column in TABLE_COLUMNS]
    against = _against(sweep)
    rows = [
        Row(look[one.cell.head], one, tuple(own), against.get(one.cell, "n/a"))
        for one, own in zip(best, zip(*columns, strict=True), strict=True)
    ]
    body = render(
        "sweep_best.html",
        rows=rows,
        columns=TABLE_COLUMNS,
        explained=explained_text,
        margin=_margin(best),
        pairs=_pairs(sweep, best),
    )
    return Section("In short", _lead(sweep, best), body if rows else Markup(""))


def _lead(sweep: Sweep, best: list[Summary]) -> str:
    failed = sum(run.status != DONE for run in sweep.runs)
    cells = len({run.cell for run in sweep.runs})
    made = f"{count(len(sweep.runs), 'run')} of {count(cells, 'cell')}"
    lost = f", {failed:,} of them failed" if failed else ""
    if not best:
        return f"None of {made} finished, so there is nothing to compare."
    top = selected(sweep) or best[0]
    entry = _entry(TABLE_COLUMNS[0], top)
    among = f"Of {count(len(best), 'head')}, " if len(best) > 1 else ""
    between = f" (95% interval {entry.margin}%)" if entry.margin else ""
    text = f"{among}{top.cell.head} is selected: {entry.text}% of the test samples are right{between}. "
    text += f"Validation samples chose it, and each head's best cell, among {made}{lost}; test samples only measure."
    missing = [
        name for name in dict.fromkeys(run.head for run in sweep.runs) if name not in {b.cell.head for b in best}
    ]
    return text + (f" No run of {listing(missing)} finished." if missing else "")


def entries(column: Column, summaries: list[Summary]) -> list[Entry]:
    """Return the column of a metric, with the best values marked."""
    values = [one.mean[column.metric] for one in summaries]
    finite = [value for value in values if math.isfinite(value)]
    pick = max if column.better == "higher" else min
    top = pick(finite) if len(set(map(column.write, finite))) > 1 else math.nan  # none where all read alike
    return [_entry(column, one, one.mean[column.metric] == top) for one in summaries]


def _entry(column: Column, summary: Summary, best: bool = False) -> Entry:
    value, half = summary.mean[column.metric], summary.half_width[column.metric]
    text = column.write(value) if math.isfinite(value) else "n/a"
    counted = column in SHORT_TABLE_COLUMNS or (math.isfinite(half) and column.write(half) != column.write(0.0))
    margin = f"± {column.write(half)}" if math.isfinite(half) and counted else ""
    if margin and column.metric == "accuracy":
        margin = " to ".join(column.write(edge) for edge in summary.interval["accuracy"])
    return Entry(repr(value), text, margin, best)


def explained_text(fraction: float) -> str:
    """Return a fraction of the variance as a percentage.

    >>> explained_text(0.95), explained_text(0.995)
    ('95%', '99.5%')
    """
    return f"{100 * fraction:g}%"


def _against(sweep: Sweep) -> dict[Cell, str]:
    """Return the comparison of each head's best cell with the selected cell, in words."""
    top = selected(sweep)
    found = {one.cell: compared(one.difference, one.p_holm) for one in comparisons(sweep)}
    return found | ({top.cell: "selected"} if top else {})


def _pairs(sweep: Sweep, best: list[Summary]) -> str:
    """Return how the heads are compared, or why they are not."""
    if len(best) < 2:
        return ""
    if not comparisons(sweep):
        return (
            "No paired differences: these runs are of an earlier version, which kept no answers to single test "
            "samples. Sweep into a new folder to get them."
        )
    return (
        "Against the selected: the difference in accuracy on the same test samples. p: Student's t over seeds and "
        "samples, or a sign test over the samples, whichever is larger; corrected for the number of heads (Holm)."
    )


def _margin(summaries: list[Summary]) -> str:
    """Return the meaning of ± and of the intervals, if there are any."""
    if not any(math.isfinite(one.half_width["accuracy"]) for one in summaries):
        return ""
    chance = "of seeds and test samples" if all(one.test_chance for one in summaries) else "of the seeds alone"
    return f"; ranges, and ± on either side, are 95% intervals for the chance {chance}"


def _variance(summaries: list[Summary], look: dict[str, HeadStyle]) -> Section | None:
    if len({one.cell.explained_variance for one in summaries}) < 2:
        return None
    lead = (
        "PCA keeps the leading axes that explain a share of the variance of the training rows. "
        "Each line is one head and method with a fixed number of Gaussians per class; gray lines are all others."
    )
    if len({one.cell.method for one in summaries}) > 1:
        lead += " Here, colors, marks and dashes stand for the methods."
    return Section("Accuracy by variance kept", lead, render("sweep_variance.html", plots=by_variance(summaries, look)))


def _sizes(sweep: Sweep, summaries: list[Summary], look: dict[str, HeadStyle]) -> Section | None:
    if not summaries:
        return None
    best = best_rows(sweep)
    lead = "Every cell by its number of parameters. Up and to the left is better."
    body = render(
        "sweep_sizes.html",
        panels=by_size(summaries, best, look),
        rows=[(look[one.cell.head], one) for one in best],
        several=any(math.isfinite(one.half_width["accuracy"]) for one in best),
    )
    return Section("Accuracy by size", lead, body)


def _cells(summaries: list[Summary], look: dict[str, HeadStyle]) -> Section | None:
    if not summaries:
        return None
    tables = [(column, _grids(column, summaries, look)) for column in SHORT_TABLE_COLUMNS]
    lead = (
        f"The mean over the runs of each cell, on the test rows{_margin(summaries)}. "
        "The best value in each table is bold with a dot."
    )
    return Section("Components by variance kept", lead, render("sweep_cells.html", tables=tables))


def _grids(column: Column, summaries: list[Summary], look: dict[str, HeadStyle]) -> list[Grid]:
    of_pair: dict[tuple[str, str], dict[Cell, Summary]] = {}
    for one in summaries:
        of_pair.setdefault((one.cell.head, one.cell.method), {})[one.cell] = one
    return [_grid(column, look[head], method, own) for (head, method), own in of_pair.items()]


def _grid(column: Column, look: HeadStyle, method: str, own: dict[Cell, Summary]) -> Grid:
    found = dict(zip(own, entries(column, list(own.values())), strict=True))
    placed = {(cell.explained_variance, cell.n_components): entry for cell, entry in found.items()}
    n_components = tuple(sorted({cell.n_components for cell in own}))
    rows = tuple(
        (explained_text(explained), tuple(placed.get((explained, one)) for one in n_components))
        for explained in sorted({cell.explained_variance for cell in own})
    )
    return Grid(look, method, n_components, rows)


def _notes(sweep: Sweep) -> Section | None:
    told = sorted((run for run in sweep.runs if run.status != DONE or run.note), key=lambda run: run.status == DONE)
    if not told and not sweep.skipped:
        return None
    failed = sum(run.status != DONE for run in told)
    parts = [f"{count(failed, 'run')} failed and are excluded from all figures."] if failed else []
    if len(told) > failed:
        parts.append(f"{count(len(told) - failed, 'finished run has', 'finished runs have')} notes.")
    if sweep.skipped:
        parts.append(f"{count(len(sweep.skipped), 'combination was', 'combinations were')} skipped.")
    body = render(
        "sweep_notes.html",
        skipped=sweep.skipped,
        shown=told[:MAX_NOTES],
        rest=told[MAX_NOTES:],
        explained=explained_text,
        done=DONE,
    )
    return Section("Failures and notes", " ".join(parts), body)


def _facts(sweep: Sweep) -> Section | None:
    groups = grouped(sweep.facts)
    if not groups:
        return None
    lead = "Everything you need to reproduce these figures."
    return Section("Data, versions and settings", lead, render("facts.html", groups=groups))
