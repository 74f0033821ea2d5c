"""Photos or sounds in, a feature store out."""

from collections.abc import Callable

from mixtura.datasets.items import Dataset
from mixtura.features.extract import ExtractReport, Progress, extract
from mixtura.features.store import FeatureStore
from mixtura.recipe import Recipe
from mixtura.tasks import build

Watch = Callable[[Progress], None] | None


def run(recipe: Recipe, progress: Watch = None) -> ExtractReport:
    """Encode what the store of the recipe does not hold yet.

    Args:
        recipe: data, encoder and store.
        progress: called after each batch.

    Raises:
        NoInput: the data is missing or empty.
        FingerprintMismatch: the store belongs to another encoder.
        CannotWrite, OutOfSpace: the store cannot be written.
    """
    return fill(recipe, build.dataset_of(recipe.data), build.encoder_of(recipe.encoder), progress)


def fill(recipe: Recipe, dataset: Dataset, encoder: build.Encoder, progress: Watch = None) -> ExtractReport:
    """The same for data and an encoder that are at hand.

    Raises:
        UsageError: the encoder takes photos and the data are sounds, or the other way round.
    """
    build.check_modality(dataset, encoder)
    store = FeatureStore.open_or_create(
        build.store_path(recipe), encoder.identity, encoder.dimension, recipe.extract.dtype, encoder.versions
    )
    return extract(
        encoder,
        dataset,
        store,
        batch_size=recipe.extract.batch_size,
        workers=build.workers_of(recipe),
        progress=progress,
    )
