"""Create or open the catalog of a model folder; its first items are the features that the model was fitted on."""

import re
import unicodedata
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError
from torch import Tensor

from mixtura import files
from mixtura.catalog import database, renewal, statistics, subclasses
from mixtura.catalog.database import CatalogDatabase
from mixtura.catalog.statistics import FittedStatistics
from mixtura.core.moments import LabeledItems
from mixtura.errors import BundleError, CannotWrite, MixturaError, OutOfSpace
from mixtura.features.records import Features
from mixtura.files import is_folder_at, is_there
from mixtura.identity import PHOTOS, fingerprint, items_read
from mixtura.model import bundle
from mixtura.model.model import Model
from mixtura.names import same_name_key
from mixtura.pipeline import training_set

SUMS_SETTING, FLOOR_SETTING = "sums", "floor"
"""Initial settings: the sums of the model's classes, computed once, and its variance floor."""


def opened(folder: Path) -> tuple[CatalogDatabase, FittedStatistics]:
    """Open a catalog's tables and the model with its sums; creates the file if it does not exist.

    If the model is new and no edit is in effect, the tables are refilled: the fit was killed before it could do so.

    Raises:
        NoInput: there is no model, or the features that it was made of are gone.
        BundleError: the model or the catalog is damaged, or they do not belong together.
        UsageError: the model has a head with a fixed set of classes.
    """
    _settle(folder)
    model, digest = _model_of(folder)
    statistics.check(model)
    path = folder / database.CATALOG_FILE
    if not is_there(path):
        database.create(path, digest, first_rows(folder, model).inserts())
    elif renewal.bundle_in(path) != digest:
        _finish(path, folder, model, digest)
    opened = CatalogDatabase(path, digest)
    opened.remember(fingerprint(model.identity))
    rows = opened.rows("SELECT key, value FROM setting WHERE key IN (?, ?)", (SUMS_SETTING, FLOOR_SETTING))
    stored = {row["key"]: row["value"] for row in rows}
    try:
        floor = statistics.floor_from_value(stored[FLOOR_SETTING])
        return opened, statistics.base_of(model, statistics.from_bytes(stored[SUMS_SETTING], model.mixture), floor)
    except (KeyError, TypeError, ValueError, SafetensorError) as error:
        raise BundleError(
            f"{path} is damaged: its sums are missing or altered. Restore it, or move it away."
        ) from error


def _model_of(folder: Path) -> tuple[Model, str]:
    """The model of a folder and its hash, also if another model comes meanwhile."""
    while True:
        before = files.identity_of(folder / bundle.CONFIG_FILE)
        model, digest = bundle.from_pretrained(folder), bundle.fingerprint(folder)
        if files.identity_of(folder / bundle.CONFIG_FILE) == before:
            return model, digest


def _settle(folder: Path) -> None:
    """Put the files of a model in their places if the fit was killed before it could; reading works without."""
    if is_folder_at(folder / files.NEXT_FOLDER):
        with suppress(CannotWrite, OutOfSpace), files.only_writer(folder):
            files.settle(folder)


def in_use(folder: Path) -> bool:
    """Whether a folder has a usable catalog: a file, and a model that can take new products."""
    return is_there(folder / database.CATALOG_FILE) and bundle.config_of(folder).head is None


def check_renewable(folder: Path, fixed_head: str | None = None) -> None:
    """Check, before the work starts, that the catalog of a folder (if any) lets its model be replaced.

    Args:
        folder: of the model.
        fixed_head: name of the new model's head, if that has a fixed set of classes.

    Raises:
        CannotWrite: edits stand, or the new model could have no catalog.
        BundleError: the file is no catalog, damaged, or of another layout.
    """
    path = folder / database.CATALOG_FILE
    if not is_there(path):
        return
    if fixed_head is not None:
        raise CannotWrite(
            f"{path} belongs to a model that products can be added to, and a model with the head {fixed_head!r} has a "
            "fixed set of classes. Fit into another folder with -o, or a mixture of Gaussians."
        )
    with renewal.reading(path) as connection:
        database.bundle_of(path, connection)
        renewal.check_no_edits(path, connection)
        try:
            digest, config = bundle.fingerprint(folder), bundle.config_of(folder)
        except (OSError, MixturaError):
            return  # a damaged or missing model says nothing of its encoder; all the more reason to replace it
        database.remember(path, connection, digest, fingerprint(config.identity))


