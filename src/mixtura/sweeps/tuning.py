"""Search a head's settings on one feature matrix with optuna: seeded and resumable."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixtura import files
from mixtura.errors import CannotWrite, CheckpointError, DataError, MissingExtra, MixturaError, OutOfSpace, UsageError
from mixtura.fitting.heads import resolve
from mixtura.heads import HEADS
from mixtura.metrics.replicates import METRIC_DIRECTIONS
from mixtura.names import find
from mixtura.pipeline import training_set
from mixtura.pipeline.extraction import ProgressCallback
from mixtura.recipe import Recipe
from mixtura.records.sweep import DONE
from mixtura.sections import GRADIENT
from mixtura.sweeps import grid
from mixtura.sweeps.earlier import OLD_FITS, update_journal
from mixtura.sweeps.jobs import Job, Table, Worker
from mixtura.sweeps.results import earlier_fingerprint, fingerprint

JOURNAL_FILE = "search.journal"
TUNED_METRICS = {"accuracy": "val_accuracy", "nll": "val_nll"}
"""Metric -> field of a sweep run with its value on the validation rows."""

STARTUP_TRIALS = 5  # trials that are never pruned, since a median of fewer says little

STOPPING = (CannotWrite, OutOfSpace, CheckpointError)
"""Errors that end a search, since every later trial would have them too."""


class Report:
    """``report(step, value)``: intermediate value of trial ``number``; true if it should stop and return its last."""

    def __init__(self, trial: Any) -> None:
        self._trial, self.number, self.ended = trial, int(trial.number), False

    def __call__(self, step: int, value: float) -> bool:
        """Take a value."""
        self._trial.report(value, step)
        self.ended = bool(self._trial.should_prune())
        return self.ended


Judge = Callable[[dict[str, Any], Report], float]
"""``judge(params, report) -> value``: the metric of one setting on the validation rows."""


@dataclass(frozen=True)
class Range:
    """Numbers from ``low`` to ``high``, inclusive; ``log`` samples on a log scale. Integer bounds give integers."""

    low: float | int
    high: float | int
    log: bool = False


Space = Mapping[str, Range | tuple[Any, ...]]
"""Allowed values of each setting: a range of numbers, or a choice of plain values."""

SEARCH_SPACE: Space = {
    "explained_variance": (0.5, 0.8, 0.9, 0.95, 0.99, 1.0),
    "n_components": Range(1, 8),
    "shrinkage": Range(1e-4, 1.0, log=True),
    "learning_rate": Range(1e-4, 3e-2, log=True),
    "epochs": (0, 5, 15, 30),
}
"""The settings of a Gaussian head: fraction of the variance kept, Gaussians per class, share of the identity in
covariances, learning rate, and passes over the rows (0 for the closed form)."""


@dataclass(frozen=True)
class Trial:
    """One evaluated setting; ``status`` is done, failed or pruned, and ``note`` says why it did not finish."""

    number: int
    params: dict[str, Any]
    value: float
    status: str
    note: str = ""


@dataclass(frozen=True)
class Search:
    """All trials, including those of earlier runs; ``better`` is the direction of ``metric``: higher or lower."""

    metric: str
    better: str
    trials: tuple[Trial, ...]

    @property
    def best(self) -> Trial | None:
        """The best finished trial, the first of equals; ``None`` if none finished."""
        sign = 1 if self.better == "higher" else -1
        done = [trial for trial in self.trials if trial.status == "done"]
        return max(done, key=lambda trial: sign * trial.value, default=None)


@dataclass(frozen=True)
class Options:
    """Search options.

    Args:
        metric: a name in ``METRIC_DIRECTIONS``.
        trials: total number, including those of earlier runs.
        seed: of the sampler. What a trial tries follows from it and the trials before, so a search that was stopped
            tries what an uninterrupted one does.
        prune: stop trials that report less than the median of the others at the same step.
        folder: where ``search.journal`` is kept, to resume later; ``None`` keeps nothing.
        about: description of the data and head; a folder holds one search only.
        instead: what to do where the folder holds another search, as a sentence.
    """

    metric: str = "nll"
    trials: int = 50
    seed: int = 0
    prune: bool = False
    folder: Path | None = None
    about: str = ""
    instead: str = "Choose another folder."


def run(recipe: Recipe, head: str, metric: str, trials: int, progress: ProgressCallback = None) -> Search:
    """Search the settings of one head on a recipe's data; resumes from the recipe's output folder.

    Args:
        recipe: data, and the number of splits per setting (``sweep.n_seeds``).
        head: name as in a sweep.
        metric: accuracy or nll, on validation rows; test rows are not used.
        trials: total number of settings.
        progress: called while photos are read.

    Raises:
        UsageError: a name that does not exist, or no output folder.
        NoInput, DataError: the data cannot be used.
        CannotWrite: another process is at work in the output folder.
    """
    if metric not in TUNED_METRICS:
        raise UsageError(f"Metric {metric!r} is not measured on validation rows. Known: {', '.join(TUNED_METRICS)}.")
    output = grid.check(recipe)
    with files.new_folder(output), files.only_writer(output), training_set.undone(recipe, output / f"search-{head}"):
        return _run(recipe, output, head, metric, trials, progress)


def _run(recipe: Recipe, output: Path, head: str, metric: str, trials: int, progress: ProgressCallback) -> Search:
    features, classes = grid.gathered(recipe, progress)
    draws = grid.split_assignments(features, recipe)
    table = grid.table_of(recipe, features, classes, draws)
    folder, objective = output / f"search-{head}", _objective_of(recipe)
    about = f"{head} ({objective}, {len(draws)} draws) on {fingerprint(recipe, features)[:12]}"
    before = earlier_fingerprint(recipe, features)
    if before is not None and objective in OLD_FITS:
        said = f"{head} ({OLD_FITS[objective]}, {len(draws)} draws) on {before[:12]}"
        update_journal(folder / JOURNAL_FILE, {said: about})
    options = Options(metric, trials, recipe.seed, folder=folder, about=about)
    return search(objective_for(table, head, metric, recipe), _space_of(head), options)


def _space_of(head: str) -> Space:
    """The search space of a head."""
    kind = find(HEADS, resolve(head)[0])
    space = dict(SEARCH_SPACE)
    if not kind.multi_component:
        space["n_components"] = (1,)
    if not kind.takes_shrinkage and resolve(head)[0] != "gaussian":
        del space["shrinkage"]
    return space


def _objective_of(recipe: Recipe) -> str:
    """The objective that a search minimizes by gradients.

    Raises:
        UsageError: several objectives, or a solver without gradients.
    """
    solvers, objectives = set(recipe.sweep.solvers), set(recipe.sweep.objectives)
    if solvers != {GRADIENT}:
        raise UsageError(
            f"A search fits by the solver {GRADIENT}, not {', '.join(sorted(solvers))}; without epochs that is the "
            "closed form or EM. Leave out --solver."
        )
    if len(objectives) > 1:
        raise UsageError(f"A search has one objective, not {', '.join(sorted(objectives))}. Choose one (--objective).")
    return objectives.pop()


def search(judge: Judge, space: Space = SEARCH_SPACE, options: Options | None = None) -> Search:
    """Search for the best settings by trials, each informed by the earlier ones (TPE).

    A trial fails if its judge raises an error of mixtura or returns a non-finite value; the search then continues, but
    for errors of the folder. A trial that was interrupted is judged again when the search goes on, under its number.

    Args:
        judge: called once per trial.
        space: allowed values of each setting.
        options: metric, number of trials, seed, folder.

    Raises:
        MissingExtra: optuna is not installed.
        UsageError: an unknown metric, no setting to search, or a folder that holds another search.
        CannotWrite: the folder cannot be written.

    Source: Bergstra et al., Algorithms for Hyper-Parameter Optimization, NeurIPS 2011.
    """
    options = options or Options()
    optuna = imported_optuna()
    if options.metric not in METRIC_DIRECTIONS:
        raise UsageError(f"Metric {options.metric!r} has no better side here. Known: {', '.join(METRIC_DIRECTIONS)}.")
    if not space:
        raise UsageError("There is no setting to search. Give one or more ranges or choices.")
    study = _study(optuna, space, options)
    while True:
        known = study.get_trials(deepcopy=False)
        if sum(trial.state.is_finished() for trial in known) >= options.trials:
            break
        # by number: a resumed sampler of the same seed would repeat the settings of the earlier trials
        seed = (options.seed * 1_000_003 + len(known)) % 2**32
        study.sampler = optuna.samplers.TPESampler(seed=seed)
        broken = [trial for trial in known if not trial.state.is_finished()]
        trial = optuna.trial.Trial(study, broken[0]._trial_id) if broken else study.ask()
        _judged(optuna, study, judge, space, trial)
    trials = tuple(_trial(one) for one in study.get_trials(deepcopy=False) if one.state.is_finished())
    return Search(options.metric, METRIC_DIRECTIONS[options.metric], trials)


def objective_for(table: Table, head: str, metric: str, recipe: Recipe) -> Judge:
    """The judge of a sweep's head, which fits it by gradients from its start and scores it on the validation rows.

    It takes some or all settings of :data:`SEARCH_SPACE`, the rest from the recipe, and reports the running mean
    after each split.

    Args:
        table: rows and splits, as in a sweep.
        head: name as in a sweep.
        metric: accuracy or nll; others are not measured on the validation rows.
        recipe: settings that are not searched.

    Raises:
        UsageError: another metric, several objectives, or a solver without gradients.
    """
    if metric not in TUNED_METRICS:
        raise UsageError(f"Metric {metric!r} is not measured on validation rows. Known: {', '.join(TUNED_METRICS)}.")
    objective = _objective_of(recipe)

    def judge(params: dict[str, Any], report: Callable[[int, float], bool]) -> float:
        own = {"shrinkage": params["shrinkage"]} if "shrinkage" in params else {}
        training = {name: params[name] for name in ("learning_rate", "epochs") if name in params}
        last = min(recipe.fit.final_learning_rate, training.get("learning_rate", math.inf))  # a rate never rises
        worker = Worker(
            table,
            recipe.head.model_copy(update=own),
            recipe.fit.model_copy(update=training | {"final_learning_rate": last}),
        )
        n_components, explained = params.get("n_components", 1), float(params.get("explained_variance", 1.0))
        values: list[float] = []
        for draw in range(len(table.draws)):
            run = worker.do(Job(head, GRADIENT, objective, n_components, (explained,), (draw,)))[0]
            if run.status != DONE:
                raise DataError(run.note)
            values.append(getattr(run, TUNED_METRICS[metric]))
            if report(draw, math.fsum(values) / len(values)):
                break
        return math.fsum(values) / len(values)

    return judge


def imported_optuna() -> Any:
    """The library of the search.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        import optuna  # here: it is an extra
    except ImportError as error:
        raise MissingExtra(f"A search needs optuna ({error}). Run: pip install 'mixtura[sweep]'") from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # notes report the failed trials
    return optuna


