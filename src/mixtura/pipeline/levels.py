"""The classes of items that are labeled at two levels: their labels, their superlabels, or both.

Data sets and feature stores keep both levels. What is learned from them passes through here, and then holds the classes
in the place of the labels. Below them is nothing, so that no later choice can read the finer labels, unless both levels
are learned.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Int

from mixtura.datasets.items import Dataset
from mixtura.errors import LabelError
from mixtura.features.records import Features
from mixtura.sections import BOTH, LABEL


@dataclass(frozen=True)
class SubclassLabels:
    """The subclass of each row; subclasses are in the order of their classes, then of their names."""

    labels: Int[np.ndarray, " N"]
    class_parent: Int[np.ndarray, " S"]
    names: tuple[str, ...]


def dataset_at(dataset: Dataset, level: str) -> Dataset:
    """The same items with their classes at a level as the labels.

    Args:
        dataset: with the labels as they were read.
        level: ``data.level`` of a recipe.

    Raises:
        LabelError: a labeled item has no superlabel, or one has no label where both are needed.
    """
    if level == LABEL:
        return dataset
    items = dataset.items
    label, superlabel = [item.label for item in items], [item.superlabel for item in items]
    _below(dataset.name, level, label, superlabel, [item.source for item in items])
    return replace(dataset, items=tuple(replace(item, label=item.superlabel, superlabel=None) for item in items))


def features_at(features: Features, level: str, name: str) -> Features:
    """The same rows with their classes at a level as the labels.

    Args:
        features: with the labels as they are stored.
        level: ``data.level`` of a recipe.
        name: of the data, for the message.

    Raises:
        LabelError: see :func:`dataset_at`.
    """
    if level == LABEL:
        return features
    below = _below(name, level, features.label, features.superlabel, features.source)
    none = [None] * len(features)
    return replace(features, label=list(features.superlabel), superlabel=none, sublabel=below)


def subclasses_of(features: Features, classes: Sequence[str]) -> SubclassLabels | None:
    """The subclasses of rows whose labels are among the classes; ``None`` where one level is learned."""
    if features.sublabel is None:
        return None
    pairs = list(zip(features.label_index(classes).tolist(), features.sublabel, strict=True))
    known = sorted(set(pairs))
    place = {pair: number for number, pair in enumerate(known)}
    parent, names = zip(*known, strict=True)
    return SubclassLabels(np.array([place[pair] for pair in pairs]), np.array(parent), names)


def _below(
    name: str, level: str, label: Sequence[str | None], superlabel: Sequence[str | None], source: Sequence[str]
) -> list[str] | None:
    """What is learned below the classes: the labels, or the class itself where none of its items has one.

    An item with neither label nor superlabel is of no class, as ever.
    """
    missing = [row for row, own in enumerate(superlabel) if own is None and label[row] is not None]
    if missing:
        count = sum(own is not None for own in label)
        raise LabelError(
            f"{name}: {len(missing):,} of {count:,} labeled items have no superlabel, the first "
            f"{source[missing[0]]!r}, and --level {level} (data.level) learns superlabels. Give each one (the column "
            "superclass of a list; folders within folders, with --set data.kind=nested), or use --level label."
        )
    if level != BOTH:
        return None
    divided = {superlabel[row] for row, own in enumerate(label) if own is not None}
    missing = [row for row, own in enumerate(label) if own is None and superlabel[row] in divided]
    if missing:
        raise LabelError(
            f"{name}: {len(missing):,} items have no label, the first {source[missing[0]]!r}, and others of their "
            "superlabel have one. --level both (data.level) learns both: give each a label, or use --level superlabel."
        )
    return [own or above or "" for own, above in zip(label, superlabel, strict=True)]
