"""The figures of each class in an evaluation, and what they say of classes of unequal size."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from mixtura.features.records import Features
from mixtura.metrics.imbalance import ClassFigures, ShotGroups, class_auc
from mixtura.model.model import Answers
from mixtura.records.decision import ClassRow


@dataclass(frozen=True)
class ClassRows:
    """One row per class, and their summary by name; a summary that does not exist is left out.

    ``limits`` are the training items that a class with many has more of, and one with few has less of.
    """

    rows: tuple[ClassRow, ...]
    metrics: dict[str, float]
    limits: dict[str, float]


def class_rows(
    classes: tuple[str, ...], true: Int[np.ndarray, " N"], answers: Answers, known: Features | None
) -> ClassRows:
    """Return the figures of each class on the test items of known classes.

    Args:
        classes: of the model.
        true: the class of each item; -1 for a stranger.
        answers: of the model.
        known: the training items; ``None`` if they are not at hand.
    """
    inside = true >= 0
    figures = ClassFigures.of(true[inside], answers.predicted[inside], len(classes))
    area = class_auc(true[inside], answers.posterior[inside])
    train = None if known is None else _counts(classes, known)
    columns = zip(
        classes,
        [None] * len(classes) if train is None else train.tolist(),
        figures.count.tolist(),
        *(_known(getattr(figures, name)) for name in ("recall", "precision", "specificity", "f1")),
        _known(area),
        strict=True,
    )
    metrics = {
        "macro_f1": figures.mean("f1"),
        "micro_f1": figures.micro_f1,
        "macro_precision": figures.mean("precision"),
        "macro_specificity": figures.mean("specificity"),
        "mean_g": figures.mean_g,
        "geometric_mean_recall": figures.geometric_mean_recall,
        "macro_auc": float(area[np.isfinite(area)].mean()) if np.isfinite(area).any() else math.nan,
    }
    metrics |= {} if train is None else _by_size(figures, train)
    finite = {name: value for name, value in metrics.items() if math.isfinite(value)}
    groups = None if train is None else ShotGroups.of(train)
    limits = {} if groups is None else {"many_above": groups.many, "few_below": groups.few}
    return ClassRows(tuple(ClassRow(*row) for row in columns), finite, limits)


def _by_size(figures: ClassFigures, train: Int[np.ndarray, " C"]) -> dict[str, float]:
    """Recall by groups of classes, of the smallest class, and the precision of the largest one."""
    return {
        **{f"recall_{name}": value for name, value in ShotGroups.of(train).recall(figures).items()},
        "recall_of_smallest": float(figures.recall[train.argmin()]),
        "precision_of_largest": float(figures.precision[train.argmax()]),
    }


def _counts(classes: tuple[str, ...], known: Features) -> Int[np.ndarray, " C"]:
    label = known.label_index(classes)
    return np.bincount(label[label >= 0], minlength=len(classes))


def _known(values: np.ndarray) -> list[float | None]:
    return [value if math.isfinite(value) else None for value in values.tolist()]
