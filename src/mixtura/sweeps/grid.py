"""Run the grid of heads, explained variances and component counts over several splits; resumable."""

import multiprocessing
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mixtura import files
from mixtura.core.cross_fitting import validation_rows
from mixtura.errors import DataError, LabelError, UsageError
from mixtura.features.blocks import Blocks
from mixtura.features.extract import Progress
from mixtura.features.projected_folds import DATA_FREE_PROJECTIONS
from mixtura.features.projection import PCA, Chain
from mixtura.features.records import Features
from mixtura.files import is_file_at
from mixtura.formats import count
from mixtura.identity import blocks_of
from mixtura.model import bundle
from mixtura.pipeline import factory, training_set
from mixtura.pipeline.extraction import ProgressCallback
from mixtura.recipe import Recipe, dump_dict
from mixtura.records.sweep import FAILED, Run, Sweep
from mixtura.sections import BOTH, StepSection
from mixtura.sweeps import cells
from mixtura.sweeps import jobs as worker_jobs
from mixtura.sweeps.jobs import TEST, TRAIN, UNUSED, VAL, Job, SplitAssignment, Table, Worker
from mixtura.sweeps.results import RUNS_FILE, append, earlier, write

TABLE_PREFIX = ".rows-"
"""Prefix of the folder of rows shared by processes; the process number follows."""

FIT_FACTS = ("optimizer", "learning_rate", "final_learning_rate", "epochs", "batch_size", "l2")
"""Keys of the section ``fit`` that a sweep reports."""


@dataclass(frozen=True)
class SweepProgress:
    """Progress of a sweep: ``done`` of ``total`` runs after ``seconds``; ``rate`` per second, ``remaining`` seconds."""

    done: int
    total: int
    seconds: float
    rate: float
    remaining: float


def run(
    recipe: Recipe, progress: ProgressCallback = None, watch: Callable[[SweepProgress], None] | None = None
) -> Sweep:
    """Fit every head of the grid on every split, and store one row per run in the output folder.

    Rows of an earlier run with the same recipe and data are not computed again.

    Args:
        recipe: data, grid and training.
        progress: called while photos are read.
        watch: called after each job.

    Raises:
        UsageError: a head that does not exist, or no output folder.
        DataError: data that cannot be split, or an output folder that holds another sweep.
        CannotWrite: another process is at work in the output folder.
    """
    recipe = factory.settled(recipe)
    output = check(recipe)
    with files.new_folder(output), files.only_writer(output), training_set.undone(recipe, output / RUNS_FILE):
        return _run(recipe, output, progress, watch)


def _run(
    recipe: Recipe, output: Path, progress: ProgressCallback, watch: Callable[[SweepProgress], None] | None
) -> Sweep:
    began = time.perf_counter()
    features, classes = gathered(recipe, progress)
    draws = split_assignments(features, recipe)
    kept = earlier(recipe, features)
    jobs = [job for job in cells.jobs_of(recipe, len(draws)) if not _all_kept(job, draws, kept)]
    total = len(kept) + sum(len(job.explained) * len(job.draws) for job in jobs)
    if jobs:
        made = _made(recipe, features, classes, draws, jobs)
        for runs in _new(made, kept):
            append(output / RUNS_FILE, runs)
            kept |= {run.key: run for run in runs}
            if watch:
                watch(_progress(len(kept), total, time.perf_counter() - began))
    order = {key: place for place, key in enumerate(cells.keys(recipe, draws))}
    runs = tuple(sorted((run for key, run in kept.items() if key in order), key=lambda run: order[run.key]))
    result = Sweep(_facts(recipe, features, classes, draws, time.perf_counter() - began), runs, cells.skipped(recipe))
    write(result, recipe.model_copy(update={"encoder": factory.section_of(features.identity, recipe.encoder)}))
    if all(one.status == FAILED for one in runs):
        raise DataError(f"None of the {len(runs)} runs could be fitted. The first says: {runs[0].note}")
    return result


def check(recipe: Recipe) -> Path:
    """Validate names and numbers before any photo is read; returns the output folder.

    Raises:
        UsageError: a head, objective or device that does not fit, or no output folder of its own.
    """
    output = factory.output_of(recipe, "the results", "sweep")
    if is_file_at(output / bundle.CONFIG_FILE):
        raise UsageError(f"{output} holds a model, whose recipe a sweep would replace. Name another folder with -o.")
    factory.device_of(recipe.encoder.device)
    cells.check(recipe)
    _check_projection(recipe)
    return output


def _check_projection(recipe: Recipe) -> None:
    """Check that no projection learns from rows, which the test rows of one draw or another would be among.

    Raises:
        UsageError: one does.
    """
    learning = [
        kind.name for kind, _ in factory.steps_of(recipe.projection) if not issubclass(kind, DATA_FREE_PROJECTIONS)
    ]
    if learning:
        raise UsageError(
            f"The projection {learning[0]!r} learns from rows; a sweep has draws, and a PCA, of its own. "
            "Give only projections that learn nothing, such as power or l2."
        )


