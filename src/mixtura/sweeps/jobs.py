"""One job of a sweep: one head in one cell, or at all explained variances at once, for every split."""

import os
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mixtura import files
from mixtura.core import temperature
from mixtura.core.cross_fitting import Folds
from mixtura.errors import MixturaError
from mixtura.features.projection import PCA
from mixtura.features.spectrum import count_for
from mixtura.fitting import heads
from mixtura.fitting.heads import HeadSpec
from mixtura.heads.base import in_tiles
from mixtura.metrics.calibration import brier_terms, ece_terms, gaps
from mixtura.metrics.classification import accuracy
from mixtura.metrics.right import packed
from mixtura.records.sweep import DONE, FAILED, Cell, Run
from mixtura.sections import FitSection, HeadSection
from mixtura.training.records import Trained

TILE_ROWS = 4096
UNFITTABLE = (MixturaError, MemoryError, torch.OutOfMemoryError)
"""Errors that end a cell; the grid goes on."""

VAL, TRAIN, TEST, UNUSED = 0, 1, 2, 3
"""Role of a row in a split."""


@dataclass(frozen=True)
class SplitAssignment:
    """Training, validation and test rows of one run: ``role`` per row. ``fold`` is empty without folds."""

    seed: int
    fold: str
    role: Int[np.ndarray, " N"]


@dataclass(frozen=True)
class Job:
    """One head, solver, objective and component count, at every ``explained`` variance for every split (by index)."""

    name: str
    solver: str
    objective: str
    n_components: int
    explained: tuple[float, ...]
    draws: tuple[int, ...]

    def cell(self, explained: float) -> Cell:
        """The grid cell of the job at an explained variance."""
        return Cell(self.name, self.solver, self.objective, explained, self.n_components)


@dataclass(frozen=True)
class Table:
    """All rows of a sweep with its splits, and a PCA per split, fitted on its training rows only."""

    x: Float[Tensor, "N D"]
    labels: Int[Tensor, " N"]
    n_classes: int
    draws: tuple[SplitAssignment, ...]
    axes: tuple[PCA, ...]
    whiten_power: float
    device: str = "cpu"
    weight: Float[Tensor, " N"] | None = None

    def dimension(self, draw: int, explained: float) -> int:
        """The number of axes that explain a fraction of the variance in a split."""
        return count_for(self.axes[draw].variance, explained)

    def rotated(self, draw: int, width: int, *roles: int) -> tuple[Float[Tensor, "M W"], Int[Tensor, " M"], Tensor]:
        """Rows with some roles along the first axes, their labels, and a mask of the validation rows."""
        role = torch.from_numpy(self.draws[draw].role)
        rows = torch.isin(role, torch.tensor(roles))
        axes = self.axes[draw]
        variance = axes.variance[:width] + 1e-6 * axes.variance.mean()
        basis = axes.basis[:, :width] * variance.pow(-0.5 * self.whiten_power)
        parts = [(part - axes.mean) @ basis for part in self.x[rows].split(TILE_ROWS)]
        return torch.cat(parts).to(self.device), self.labels[rows].to(self.device), (role[rows] == VAL).to(self.device)

    def folds(self, draw: int, width: int) -> Folds:
        """The training rows, with the validation rows as fold 0."""
        x, labels, judge = self.rotated(draw, width, TRAIN, VAL)
        weight = self.weight
        if weight is not None:
            weight = weight[torch.from_numpy(np.isin(self.draws[draw].role, (TRAIN, VAL)))].to(self.device)
        return heads.holdout_split(x, labels, judge, self.n_classes, weight)


def save(folder: Path, table: Table) -> None:
    """Save a table where other processes can memory-map it."""
    files.make_folder(folder)
    with files.explained(folder):
        np.save(folder / "x.npy", table.x.numpy())
        np.save(folder / "labels.npy", table.labels.numpy())
        if table.weight is not None:
            np.save(folder / "weight.npy", table.weight.numpy())
        np.save(folder / "roles.npy", np.stack([draw.role for draw in table.draws]).astype(np.int64))
        for i, axes in enumerate(table.axes):
            parts = {"mean": axes.mean.numpy(), "basis": axes.basis.numpy(), "variance": axes.variance.numpy()}
            for name, part in parts.items():
                np.save(folder / f"{name}-{i}.npy", part)


