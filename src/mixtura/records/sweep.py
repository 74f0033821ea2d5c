"""What a sweep leaves behind: one row a run, in long format."""

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from typing import Any

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


@dataclass(frozen=True)
class Summary:
    """A cell of the grid over its runs: means and 95% half-widths of Student's t (NaN for one) by metric."""

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
