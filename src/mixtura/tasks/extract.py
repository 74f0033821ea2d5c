"""Encode photos or sounds into a feature store."""

from dataclasses import replace

from mixtura.features.extract import ExtractReport
from mixtura.features.records import Unreadable
from mixtura.pipeline import factory
from mixtura.pipeline.extraction import ProgressCallback, fill
from mixtura.recipe import Recipe


def run(recipe: Recipe, progress: ProgressCallback = None) -> ExtractReport:
    """Encode the items that the recipe's store does not hold yet.

    Args:
        recipe: data, encoder and store.
        progress: called after each batch.

    Raises:
        NoInput: the data is missing or empty.
        FingerprintMismatch: the store belongs to another encoder.
        CannotWrite, OutOfSpace: the store cannot be written.
    """
    recipe = factory.settled(recipe)
    dataset = factory.dataset_of(recipe.data)
    made = fill(recipe, dataset, progress)
    left_out = (Unreadable(one.source, one.source, one.reason, one.message) for one in dataset.problems)
    return replace(made, problems=(*left_out, *made.problems))
