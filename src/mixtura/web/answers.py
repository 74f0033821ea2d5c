"""Records of the tasks as the JSON that clients read."""

import math
from dataclasses import asdict, is_dataclass
from typing import Any

import mixtura
from mixtura.catalog.catalog import Snapshot
from mixtura.model.prior import AskedPrior
from mixtura.records.decision import Neighbor
from mixtura.web.photos import Decided, Unreadable
from mixtura.web.service import Service


def decision(decided: Decided) -> dict[str, Any]:
    """A decision with the ids that a client needs to go on, and where the pictures are."""
    made, ids = decided.decision, {product.name: product.id for product in decided.view.products}
    return vars(made) | {
        "decision_id": decided.id,
        "candidates": [vars(one) | {"id": ids.get(one.label)} for one in made.candidates],
        "neighbors": [neighbor(one) for one in made.neighbors],
    }


def neighbor(near: Neighbor) -> dict[str, Any]:
    """An item of the catalog, with where its picture is."""
    return vars(near) | {"thumbnail": thumbnail(near.id)}


def thumbnail(item: str | int) -> str:
    """Where the picture of an item is."""
    return f"/v1/items/{item}/thumbnail"


def unreadable(photo: Unreadable) -> dict[str, Any]:
    """What stands in the place of a photo that could not be read."""
    return {"id": photo.name, "error": {"reason": photo.reason, "message": photo.message}}


def model(service: Service, view: Snapshot) -> dict[str, Any]:
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
        "prior": AskedPrior.of(used).kind,
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
