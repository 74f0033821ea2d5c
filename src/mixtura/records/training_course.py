"""The course of ``mixtura train``: what was tried, epoch by epoch, and what the network saw. For its page."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mixtura.records.training import NetworkTraining, TrainingEpoch


@dataclass(frozen=True)
class Redrawn:
    """A validation photo as the network reads it and what was made of its vector, as JPEG files."""

    label: str
    photo: bytes
    reconstruction: bytes


@dataclass(frozen=True)
class TriedPart:
    """The training of one part of the network, so far.

    ``loss`` and ``share`` of the way from the start are those of the weights that validation photos chose, and
    ``start_loss`` is that of the start, ``None`` where the head was new; all are ``None`` while it runs, if the time
    did not suffice, or from scratch.
    ``redrawn`` are photos beside their reconstructions, if that was the objective and the part is done.
    """

    part: str
    epochs: tuple[TrainingEpoch, ...] = ()
    ended: str = ""
    share: float | None = None
    loss: float | None = None
    start_loss: float | None = None
    redrawn: tuple[Redrawn, ...] = ()


@dataclass(frozen=True)
class PhotoViews:
    """A training photo and random views of it, as JPEG files."""

    label: str
    photo: bytes
    views: tuple[bytes, ...]


@dataclass(frozen=True)
class SearchTrial:
    """A trial of a search: its settings by key, and the metric on validation photos; NaN if it has none.

    ``status`` is done, failed or running; ``note`` says why it failed.
    """

    number: int
    settings: Mapping[str, Any]
    value: float
    status: str
    note: str = ""


@dataclass(frozen=True)
class TrainingCourse:
    """How far a training of an encoder is.

    ``trial`` is the trial of a search that ``parts`` belong to, and ``metric`` what the search looks at; ``result`` is
    ``None`` while it runs. ``settings`` are the recipe's sections, JSON-ready.
    """

    settings: Mapping[str, Any]
    parts: tuple[TriedPart, ...] = ()
    photos: tuple[PhotoViews, ...] = ()
    trials: tuple[SearchTrial, ...] = ()
    metric: str = ""
    trial: int | None = None
    result: NetworkTraining | None = None