def _study(optuna: Any, space: Space, options: Options) -> Any:
    """The study in the folder, or a new one."""
    pruner = (
        optuna.pruners.MedianPruner(n_startup_trials=STARTUP_TRIALS) if options.prune else optuna.pruners.NopPruner()
    )
    direction = "maximize" if METRIC_DIRECTIONS[options.metric] == "higher" else "minimize"
    wanted = {"metric": options.metric, "about": options.about, "space": {k: str(v) for k, v in sorted(space.items())}}
    try:
        storage = _storage(optuna, options.folder)
        names = [one.study_name for one in storage.get_all_studies()] if storage is not None else []
        if "search" in names:
            study = optuna.load_study(study_name="search", storage=storage, pruner=pruner)
            _same(study.user_attrs, wanted, options)
            return study
        study = optuna.create_study(storage=storage, pruner=pruner, study_name="search", direction=direction)
        for name, value in wanted.items():
            study.set_user_attr(name, value)
    except OSError as error:
        raise CannotWrite(f"Cannot write {options.folder}: {error.strerror}. Choose another folder.") from error
    return study


def _storage(optuna: Any, folder: Path | None) -> Any:
    if folder is None:
        return None
    folder.mkdir(parents=True, exist_ok=True)
    backend = optuna.storages.journal.JournalFileBackend(str(folder / JOURNAL_FILE))
    return optuna.storages.JournalStorage(backend)


