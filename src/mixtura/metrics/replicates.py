"""Means and intervals over the runs of a sweep, and the best cell of each head."""

import math
import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np

from mixtura.metrics.intervals import (
    Estimate,
    mean_interval,
    over_runs,
    over_runs_and_item_variance,
    over_runs_and_items,
    share_interval,
)
from mixtura.metrics.right import unpacked
from mixtura.records.sweep import DONE, Cell, Run, Summary, Sweep

TESTED_METRICS = ("accuracy", "nll", "ece", "brier")
"""Averages over the test rows."""

AVERAGED_METRICS = (*TESTED_METRICS, "dimension", "parameters", "sparsity", "seconds", "memory")
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


def estimate(runs: Sequence[Run], metric: str) -> Estimate:
    """A cell's mean of a metric, with the chance of its runs and, for a metric of the test rows, of these rows.

    Runs of several seeds share their test rows, whose chance they do not average out. Folds have test rows of their
    own: each row is tested once, so the spread of the folds includes the chance of the rows.
    """
    values = replicates(runs, metric)
    over_folds = bool(runs[0].fold) and metric != "ece"
    if metric not in TESTED_METRICS or over_folds or not has_items(runs):
        return over_runs(values)
    if metric == "accuracy":
        return over_runs_and_items(np.stack([right_items(run) for run in runs]).astype(float))
    variance = statistics.fmean(getattr(run, f"{metric}_variance") for run in runs)
    return over_runs_and_item_variance(values, variance, rows_tested(runs))


def has_items(runs: Sequence[Run]) -> bool:
    """Whether the runs say which test rows they got right; those of earlier versions do not."""
    return all(run.right for run in runs)


def rows_tested(runs: Sequence[Run]) -> int:
    """The number of different test rows of a cell: those of all its folds."""
    return sum({run.fold: run.tested for run in runs}.values())


def right_items(run: Run) -> Any:
    """Which test rows a run got right, as an array of bool."""
    return unpacked(run.right, run.tested)


def _summary(cell: Cell, runs: list[Run]) -> Summary:
    found = {name: estimate(runs, name) for name in AVERAGED_METRICS}
    interval = {name: mean_interval(one) for name, one in found.items()}
    known = has_items(runs) or bool(runs[0].fold)
    if known:
        interval["accuracy"] = share_interval(found["accuracy"], rows_tested(runs))
    mean = {name: one.mean for name, one in found.items()}
    half = {name: (high - low) / 2 for name, (low, high) in interval.items()}
    return Summary(cell, len(runs), mean, half, interval, known)


def best_rows(sweep: Sweep) -> list[Summary]:
    """Best cell of each head, in the order of first runs; heads without a finished run are left out.

    The best cell has the highest mean validation accuracy, then the lowest validation loss. Cells with a failed run
    count only if a head has no complete cell.
    """
    found: dict[str, Summary] = {}
    rank = ranks(sweep)
    for summary in summarize(sweep.runs):
        head = summary.cell.head
        if head not in found or rank[summary.cell] > rank[found[head].cell]:
            found[head] = summary
    return list(found.values())


def selected(sweep: Sweep) -> Summary | None:
    """The best cell of all heads by validation, the first of equals; ``None`` if no run finished."""
    rank = ranks(sweep)
    return max(best_rows(sweep), key=lambda one: rank[one.cell], default=None)


def ranks(sweep: Sweep) -> dict[Cell, tuple[float, ...]]:
    """What the finished cells are compared by: whether they are complete, validation accuracy, and validation loss."""
    of_cell: dict[Cell, list[Run]] = {}
    for run in sweep.runs:
        of_cell.setdefault(run.cell, []).append(run)
    done = {cell: [run for run in runs if run.status == DONE] for cell, runs in of_cell.items()}
    return {
        cell: (
            float(len(own) == len(of_cell[cell])),
            _mean([run.val_accuracy for run in own]),
            _mean([-run.val_nll for run in own]),
        )
        for cell, own in done.items()
        if own
    }


def _mean(values: Sequence[float]) -> float:
    """The mean; minus infinity if a value is NaN."""
    mean = math.fsum(values) / len(values)
    return -math.inf if math.isnan(mean) else mean
