"""Records of the tasks as the JSON that clients read."""

import math
from collections.abc import Iterable
from dataclasses import asdict, is_dataclass
from typing import Any

import mixtura
from mixtura.tasks.catalog.live import View
from mixtura.tasks.catalog.records import Product
from mixtura.tasks.records import Neighbour
from mixtura.web.photos import Decided, Unreadable
from mixtura.web.service import Service


class Names:
    """From the name of a product to its id."""

    def __init__(self, products: Iterable[Product]) -> None:
        self._ids = {product.name: product.id for product in products}

    def id(self, name: str) -> str | None:
        """The id, or ``None`` if an edit has just taken the product away."""
        return self._ids.get(name)


def decision(decided: Decided, names: Names) -> dict[str, Any]:
    """A decision with what a client needs to go on: ids, and where the pictures are."""
    made = decided.decision
    return vars(made) | {
        "decision_id": decided.id,
        "candidates": [vars(one) | {"id": names.id(one.label)} for one in made.candidates],
        "neighbours": [neighbor(one) for one in made.neighbours],
    }


def neighbor(near: Neighbour) -> dict[str, Any]:
    """An item of the catalog, with where its picture is."""
    return vars(near) | {"thumbnail": thumbnail(near.id)}


def thumbnail(item: str | int) -> str:
    """Where the picture of an item is."""
    return f"/v1/items/{item}/thumbnail"


def unreadable(photo: Unreadable) -> dict[str, Any]:
    """What stands in the place of a photo that could not be read."""
    return {"id": photo.name, "error": {"reason": photo.reason, "message": photo.message}}


def model(service: Service, view: View) -> dict[str, Any]:
    """What answers."""
    used = view.model
    return {
        "model": view.version,
        "revision": view.revision,
        "title": service.settings.title,
        "encoder": used.encoder.name,
        "dimension": used.dimension,
        "classes": len(used.classes),
        "family": type(used.mixture.covariance).name,
        "false_reject_rate": used.decision.false_reject_rate,
        "min_probability": used.decision.min_probability,
        "keep_photos": service.settings.keep_photos,
        "version": mixtura.__version__,
    }


def plain(record: Any) -> Any:
    """A record as JSON can hold it: a number that is not finite is null.

    >>> plain({"a": float("nan"), "b": (1, 2.5)})
    {'a': None, 'b': [1, 2.5]}
    """
    if is_dataclass(record) and not isinstance(record, type):
        record = asdict(record)
    if isinstance(record, dict):
        return {key: plain(value) for key, value in record.items()}
    if isinstance(record, list | tuple):
        return [plain(value) for value in record]
    return None if isinstance(record, float) and not math.isfinite(record) else record
