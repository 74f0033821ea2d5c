"""Fit a model from photos: extract, select, fit, calibrate, evaluate, save."""

import time
from dataclasses import dataclass
from pathlib import Path

from mixtura import files
from mixtura.catalog import create
from mixtura.datasets.items import Problem
from mixtura.features.records import Unreadable
from mixtura.fitting.fit import check_names, learn
from mixtura.model import bundle, card
from mixtura.pipeline import factory, training_set
from mixtura.pipeline.extraction import ProgressCallback
from mixtura.recipe import Recipe, dump
from mixtura.records.decision import Evaluation
from mixtura.tasks.evaluate import evaluate
from mixtura.tasks.notes import notes


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


def run(recipe: Recipe, progress: ProgressCallback = None) -> FitReport:
    """Fit, calibrate and evaluate a model on a recipe's data and save it in the recipe's output folder.

    An existing catalog is handed to the new model; its journal stays.

    Raises:
        UsageError: a name in the recipe does not exist, or there is no output folder.
        NoInput, DataError: the data cannot be used.
        CannotWrite, OutOfSpace: the model cannot be written, or its catalog holds edits; an earlier one is intact.
    """
    began = time.perf_counter()
    check_names(recipe)
    output = factory.output_of(recipe, "the model", "model")
    files.make_folder(output)
    create.check_renewable(output)
    gathered = training_set.gather(recipe, progress)
    model = learn(recipe, gathered)
    test = gathered.features.select_split("test")
    evaluation = evaluate(model, test, known=training_set.train_part(gathered.features, model.classes))
    others = {
        bundle.RECIPE_FILE: dump(recipe).encode(),
        bundle.METRICS_FILE: bundle.to_json(card.metrics_record(evaluation)),
        bundle.CARD_FILE: card.model_card(model, evaluation).encode(),
    }
    with create.renewing(output):
        bundle.save_pretrained(model, output, others)
    said = notes(gathered, model)
    return FitReport(output, evaluation, time.perf_counter() - began, gathered.problems, said)