def load(folder: Path, runs: Sequence[tuple[int, str]], n_classes: int, whiten_power: float) -> Table:
    """Load a table saved by :func:`save`; the rows are memory-mapped, not read."""
    roles = np.load(folder / "roles.npy")
    draws = tuple(SplitAssignment(seed, fold, role) for (seed, fold), role in zip(runs, roles, strict=True))
    parts = [
        [torch.from_numpy(np.load(folder / f"{name}-{i}.npy")) for name in ("mean", "basis", "variance")]
        for i in range(len(draws))
    ]
    axes = tuple(PCA(1.0, *part) for part in parts)
    x = torch.from_numpy(np.load(folder / "x.npy", mmap_mode="c"))
    labels, weight = torch.from_numpy(np.load(folder / "labels.npy")), folder / "weight.npy"
    table = Table(x, labels, n_classes, draws, axes, whiten_power)
    return replace(table, weight=torch.from_numpy(np.load(weight))) if weight.exists() else table


class Worker:
    """A table with the options of all heads; runs jobs one by one in this process."""

    def __init__(self, table: Table, head: HeadSection, fit: FitSection) -> None:
        self.table, self.head, self.fit = table, head, fit

    def do(self, job: Job) -> list[Run]:
        """The runs of a job; a failed fit gives a run with a note."""
        if not self._spec(job, 0).closed:
            return [run for explained in job.explained for run in self._together(job, explained)]
        return [run for draw in job.draws for run in self._nested(job, draw)]

    def _spec(self, job: Job, seed: int) -> HeadSpec:
        return heads.spec_of(job.name, job.solver, job.n_components, self.head, seed)

    def _fit_of(self, job: Job) -> FitSection:
        return self.fit.model_copy(update={"objective": job.objective} if job.objective else {})

    def _together(self, job: Job, explained: float) -> list[Run]:
        """All splits at one explained variance; those of equal width are trained as one batch."""
        widths = [self.table.dimension(draw, explained) for draw in job.draws]
        try:
            with _Meter() as meter:
                folds = [self.table.folds(draw, width) for draw, width in zip(job.draws, widths, strict=True)]
                self._check_components(job, folds)
                specs = [self._spec(job, self.table.draws[draw].seed) for draw in job.draws]
                trained = heads.fit_all(specs, folds, self._fit_of(job))
        except UNFITTABLE as error:
            if len(job.draws) > 1:  # the other splits may succeed
                return [run for draw in job.draws for run in self._together(replace(job, draws=(draw,)), explained)]
            return [self._failed(job, draw, explained, error) for draw in job.draws]
        cost = {"seconds": meter.seconds / len(trained), "memory": meter.memory}
        parts = zip(job.draws, widths, folds, trained, strict=True)
        return [replace(self._measured(job.cell(explained), d, w, f, t), **cost) for d, w, f, t in parts]

    def _nested(self, job: Job, draw: int) -> Iterator[Run]:
        """All explained variances of one split; sums are computed once at the greatest width and cut for the others."""
        spec = self._spec(job, self.table.draws[draw].seed)
        whole: Folds | None = None
        for explained in sorted(job.explained, reverse=True):
            width = self.table.dimension(draw, explained)
            try:
                with _Meter() as meter:
                    heads.check_size(spec, width, self.table.n_classes)
                    if whole is None:
                        whole = self.table.folds(draw, width)
                        whole.precompute(spec.family)
                    folds = whole.truncate(width)
                    trained = heads.fit_all([spec], [folds], self._fit_of(job))[0]
                run = self._measured(job.cell(explained), draw, width, folds, trained)
                yield replace(run, seconds=meter.seconds, memory=meter.memory)
            except UNFITTABLE as error:
                yield self._failed(job, draw, explained, error)

    def _check_components(self, job: Job, folds: Sequence[Folds]) -> None:
        for own in folds:
            heads.check_components(job.n_components, own)

    @torch.inference_mode()
    def _measured(self, cell: Cell, draw: int, width: int, folds: Folds, trained: Trained) -> Run:
        """A fitted head's metrics on the test rows, at the temperature chosen on the validation rows."""
        head, own = trained.head, self.table.draws[draw]
        judge = folds.fold == 0
        val, val_labels = in_tiles(head.class_scores, folds.x[judge]).cpu(), folds.labels[judge].cpu()
        weight = folds.counts[judge].cpu()
        degrees = temperature.best(val, val_labels, weight)
        x, labels, _ = self.table.rotated(draw, width, TEST)
        test, truth = in_tiles(head.class_scores, x).cpu(), labels.cpu()
        best = trained.epochs[trained.best]
        posterior = (test.double() / degrees).softmax(1)
        top = posterior.max(1)
        right = (top.indices == truth).numpy()
        terms: dict[str, Any] = {
            "nll": -(test.double() / degrees).log_softmax(1)[torch.arange(len(truth)), truth].numpy(),
            "ece": ece_terms(top.values.numpy(), right),
            "brier": brier_terms(truth.numpy(), posterior.numpy()),
        }
        return Run(
            **asdict(cell),
            seed=own.seed,
            fold=own.fold,
            status=DONE,
            dimension=width,
            accuracy=accuracy(truth.numpy(), top.indices.numpy()),
            **_averages(terms),
            nll_raw=float(torch.nn.functional.nll_loss(in_tiles(head, x).cpu(), truth)),
            val_accuracy=float(weight @ (val.argmax(1) == val_labels).double() / weight.sum()),
            val_nll=temperature.nll(val, val_labels, degrees, weight),
            temperature=degrees,
            parameters=head.n_parameters,
            sparsity=head.sparsity,
            epoch=best.number,
            dead=best.dead,
            tested=len(truth),
            gaps=tuple(gaps(top.values.numpy(), right).tolist()),
            right=packed(right),
            note=trained.stopped or "",
        )

    def _failed(self, job: Job, draw: int, explained: float, error: Exception) -> Run:
        own = self.table.draws[draw]
        return Run(**asdict(job.cell(explained)), seed=own.seed, fold=own.fold, status=FAILED, note=_told(error))


