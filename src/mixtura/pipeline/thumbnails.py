"""Thumbnails of items by id, for the report."""

import io
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from PIL import Image

from mixtura.errors import BadImage, MixturaError
from mixtura.names import require_allowed
from mixtura.pipeline import factory
from mixtura.recipe import load_stored_recipe
from mixtura.sections import DataSection

RECIPE = "recipe.yaml"
"""File in a model folder with the resolved recipe."""

MAX_SIDE, JPEG_QUALITY = 112, 80
"""Longest side in pixels, and JPEG quality in percent."""


def thumbnails(model: Path, data: DataSection | None = None) -> Callable[[str], bytes | None]:
    """A function from an item's id to a small JPEG, or ``None`` if the item or its photo no longer exists.

    It looks in ``data``, if given (an evaluation on other data), then in the model's own data. Nothing is read before
    the first call; unreadable data only costs the pictures.
    """

    @cache
    def places() -> dict[str, tuple[Any, int]]:
        found: dict[str, tuple[Any, int]] = {}
        for dataset in _datasets(model, data):
            for index, item in enumerate(dataset.items):
                found.setdefault(item.id, (dataset, index))
        return found

    def thumbnail(id: str) -> bytes | None:
        if id not in places():
            return None
        dataset, index = places()[id]
        try:
            return shrink(dataset.image(index, draft=MAX_SIDE))
        except BadImage:
            return None

    return thumbnail


def shrink(image: Image.Image) -> bytes:
    """Scale a picture to at most :data:`MAX_SIDE` pixels per side and encode it as JPEG."""
    small = image.convert("RGB")
    small.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.BICUBIC)
    target = io.BytesIO()
    small.save(target, "JPEG", quality=JPEG_QUALITY)
    return target.getvalue()


def _datasets(model: Path, data: DataSection | None) -> Iterator[Any]:
    for section in (data, _section_of(model)):
        if section is None or section.kind == "features":
            continue
        try:
            yield factory.read_data(section)
        except MixturaError:
            continue  # moved or deleted since


def _section_of(model: Path) -> DataSection | None:
    try:
        section = load_stored_recipe(model / RECIPE).data
        require_allowed(section.kind, model)
    except MixturaError:
        return None
    return section
