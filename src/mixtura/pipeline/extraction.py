"""Encode photos or sounds into a feature store; items already stored are skipped."""

from collections.abc import Callable

from mixtura.datasets.items import Dataset
from mixtura.features.extract import ExtractReport, Progress, extract
from mixtura.features.store import FeatureStore
from mixtura.pipeline import factory
from mixtura.recipe import Recipe

ProgressCallback = Callable[[Progress], None] | None
"""Called after each batch; ``None`` for no progress reports."""


def fill(
    recipe: Recipe, dataset: Dataset, encoder: factory.Encoder, progress: ProgressCallback = None
) -> ExtractReport:
    """Encode the items that a recipe's store lacks, and report on them.

    Raises:
        UsageError: the encoder takes photos and the data are sounds, or the other way round.
    """
    factory.check_modality(dataset, encoder)
    store = FeatureStore.open_or_create(
        factory.store_path(recipe), encoder.identity, encoder.dimension, recipe.extract.dtype, encoder.versions
    )
    return extract(
        encoder,
        dataset,
        store,
        batch_size=recipe.extract.batch_size,
        workers=factory.workers_of(recipe),
        progress=progress,
    )
