"""Records of a sweep: one row per run, in long format."""

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from typing import Any

FAILED, DONE = "failed", "done"


@dataclass(frozen=True)
class Cell:
    """One cell of the grid: a head, its solver, and the numbers of dimensions and components.

    ``objective`` is what the ``gradient`` solver minimizes, empty for the others; ``explained_variance`` is the share
    of the variance that PCA keeps, in (0, 1]; ``n_components`` is the number of Gaussians per class.
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
    """One head fitted on one split, evaluated on its test rows.

    ``dimension`` is the number of axes for the explained variance; ``nll`` (nats), ``ece`` and ``brier`` use the
    temperature chosen on the validation rows, ``nll_raw`` the head's own; ``sparsity`` is the share of zero weights;
    ``seconds`` is the fitting time (an equal part each for seeds trained together); ``memory`` is the most MiB
    that the process used beyond what it held before; ``epoch`` is the one kept, 0 for the start; ``dead`` counts
    classes of the validation rows that are never predicted. ``tested`` counts test rows; ``gaps`` are the terms of
    the calibration error: stated probability minus accuracy, by bin. ``right`` says which test rows were right, in
    their order (see :mod:`mixtura.metrics.right`); ``nll_variance``, ``ece_variance`` and ``brier_variance`` are the
    variances of the terms of the test rows. Runs of earlier versions lack these. ``note`` describes any failure.
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
    right: str = ""
    nll_variance: float = math.nan
    ece_variance: float = math.nan
    brier_variance: float = math.nan
    note: str = ""

    @property
    def cell(self) -> Cell:
        """The grid cell of the run."""
        return Cell(self.head, self.solver, self.objective, self.explained_variance, self.n_components)

    @property
    def key(self) -> tuple[Any, ...]:
        """A key that is unique within the sweep."""
        return self.cell, self.seed, self.fold


@dataclass(frozen=True)
class Summary:
    """A cell over its runs: means by metric, with 95% intervals and half their lengths (NaN where unknown).

    ``test_chance`` says whether the intervals of the test metrics include the chance of the test rows; with runs of an
    earlier version, they are those of the seeds alone.
    """

    cell: Cell
    runs: int
    mean: dict[str, float]
    half_width: dict[str, float]
    interval: dict[str, tuple[float, float]]
    test_chance: bool


@dataclass(frozen=True)
class Comparison:
    """The accuracy of a cell minus that of the selected cell, on the same test rows, with its 95% interval.

    ``p`` is the p-value of no difference, ``p_holm`` the same corrected for the number of heads compared.
    """

    cell: Cell
    difference: float
    interval: tuple[float, float]
    p: float
    p_holm: float


@dataclass(frozen=True)
class Skipped:
    """Cells of the grid that were not tried, at any explained variance, because the head cannot be fitted so."""

    head: str
    solver: str
    objective: str
    n_components: int
    note: str

    @property
    def method(self) -> str:
        """Solver and objective in words."""
        return Cell(self.head, self.solver, self.objective, 1.0, self.n_components).method


@dataclass(frozen=True)
class Sweep:
    """A whole sweep: its facts, its runs, and the cells that were skipped.

    ``facts`` contain the name of the data and the encoder, counts of rows and classes, seconds, versions.
    """

    facts: dict[str, Any]
    runs: tuple[Run, ...]
    skipped: tuple[Skipped, ...] = ()


def columns() -> list[str]:
    """The columns of a table of runs, in order."""
    return [field.name for field in fields(Run)]


def table(runs: Iterable[Run]) -> dict[str, list[Any]]:
    """Runs as a table, column by column."""
    rows = [asdict(run) for run in runs]
    return {name: [row[name] for row in rows] for name in columns()}


KEY_COLUMNS = ("head", "solver", "objective", "explained_variance", "n_components", "seed", "fold")
"""What tells one run from another."""

METRIC_COLUMNS = (
    *("accuracy", "nll", "nll_raw", "ece", "brier", "val_accuracy", "val_nll", "temperature", "dimension"),
    *("parameters", "sparsity", "seconds", "memory", "epoch", "dead", "tested"),
)
"""What is measured of a run, as numbers."""


def long_table(runs: Iterable[Run]) -> dict[str, list[Any]]:
    """Finished runs in long format, column by column: one row per run and metric, without what was not measured."""
    rows = [
        [*(getattr(run, name) for name in KEY_COLUMNS), metric, float(getattr(run, metric))]
        for run in runs
        if run.status == DONE
        for metric in METRIC_COLUMNS
        if not math.isnan(getattr(run, metric))
    ]
    return {name: [row[place] for row in rows] for place, name in enumerate((*KEY_COLUMNS, "metric", "value"))}
