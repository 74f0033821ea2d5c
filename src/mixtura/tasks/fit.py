"""Photos in, a model out: extract, choose, fit, calibrate, evaluate, save."""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from mixtura import files, names
from mixtura.core import FAMILIES
from mixtura.datasets.items import Problem
from mixtura.encoders import ENCODERS
from mixtura.encoders.common import split_name
from mixtura.errors import LabelError
from mixtura.features.records import Features, Unreadable
from mixtura.recipe import Recipe, dump
from mixtura.tasks import build, bundle, card, gather, heads, trained
from mixtura.tasks.catalog import opening
from mixtura.tasks.choose import Rows, choose, closed
from mixtura.tasks.evaluate import evaluate
from mixtura.tasks.extract import Watch
from mixtura.tasks.fitted import Fitted, assemble
from mixtura.tasks.model import Model
from mixtura.tasks.notes import notes
from mixtura.tasks.records import Evaluation


@dataclass(frozen=True)
class FitReport:
    """Where the model is, how it does on its test part, and how long it all took, in seconds.

    ``problems`` are the files that were left out; ``notes`` are sentences on what the data cannot carry.
    """

    bundle_path: Path
    evaluation: Evaluation
    seconds: float
    problems: tuple[Problem | Unreadable, ...] = ()
    notes: tuple[str, ...] = ()


def run(recipe: Recipe, progress: Watch = None) -> FitReport:
    """Fit, calibrate and evaluate on the data of a recipe and save the model in its output folder.

    A catalog that is there becomes that of the new model; its journal stays.

    Raises:
        UsageError: a name in the recipe does not exist, or there is no output folder.
        NoInput, DataError: the data cannot be used.
        CannotWrite, OutOfSpace: the model cannot be written, or its catalog holds edits; an earlier one is intact.
    """
    began = time.perf_counter()
    check_names(recipe)
    output = build.output_of(recipe, "the model", "model")
    files.make_folder(output)
    opening.check_renewable(output)
    gathered = gather.gather(recipe, progress)
    model = learn(recipe, gathered)
    test = gathered.features.select_split("test")
    evaluation = evaluate(model, test, known=gather.train_part(gathered.features, model.classes))
    others = {
        bundle.RECIPE: dump(recipe).encode(),
        bundle.METRICS: bundle.to_json(card.metrics_record(evaluation)),
        bundle.CARD: card.model_card(model, evaluation).encode(),
    }
    with opening.renewing(output):
        bundle.save_pretrained(model, output, others)
    said = notes(gathered, model)
    return FitReport(output, evaluation, time.perf_counter() - began, gathered.problems, said)


def check_names(recipe: Recipe) -> None:
    """Look names up before any photo is read.

    Raises:
        UnknownName: a name stands in no table; the nearest is named.
        UsageError: a device that is not there, or a head that cannot be fitted so.
    """
    names.find(ENCODERS, split_name(recipe.encoder.name)[0])
    if recipe.data.kind != build.FEATURES:
        build.check_place(recipe.data)
    build.steps_of(recipe.projection)
    build.device_of(recipe.encoder.device)
    spec = heads.spec_of(recipe.head.name, recipe.fit.solver, recipe.head.n_components, recipe.head, 0)
    heads.check_fit(spec, recipe.fit, [recipe.fit.objective])
    if recipe.head.family != "auto" and recipe.head.family not in FAMILIES:
        names.find({name: FAMILIES[name] for name in FAMILIES} | {"auto": ""}, recipe.head.family)


def learn(recipe: Recipe, gathered: gather.Gathered) -> Model:
    """The model of the rows that are not for testing.

    Raises:
        LabelError: fewer than two classes, nothing to test with, or a class without an item that counts.
    """
    features = gathered.features
    learned = features.select(np.array([split != "test" for split in features.split], dtype=bool))
    classes = gather.catalog(learned.classes, tuple(set(recipe.data.unknown) & set(learned.classes)))
    if not (features.select_split("test").label_index(classes) >= 0).any():
        raise LabelError(
            f"No photo is left to test with: all {len(learned)} are needed to learn from. "
            "Give each class three photos or more (where photos have groups, in three groups), or a test folder."
        )
    train = gather.train_part(features, classes)
    rows = _rows(train, classes)
    _check_weights(rows, classes)
    return assemble(recipe, gathered, classes, rows.x, solve(recipe, rows))


def _check_weights(rows: Rows, classes: tuple[str, ...]) -> None:
    """See that every class has an item that counts: one without any would never be answered."""
    if rows.weight is None:
        return
    total = torch.bincount(rows.labels, rows.weight, minlength=len(classes))
    if not bool((total > 0).all()):
        name = classes[int(total.argmin())]
        raise LabelError(
            f"All items of class {name!r} that could be learned from have weight 0. Give one of them a weight, or "
            "leave the class out (data.unknown)."
        )


def solve(recipe: Recipe, rows: Rows) -> Fitted:
    """Fit by the solver of a recipe; the projection and the plan are chosen first, whatever the solver.

    Raises:
        LabelError: too few rows can be held out.
        UsageError: a head, solver or option that does not fit.
    """
    recipe = trained.resolve_variant(recipe)
    choice = choose(trained.density(recipe), rows)
    fitted = closed(choice, rows, recipe.seed)
    return trained.fit(recipe, rows, choice, fitted) if trained.needed(recipe) else fitted


def _rows(train: Features, classes: tuple[str, ...]) -> Rows:
    return Rows(
        torch.from_numpy(train.embedding),
        torch.from_numpy(train.label_index(classes)),
        torch.from_numpy(gather.groups_of(train)),
        torch.tensor([split == "val" for split in train.split]),
        gather.weight_of(train),
        len(classes),
    )
