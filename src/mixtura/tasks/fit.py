"""Photos in, a model out: extract, choose, fit, calibrate, evaluate, save."""

import time
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np
import torch

from mixtura import files, names
from mixtura.core import FAMILIES, temperature
from mixtura.encoders import ENCODERS
from mixtura.encoders.protocol import split_name
from mixtura.errors import LabelError, UsageError
from mixtura.features.records import Features
from mixtura.recipe import Recipe, dump
from mixtura.scores.typicality import Typicality
from mixtura.tasks import bundle, card, gather
from mixtura.tasks.choose import Choice, Rows, choose
from mixtura.tasks.evaluate import evaluate
from mixtura.tasks.extract import Watch
from mixtura.tasks.model import Model
from mixtura.tasks.records import Evaluation


@dataclass(frozen=True)
class FitReport:
    """Where the model is, how it does on its test part, and how long it all took, in seconds."""

    bundle_path: Path
    evaluation: Evaluation
    seconds: float


def run(recipe: Recipe, progress: Watch = None) -> FitReport:
    """Fit, calibrate and evaluate on the data of a recipe and save the model in its output folder.

    Raises:
        UsageError: a name in the recipe does not exist, or there is no output folder.
        NoInput, DataError: the data cannot be used.
        CannotWrite, OutOfSpace: the model cannot be written; an earlier one is intact.
    """
    began = time.perf_counter()
    check_names(recipe)
    if recipe.output is None:
        raise UsageError("There is no place for the model. Give an output folder, for example -o shop.")
    files.make_folder(recipe.output)
    gathered = gather.gather(recipe, progress)
    model = learn(recipe, gathered)
    test = gathered.features.select_split("test")
    evaluation = evaluate(model, test, known=train_part(gathered.features, model.classes))
    files.write(recipe.output / bundle.RECIPE, dump(recipe).encode())
    bundle.save_pretrained(model, recipe.output)
    bundle.write_json(recipe.output / bundle.METRICS, card.metrics_record(evaluation))
    files.write(recipe.output / bundle.CARD, card.model_card(model, evaluation).encode())
    return FitReport(recipe.output, evaluation, time.perf_counter() - began)


def check_names(recipe: Recipe) -> None:
    """Look names up before any photo is read.

    Raises:
        UnknownName: a name stands in no table; the nearest is named.
    """
    names.find(ENCODERS, split_name(recipe.encoder.name)[0])
    if recipe.head.family != "auto" and recipe.head.family not in FAMILIES:
        names.find({name: FAMILIES[name] for name in FAMILIES} | {"auto": ""}, recipe.head.family)


def train_part(features: Features, classes: tuple[str, ...]) -> Features:
    """The rows of the catalog that the model may see: all but the test part."""
    kept = [s != "test" and label in set(classes) for s, label in zip(features.split, features.label, strict=True)]
    return features.select(np.array(kept, dtype=bool))


def learn(recipe: Recipe, gathered: gather.Gathered) -> Model:
    """The model of the rows that are not for testing.

    Raises:
        LabelError: fewer than two classes.
    """
    features = gathered.features
    classes = catalog(features, recipe.data.unknown)
    train = train_part(features, classes)
    rows = _rows(train, classes)
    choice = choose(recipe, rows)
    return _calibrated(recipe, gathered, classes, choice)


def catalog(features: Features, unknown: tuple[str, ...]) -> tuple[str, ...]:
    """The classes of the catalog: all labels of rows to learn from, but those that stand for the unknown.

    Raises:
        LabelError: fewer than two classes are left, or a class to leave out does not occur.
    """
    absent = sorted(set(unknown) - set(features.classes))
    if absent:
        raise LabelError(f"No item has the label {absent[0]!r}. {names.nearest(absent[0], features.classes)}")
    learned = features.select(np.array([split != "test" for split in features.split], dtype=bool))
    classes = tuple(label for label in learned.classes if label not in unknown)
    if len(classes) < 2:
        found = repr(classes[0]) if classes else "none"
        raise LabelError(
            f"Found {len(classes)} class with items to learn from ({found}); two or more are needed. "
            "Put the photos of each class into a folder of its own."
        )
    return classes


def _rows(train: Features, classes: tuple[str, ...]) -> Rows:
    weight = None if (train.weight == 1).all() else torch.from_numpy(train.weight)
    return Rows(
        torch.from_numpy(train.embedding),
        torch.from_numpy(train.label_index(classes)),
        torch.from_numpy(gather.groups_of(train)),
        torch.tensor([split == "val" for split in train.split]),
        weight,
        len(classes),
    )


def _calibrated(recipe: Recipe, gathered: gather.Gathered, classes: tuple[str, ...], choice: Choice) -> Model:
    """The chosen mixture over all rows, with temperature and typicality from rows held out of it."""
    held = choice.folds.hold_out(choice.trial.plan, background=True)
    features = gathered.features
    return Model(
        classes=classes,
        encoder=gathered.encoder,
        identity=features.identity,
        dimension=features.dimension,
        projection=choice.projection,
        mixture=choice.folds.mixture(choice.trial.plan).to(torch.float32),
        temperature=temperature.fit(held.joint, held.label),
        typicality=Typicality.fit(held.evidence, held.background, held.predicted),
        decision=recipe.decision,
        facts=_facts(gathered, choice, len(held.row)),
    )


def _facts(gathered: gather.Gathered, choice: Choice, held: int) -> dict[str, object]:
    """How the model came to be, for its card and its report."""
    plan = choice.trial.plan
    return {
        "mixtura": metadata.version("mixtura"),
        "torch": torch.__version__,
        "encoder": gathered.encoder.name,
        "fingerprint": gathered.features.fingerprint,
        "projection": " > ".join(step.name for step in choice.projection.steps) or "none",
        "family": plan.family,
        "components": plan.components if isinstance(plan.components, int) else list(plan.components),
        "prior_strength": plan.prior.strength,
        "shrinkage": plan.prior.identity,
        "training_items": len(choice.folds.labels),
        "held_out_items": held,
        "held_out_accuracy": choice.trial.accuracy,
        "left_out": len(gathered.problems),
        "data": gather.digest_of(gathered.features),
    }
