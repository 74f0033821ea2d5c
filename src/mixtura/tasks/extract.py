"""Encode photos or sounds into a feature store."""

from mixtura.features.extract import ExtractReport
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
    return fill(recipe, factory.dataset_of(recipe.data), progress)
