"""What a sweep leaves behind: one row a run, in long format."""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from mixtura.metrics.intervals import t_interval

FAILED, DONE = "failed", "done"


@dataclass(frozen=True)
class Cell:
    """One cell of the grid: a head, how it is fitted, and in how many dimensions and components.

    ``objective`` is what the solver ``gradient`` lowers, empty for the others; ``explained_variance`` is the fraction
    of the variance that PCA keeps, above 0 and at most 1; ``n_components`` counts Gaussians a class.
    """

    head: str
    solver: str
    objective: str
    explained_variance: float
    n_components: int

    @property
    def method(self) -> str:
        """Solver and objective in words.

        >>> Cell("tied", "gradient", "hybrid", 1.0, 1).method, Cell("tied", "closed", "", 1.0, 1).method
        ('gradient (hybrid)', 'closed')
        """
        return f"{self.solver} ({self.objective})" if self.objective else self.solver


@dataclass(frozen=True)
class Run:
    """One fitted head on one split, measured on its test rows.

    ``dimension`` is how many axes the variance takes; ``nll`` (nats), ``ece`` and ``brier`` are at the temperature that
    the validation rows chose, ``nll_raw`` at the head's own; ``sparsity`` is the share of weights that are zero;
    ``seconds`` is the time of fitting (of several seeds trained as one, an equal part each) and ``memory`` the most
    MiB that the process took beyond what it held before; ``epoch`` is the one kept, 0 for the start; ``dead`` counts
    classes of the validation rows never answered. ``tested`` counts the test rows, and ``gaps`` are what the
    calibration error adds up: stated probability less right answers, by bin. ``note`` says what went wrong, if
    anything.
    """

    head: str
    solver: str
    objective: str
    explained_variance: float
    n_components: int
    seed: int
    fold: str
    status: str
    dimension: int = 0
    accuracy: float = math.nan
    nll: float = math.nan
    nll_raw: float = math.nan
    ece: float = math.nan
    brier: float = math.nan
    val_accuracy: float = math.nan
    val_nll: float = math.nan
    temperature: float = math.nan
    parameters: int = 0
    sparsity: float = math.nan
    seconds: float = math.nan
    memory: float = math.nan
    epoch: int = 0
    dead: int = 0
    tested: int = 0
    gaps: tuple[float, ...] = ()
    note: str = ""

    @property
    def cell(self) -> Cell:
        """The cell of the grid that the run belongs to."""
        return Cell(self.head, self.solver, self.objective, self.explained_variance, self.n_components)

    @property
    def key(self) -> tuple[Any, ...]:
        """What tells it from every other run of its sweep."""
        return self.cell, self.seed, self.fold


METRICS = ("accuracy", "nll", "ece", "brier", "dimension", "parameters", "sparsity", "seconds", "memory")
"""The columns that are averaged over the runs of a cell."""

BETTER = {"accuracy": "higher", "nll": "lower", "ece": "lower", "brier": "lower"}
"""Which way is better."""


@dataclass(frozen=True)
class Summary:
    """A cell over its :func:`replicates`: means, and 95 % half-widths of Student's t (NaN for one), by metric."""

    cell: Cell
    runs: int
    mean: dict[str, float]
    half_width: dict[str, float]


@dataclass(frozen=True)
class Sweep:
    """A whole sweep: what it was about, and its runs.

    ``facts`` hold the name of the data and the encoder, counts of rows and classes, seconds, versions.
    """

    facts: dict[str, Any]
    runs: tuple[Run, ...]


def columns() -> list[str]:
    """The columns of a table of runs, in order."""
    return [field.name for field in fields(Run)]


def table(runs: Iterable[Run]) -> dict[str, list[Any]]:
    """Runs column by column."""
    rows = [asdict(run) for run in runs]
    return {name: [row[name] for row in rows] for name in columns()}


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
    pairs = {name: t_interval(replicates(runs, name)) for name in METRICS}
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
