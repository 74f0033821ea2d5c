"""Means and intervals over the runs of a sweep, and the best setting of each head."""

import math
import statistics
from collections.abc import Sequence
from typing import Any

from mixtura.metrics.intervals import t_interval
from mixtura.records.sweep import DONE, Cell, Run, Summary, Sweep

AVERAGED_METRICS = ("accuracy", "nll", "ece", "brier", "dimension", "parameters", "sparsity", "seconds", "memory")
"""The columns that are averaged over the runs of a cell."""

METRIC_DIRECTIONS = {"accuracy": "higher", "nll": "lower", "ece": "lower", "brier": "lower"}
"""Which way is better."""


def summarize(runs: Sequence[Run]) -> list[Summary]:
    """One summary a cell, over its finished runs, in the order of their first run."""
    cells: dict[Cell, list[Run]] = {}
    for run in runs:
        if run.status == DONE:
            cells.setdefault(run.cell, []).append(run)
    return [_summary(cell, own) for cell, own in cells.items()]


def replicates(runs: Sequence[Run], metric: str) -> list[float]:
    """The values of a metric whose mean and spread are stated: one a run, or with folds one a fold.

    The runs of a fold, one a seed, are tested on the same rows and count as one. The calibration error is one a seed,
    of all folds together: on the few rows of one fold it is mostly chance.
    """
    folded: dict[Any, list[Run]] = {}
    for run in runs:
        one = (run.seed if metric == "ece" else run.fold) if run.fold else run.key
        folded.setdefault(one, []).append(run)
    return [_of_all(own, metric) for own in folded.values()]


def _of_all(runs: list[Run], metric: str) -> float:
    """A metric of several runs: their mean, or the calibration error of their rows together."""
    if len(runs) > 1 and metric == "ece":
        of_bins = [math.fsum(gaps) for gaps in zip(*(run.gaps for run in runs), strict=True)]
        return math.fsum(map(abs, of_bins)) / sum(run.tested for run in runs)
    return statistics.fmean(getattr(run, metric) for run in runs)


def _summary(cell: Cell, runs: list[Run]) -> Summary:
    pairs = {name: t_interval(replicates(runs, name)) for name in AVERAGED_METRICS}
    mean = {name: pair[0] for name, pair in pairs.items()}
    return Summary(cell, len(runs), mean, {name: pair[1] for name, pair in pairs.items()})


def best_rows(sweep: Sweep) -> list[Summary]:
    """The best cell of each head, in the order of their first run; heads without a finished run have none.

    Best is by the validation rows alone: the highest mean accuracy there, then the lowest loss. Cells of which a run
    failed count only where a head has no whole one.
    """
    of_cell: dict[Cell, list[Run]] = {}
    for run in sweep.runs:
        of_cell.setdefault(run.cell, []).append(run)
    found: dict[str, Summary] = {}
    rank: dict[str, tuple[float, ...]] = {}
    for summary in summarize(sweep.runs):
        own = [run for run in of_cell[summary.cell] if run.status == DONE]
        accuracy, nll = _mean([run.val_accuracy for run in own]), _mean([-run.val_nll for run in own])
        height = (float(len(own) == len(of_cell[summary.cell])), accuracy, nll)
        if height > rank.get(summary.cell.head, (-1.0,)):
            found[summary.cell.head], rank[summary.cell.head] = summary, height
    return list(found.values())


def _mean(values: Sequence[float]) -> float:
    """The mean; the lowest of all where a value is not a number."""
    mean = math.fsum(values) / len(values)
    return -math.inf if math.isnan(mean) else mean