def check_same_items(folder: Path, identity: Mapping[str, str]) -> None:
    """Check, before a model is learned, that it reads photos if the catalog of a folder (if any) is one of photos.

    Other features may be of any other kind: only photos can be served.

    Raises:
        CannotWrite: it reads sounds, or features that were imported.
    """
    if not is_there(folder / database.CATALOG_FILE):
        return
    try:
        old = bundle.config_of(folder).identity
    except (OSError, MixturaError):
        return
    if items_read(old) == PHOTOS != items_read(identity):
        raise CannotWrite(
            f"{folder} has a catalog of photos, and the new model reads {items_read(identity)}. Fit into another "
            "folder with -o."
        )


def replace_model(folder: Path, model: Model, others: Mapping[str, bytes]) -> None:
    """Replace the model of a folder, all at one moment; its catalog, if any, then belongs to the new model.

    The journal stays. If killed at any moment, the folder has the whole old or the whole new model, and the next
    opening of the catalog does the rest. Edits are locked out for the last moments only, while the tables are refilled.

    Args:
        folder: of the model; the caller is its only writer.
        model: the new one.
        others: further files of the bundle, by name; the recipe is one of them.

    Raises:
        CannotWrite: edits stand, or the catalog has come meanwhile and the new model can have none.
        NoInput, DataError: the features of the new model cannot be read.
        OutOfSpace: the disk is full; the old model is intact.
    """
    staged = bundle.stage(model, folder, others)
    path = folder / database.CATALOG_FILE
    try:
        if not is_there(path):
            files.publish(staged)
            return
        check_renewable(folder, model.head and model.head.name)
        written, digest = bundle.from_pretrained(staged), bundle.fingerprint(staged)
        rows = first_rows(staged, written, folder)
        with renewal.transaction(path) as connection:
            renewal.check_no_edits(path, connection)
            renewal.refill(connection, digest, rows.inserts(*renewal.ids_in(connection)))
            files.publish(staged)
    finally:
        files.discard(staged)


def _finish(path: Path, folder: Path, model: Model, digest: str) -> None:
    """Complete the catalog after a killed fit, unless another process just has or edits are in effect."""
    rows = first_rows(folder, model)
    with renewal.transaction(path) as connection:
        newest = bundle.fingerprint(folder) == digest
        if newest and database.bundle_of(path, connection) != digest and not renewal.edits_in(connection):
            renewal.refill(connection, digest, rows.inserts(*renewal.ids_in(connection)))


@dataclass(frozen=True)
class FirstRows:
    """What the tables of a model begin with, computed before they are locked.

    ``settings`` are the sums and the floor by name; ``features`` are the model's items, also those of the test part,
    and ``components`` those that each was learned by, where subclasses own one each.
    """

    classes: tuple[str, ...]
    settings: dict[str, Any]
    features: Features
    components: Int[Tensor, " N"] | None = None

    def inserts(
        self, kept: Mapping[str, str] | None = None, taken: Collection[str] = (), last_item: int = 0
    ) -> dict[str, Iterator[Sequence[Any]]]:
        """Rows by ``INSERT`` statement: one product per class, one item per row of features.

        Args:
            kept: product ids by key of the name to reuse, since the journal refers to products by id.
            taken: ids that no other product may get.
            last_item: number of the last item that the catalog has had; a number never names another item.
        """
        at, ids = database.now(), _ids(self.classes, kept or {}, taken)
        rows = _rows(self.features, self.classes, at)
        return {
            "INSERT INTO setting VALUES (?, ?)": iter((self.settings | self._components(last_item + 1)).items()),
            "INSERT INTO product VALUES (?, ?, 'fitted', ?, 0)": (
                (id, name, at) for id, name in zip(ids, self.classes, strict=True)
            ),
            "INSERT INTO part VALUES (?, ?, ?)": ((place + 1, id, place) for place, id in enumerate(ids)),
            "INSERT INTO item (id, part, base, split, source, origin, sha256, weight, added, embedding) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)": ((last_item + 1 + n, *row) for n, row in enumerate(rows)),
        }

    def _components(self, first: int) -> dict[str, bytes]:
        """The setting that holds the components of the items, the first of which has this number."""
        known = self.components
        return {} if known is None else {subclasses.COMPONENTS_SETTING: subclasses.components_to_value(first, known)}


