"""The coordinates that scores see rows in while they are compared: few where there are few rows."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from jaxtyping import Float, Int
from torch import Tensor

from mixtura.core.classes import Plan
from mixtura.core.cross_fitting import Folds
from mixtura.core.mixture import Mixture
from mixtura.core.moments import LabeledItems
from mixtura.core.span import spanned
from mixtura.scores.base import DISTANCES, ROWS, KnownRows, Score

View = tuple[Folds, Plan]
"""Rows in some coordinates, with the plan that fits the same mixture there."""


@dataclass(frozen=True)
class Views:
    """The same rows in the coordinates that a score may see them in.

    ``distances`` keeps distances under the model's covariance, in the units of its feature scales, and ``rows`` those
    between rows and from zero; ``features`` are the features themselves.
    """

    distances: View
    rows: View
    features: View

    @classmethod
    def of(cls, folds: Folds, plan: Plan) -> "Views":
        """The views of some folds; all have the same rows where no other coordinates save anything."""
        scaled = spanned(folds, plan)
        rows = scaled if plan.feature_scale == "none" else spanned(folds, replace(plan, feature_scale="none"))
        return cls(scaled, rows, (folds, plan))

    @classmethod
    def same(cls, folds: Folds, plan: Plan) -> "Views":
        """The features themselves for every score."""
        return cls((folds, plan), (folds, plan), (folds, plan))

    def at_once(self) -> "Views":
        """The same with all folds held out together, where that takes no more than one fold in turn would."""
        views = self.distances, self.rows, self.features
        made = {id(folds): folds.at_once() for folds, _ in views}
        return Views(*((made[id(folds)], plan) for folds, plan in views))

    def known(
        self, kind: type[Score], row: Int[Tensor, " K"], mixture: Mixture, fit: Callable[[Folds, Plan], Mixture]
    ) -> tuple[KnownRows, Float[Tensor, "N R"]]:
        """The rows to fit a score to, and all rows, as the score sees them.

        Args:
            kind: the score.
            row: the rows to fit it to.
            mixture: fitted to them where distances are kept.
            fit: fits the same mixture elsewhere.
        """
        sees = getattr(kind, "sees", "")
        folds, plan = {DISTANCES: self.distances, ROWS: self.rows}.get(sees, self.features)
        alike: Mixture | None = mixture
        if folds is not self.distances[0]:
            alike = None if sees == ROWS else fit(folds, plan)
        return known_rows(folds, row, plan, alike), folds.x


def known_rows(folds: Folds, row: Int[Tensor, " K"], plan: Plan, mixture: Mixture | None) -> KnownRows:
    """Rows to fit a score to, with the mixture of a plan that has been fitted to them, if it is at hand."""
    rows = LabeledItems(folds.x[row], folds.labels[row], folds.counts[row])
    tied = mixture is not None and mixture.covariance.shared and plan.components == 1
    return KnownRows(rows, folds.n_classes, plan.prior, mixture if tied else None)
