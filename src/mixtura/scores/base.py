"""The protocol of fitted scores, the rows that they are fitted to, and the edits that they follow."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mixtura.core import classes
from mixtura.core.classes import Plan
from mixtura.core.covariance import Prior
from mixtura.core.cross_fitting import OutOfFold
from mixtura.core.mixture import Mixture
from mixtura.core.moments import LabeledItems

MIN_LENGTH = 1e-12  # keeps the unit vector of a zero row finite

DISTANCES, ROWS = "distances", "rows"
"""What a score may say that it ``sees``: distances under the model's covariance, or rows by their inner products."""


@dataclass(frozen=True)
class KnownRows:
    """The rows that a score is fitted to.

    ``prior`` shrinks the model's covariances, and those of the score by the same share. ``tied_mixture`` is the tied
    mixture of the rows, if it has been fitted already. ``background_peak`` is the largest log-density of the model's
    background in nats, which depends on the rows.
    """

    rows: LabeledItems
    n_classes: int
    prior: Prior
    tied_mixture: Mixture | None = None
    background_peak: float = 0.0

    @cached_property
    def tied(self) -> Mixture:
        """One Gaussian for each class that has rows, with a common covariance."""
        if self.tied_mixture is None:
            return self._fit_tied(self.rows.x)
        return self.tied_mixture.select((self.tied_mixture.log_weight > -torch.inf).nonzero()[:, 0])

    @cached_property
    def unit_tied(self) -> Mixture:
        """The same for the rows at unit length."""
        return self._fit_tied(unit(self.rows.x))

    def _fit_tied(self, x: Float[Tensor, "N D"]) -> Mixture:
        plan = Plan("tied", prior=replace(self.prior, strength=0.0, scale=None))
        return classes.fit(plan, x, self.rows.labels, self.n_classes, self.rows.weight)


@dataclass(frozen=True)
class Edits:
    """What a catalog has changed since the fit.

    ``gone`` marks fitted classes that were removed; ``added`` and ``removed`` are rows of the others. ``newcomers`` are
    the rows of each new class.
    """

    gone: Bool[Tensor, " C"]
    added: LabeledItems
    removed: LabeledItems
    newcomers: tuple[Float[Tensor, "_ D"], ...] = ()

    def on_unit_vectors(self) -> "Edits":
        """The same edits with all rows at unit length."""
        added, removed = on_unit_vectors(self.added), on_unit_vectors(self.removed)
        return Edits(self.gone, added, removed, tuple(unit(rows) for rows in self.newcomers))


@runtime_checkable
class Score(Protocol):
    """A fitted score: higher is more familiar. It is a value of tensors, restored by its name in ``SCORES``.

    The call is traceable, so it becomes part of an exported graph. A class attribute ``sees``, :data:`DISTANCES` or
    :data:`ROWS`, says that the score depends on nothing else; it is then compared in fewer coordinates where there are
    few rows.
    """

    @classmethod
    def fit(cls, known: KnownRows) -> "Score":
        """The score of known rows."""
        ...

    def __call__(
        self, x: Float[Tensor, "N D"], log_prob: Float[Tensor, " N"], background: Float[Tensor, " N"]
    ) -> Float[Tensor, " N"]:
        """Scores of rows, from their place and from their log-densities in nats."""
        ...

    @classmethod
    def left_out(cls, held: OutOfFold) -> Float[Tensor, " M"] | None:
        """The scores of rows that were left out one by one, if they follow from their densities; else ``None``."""
        ...

    def follow(self, edits: Edits) -> "Score":
        """The score after the edits of a catalog."""
        ...

    def state(self) -> dict[str, Tensor]:
        """All tensors by name."""
        ...

    @classmethod
    def from_state(cls, state: dict[str, Tensor]) -> "Score":
        """The inverse of :meth:`state`."""
        ...


def unit(x: Float[Tensor, "N D"]) -> Float[Tensor, "N D"]:
    """Rows divided by their length; first by their largest entry, because the square of a large one is infinite."""
    x = x / x.abs().amax(1, keepdim=True).clamp_min(MIN_LENGTH)
    return x / x.square().sum(1, keepdim=True).sqrt().clamp_min(MIN_LENGTH)


def on_unit_vectors(rows: LabeledItems) -> LabeledItems:
    """The same rows at unit length."""
    return replace(rows, x=unit(rows.x))