def split_assignments(features: Features, recipe: Recipe) -> tuple[SplitAssignment, ...]:
    """The training, validation and test rows for every seed and fold; all heads use the same splits.

    Validation rows are the data's own validation part; with folds, another fold chosen by the seed; else a share of
    the training rows, sampled by the seed, stratified by class and with groups kept whole.

    Raises:
        DataError: fewer than three folds.
        LabelError: a class without rows to learn from or without any to test with.
    """
    seeds = range(recipe.seed, recipe.seed + recipe.sweep.n_seeds)
    if recipe.sweep.folds:
        names = sorted({group for group in features.group if group is not None})
        if len(names) < 3 or None in features.group:
            without = sum(group is None for group in features.group)
            raise DataError(
                f"Folds are the groups of the data: there are {len(names)}, and {without} of {len(features)} items "
                "have none. Three or more are needed, with a group for every item; leave out folds to use the split."
            )
        if len(names) > 20:
            raise DataError(
                f"The data has {len(names)} groups; as folds that is {len(names)} runs a cell. Use the split."
            )
        return tuple(_fold(features, names, i, seed) for seed in seeds for i in range(len(names)))
    return tuple(_seeded(features, recipe, seed) for seed in seeds)


def _fold(features: Features, names: list[str], place: int, seed: int) -> SplitAssignment:
    role = np.full(len(features), TRAIN)
    group = np.array(features.group, dtype=object)
    role[group == names[place]] = TEST
    role[group == names[(place + 1 + seed % (len(names) - 1)) % len(names)]] = VAL
    return SplitAssignment(seed, names[place], _checked(role, features))


def _seeded(features: Features, recipe: Recipe, seed: int) -> SplitAssignment:
    split = np.array(features.split, dtype=object)
    role = np.where(split == "test", TEST, np.where(split == "val", VAL, TRAIN))
    if not (role == VAL).any():
        learn = np.flatnonzero(role == TRAIN)
        labels = torch.from_numpy(features.label_index(features.classes)[learn])
        groups = torch.from_numpy(training_set.groups_of(features)[learn])
        role[learn[validation_rows(labels, groups, recipe.fit.val_fraction, seed).numpy()]] = VAL
    return SplitAssignment(seed, "", _checked(role, features))


def _checked(role: np.ndarray, features: Features) -> np.ndarray:
    """Ensure that every class has training rows; if all its rows are for validation, it trains on them instead."""
    labels = features.label_index(features.classes)
    for c in range(len(features.classes)):
        own = labels == c
        if not (own & (role == TRAIN)).any():
            role[own & (role == VAL)] = TRAIN
        if not (own & (role == TRAIN)).any():
            name = features.classes[c]
            raise LabelError(f"Class {name!r} has no item to learn from. Add items, or leave it out (data.unknown).")
    if not (role == VAL).any() or not (role == TEST).any():
        what = "judge" if (role == TEST).any() else "test"
        raise LabelError(
            f"Of {len(role)} items none is left to {what} by. Give each class five items or more that are no "
            "copies of each other (where items have groups, in five groups or more)."
        )
    return role


def gathered(recipe: Recipe, progress: ProgressCallback = None) -> tuple[Features, tuple[str, ...]]:
    """The rows of a recipe that belong to a catalog class, and the classes.

    Raises:
        NoInput, DataError: there are no data, or they cannot be used.
        UsageError: the recipe learns two levels, and heads are compared on one.
    """
    if recipe.data.level == BOTH:
        raise UsageError(
            "A sweep compares heads on one level of labels. Use --level superlabel (data.level), or label."
        )
    found = training_set.gather(recipe, progress)
    features = found.features
    if progress and found.problems:
        said = f"{count(len(found.problems), 'file')} could not be used; the first: {found.problems[0].message}"
        progress(Progress(len(features), len(features), 0.0, 0.0, float("inf"), message=said))
    for said in found.notes:
        if progress:
            progress(Progress(len(features), len(features), 0.0, 0.0, float("inf"), message=said))
    classes = training_set.known_classes(features.classes, recipe.data.unknown)
    return features.select(features.label_index(classes) >= 0), classes


def projection_of(recipe: Recipe, features: Features) -> tuple[StepSection, ...]:
    """The recipe's projection, on the last layer only where the features hold several and it does not choose itself."""
    layout, steps = blocks_of(features.identity), recipe.projection
    if not layout or (steps and steps[0].name == Blocks.name):
        return steps
    last = layout[0]
    return (StepSection(name=Blocks.name, parts=((last.start, last.stop, 1.0, False),)), *steps)