def first_rows(place: Path, model: Model, folder: Path | None = None) -> FirstRows:
    """The first rows of a model's tables.

    Args:
        place: of its files; its recipe says where the features are.
        model: the model there.
        folder: that it is meant for, if it is only staged at ``place``.
    """
    recipe = bundle.recipe_of(place).model_copy(update={"output": folder or place})
    features = subclasses.with_sublabels(place, training_set.stored(recipe, model.identity))
    features = features.select(features.label_index(model.classes) >= 0)
    learned = np.array([split != "test" for split in features.split], dtype=bool)
    components = subclasses.learned_by(model, features) if statistics.exact(model) else None
    items = items_of(model, features.select(learned), model.classes)
    if components is not None:
        items = replace(items, component=components[torch.from_numpy(learned)])
    floor = statistics.floor_of(model, items, recipe.head.variance_floor)
    settings = {
        SUMS_SETTING: statistics.to_bytes(statistics.sums_of(model.mixture, items)),
        FLOOR_SETTING: statistics.floor_to_value(floor),
    }
    return FirstRows(model.classes, settings, features, components)


def _ids(names: Sequence[str], kept: Mapping[str, str], taken: Collection[str]) -> list[str]:
    """An id for each name; names that have one keep it, the first of several that are spelled alike."""
    first = {key: name for name, key in zip(reversed(names), map(same_name_key, reversed(names)), strict=True)}
    known = {name: kept[key] for key, name in first.items() if key in kept}
    new = [name for name in names if name not in known]
    known |= zip(new, slugs(new, {*taken, *kept.values()}), strict=True)
    return [known[name] for name in names]


def _rows(features: Features, classes: tuple[str, ...], at: str) -> Iterator[tuple[object, ...]]:
    labels = features.label_index(classes).tolist()
    columns = zip(labels, features.split, features.source, features.id, features.sha256, features.weight, strict=True)
    for row, (label, split, source, id, digest, weight) in enumerate(columns):
        base = None if split == "test" else label
        data = blob(features.embedding[row])
        yield label + 1, base, split or "train", source, id, digest or "", float(weight), at, data


def items_of(model: Model, features: Features, classes: tuple[str, ...]) -> LabeledItems:
    """Feature rows as items of the model's classes."""
    labels = torch.from_numpy(features.label_index(classes))
    weight = torch.from_numpy(features.weight.astype(np.float64))
    return LabeledItems(model.project(features.embedding), labels, weight)


def blob(embedding: Float[np.ndarray, " D"]) -> bytes:
    """An embedding as it is stored: float32, little-endian."""
    return np.ascontiguousarray(embedding, dtype="<f4").tobytes()


def embeddings(blobs: list[bytes], dimension: int) -> Float[np.ndarray, "N D"]:
    """The inverse of :func:`blob`, for many rows."""
    data = b"".join(blobs)
    if len(data) != 4 * len(blobs) * dimension:
        raise BundleError("An embedding in the catalog is damaged. Restore the file, or move it away.")
    return np.frombuffer(data, dtype="<f4").reshape(len(blobs), dimension).astype(np.float32)


def slugs(names: Collection[str], taken: Collection[str] = ()) -> list[str]:
    """A unique id for each name: lower-case letters, digits and hyphens, at most 64 characters, none from ``taken``.

    >>> slugs(["Red kettle", "red-kettle", "Kähler", "茶"])
    ['red-kettle', 'red-kettle-2', 'kahler', 'product']
    """
    used, made = set(taken), []
    for name in names:
        plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
        stem = re.sub("[^a-z0-9]+", "-", plain).strip("-")[:56] or "product"
        id, number = stem, 1
        while id in used:
            number += 1
            id = f"{stem}-{number}"
        used.add(id)
        made.append(id)
    return made
