"""The records that tasks return: plain values that the command line prints, the report draws and the server sends."""

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from mixtura.formats import short_percent

OTHER_KIND = "they differ from the items that set the limit, as photos of another day, place or camera do"
VERDICTS = ("match", "unsure", "unknown")
SUBCLASS, CLASS = "subclass", "class"
"""Whose items the typicality of a subclass ranks an item among: its own, or, where these are few, its class's."""

REASONS = ("far_from_all", "between_classes", "unusual_for_class", "bad_photo")


@dataclass(frozen=True)
class Neighbor:
    """A stored item near the query; ``similarity`` is a cosine in [-1, 1]."""

    id: str
    label: str
    source: str
    similarity: float


@dataclass(frozen=True)
class Candidate:
    """A class with its probability, given that the item is in the catalog."""

    label: str
    probability: float


@dataclass(frozen=True)
class Decision:
    """The decision on one item.

    ``probability`` answers "which class, if it is in the catalog"; ``typicality`` answers "is it in the
    catalog at all": the share, in [0, 1], of genuine items that look at least this unusual.
    ``reason`` is one of :data:`REASONS`, or ``None`` for a match. ``threshold`` is the typicality below which an item
    is unknown: the stated false-reject rate, or, with a ``false_discovery_rate``, the limit that keeps this rate in the
    batch of the item. ``advice`` is how to get the item accepted; ``model`` is the model that answered, with the
    revision of its catalog.

    ``subclass`` is the name of the most probable subclass of the label, or ``None`` if none is probable enough; the
    number of the nearest component within the label, from 0, where a model has no named subclasses. Of a named one,
    ``subclass_probability`` is given the label, ``subclass_typicality`` is the share of genuine items of the subclass
    that look at least this unusual, and ``subclass_typicality_of`` is :data:`SUBCLASS`, or :data:`CLASS` where it is
    that of the label because the subclass has too few items.
    """

    id: str
    label: str
    probability: float
    typicality: float
    verdict: str
    reason: str | None
    sentence: str
    subclass: int | str | None
    candidates: tuple[Candidate, ...] = ()
    neighbors: tuple[Neighbor, ...] = ()
    threshold: float = 0.05
    advice: str | None = None
    model: str = ""
    false_discovery_rate: float | None = None
    subclass_probability: float | None = None
    subclass_typicality: float | None = None
    subclass_typicality_of: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON-ready values."""
        return asdict(self)


@dataclass(frozen=True)
class Interval:
    """A measured share with its 95% interval; ``value``, ``low`` and ``high`` are shares in [0, 1]."""

    value: float
    low: float
    high: float
    count: int


@dataclass(frozen=True)
class Mistake:
    """A misclassified test item."""

    decision: Decision
    true_label: str
    source: str


@dataclass(frozen=True)
class EmbeddingMap:
    """A 2-D linear view of the embeddings with the components of the mixture.

    ``xy`` N 2, ``label`` N (index into classes, -1 = not in the catalog), ``mean`` K 2, ``covariance`` K 2 2,
    ``component_class`` K (index into classes).
    """

    xy: np.ndarray
    label: np.ndarray
    mean: np.ndarray
    covariance: np.ndarray
    component_class: np.ndarray


@dataclass(frozen=True)
class SubclassMap:
    """A 2-D view of the features that keeps neighbors together, with the means of subclasses and of classes.

    ``xy`` N 2 with ``label`` N (index into classes), ``subclass`` S 2 with ``class_parent`` S, and ``mean`` C 2.
    """

    xy: np.ndarray
    label: np.ndarray
    subclass: np.ndarray
    class_parent: np.ndarray
    mean: np.ndarray


@dataclass(frozen=True)
class ClassRow:
    """Figures of one class on ``test`` items, as shares in [0, 1], and its number of training items.

    ``None`` stands for what does not exist: the recall of a class without test items, say.
    """

    name: str
    train: int | None
    test: int
    recall: float | None
    precision: float | None
    specificity: float | None
    f1: float | None
    auc: float | None


@dataclass(frozen=True)
class Evaluation:
    """A model's evaluation on items it was not fitted on.

    Arrays have one entry per test item (N); ``true`` is the index of the class, or -1 for an item that is not in the
    catalog. ``metrics`` holds shares in [0, 1] (never percent) by name: ``top1``, ``balanced``, ``ece``, ``nll``,
    ``brier``, ``auroc_unknown`` (absent without strangers), ``fpr95``, ``stated_false_reject``,
    ``false_reject`` ..., the last with an interval in ``intervals``. ``problems`` are the files that were left out.
    ``per_class`` are the figures of each class. ``second`` is the evaluation on a second domain, where the data has
    one, and ``domain`` the name of its own.
    """

    classes: tuple[str, ...]
    ids: tuple[str, ...]
    sources: tuple[str, ...]
    true: np.ndarray
    predicted: np.ndarray
    probability: np.ndarray
    typicality: np.ndarray
    score: np.ndarray
    verdict: np.ndarray
    metrics: dict[str, float]
    intervals: dict[str, Interval]
    recall: dict[str, Interval]
    alpha: float
    mistakes: tuple[Mistake, ...] = ()
    map: EmbeddingMap | None = None
    subclass_map: SubclassMap | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    problems: tuple[Any, ...] = ()
    domain: str | None = None
    second: "Evaluation | None" = None
    per_class: tuple[ClassRow, ...] = ()

    @property
    def shift(self) -> str:
        """A sentence if clearly more genuine items were rejected than the stated rate allows, else an empty string."""
        rejected = self.intervals.get("false_reject")
        if rejected is None or rejected.low <= self.alpha:
            return ""
        return (
            f"{short_percent(rejected.value)} of genuine test items were rejected, where {short_percent(self.alpha)} "
            f"is stated: {OTHER_KIND}. Set the limit by new photos: mixtura recalibrate."
        )