def _same(found: Mapping[str, Any], wanted: Mapping[str, Any], options: Options) -> None:
    for name, value in wanted.items():
        if found.get(name, value) != value:
            held = f"{options.folder} holds a search with {name} {found[name]}, not {value}."
            raise UsageError(f"{held} {options.instead}")


def _judged(optuna: Any, study: Any, judge: Judge, space: Space, trial: Any) -> None:
    """Judge a trial, and tell the study; an interrupt leaves it running, so it is taken up again."""
    states, report = optuna.trial.TrialState, Report(trial)
    params = {name: _suggest(trial, name, one) for name, one in space.items()}
    try:
        value = float(judge(params, report))
    except STOPPING:
        raise
    except MixturaError as error:
        trial.set_user_attr("note", str(error))
        study.tell(trial, state=states.FAIL)
        return
    if report.ended:
        study.tell(trial, state=states.PRUNED)
    elif math.isfinite(value):
        study.tell(trial, value)
    else:
        trial.set_user_attr("note", f"The value was {value}.")
        study.tell(trial, state=states.FAIL)


def _suggest(trial: Any, name: str, one: Range | tuple[Any, ...]) -> Any:
    if isinstance(one, tuple):
        return trial.suggest_categorical(name, one)
    whole = isinstance(one.low, int) and isinstance(one.high, int)
    return (trial.suggest_int if whole else trial.suggest_float)(name, one.low, one.high, log=one.log)


def _trial(one: Any) -> Trial:
    value = math.nan if one.value is None else float(one.value)
    status = {"COMPLETE": "done", "PRUNED": "pruned"}.get(one.state.name, "failed")
    return Trial(one.number, dict(one.params), value, status, one.user_attrs.get("note", ""))
