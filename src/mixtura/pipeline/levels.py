"""The classes of items that are labeled at two levels: their labels, or their superlabels.

Data sets and feature stores keep both levels. What is learned from them passes through here, and then holds the classes
in the place of the labels and nothing below them, so that no later choice can read the finer labels.
"""

from collections.abc import Sequence
from dataclasses import replace

from mixtura.datasets.items import Dataset
from mixtura.errors import LabelError
from mixtura.features.records import Features
from mixtura.sections import LABEL


def dataset_at(dataset: Dataset, level: str) -> Dataset:
    """The same items with their classes at a level as the labels.

    Args:
        dataset: with the labels as they were read.
        level: ``data.level`` of a recipe.

    Raises:
        LabelError: a labeled item has no superlabel.
    """
    if level == LABEL:
        return dataset
    items = dataset.items
    label, superlabel = [item.label for item in items], [item.superlabel for item in items]
    _check(dataset.name, level, label, superlabel, [item.source for item in items])
    return replace(dataset, items=tuple(replace(item, label=item.superlabel, superlabel=None) for item in items))


def features_at(features: Features, level: str, name: str) -> Features:
    """The same rows with their classes at a level as the labels.

    Args:
        features: with the labels as they are stored.
        level: ``data.level`` of a recipe.
        name: of the data, for the message.

    Raises:
        LabelError: a labeled row has no superlabel.
    """
    if level == LABEL:
        return features
    _check(name, level, features.label, features.superlabel, features.source)
    return replace(features, label=list(features.superlabel), superlabel=[None] * len(features))


def _check(
    name: str, level: str, label: Sequence[str | None], superlabel: Sequence[str | None], source: Sequence[str]
) -> None:
    """Check that every item with a label has a superlabel; one without both is of no class, as ever."""
    missing = [row for row, own in enumerate(superlabel) if own is None and label[row] is not None]
    if missing:
        count = sum(own is not None for own in label)
        raise LabelError(
            f"{name}: {len(missing):,} of {count:,} labeled items have no superlabel, the first "
            f"{source[missing[0]]!r}, and --level {level} (data.level) learns superlabels. Give each one (the column "
            "superclass of a list), or use --level label."
        )
