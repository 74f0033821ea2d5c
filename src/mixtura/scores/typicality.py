"""Typicality: a p-value with a stated false-reject rate, from held-out genuine items alone."""

from dataclasses import dataclass, field
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mixtura.errors import LabelError

FAR_SPREADS = 2.0  # spreads by which the plain evidence must be more extreme than the relative score to decide alone
POOLED_ITEMS = 20.0  # held-out items of a class at which its own ranks count as much as those of all classes
MIN_HELD_OUT = 2  # held-out items; with fewer there is nothing to rank against


@dataclass(frozen=True)
class Typicality:
    r"""Split-conformal ranks of a score among held-out items, by predicted class and over all classes.

    The score is the smaller of two, each in spreads from its median over the held-out items:

    .. math:: s = \min\left(\frac{r - \tilde r}{\sigma_r},\; \frac{e - \tilde e}{\sigma_e} + 2\right),
        \qquad r = \log p(x) - \log p_0(x), \; e = \log p(x)

    The first sees what no class explains, the second what lies far from everything. With :math:`m_c` of the
    :math:`n_c` held-out items of the predicted class scoring no higher, and :math:`p` the share of all that do, the
    item itself counted, the ranks are blended, :math:`t = (m_c + 20 p) / (n_c + 20)`, and the typicality is the share
    of held-out items with no larger t, each ranked among the others. An item below all others is among the least
    typical in a class of any size, even in one with two held-out items.
    So a genuine item has a typicality under a with probability a, over all classes together exactly (if it is
    exchangeable with the held-out ones) and class by class the better the more items a class has.

    A class that has no held-out items yet may have scores that stand for them (``stand_in``, of class ``stand_for``):
    they count among its own, but not among those of all classes.

    Source: Vovk, Gammerman, Shafer, Algorithmic Learning in a Random World (2005), inductive and Mondrian conformal.
    """

    center: Float[Tensor, " 2"]
    spread: Float[Tensor, " 2"]
    scores: Float[Tensor, " M"]
    predicted: Int[Tensor, " M"]
    stand_in: Float[Tensor, " Q"] = field(default_factory=lambda: torch.zeros(0, dtype=torch.float64))
    stand_for: Int[Tensor, " Q"] = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))

    @classmethod
    def fit(
        cls,
        log_density: Float[Tensor, " M"],
        background: Float[Tensor, " M"],
        predicted: Int[Tensor, " M"],
    ) -> "Typicality":
        """Typicality from held-out genuine items.

        Args:
            log_density: under the whole mixture, in nats.
            background: under the background, in nats.
            predicted: the class that each item was given, right or wrong, as it will be for new items.

        Raises:
            LabelError: fewer than two held-out items.
        """
        if len(predicted) < MIN_HELD_OUT:
            raise LabelError(
                f"Only {len(predicted)} items can be held out to tell known from unknown. "
                "Give at least two classes two photos each."
            )
        raw = _raw(log_density, background)
        center = raw.median(1).values
        spread = (raw - center[:, None]).abs().median(1).values * 1.4826
        spread = torch.where(spread > 0, spread, raw.std(1).clamp_min(1e-12))
        order = cls(center, spread, raw[0], predicted).score(log_density, background).argsort()
        scores = cls(center, spread, raw[0], predicted).score(log_density, background)[order]
        return cls(center, spread, scores, predicted[order])

    def parts(
        self, log_density: Float[Tensor, " N"], background: Float[Tensor, " N"]
    ) -> tuple[Float[Tensor, " N"], Float[Tensor, " N"]]:
        """The two scores, in spreads; the second is already lifted by ``FAR_SPREADS``."""
        standard = (_raw(log_density, background) - self.center[:, None]) / self.spread[:, None]
        return standard[0], standard[1] + FAR_SPREADS

    def score(self, log_density: Float[Tensor, " N"], background: Float[Tensor, " N"]) -> Float[Tensor, " N"]:
        """The default score of being known, in spreads; higher = more known.

        A row so far away that its density is no number any more has minus infinity.
        """
        lesser = torch.minimum(*self.parts(log_density, background))
        return torch.where(lesser.isnan(), -torch.inf, lesser)

    def pooled(self, score: Float[Tensor, " N"]) -> Float[Tensor, " N"]:
        """Share of held-out items of all classes that score no higher, the item itself counted."""
        return _rank(self.scores, score)

    def __call__(self, score: Float[Tensor, " N"], predicted: Int[Tensor, " N"]) -> Float[Tensor, " N"]:
        """The typicality of new items with these scores and predicted classes, in [0, 1]."""
        blended = self.pooled(score)
        for c in predicted.unique().tolist():
            rows = predicted == c
            own = self._own(c)
            blended[rows] = _blend(_below(own, score[rows]), blended[rows], len(own))
        return _rank(self._blended, blended)

    def _own(self, c: int) -> Float[Tensor, " m"]:
        """The scores of a class, sorted; those that stand for its held-out items too."""
        if c not in self._by_class:
            own = [self.scores[self.predicted == c], self.stand_in[self.stand_for == c]]
            self._by_class[c] = torch.cat(own).sort().values
        return self._by_class[c]

    @cached_property
    def _by_class(self) -> dict[int, Tensor]:
        return {}

    @cached_property
    def _blended(self) -> Float[Tensor, " M"]:
        """The blended ranks of the held-out items among one another, sorted."""
        count = len(self.scores)
        blended = _below(self.scores, self.scores) / count
        for c in self.predicted.unique().tolist():
            rows = self.predicted == c
            own = self.scores[rows]
            blended[rows] = _blend(_below(own, own) - 1, blended[rows], len(own) - 1)
        return blended.sort().values

    def state(self) -> dict[str, Tensor]:
        """All tensors by name."""
        state = {"center": self.center, "spread": self.spread, "scores": self.scores, "predicted": self.predicted}
        return state | ({"stand_in": self.stand_in, "stand_for": self.stand_for} if len(self.stand_in) else {})


def _raw(log_density: Float[Tensor, " N"], background: Float[Tensor, " N"]) -> Float[Tensor, "2 N"]:
    r"""How much better the classes explain each item than one broad Gaussian does, and how well at all; in nats.

    .. math:: \log p(x) - \log N(x; \mu_0, \Sigma_0), \qquad \log p(x)

    In the first, whatever is unusual for every photo alike, such as its light, cancels.

    Source: Ren et al., A Simple Fix to Mahalanobis Distance for Improving Near-OOD Detection, 2021, with the
    background matched to the mixture's own moments.
    """
    log_density, background = log_density.double(), background.double()
    return torch.stack([log_density - background, log_density])


def _below(held: Float[Tensor, " M"], new: Float[Tensor, " N"]) -> Float[Tensor, " N"]:
    """The number of held-out values that are no larger."""
    return torch.searchsorted(held, new.contiguous(), right=True).double()


def _rank(held: Float[Tensor, " M"], new: Float[Tensor, " N"]) -> Float[Tensor, " N"]:
    """(1 + number of held-out values no larger) / (1 + number of held-out values)."""
    return (1 + _below(held, new)) / (1 + len(held))


def _blend(below: Float[Tensor, " N"], pooled: Float[Tensor, " N"], count: int) -> Float[Tensor, " N"]:
    """The share of ``count`` items of the class that lie below, shrunk towards the share of all."""
    return (below + POOLED_ITEMS * pooled) / (count + POOLED_ITEMS)
