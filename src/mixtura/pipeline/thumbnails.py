"""Thumbnails of items by id, for the report."""

import io
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from functools import cache
from pathlib import Path
from typing import Any

from PIL import Image

from mixtura import files
from mixtura.errors import BadImage, MixturaError
from mixtura.names import require_allowed
from mixtura.pipeline import factory
from mixtura.recipe import Recipe, load_stored_recipe
from mixtura.sections import DataSection

RECIPE = "recipe.yaml"
"""File in a model folder with the resolved recipe."""

PICTURES_FILE = "pictures.sqlite"
"""File in a feature store with small pictures of its photos."""

MAX_SIDE, JPEG_QUALITY = 112, 80
"""Longest side in pixels, and JPEG quality in percent."""


def thumbnails(model: Path, data: DataSection | None = None) -> Callable[[str], bytes | None]:
    """A function from an item's id to a small JPEG, or ``None`` if there is none.

    It looks in ``data``, if given (an evaluation on other data), then among the pictures beside the model's features,
    then in the model's own data. Nothing is read before the first call; unreadable data only costs the pictures.
    """

    @cache
    def other() -> dict[str, tuple[Any, int]]:
        return _places(data)

    @cache
    def kept() -> list[Path]:
        return _picture_files(model)

    @cache
    def own() -> dict[str, tuple[Any, int]]:
        return _places(_data_of(model))

    def thumbnail(id: str) -> bytes | None:
        if id in other():
            return _from_photo(*other()[id])
        picture = next(filter(None, (_from_file(path, id) for path in kept())), None)
        return picture or (_from_photo(*own()[id]) if id in own() else None)

    return thumbnail


def shrink(image: Image.Image) -> bytes:
    """Scale a picture to at most :data:`MAX_SIDE` pixels per side and encode it as JPEG."""
    small = image.convert("RGB")
    small.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.BICUBIC, reducing_gap=1.0)  # averages first: twice as fast
    target = io.BytesIO()
    small.save(target, "JPEG", quality=JPEG_QUALITY)
    return target.getvalue()


def _from_photo(dataset: Any, index: int) -> bytes | None:
    try:
        return shrink(dataset.image(index, draft=MAX_SIDE))
    except BadImage:
        return None


def _from_file(path: Path, id: str) -> bytes | None:
    with suppress(sqlite3.Error), closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as file:
        row = file.execute("SELECT jpeg FROM picture WHERE id = ?", (id,)).fetchone()
        return None if row is None else row[0]
    return None


def _places(section: DataSection | None) -> dict[str, tuple[Any, int]]:
    """Each item of some data: its data set and its place there; nothing if the data were moved or deleted."""
    if section is None or section.kind == factory.FEATURES_KIND:
        return {}
    try:
        dataset = factory.read_data(section)
    except MixturaError:
        return {}
    return {item.id: (dataset, index) for index, item in enumerate(dataset.items)}


def _picture_files(model: Path) -> list[Path]:
    """The files of pictures beside the features of a model, the latest first."""
    recipe = _recipe_of(model)
    data = None if recipe is None or recipe.data.kind != factory.FEATURES_KIND else recipe.data.root
    named = [data, None if recipe is None else recipe.extract.store]
    found = [place / PICTURES_FILE for place in named if place is not None]
    found += model.glob(f"{factory.FEATURES_KIND}*/{PICTURES_FILE}")
    return sorted((path for path in found if path.is_file()), key=lambda path: path.stat().st_mtime, reverse=True)


def _data_of(model: Path) -> DataSection | None:
    recipe = _recipe_of(model)
    return None if recipe is None else recipe.data


def _recipe_of(model: Path) -> Recipe | None:
    try:
        recipe = load_stored_recipe(files.current(model / RECIPE))
        require_allowed(recipe.data.kind, model)
    except MixturaError:
        return None
    return recipe
