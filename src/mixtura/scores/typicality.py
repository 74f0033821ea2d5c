"""Typicality: a conformal p-value with a stated false-reject rate, fitted to out-of-fold known items only."""

from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mixtura.errors import LabelError

FAR_SPREADS = 2.0  # spreads by which log p(x) must be lower than the relative score to be the score
POOLED_ITEMS = 20.0  # out-of-fold items at which a class's own ranks count as much as the pooled ranks
MIN_HELD_OUT = 2  # out-of-fold items; fewer give no ranks


@dataclass(frozen=True)
class Typicality:
    r"""Split-conformal ranks of a score among out-of-fold items, by predicted class and over all classes.

    The score is the smaller of two, each in spreads from its median over the out-of-fold items:

    .. math:: s = \min\left(\frac{r - \tilde r}{\sigma_r},\; \frac{e - \tilde e}{\sigma_e} + 2\right),
        \qquad r = \log p(x) - \log p_0(x), \; e = \log p(x)

    The first is low for items that no class explains, the second for items far from all data. Let :math:`m_c` of the
    :math:`n_c` out-of-fold items of the predicted class score no higher, and let :math:`p` be the share of all items
    that do, including the new one. The blended rank is :math:`t = (m_c + 20 p) / (n_c + 20)`, and the typicality is the
    share of out-of-fold items with no larger t, each ranked among the others. An item below all others is among the
    least typical in a class of any size, even with two out-of-fold items. So a known item has a typicality below a with
    probability a: exactly over all classes together (if it is exchangeable with the out-of-fold items), and per class
    more closely the more items the class has.

    Another score of ``SCORES`` may take the place of s, standardized alike: ``own_scale`` then holds its median and
    spread. The two parts still tell what lies far from everything.

    A class without out-of-fold items may use substitute scores (``stand_in``, of class ``stand_for``). They count
    within the class, but not in the pooled ranks.

    Source: Vovk, Gammerman, Shafer, Algorithmic Learning in a Random World (2005), inductive and Mondrian conformal.
    """

    center: Float[Tensor, " 2"]
    spread: Float[Tensor, " 2"]
    scores: Float[Tensor, " M"]
    predicted: Int[Tensor, " M"]
    stand_in: Float[Tensor, " Q"] = field(default_factory=lambda: torch.zeros(0, dtype=torch.float64))
    stand_for: Int[Tensor, " Q"] = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))
    own_scale: Float[Tensor, " S"] = field(default_factory=lambda: torch.zeros(0, dtype=torch.float64))

    @classmethod
    def fit(
        cls,
        log_density: Float[Tensor, " M"],
        background: Float[Tensor, " M"],
        predicted: Int[Tensor, " M"],
        raw: Float[Tensor, " M"] | None = None,
    ) -> "Typicality":
        """Fit the typicality to out-of-fold known items.

        Args:
            log_density: log-density under the mixture, in nats.
            background: log-density under the background, in nats.
            predicted: the predicted class of each item, right or wrong, as for new items.
            raw: another score of each item; ``None`` for the one from the two densities.

        Raises:
            LabelError: fewer than two out-of-fold items.
        """
        if len(predicted) < MIN_HELD_OUT:
            raise LabelError(
                f"Only {len(predicted)} items can be held out to tell known from unknown. "
                "Give at least two classes two photos each."
            )
        both = _raw(log_density, background)
        scale = _scale(both)
        own = scale[:0, 0] if raw is None else _scale(raw[None].double())[:, 0]
        unsorted = cls(scale[0], scale[1], both[0], predicted, own_scale=own)
        scores = unsorted.score(log_density, background, raw)
        order = scores.argsort()
        return replace(unsorted, scores=scores[order], predicted=predicted[order])

    def parts(
        self, log_density: Float[Tensor, " N"], background: Float[Tensor, " N"]
    ) -> tuple[Float[Tensor, " N"], Float[Tensor, " N"]]:
        """The two scores, in spreads; the second includes the offset ``FAR_SPREADS``."""
        standard = (_raw(log_density, background) - self.center[:, None]) / self.spread[:, None]
        return standard[0], standard[1] + FAR_SPREADS

    def score(
        self, log_density: Float[Tensor, " N"], background: Float[Tensor, " N"], raw: Float[Tensor, " N"] | None = None
    ) -> Float[Tensor, " N"]:
        """Known-item score, in spreads; higher is more known. ``raw`` is the other score that it was fitted with.

        An item so far away that its density is NaN gets minus infinity.
        """
        if raw is None:
            lesser = torch.minimum(*self.parts(log_density, background))
        else:
            lesser = (raw.double() - self.own_scale[0]) / self.own_scale[1]
        return torch.where(lesser.isnan(), -torch.inf, lesser)

    def far(self, log_density: Float[Tensor, " N"], background: Float[Tensor, " N"]) -> Bool[Tensor, " N"]:
        """Whether an item lies so far from everything that its plain log-density decides its score."""
        near, lifted = self.parts(log_density, background)
        return (lifted < near) | self.score(log_density, background).isneginf()

    def pooled(self, score: Float[Tensor, " N"]) -> Float[Tensor, " N"]:
        """Share of out-of-fold items of all classes that score no higher, including the item itself."""
        return rank(self.scores, score)

    def __call__(self, score: Float[Tensor, " N"], predicted: Int[Tensor, " N"]) -> Float[Tensor, " N"]:
        """Typicality of new items from their scores and predicted classes, in [0, 1]."""
        blended = self.pooled(score)
        for c in predicted.unique().tolist():
            rows = predicted == c
            own = self._own(c)
            blended[rows] = _blend(below(own, score[rows]), blended[rows], len(own))
        return rank(self._blended, blended)

    def _own(self, c: int) -> Float[Tensor, " m"]:
        """Sorted scores of a class, including its substitute scores."""
        if c not in self._by_class:
            own = [self.scores[self.predicted == c], self.stand_in[self.stand_for == c]]
            self._by_class[c] = torch.cat(own).sort().values
        return self._by_class[c]

    @cached_property
    def _by_class(self) -> dict[int, Tensor]:
        return {}

    @cached_property
    def _blended(self) -> Float[Tensor, " M"]:
        """Sorted blended ranks of the out-of-fold items, each among the others."""
        count = len(self.scores)
        blended = below(self.scores, self.scores) / count
        for c in self.predicted.unique().tolist():
            rows = self.predicted == c
            own = self.scores[rows]
            blended[rows] = _blend(below(own, own) - 1, blended[rows], len(own) - 1)
        return blended.sort().values

    def state(self) -> dict[str, Tensor]:
        """All tensors by name."""
        state = {"center": self.center, "spread": self.spread, "scores": self.scores, "predicted": self.predicted}
        state |= {"own_scale": self.own_scale} if len(self.own_scale) else {}
        return state | ({"stand_in": self.stand_in, "stand_for": self.stand_for} if len(self.stand_in) else {})


