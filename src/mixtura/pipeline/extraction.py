"""Encode photos or sounds into a feature store; items already stored are skipped."""

from collections.abc import Callable

from mixtura.datasets.items import Dataset
from mixtura.encoders import RUNTIMES
from mixtura.encoders.runtime import RUNTIME_KEY, TORCH, Accelerated, on_runtime
from mixtura.errors import UsageError
from mixtura.features.extract import ExtractReport, Progress, extract
from mixtura.features.store import HEADER_FILE, FeatureStore
from mixtura.names import nearest
from mixtura.pipeline import factory
from mixtura.recipe import Recipe

ProgressCallback = Callable[[Progress], None] | None
"""Called after each batch; ``None`` for no progress reports."""


def fill(
    recipe: Recipe, dataset: Dataset, encoder: factory.Encoder, progress: ProgressCallback = None
) -> ExtractReport:
    """Encode the items that a recipe's store lacks, and report on them.

    Raises:
        UsageError: the encoder takes photos and the data are sounds, or the other way round; or the store needs
            another runtime than the recipe names.
    """
    factory.check_modality(dataset, encoder)
    encoder = _for_store(encoder, recipe)
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


def _for_store(encoder: factory.Encoder, recipe: Recipe) -> factory.Encoder:
    """The encoder on a runtime whose vectors may join those of the recipe's store.

    float16 hides how runtimes differ, so such a store takes any; one of float32 keeps the one that began it.
    """
    path = factory.store_path(recipe)
    if not (path / HEADER_FILE).exists():
        if isinstance(encoder, Accelerated):
            encoder.settle()  # a new store records how it was made
        return encoder
    store = FeatureStore.open(path)
    recorded = store.versions.get(RUNTIME_KEY, TORCH).partition(" ")[0]
    plain, used = (encoder.encoder, encoder.runtime) if isinstance(encoder, Accelerated) else (encoder, TORCH)
    if store.dtype == "float16" or (used == recorded and recipe.encoder.runtime != "auto"):
        return encoder
    if recorded not in {TORCH, *RUNTIMES}:
        raise UsageError(f"{path} was made with the runtime {recorded!r}. {nearest(recorded, {TORCH, *RUNTIMES})}")
    if recipe.encoder.runtime != "auto":
        raise UsageError(
            f"{path} holds float32 vectors of the runtime {recorded}, and {used} rounds differently. Use "
            f"encoder.runtime {recorded}, or extract into a new folder."
        )
    return on_runtime(plain, recorded, factory.device_of(recipe.encoder.device))
