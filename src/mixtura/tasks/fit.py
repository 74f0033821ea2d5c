"""Fit a model from photos: extract, select, fit, calibrate, evaluate, save."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from mixtura import files
from mixtura.catalog import create
from mixtura.datasets.items import Problem
from mixtura.encoders import own
from mixtura.errors import CannotWrite
from mixtura.features.records import Unreadable
from mixtura.features.store import HEADER_FILE
from mixtura.files import is_there
from mixtura.fitting.checks import refuse_training
from mixtura.fitting.fit import check_names, learn
from mixtura.fitting.gradient import fixed_head
from mixtura.identity import NO_TAPS
from mixtura.model import bundle, card
from mixtura.model.model import Model
from mixtura.pipeline import factory, training_set
from mixtura.pipeline.data_source import data_keys
from mixtura.pipeline.extraction import ProgressCallback
from mixtura.recipe import Recipe, dump, resolve, with_absolute_paths
from mixtura.records.decision import Evaluation
from mixtura.tasks.evaluate import with_second
from mixtura.tasks.level_comparison import earlier_of
from mixtura.tasks.notes import notes
from mixtura.tasks.trained_network import move_encoder_out


@dataclass(frozen=True)
class FitReport:
    """The model's path, its evaluation on the test part, and the total time in seconds.

    ``problems`` are the files left out; ``notes`` are sentences on the limits of the data.
    """

    bundle_path: Path
    evaluation: Evaluation
    seconds: float
    problems: tuple[Problem | Unreadable, ...] = ()
    notes: tuple[str, ...] = ()


def fit(
    data: Recipe | Path | str,
    output: Path | str | None = None,
    settings: Mapping[str, Any] | None = None,
    progress: ProgressCallback = None,
) -> FitReport:
    """Fit a model to a folder of photos, save it and return its report; load it with :func:`mixtura.load`.

    Args:
        data: what ``mixtura fit`` takes: a folder with one sub-folder per class, a list (.csv), a pack (.npz), a
            feature store or the name of a public dataset; or a whole recipe.
        output: folder for the model; that of the recipe if left out.
        settings: dotted recipe keys and their values, as ``{"head.family": "full"}``.
        progress: called after each batch of features.

    Raises:
        MixturaError: see :func:`run`.
    """
    recipe, keys = (data, {}) if isinstance(data, Recipe) else (None, data_keys(str(data)))
    keys |= dict(settings or {}) | ({} if output is None else {"output": output})
    return run(resolve(keys, default=recipe), progress)


def as_run(recipe: Recipe, gathered: training_set.Gathered) -> Recipe:
    """The recipe to keep, with the encoder as it was; taps that the features have and the fit did not read stay so."""
    unread = {"taps": NO_TAPS} if recipe.encoder.taps == NO_TAPS else {}
    return with_absolute_paths(recipe.model_copy(update={"encoder": gathered.encoder.model_copy(update=unread)}))


def run(recipe: Recipe, progress: ProgressCallback = None) -> FitReport:
    """Fit, calibrate and evaluate a model on a recipe's data and save it in the recipe's output folder.

    An existing catalog is handed to the new model; its journal stays. A service that runs on the folder answers with
    the new model from its next request on.

    Raises:
        UsageError: a name in the recipe does not exist, or there is no output folder.
        NoInput, DataError: the data cannot be used.
        CannotWrite, OutOfSpace: the model cannot be written, its catalog holds edits or cannot be the new model's, or
            another fit into the folder is at work; an earlier model is intact.
    """
    began, recipe = time.perf_counter(), factory.settled(recipe)
    refuse_training(recipe)
    check_names(recipe)
    output = factory.output_of(recipe, "the model", "model")
    if is_there(output / HEADER_FILE):
        raise CannotWrite(f"{output} holds features, and a model needs a folder of its own. Give a new one with -o.")
    with files.new_folder(output), files.only_writer(output), training_set.undone(recipe):
        files.collect_staged(output)
        create.check_renewable(output, fixed_head(recipe))
        return _run(recipe, output, progress, began)


def _run(recipe: Recipe, output: Path, progress: ProgressCallback, began: float) -> FitReport:
    earlier = earlier_of(recipe, output)
    gathered = training_set.gather(recipe, progress)
    create.check_same_items(output, gathered.features.identity)
    model = learn(recipe, gathered)
    evaluation = with_second(model, recipe, output, gathered.features, progress)
    said = "" if earlier is None else earlier.compared(model, gathered.features, evaluation)
    report = save(as_run(recipe, gathered), output, gathered, (model, evaluation), began)
    return replace(report, notes=(*report.notes, said)) if said else report


def save(
    recipe: Recipe,
    output: Path,
    gathered: training_set.Gathered,
    made: tuple[Model, Evaluation],
    began: float,
    beside: Mapping[str, bytes] = MappingProxyType({}),
) -> FitReport:
    """Let a model replace that of the output folder; ``recipe`` is kept beside it.

    The trained network of an earlier model moves into a folder of its own, if the new model has none.

    Args:
        recipe: as it ran.
        output: the folder, as it was given.
        gathered: features of all items.
        made: the model that was fitted to them, and its metrics.
        began: when the work did, by ``time.perf_counter``.
        beside: further files of the bundle, by name.

    Raises:
        CannotWrite, OutOfSpace: it cannot be written; an earlier model is intact.
    """
    model, evaluation = made
    others = {
        bundle.RECIPE_FILE: dump(recipe).encode(),
        bundle.METRICS_FILE: bundle.to_json(card.metrics_record(evaluation)),
        bundle.CARD_FILE: card.model_card(model, evaluation).encode(),
    }
    create.replace_model(output, model, others | dict(beside))
    said = notes(gathered, model, recipe.fit)
    if own.folder_of(model.encoder.name) is None and (moved := move_encoder_out(output)):
        said = (*said, moved)
    return FitReport(output, evaluation, time.perf_counter() - began, gathered.problems, said)