def _raw(log_density: Float[Tensor, " N"], background: Float[Tensor, " N"]) -> Float[Tensor, "2 N"]:
    r"""Log-density of each item relative to the background Gaussian, and absolute, in nats.

    .. math:: \log p(x) - \log N(x; \mu_0, \Sigma_0), \qquad \log p(x)

    In the first, variation common to all classes, such as lighting, cancels.

    Source: Ren et al., A Simple Fix to Mahalanobis Distance for Improving Near-OOD Detection, 2021, with the
    background matched to the mixture's own moments.
    """
    log_density, background = log_density.double(), background.double()
    return torch.stack([log_density - background, log_density])


def _scale(raw: Float[Tensor, "P M"]) -> Float[Tensor, "2 P"]:
    """Median and robust spread of each row of scores."""
    center = raw.median(1).values
    spread = (raw - center[:, None]).abs().median(1).values * 1.4826
    return torch.stack([center, torch.where(spread > 0, spread, raw.std(1).clamp_min(1e-12))])


def can_reject(held: int, rate: float) -> bool:
    """Whether ranks among ``held`` items can fall below a rate: the smallest is 1 / (1 + held)."""
    return 1 / (1 + held) < rate


def below(held: Float[Tensor, " M"], new: Float[Tensor, " N"]) -> Float[Tensor, " N"]:
    """Number of sorted reference values that are no larger."""
    return torch.searchsorted(held, new.contiguous(), right=True).double()


def rank(held: Float[Tensor, " M"], new: Float[Tensor, " N"]) -> Float[Tensor, " N"]:
    """Conformal rank: (1 + number of reference values no larger) / (1 + number of reference values)."""
    return (1 + below(held, new)) / (1 + len(held))


def _blend(below: Float[Tensor, " N"], pooled: Float[Tensor, " N"], count: int) -> Float[Tensor, " N"]:
    """Share of the ``count`` class items that are below, shrunk toward the pooled share."""
    return (below + POOLED_ITEMS * pooled) / (count + POOLED_ITEMS)
