"""Stored items of a model, its catalog or a feature store, for tasks that only read them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mixtura import files
from mixtura.catalog import Catalog, create
from mixtura.datasets.items import Problem
from mixtura.encoders.common import require_allowed_encoder, resolved
from mixtura.encoders.own import folder_of, placed, read_description
from mixtura.errors import FingerprintMismatch, NoInput, UsageError
from mixtura.features.records import Features, Unreadable
from mixtura.features.store import HEADER_FILE, FeatureStore
from mixtura.files import is_file_at
from mixtura.identity import differences
from mixtura.model import bundle
from mixtura.names import nearest
from mixtura.pipeline import factory, training_set
from mixtura.pipeline.extraction import ProgressCallback
from mixtura.pipeline.thumbnails import thumbnails
from mixtura.recipe import Recipe, dump_dict
from mixtura.sections import EncoderSection

FILTER_COLUMNS = ("label", "superlabel", "group", "split")
"""The columns that items can be filtered by."""

Pictures = Callable[[str], bytes | None]


@dataclass(frozen=True)
class Collection:
    """Stored items, their encoder, and their pictures by id."""

    path: Path
    features: Features
    encoder: EncoderSection
    picture: Pictures

    def build_encoder(self) -> factory.Encoder:
        """Build the items' encoder, checked to be the very same.

        Raises:
            UsageError: the features were imported, so that nothing here can encode a new file.
            FingerprintMismatch: its weights or its preprocessing have changed.
        """
        encoder = factory.encoder_of(self.encoder)
        how = differences(self.features.identity, encoder.identity)
        if how:
            raise FingerprintMismatch(
                f"The encoder {self.encoder.name!r} is not the one that made the features of {self.path}: {how}. "
                "Install the version that made them, or extract again."
            )
        return encoder


def open_collection(path: Path) -> Collection:
    """Open the items of a feature store, of a model's current catalog, or of a model without a catalog.

    Raises:
        NoInput: there is neither, or the features are gone.
        DataError: what is there is damaged.
    """
    if is_file_at(path / HEADER_FILE):
        features = FeatureStore.open(path).read()
        encoder = factory.section_of(features.identity, EncoderSection())
        require_allowed_encoder(encoder.name, path)
        return Collection(path, features, encoder, _no_picture)
    if not is_file_at(path / bundle.CONFIG_FILE):
        raise NoInput(
            f"{path} is neither a model nor a feature store. Give a folder that mixtura fit or mixtura extract has "
            "written."
        )
    if create.in_use(path):
        return _current(path, Catalog.open(path))
    model = bundle.from_pretrained(path)
    features = training_set.stored(bundle.recipe_of(path), model.identity)
    return Collection(path, features, model.encoder, thumbnails(path))


def _current(path: Path, catalog: Catalog) -> Collection:
    """The items of the current catalog."""
    return Collection(path, catalog.known(), catalog.model.encoder, lambda id: catalog.thumbnail(int(id)))


def items_of(path: Path, product: str) -> Collection:
    """The items of one catalog product, by id or name; creates the catalog of a model without one.

    Raises:
        NoInput: there is no model, or no such product; the nearest is named.
    """
    catalog = Catalog.open(path)
    place = _current(path, catalog)
    return replace(place, features=filtered(place.features, [("label", catalog.product(product).name)]))


def photos_of(recipe: Recipe, progress: ProgressCallback = None) -> tuple[Collection, tuple[Problem | Unreadable, ...]]:
    """Encode the photos or sounds of a recipe without a model; also returns the files that could not be used.

    Raises:
        NoInput: no file could be read.
        UsageError: the encoder takes photos and the files are sounds, or the other way round.
    """
    recipe = factory.settled(recipe)
    assert recipe.output is not None
    with files.new_folder(recipe.output):
        features, _, problems, _ = training_set.read(recipe, factory.dataset_of(recipe.data), progress)
    encoder = resolved(recipe.encoder, features.identity)
    return Collection(recipe.output, features, encoder, thumbnails(recipe.output, recipe.data)), problems


def photos_by(
    path: Path, recipe: Recipe, progress: ProgressCallback = None
) -> tuple[Collection, tuple[Problem | Unreadable, ...]]:
    """Encode the photos or sounds of a recipe as a model or feature store encodes its items; else as :func:`photos_of`.

    The encoder is that of ``path``, with the weights that it was trained to; of the recipe's own, only device and
    runtime count.

    Raises:
        NoInput: no file could be read, or there is no model.
        UsageError: the encoder takes photos and the files are sounds, or the items were imported as features.
        FingerprintMismatch: the encoder at hand is not the one of the items.
    """
    place = open_collection(path)
    place.build_encoder()
    given = recipe.encoder
    encoder = place.encoder.model_copy(update={"device": given.device, "runtime": given.runtime})
    return photos_of(recipe.model_copy(update={"encoder": encoder}), progress)


def encoder_keys(path: Path) -> dict[str, Any]:
    """The recipe keys, with JSON-ready values, by which another command takes the encoder of a model or feature store.

    Keys at their defaults are left out, and what a trained network's folder says itself.
    """
    encoder = open_collection(path).encoder
    folder, default = folder_of(encoder.name), EncoderSection()
    if folder is not None:
        said = read_description(folder)
        default = EncoderSection(size=said.size, taps=said.taps)
        encoder = placed(encoder, path) if folder == path.absolute() else encoder
    given, usual = dump_dict(encoder), dump_dict(default)
    return {f"encoder.{key}": value for key, value in given.items() if value != usual.get(key)}


def list_folder(recipe: Recipe) -> Path | None:
    """The folder from which a label list for these files is read; ``None`` if the data are not files."""
    root = recipe.data.root
    if root is None:
        return None
    return {"folder": root, "nested": root, "audio": root, "csv": root.parent}.get(recipe.data.kind)


def _no_picture(id: str) -> bytes | None:
    """Always ``None``, since a feature store keeps no photos."""
    return None


def filtered(features: Features, where: Sequence[tuple[str, str]]) -> Features:
    """The rows that have all the given values in their columns.

    Raises:
        UsageError: there is no such column.
        NoInput: no row is left; the nearest value is named.
    """
    for column, value in where:
        if column not in FILTER_COLUMNS:
            raise UsageError(f"Items have no column {column!r} to choose by. {nearest(column, FILTER_COLUMNS)}")
        own = getattr(features, column)
        kept = [row for row, found in enumerate(own) if found == value]
        if not kept:
            known = {found for found in own if found is not None}
            hint = nearest(value, known) if known else "This column is empty."
            raise NoInput(f"No item has the {column} {value!r}. {hint}")
        features = features.select(kept)
    return features
