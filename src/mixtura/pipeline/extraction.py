"""Photos or sounds in, features in a store: what is missing there is encoded, and nothing else."""

from collections.abc import Callable

from mixtura.datasets.items import Dataset
from mixtura.features.extract import ExtractReport, Progress, extract
from mixtura.features.store import FeatureStore
from mixtura.pipeline import factory
from mixtura.recipe import Recipe

ProgressCallback = Callable[[Progress], None] | None
"""Called after each batch; ``None`` where nobody watches."""


def fill(
    recipe: Recipe, dataset: Dataset, encoder: factory.Encoder, progress: ProgressCallback = None
) -> ExtractReport:
    """Encode what the store of a recipe lacks, and return a report of it.

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