def _averages(terms: dict[str, Any]) -> dict[str, Any]:
    """Mean and variance of the terms of each metric, under the names of a run's columns."""
    means = {name: float(each.mean()) for name, each in terms.items()}
    return means | {f"{name}_variance": _variance(each) for name, each in terms.items()}


def _told(error: Exception) -> str:
    return str(error) or type(error).__name__


def _variance(terms: Float[np.ndarray, " N"]) -> float:
    return float(np.var(terms, ddof=1)) if len(terms) > 1 else float("nan")


class _Meter:
    """Seconds, and the most MiB that this process used beyond its level at the start (Linux; NaN elsewhere)."""

    seconds = float("nan")
    memory = float("nan")

    def __enter__(self) -> "_Meter":
        self._held = _resident("VmRSS") if _reset_peak() else None
        self._began = time.perf_counter()
        return self

    def __exit__(self, *error: Any) -> None:
        self.seconds = time.perf_counter() - self._began
        peak = _resident("VmHWM")
        if self._held is not None and peak is not None:
            self.memory = max(0.0, (peak - self._held) / 1024)


def _reset_peak() -> bool:
    """Reset the kernel's peak-memory counter; returns whether it could."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _resident(name: str) -> float | None:
    """A memory figure of this process, in KiB."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((float(line.split()[1]) for line in lines if line.startswith(f"{name}:")), None)


_own: list[Worker] = []
"""The worker of this process when jobs are spread over several processes."""


def begin(folder: Path, runs: Sequence[tuple[int, str]], n_classes: int, options: dict[str, Any]) -> None:
    """Create the worker of a new process, which ends when its parent does."""
    threading.Thread(target=_follow, args=(os.getppid(),), daemon=True).start()
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // options["jobs"]))
    table = load(folder, runs, n_classes, options["whiten_power"])
    _own.append(Worker(table, HeadSection(**options["head"]), FitSection(**options["fit"])))


def _follow(parent: int) -> None:
    """End this process once its parent is gone, so that a killed sweep leaves no workers."""
    while os.getppid() == parent:
        time.sleep(2)
    os._exit(1)


def do(job: Job) -> list[Run]:
    """Run a job in the worker of this process."""
    return _own[-1].do(job)
