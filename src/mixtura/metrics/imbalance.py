"""Metrics by class, for classes of unequal size: what an accuracy hides if most items are of one class."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from sklearn.metrics import roc_auc_score

from mixtura.errors import DataError
from mixtura.metrics.check import require_classes, require_items, require_numbers
from mixtura.metrics.classification import confusion

MANY, FEW = 100.0, 20.0
"""Training rows of a class: more than the first are many, fewer than the second few, the rest medium."""


@dataclass(frozen=True)
class ClassFigures:
    r"""Figures of each class against all others, from counts of right and wrong predictions; shares in [0, 1].

    .. math:: \text{recall} = \frac{TP}{TP + FN}, \quad \text{precision} = \frac{TP}{TP + FP}, \quad
        \text{specificity} = \frac{TN}{TN + FP}, \quad F_1 = \frac{2\,TP}{2\,TP + FP + FN}

    ``count`` are the items of each class. A class without items has no recall and no F1: both are NaN. The precision
    of a class that is never predicted is 0, as in scikit-learn. Means are taken over the classes that have items.

    Source: He and Garcia, Learning from Imbalanced Data, IEEE TKDE 2009.
    """

    count: Int[np.ndarray, "C"]
    recall: Float[np.ndarray, "C"]
    precision: Float[np.ndarray, "C"]
    specificity: Float[np.ndarray, "C"]
    f1: Float[np.ndarray, "C"]

    @classmethod
    def of(cls, true: Int[np.ndarray, "N"], predicted: Int[np.ndarray, "N"], n_classes: int) -> "ClassFigures":
        """From the true and the predicted class of each item.

        Raises:
            DataError: there are no items, or an index is outside [0, ``n_classes``).
        """
        require_items("class figures", true)
        table = confusion(true, predicted, n_classes)
        right, count, named = np.diagonal(table).astype(float), table.sum(1), table.sum(0)
        others = len(true) - count
        rejected = others - (named - right)
        there = count > 0
        return cls(
            count,
            _share(right, count, there),
            np.where(named > 0, right / np.maximum(named, 1), 0.0),
            _share(rejected, others, others > 0),
            _share(2 * right, count + named, there),
        )

    @property
    def seen(self) -> Bool[np.ndarray, "C"]:
        """Which classes have items."""
        return self.count > 0

    def mean(self, name: str) -> float:
        """Macro mean of a figure, over the classes that have items; NaN if the figure exists for none of them."""
        values = getattr(self, name)[self.seen]
        return float(np.mean(values)) if np.isfinite(values).all() else float("nan")

    @property
    def micro_f1(self) -> float:
        """F1 from the counts of all classes together; for items of one class each, this is the accuracy."""
        return float(np.nansum(self.recall * self.count) / self.count.sum())

    @property
    def mean_g(self) -> float:
        r"""Mean over classes of :math:`\sqrt{\text{recall} \times \text{specificity}}`."""
        return float(np.mean(np.sqrt(self.recall * self.specificity)[self.seen]))

    @property
    def geometric_mean_recall(self) -> float:
        """Geometric mean of the recalls; 0 if one class is never found."""
        recall = self.recall[self.seen]
        return float(np.exp(np.mean(np.log(recall)))) if (recall > 0).all() else 0.0


def _share(hits: np.ndarray, count: np.ndarray, there: Bool[np.ndarray, "C"]) -> Float[np.ndarray, "C"]:
    return np.where(there, hits / np.maximum(count, 1), np.nan)


def class_auc(true: Int[np.ndarray, "N"], posterior: Float[np.ndarray, "N C"]) -> Float[np.ndarray, "C"]:
    """Area under the ROC curve of each class against all others; NaN for a class without items, or with all of them.

    Their mean over the classes that have one is the macro one-vs-rest AUC; the NaN name the classes that it lacks.

    Raises:
        DataError: there are no items, or an index is outside the columns of ``posterior``.
        NonFinite: a probability is NaN.
    """
    require_items("class AUC", true)
    require_numbers("class AUC", posterior)
    require_classes("class AUC", true, posterior.shape[1])
    own = [true == c for c in range(posterior.shape[1])]
    found = [
        float(roc_auc_score(one, posterior[:, c])) if 0 < one.sum() < len(one) else np.nan for c, one in enumerate(own)
    ]
    return np.array(found)


@dataclass(frozen=True)
class ShotGroups:
    """Classes by their number of training rows: more than ``many``, fewer than ``few``, and those between.

    ``quantiles`` says that both limits are thirds of the classes, because the usual ones leave a group empty.
    """

    many: float
    few: float
    quantiles: bool
    group: tuple[str, ...]

    @classmethod
    def of(cls, train: Int[np.ndarray, "C"]) -> "ShotGroups":
        """From the training rows of each class.

        Raises:
            DataError: there are no classes.
        """
        if not len(train):
            raise DataError("Groups of 0 classes do not exist. Give the training rows of at least one class.")
        made = cls._at(train, MANY, FEW, False)
        if set(made.group) == {"many", "medium", "few"}:
            return made
        few, many = np.quantile(train, [1 / 3, 2 / 3])
        return cls._at(train, float(many), float(few), True)

    @classmethod
    def _at(cls, train: Int[np.ndarray, "C"], many: float, few: float, quantiles: bool) -> "ShotGroups":
        words = np.where(train > many, "many", np.where(train < few, "few", "medium"))
        return cls(many, few, quantiles, tuple(words.tolist()))

    def recall(self, figures: ClassFigures) -> dict[str, float]:
        """Mean recall of the classes of each group that have items; a group without any is left out."""
        group = np.array(self.group)
        rows = {name: (group == name) & figures.seen for name in ("many", "medium", "few")}
        return {name: float(figures.recall[own].mean()) for name, own in rows.items() if own.any()}
