"""Means and intervals over the runs of a sweep, and the best cell of each head."""

import math
import statistics
from collections.abc import Sequence
from typing import Any

from mixtura.metrics.intervals import t_interval
from mixtura.records.sweep import DONE, Cell, Run, Summary, Sweep

AVERAGED_METRICS = ("accuracy", "nll", "ece", "brier", "dimension", "parameters", "sparsity", "seconds", "memory")
"""Columns that are averaged over the runs of a cell."""

METRIC_DIRECTIONS = {"accuracy": "higher", "nll": "lower", "ece": "lower", "brier": "lower"}
"""Whether higher or lower is better, per metric."""


def summarize(runs: Sequence[Run]) -> list[Summary]:
    """One summary per cell over its finished runs, in the order of first runs."""
    cells: dict[Cell, list[Run]] = {}
    for run in runs:
        if run.status == DONE:
            cells.setdefault(run.cell, []).append(run)
    return [_summary(cell, own) for cell, own in cells.items()]


def replicates(runs: Sequence[Run], metric: str) -> list[float]:
    """Replicate values of a metric, for its mean and interval: one per run, or one per fold if there are folds.

    The runs of a fold, one per seed, are tested on the same samples and count as one. The calibration error has one
    value per seed over all folds, because it is mostly noise on the few samples of one fold.
    """
    folded: dict[Any, list[Run]] = {}
    for run in runs:
        one = (run.seed if metric == "ece" else run.fold) if run.fold else run.key
        folded.setdefault(one, []).append(run)
    return [_of_all(own, metric) for own in folded.values()]


def _of_all(runs: list[Run], metric: str) -> float:
    """Metric of several runs: their mean, or the calibration error of their pooled samples."""
    if len(runs) > 1 and metric == "ece":
        of_bins = [math.fsum(gaps) for gaps in zip(*(run.gaps for run in runs), strict=True)]
        return math.fsum(map(abs, of_bins)) / sum(run.tested for run in runs)
    return statistics.fmean(getattr(run, metric) for run in runs)


def _summary(cell: Cell, runs: list[Run]) -> Summary:
    pairs = {name: t_interval(replicates(runs, name)) for name in AVERAGED_METRICS}
    mean = {name: pair[0] for name, pair in pairs.items()}
    return Summary(cell, len(runs), mean, {name: pair[1] for name, pair in pairs.items()})


def best_rows(sweep: Sweep) -> list[Summary]:
    """Best cell of each head, in the order of first runs; heads without a finished run are left out.

    The best cell has the highest mean validation accuracy, then the lowest validation loss. Cells with a failed run
    count only if a head has no complete cell.
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
    """The mean; minus infinity if a value is NaN."""
    mean = math.fsum(values) / len(values)
    return -math.inf if math.isnan(mean) else mean
