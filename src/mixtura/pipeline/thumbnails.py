"""Thumbnails of items by id, for the report."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from mixtura import files
from mixtura.errors import BadImage, MixturaError
from mixtura.names import require_allowed
from mixtura.pipeline import factory
from mixtura.pipeline.pictures import MAX_SIDE, PICTURES_FILE, picture_in, shrink
from mixtura.recipe import Recipe, load_stored_recipe
from mixtura.sections import DataSection

RECIPE = "recipe.yaml"
"""File in a model folder with the resolved recipe."""


def thumbnails(model: Path, data: DataSection | None = None) -> Callable[[str], bytes | None]:
    """A function from an item's id to a small JPEG, or ``None`` if there is none.

    It looks in ``data``, if given (an evaluation on other data), then among the pictures beside the model's features,
    then in the model's own data. Nothing is read before the first call; unreadable data only costs the pictures.
    """

    @cache
    def other() -> dict[str, tuple[Any, int]]:
        return _places(data)

    @cache
    def recipe() -> Recipe | None:
        return _recipe_of(model)

    @cache
    def kept() -> list[Path]:
        return _picture_files(model, recipe())

    @cache
    def own() -> dict[str, tuple[Any, int]]:
        found = recipe()
        return _places(None if found is None else found.data)

    def thumbnail(id: str) -> bytes | None:
        if id in other():
            return _from_photo(*other()[id])
        picture = next(filter(None, (picture_in(path, id) for path in kept())), None)
        return picture or (_from_photo(*own()[id]) if id in own() else None)

    return thumbnail


def _from_photo(dataset: Any, index: int) -> bytes | None:
    try:
        return shrink(dataset.image(index, draft=MAX_SIDE))
    except BadImage:
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


def _picture_files(model: Path, recipe: Recipe | None) -> list[Path]:
    """The files of pictures beside the features of a model, the latest first."""
    stores = [] if recipe is None else [recipe.extract.store]
    if recipe is not None and recipe.data.kind == factory.FEATURES_KIND:
        stores.append(recipe.data.root)
    found = [place / PICTURES_FILE for place in stores if place is not None]
    found += model.glob(f"{factory.FEATURES_KIND}*/{PICTURES_FILE}")
    return sorted((path for path in found if path.is_file()), key=lambda path: path.stat().st_mtime, reverse=True)


def _recipe_of(model: Path) -> Recipe | None:
    try:
        recipe = load_stored_recipe(files.current(model / RECIPE))
        require_allowed(recipe.data.kind, model)
    except MixturaError:
        return None
    return recipe
