"""The search of ``mixtura train``: settings of the section ``train``, judged on validation photos."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from typing import Any

from mixtura.errors import DataError, UsageError
from mixtura.fitting.network import TrainedPart
from mixtura.fitting.network_material import Material
from mixtura.pipeline import network_setup
from mixtura.recipe import Recipe, dump_dict, with_settings
from mixtura.records.training_course import SearchTrial
from mixtura.sweeps import tuning
from mixtura.training_sections import RECONSTRUCTION, SearchSection, SpanSection, TrainSection

SEARCH_FOLDER = "search"
"""Folder of the trials inside that of the run, each under its number."""

SHARED = (
    "train.minutes",
    "train.start",
    "train.objective",
    "train.pixels",
    "train.distance",
    "train.episodes",
    "train.head",
    "train.log",
)
"""Keys, with those below them, that all trials share: other values of them could not be compared."""

NOT_COMPARED = network_setup.NOT_COMPARED - {"epochs", "patience"}
"""Keys that may change while a search goes on; trials of other lengths could not be compared."""

METRICS = {"validation_loss": "nll", "validation_accuracy": "accuracy"}

Trained = Callable[[Material, Path, float, int], tuple[list[TrainedPart], str]]
"""``trained(material, folder, seconds, trial)``: the parts that were trained, or why there are none."""


def check_search(recipe: Recipe) -> None:
    """Check the section ``search`` of a recipe before any photo is read; its values are in :func:`sections`.

    Raises:
        UsageError: there is nothing to search, no number of trials, a key that all trials share, or the accuracy of a
            training without classes.
        MissingExtra: the library of the search is not installed.
    """
    search = recipe.search
    if search is None:
        return
    if not search.space:
        raise UsageError(
            "There is nothing to search. Add a section to the recipe, as in "
            "search: {train.learning_rate: {low: 1e-4, high: 1e-2, log: true}}"
        )
    if search.trials is None:
        raise UsageError("The recipe has a section 'search', but no number of trials. Add --search N, or leave it out.")
    if search.metric == "validation_accuracy" and recipe.train and recipe.train.objective == RECONSTRUCTION:
        raise UsageError("Reconstruction has no accuracy. Leave out search.metric, for the validation loss.")
    for key in search.space:
        shared = any(key == one or key.startswith(f"{one}.") for one in SHARED)
        if shared or not key.startswith("train."):
            raise UsageError(
                f"A search cannot vary {key!r}, which all trials share. Give keys that say how the network is trained, "
                "such as train.learning_rate."
            )
    tuning.imported_optuna()


def sections(recipe: Recipe) -> Iterator[TrainSection]:
    """The section ``train`` as it is, and with each value that a search may give a key of it, for checks beforehand.

    Raises:
        RecipeError: there is no such key, or a value does not fit it.
    """
    yield _section(recipe, {})
    for key, span in {} if recipe.search is None else recipe.search.space.items():
        for value in _examples(span):
            yield _section(recipe, {key: value})


def _examples(span: SpanSection) -> tuple[Any, ...]:
    """Values of a span: all choices, or the bounds and, unless both are whole, what lies between."""
    if span.choices is not None:
        return span.choices
    assert span.low is not None
    assert span.high is not None
    whole = isinstance(span.low, int) and isinstance(span.high, int)
    return (span.low, span.high) if whole else (span.low, span.high, span.low + 0.618 * (span.high - span.low))


def _section(recipe: Recipe, settings: Mapping[str, Any]) -> TrainSection:
    made = with_settings(recipe, settings, "search").train
    assert made is not None
    return made


def _read(section: TrainSection, key: str) -> Any:
    return reduce(getattr, key.split(".")[1:], section)


@dataclass
class NetworkSearch:
    """The search of a run; call :meth:`run` once.

    Args:
        recipe: with the section ``search``.
        folder: of the run.
        left: seconds that are left for training.
        trained: trains the network.
        watch: called with the trials after each, and at the end with the number of the best too.
    """

    recipe: Recipe
    folder: Path
    left: Callable[[], float]
    trained: Trained
    watch: Callable[..., None]
    _trials: dict[int, SearchTrial] = field(default_factory=dict)
    _best: tuple[int, list[TrainedPart]] | None = None

    def run(self, material: Material) -> tuple[list[TrainedPart], str]:
        """The networks of the best trial, or why there are none.

        Raises:
            UsageError: the folder holds another search.
            DataError: all trials failed, and the network has no weights to fall back on.
            CheckpointError, CannotWrite, OutOfSpace: see :func:`mixtura.training.trainer.train`.
        """

        def judge(params: dict[str, Any], report: tuning.Report) -> float:
            return self._value(material, params, report.number)

        found = tuning.search(judge, self._space(), self._options(material))
        self._trials = {one.number: _record(one) for one in found.trials}
        best = found.best
        self.watch(tuple(self._trials.values()), None if best is None else best.number)
        if best is None:
            why = f"All trials failed. The first error: {found.trials[0].note}"
            if material.pretrained:
                return [], why
            raise DataError(why)
        if self._best is not None and self._best[0] == best.number:
            return self._best[1], ""
        return self._train(material, best.params, best.number, self.left())  # an earlier run has trained it

    @property
    def _search(self) -> SearchSection:
        assert self.recipe.search is not None
        return self.recipe.search

    def _value(self, material: Material, params: Mapping[str, Any], number: int) -> float:
        """The metric of a trial, which has an equal part of the time that is left."""
        self._trials[number] = SearchTrial(number, params, float("nan"), "running")
        self.watch(tuple(self._trials.values()))
        assert self._search.trials is not None
        made, why = self._train(material, params, number, self.left() / max(self._search.trials - number, 1))
        if not made:
            raise DataError(why)
        best = min(made, key=lambda one: one.loss)
        value = best.loss if self._search.metric == "validation_loss" else best.accuracy
        self._trials[number] = SearchTrial(number, params, value, "done")
        self.watch(tuple(self._trials.values()))
        if self._best is None or self._is_better(value, self._trials[self._best[0]].value):
            self._best = number, made
        return value

    def _is_better(self, value: float, other: float) -> bool:
        return value < other if self._search.metric == "validation_loss" else value > other

    def _train(
        self, material: Material, params: Mapping[str, Any], number: int, seconds: float
    ) -> tuple[list[TrainedPart], str]:
        own = material.with_section(_section(self.recipe, params))
        return self.trained(own, self.folder / SEARCH_FOLDER / str(number), seconds, number)

    def _space(self) -> tuning.Space:
        space: dict[str, tuning.Range | tuple[Any, ...]] = {}
        for key, span in self._search.space.items():
            if span.choices is not None:
                # as the section reads them: YAML gives 1e-3 as text
                space[key] = tuple(_read(_section(self.recipe, {key: value}), key) for value in span.choices)
            elif span.low is not None and span.high is not None:
                space[key] = tuning.Range(span.low, span.high, span.log)
        return space

    def _options(self, material: Material) -> tuning.Options:
        """What must be equal when the search goes on, beside the space: the settings that stay, and the data."""
        section = self.recipe.train
        assert section is not None
        given = dump_dict(section)
        given = {name: value for name, value in given.items() if name not in NOT_COMPARED}
        head = dump_dict(self.recipe.head) if section.head == "joint" else None
        same = [given, head, material.encoder.fingerprint, *material.facts.values(), material.seed]
        about = hashlib.sha256(json.dumps(same, sort_keys=True).encode()).hexdigest()[:12]
        return tuning.Options(
            METRICS[self._search.metric],
            self._search.trials or 1,
            self.recipe.seed,
            folder=self.folder / SEARCH_FOLDER,
            about=f"training {about}",
            instead="--fresh moves it aside and begins again.",
        )


def _record(trial: tuning.Trial) -> SearchTrial:
    return SearchTrial(trial.number, trial.params, trial.value, trial.status, trial.note)
