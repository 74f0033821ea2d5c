"""Held-out rows stay held out of the projection, too."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor

from mixtura.core.classes import Plan
from mixtura.core.cross_fitting import Folds, OutOfFold
from mixtura.features.blocks import Blocks
from mixtura.features.nonlinear import Power, RandomFeatures
from mixtura.features.projection import L2, Chain, Identity, Projection, Random

Steps = Sequence[tuple[type[Projection], Mapping[str, Any]]]
DATA_FREE_PROJECTIONS = (Blocks, Identity, L2, Power, Random, RandomFeatures)
"""Projections that treat a row alike whether or not it was among the rows that they were fitted to."""
FIXED_PROJECTIONS = (Blocks, Identity, L2, Power, Random)
"""Projections that no row has a part in, or, in the scales of whole blocks, next to none."""


@dataclass(frozen=True)
class CrossFittedFolds(Folds):
    """Folds of which each is judged in a space that was fitted without it; ``x`` is the space of all rows.

    A projection that learns (LDA, whitening, PCA) puts the rows it has seen where no other row comes to lie. Judged
    there, they would make genuine items look unusual later: with 300 dimensions and 500 rows, nine in ten.
    """

    without: tuple[Folds, ...] = ()

    def cross_val_predict(self, plan: Plan, background: bool = False) -> OutOfFold:
        """Every row of the used folds, judged by a projection and a mixture that have not seen it."""
        parts = [space.cross_val_predict(plan, background) for space in self.without]
        return OutOfFold.join([OutOfFold.empty(self), *parts])

    def held_out_spaces(self) -> list[tuple[Folds, int]]:
        """The rows for each used fold, in the space that was fitted without it, where it is number 0."""
        return [(space, 0) for space in self.without]

    def at_once(self) -> "CrossFittedFolds":
        """The same: each fold has a space of its own."""
        return self

    def with_weight(self, weight: Float[Tensor, " N"]) -> "CrossFittedFolds":
        """The same rows, folds and spaces, with other weights."""
        without = tuple(space.with_weight(weight) for space in self.without)
        return replace(self, weight=weight, without=without)

    def clear_cache(self) -> None:
        """Free the sums."""
        super().clear_cache()
        for space in self.without:
            space.clear_cache()


def cross_fit_projection(steps: Steps, x: Float[Tensor, "N D"], folds: Folds) -> tuple[Chain, Folds]:
    """The projection of all rows, and the folds in its space; ``folds`` says all but where the rows lie.

    No projection learns from rows of weight zero.
    """
    counts = folds.counts > 0
    projection = Chain.fit(x[counts], folds.labels[counts], steps)
    fixed = all(issubclass(kind, FIXED_PROJECTIONS) for kind, _ in steps)
    shown = replace(_moved(folds, projection(x), folds.fold, folds.n_folds), unit=folds.unit, fixed=fixed)
    if all(issubclass(kind, DATA_FREE_PROJECTIONS) for kind, _ in steps):
        return projection, shown
    without = tuple(without_fold(steps, x, folds, i) for i in shown.used)
    return projection, CrossFittedFolds(
        **{item.name: getattr(shown, item.name) for item in fields(Folds)}, without=without
    )


def without_fold(steps: Steps, x: Float[Tensor, "N D"], folds: Folds, fold: int) -> Folds:
    """One fold to be held out, as number 0, and the others to learn from, in the space of the others."""
    others = folds.fold != fold
    learn = others & (folds.counts > 0)
    projection = Chain.fit(x[learn], folds.labels[learn], steps)
    return _moved(folds, projection(x), others.long(), 1)


def _moved(folds: Folds, x: Float[Tensor, "N R"], fold: Int[Tensor, " N"], n_folds: int) -> Folds:
    parent = folds.class_parent
    return Folds(x, folds.labels, folds.n_classes, fold, n_folds, folds.weight, class_parent=parent)
