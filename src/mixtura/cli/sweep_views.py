"""Print a sweep or a search: for people (tables) and for programs (JSON-ready values)."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from mixtura.cli.output import one_line, shown
from mixtura.formats import compared, count, duration, percent
from mixtura.metrics.paired import comparisons
from mixtura.metrics.replicates import best_rows, selected, summarize
from mixtura.records.sweep import DONE, Run, Summary, Sweep
from mixtura.sweeps.tuning import Search

NOTES_SHOWN = 5

SWEEP_COLUMNS: tuple[tuple[str, Any], ...] = (
    ("Head", "left"),
    ("Method", "left"),
    ("Variance", "right"),
    ("Comp.", "right"),
    ("Dim.", "right"),
    ("Accuracy (higher)", "right"),
    ("Against the selected", "left"),
    ("NLL (lower)", "right"),
    ("ECE (lower)", "right"),
    ("Numbers", "right"),
    ("Pruned", "right"),
    ("Time", "right"),
)


def sweep_view(sweep: Sweep, page: Path, files: Sequence[Path] = ()) -> list[RenderableType]:
    """Return the best cell of each head (chosen on validation rows), notes, and the paths of page, runs and files."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name, justify in SWEEP_COLUMNS:
        table.add_column(name, justify=justify)
    best = best_rows(sweep)
    for row in _rows(sweep, best):
        table.add_row(*row)
    notes = [Text(one_line(note), style="yellow") for note in (*_skipped(sweep), *_troubles(sweep))]
    lines = [f"Page      {page}", f"Runs      {page.parent / 'runs.csv'}", f"Metrics   {page.parent / 'metrics.csv'}"]
    lines += [f"{'Figure' if path.suffix == '.svg' else 'Table':9} {path}" for path in files]
    return [table, Text(explanation(best)), *notes, *map(Text, lines)]


def explanation(best: list[Summary]) -> str:
    """Return what the intervals and p-values mean."""
    if all(one.test_chance for one in best):
        text = "Intervals: 95%, with the chance of the seeds and of the test samples."
        pairs = " p: paired over the same test samples, corrected for the number of heads (Holm)."
        return text + (pairs if len(best) > 1 else "")
    return (
        "Intervals: 95%, partly with the chance of the seeds alone, and without paired differences: an earlier version "
        "kept no answers to single test samples. Sweep into a new folder to get both."
    )


def sweep_record(sweep: Sweep, page: Path, files: Sequence[Path] = ()) -> dict[str, Any]:
    """Return the summary of every cell, the best one of each head, and paired differences, JSON-ready."""
    best = selected(sweep)
    return {
        "facts": sweep.facts,
        "best": [asdict(summary) for summary in best_rows(sweep)],
        "selected": None if best is None else asdict(best.cell),
        "compared": [asdict(one) for one in comparisons(sweep)],
        "cells": [asdict(summary) for summary in summarize(sweep.runs)],
        "failed": [_without_rows(run) for run in sweep.runs if run.status != DONE],
        "skipped": [asdict(one) for one in sweep.skipped],
        "page": page,
        "files": list(files),
    }


def saved_view(saved: Any) -> list[RenderableType]:
    """Return where the best cell was saved, with its accuracy on the test samples; ``saved`` may be ``None``."""
    if saved is None:
        return []
    model, metrics = shown(str(saved.bundle_path)), saved.evaluation.metrics
    text = f"Saved     {model}: the selected cell, fitted to all but the test samples, {percent(metrics['top1'])} right"
    return [Text(text), Text(f"Recipe    {model}/recipe.yaml")]


def saved_record(saved: Any) -> dict[str, Any]:
    """Return the path and the metrics of the saved model, JSON-ready; empty if there is none."""
    return {} if saved is None else {"saved": {"model": saved.bundle_path, "metrics": saved.evaluation.metrics}}


def _without_rows(run: Run) -> dict[str, Any]:
    return {name: value for name, value in asdict(run).items() if name != "right"}


def _skipped(sweep: Sweep) -> list[str]:
    """One line for each reason to skip, with what was skipped for it."""
    found: dict[str, list[str]] = {}
    for one in sweep.skipped:
        found.setdefault(one.note, []).append(f"{one.head}, {one.method}, {one.n_components} per class")
    return [f"Skipped   {'; '.join(cells)}: {note}" for note, cells in found.items()]


def _troubles(sweep: Sweep) -> list[str]:
    """One line for each cell with runs that failed or ended early; only a few lines."""
    found: dict[tuple[str, str, str], list[Run]] = {}
    for run in sweep.runs:
        if run.note:
            found.setdefault((run.status, run.head, run.cell.method), []).append(run)
    ordered = sorted(found.items(), key=lambda pair: pair[0][0] == DONE)
    lines = [
        f"{'Early' if status == DONE else 'Failed':9} {head}, {method}: {count(len(own), 'run')}, "
        f"the first: {own[0].note}"
        for (status, head, method), own in ordered
    ]
    rest = len(lines) - NOTES_SHOWN
    return [*lines[:NOTES_SHOWN], *([f"... and {rest} more, listed on the page."] if rest > 0 else [])]


def _rows(sweep: Sweep, best: list[Summary]) -> Iterable[tuple[str, ...]]:
    top, differences = selected(sweep), {one.cell: one for one in comparisons(sweep)}
    for summary in best:
        cell, mean, half = summary.cell, summary.mean, summary.half_width
        pair = differences.get(cell)
        against = "selected" if top and cell == top.cell else compared(pair.difference, pair.p_holm) if pair else "n/a"
        yield (
            shown(cell.head),
            cell.method,
            f"{100 * cell.explained_variance:g}%",
            str(cell.n_components),
            f"{mean['dimension']:.0f}",
            f"{100 * mean['accuracy']:.1f}%{_between(summary.interval['accuracy'])}",
            against,
            f"{mean['nll']:.3f}{_plus_minus(half['nll'], 3)}",
            percent(mean["ece"]),
            f"{mean['parameters']:,.0f}",
            percent(mean["sparsity"]),
            duration(mean["seconds"]),
        )


def _between(interval: tuple[float, float]) -> str:
    low, high = interval
    return "" if math.isnan(low) else f" ({100 * low:.1f} to {100 * high:.1f})"


def _plus_minus(half: float, digits: int) -> str:
    return "" if math.isnan(half) else f" ± {half:.{digits}f}"


def search_view(found: Mapping[str, Search]) -> list[RenderableType]:
    """Return a table with the best setting of each head."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    first = next(iter(found.values()))
    for name in ("Head", f"Validation {first.metric} ({first.better})", "Trials", "Setting"):
        table.add_column(name)
    for head, one in found.items():
        best = one.best
        failed = sum(trial.status == "failed" for trial in one.trials)
        counts = f"{len(one.trials)}" + (f", {failed} failed" if failed else "")
        first_note = next((trial.note for trial in one.trials if trial.note), "")
        setting = (
            f"none finished: {one_line(first_note)}"
            if best is None
            else ", ".join(f"{k} {_setting(v)}" for k, v in best.params.items())
        )
        table.add_row(shown(head), "-" if best is None else f"{best.value:.4f}", counts, setting)
    return [table]


def _setting(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def search_record(found: Mapping[str, Search]) -> dict[str, Any]:
    """Return the best setting and all trials of each head, JSON-ready."""
    return {
        head: {
            "metric": one.metric,
            "better": one.better,
            "best": None if one.best is None else asdict(one.best),
            "trials": [asdict(trial) for trial in one.trials],
        }
        for head, one in found.items()
    }