def table_of(recipe: Recipe, features: Features, classes: tuple[str, ...], draws: tuple[SplitAssignment, ...]) -> Table:
    """The rows after the recipe's projections, with the PCA of each split."""
    steps = factory.steps_of(projection_of(recipe, features))
    raw = torch.from_numpy(np.ascontiguousarray(features.embedding, dtype=np.float32))
    x = Chain.fit(raw, None, steps)(raw)
    counts = features.weight > 0
    axes = tuple(PCA.fit(x[torch.from_numpy((draw.role == TRAIN) & counts)], explained_variance=1.0) for draw in draws)
    labels = torch.from_numpy(features.label_index(classes))
    device = factory.device_of(recipe.encoder.device)
    weight = training_set.weight_of(features)
    return Table(x, labels, len(classes), draws, axes, recipe.sweep.whiten_power, device, weight)


def _made(
    recipe: Recipe, features: Features, classes: tuple[str, ...], draws: tuple[SplitAssignment, ...], jobs: list[Job]
) -> Iterator[list[Run]]:
    """The runs of each job, as it finishes."""
    whole = table_of(recipe, features, classes, draws)
    count = min(len(jobs), recipe.sweep.jobs or (1 if whole.device != "cpu" else os.cpu_count() or 1))
    if count == 1:
        worker = Worker(whole, recipe.head, recipe.fit)
        yield from map(worker.do, jobs)
        return
    assert recipe.output is not None
    _sweep_up(recipe.output)
    with tempfile.TemporaryDirectory(dir=recipe.output, prefix=f"{TABLE_PREFIX}{os.getpid()}-") as folder:
        worker_jobs.save(Path(folder), whole)
        yield from _shared_out(recipe, Path(folder), draws, len(classes), jobs, count)


def _sweep_up(folder: Path) -> None:
    """Remove rows left behind by a killed sweep."""
    for left in folder.glob(f"{TABLE_PREFIX}*"):
        owner = left.name.removeprefix(TABLE_PREFIX).partition("-")[0]
        if owner.isdecimal() and Path("/proc/self").exists() and not Path(f"/proc/{owner}").exists():
            shutil.rmtree(left, ignore_errors=True)


def _shared_out(
    recipe: Recipe, folder: Path, draws: tuple[SplitAssignment, ...], n_classes: int, jobs: list[Job], count: int
) -> Iterator[list[Run]]:
    """The runs of each job over several processes, as it finishes.

    Raises:
        DataError: a process was killed, as the kernel does when memory runs out.
    """
    options = {
        "head": dump_dict(recipe.head),
        "fit": dump_dict(recipe.fit),
        "whiten_power": recipe.sweep.whiten_power,
        "jobs": count,
    }
    given = (folder, [(draw.seed, draw.fold) for draw in draws], n_classes, options)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(count, context, worker_jobs.begin, given) as pool:
        waiting: set[Future[list[Run]]] = {pool.submit(worker_jobs.do, job) for job in jobs}
        try:
            while waiting:
                ended, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in ended)
        except BrokenProcessPool as error:
            raise DataError(
                "A process of the sweep was killed, most likely for want of memory. The finished runs are kept: run "
                "the same command again with fewer jobs (--jobs 1) or less explained variance."
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _new(made: Iterable[list[Run]], kept: dict[Any, Run]) -> Iterator[list[Run]]:
    """The runs not in ``kept``."""
    for runs in made:
        yield [run for run in runs if run.key not in kept]


def _all_kept(job: Job, draws: Sequence[SplitAssignment], kept: dict[Any, Run]) -> bool:
    cells = [job.cell(explained) for explained in job.explained]
    return all((cell, draws[d].seed, draws[d].fold) in kept for cell in cells for d in job.draws)


def _progress(done: int, total: int, seconds: float) -> SweepProgress:
    rate = done / seconds if seconds > 0 else 0.0
    return SweepProgress(done, total, seconds, rate, (total - done) / rate if rate else float("inf"))


def _facts(
    recipe: Recipe, features: Features, classes: tuple[str, ...], draws: Sequence[SplitAssignment], seconds: float
) -> dict[str, Any]:
    role = draws[0].role
    return {
        "data": str(recipe.data.root or recipe.data.kind),
        "encoder": features.identity.get("name", recipe.encoder.name),
        "classes": len(classes),
        "dimension": features.dimension,
        "rows_learned": int((role == TRAIN).sum()),
        "rows_judged": int((role == VAL).sum()),
        "rows_tested": int((role == TEST).sum()),
        "rows_unused": int((role == UNUSED).sum()),
        "draws": len(draws),
        **{name: getattr(recipe.fit, name) for name in FIT_FACTS},
        "whiten_power": recipe.sweep.whiten_power,
        "patience": recipe.fit.patience or "none",
        "seed": recipe.seed,
        "seconds": seconds,
        "mixtura": metadata.version("mixtura"),
        "torch": torch.__version__,
    }
