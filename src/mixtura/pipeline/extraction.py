"""Encode photos or sounds into a feature store; items already stored are skipped."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from mixtura import files
from mixtura.datasets.items import Dataset
from mixtura.encoders import RUNTIMES
from mixtura.encoders.runtime import RUNTIME_KEY, TORCH, Accelerated, on_runtime
from mixtura.encoders.taps import AUTO
from mixtura.errors import NoInput, UsageError
from mixtura.features.extract import ExtractReport, Progress, extract
from mixtura.features.store import HEADER_FILE, FeatureStore
from mixtura.files import is_file_at, is_there
from mixtura.formats import count
from mixtura.identity import NO_TAPS
from mixtura.model.bundle import check_no_model
from mixtura.names import nearest
from mixtura.pipeline import cost, factory, stores
from mixtura.pipeline.cost import CostWatch
from mixtura.pipeline.pictures import Pictured, Pictures
from mixtura.recipe import Recipe

ProgressCallback = Callable[[Progress], None] | None
"""Called after each batch; ``None`` for no progress reports."""


def fill(recipe: Recipe, dataset: Dataset, progress: ProgressCallback = None) -> ExtractReport:
    """Encode the items that a recipe's store lacks, and report on them.

    Raises:
        UsageError: the encoder takes photos and the data are sounds, or the other way round; or the store needs
            another runtime than the recipe names.
        FingerprintMismatch: the store belongs to another encoder.
        NoInput: no file could be read; a new store is deleted.
        CannotWrite: the store's folder is that of a model.
    """
    encoder, notes = _encoder_of(recipe)
    factory.check_modality(dataset, encoder)
    place = stores.store_path(recipe, encoder.identity)
    check_no_model(place)
    encoder = _for_store(encoder, recipe, place)
    if progress:
        progress = _watched(progress, recipe, dataset, encoder, place)
    with files.new_folder(place), _begun(recipe, encoder, place) as store:
        pictures = Pictures(place)
        try:
            report = extract(
                encoder,
                Pictured(dataset, pictures),
                store,
                batch_size=recipe.extract.batch_size,
                workers=factory.workers_of(recipe),
                progress=progress,
            )
        finally:
            pictures.flush(store.digests)
        _check_read(report, dataset)
    return replace(report, notes=notes)


def _check_read(report: ExtractReport, dataset: Dataset) -> None:
    """Check that a file could be read.

    Raises:
        NoInput: none could.
    """
    if dataset.items and not report.done + report.skipped:
        problems = (*report.problems, *dataset.problems)
        raise NoInput(f"None of the {count(len(dataset.items), 'file')} could be read. {problems[0].message}")


@contextmanager
def _begun(recipe: Recipe, encoder: factory.Encoder, place: Path) -> Iterator[FeatureStore]:
    """The store at a path; a new one that gets no row, because the work fails, is deleted."""
    new = not is_there(place / HEADER_FILE)
    store = FeatureStore.open_or_create(
        place, encoder.identity, encoder.dimension, recipe.extract.dtype, encoder.versions
    )
    try:
        yield store
    except BaseException:
        if new and not store.part_paths():
            store.delete()
        raise


def _encoder_of(recipe: Recipe) -> tuple[factory.Encoder, tuple[str, ...]]:
    """The recipe's encoder, and what to say of it: ``auto`` taps nothing for a named store that has no taps."""
    encoder, place = factory.encoder_of(recipe.encoder), recipe.extract.store
    fixed = recipe.encoder.taps != AUTO or "taps" not in encoder.identity
    if fixed or place is None or not is_file_at(place / HEADER_FILE) or "taps" in FeatureStore.open(place).identity:
        return encoder, ()
    said = f"{place} holds features without taps and is used as it is. For taps, extract into a new folder."
    return factory.encoder_of(recipe.encoder.model_copy(update={"taps": NO_TAPS})), (said,)


def _watched(
    progress: Callable[[Progress], None], recipe: Recipe, dataset: Dataset, encoder: factory.Encoder, place: Path
) -> CostWatch:
    """``progress`` with the costs of a long run; at once, it is told of features of another encoder that are kept."""
    kept = "" if recipe.output is None else stores.kept_beside(place, recipe.output / factory.FEATURES_KIND)
    if kept and recipe.extract.store is None:
        progress(Progress(0, len(dataset), 0.0, 0.0, float("inf"), message=kept))
    return CostWatch(progress, partial(cost.sentence, encoder, recipe.encoder, dataset))


def _for_store(encoder: factory.Encoder, recipe: Recipe, path: Path) -> factory.Encoder:
    """The encoder on a runtime whose vectors may join those of the store at a path.

    float16 hides how runtimes differ, so such a store takes any; one of float32 keeps the one that began it.
    """
    if not is_there(path / HEADER_FILE):
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
