"""Typicality: a conformal p-value with a stated false-reject rate, fitted to out-of-fold known items only."""

from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mixtura.errors import LabelError

FAR_SPREADS = 2.0  # spreads by which log p(x) must be lower than the relative score to be the score
POOLED_ITEMS = 20.0  # out-of-fold items at which a class's own ranks count as much as the pooled ranks
MIN_HELD_OUT = 2  # out-of-fold items; fewer give no ranks
BEYOND_SPREADS, BEYOND_TIMES = 1000.0, 10.0  # below the median, and times the lowest known item, of log p(x)
TIE, TOLERANCE = 2.0**-13, 2.0**-12  # spreads; rounding moves a score by less than half of a tie, most by far less


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

    The smallest rank is :math:`1 / (1 + M)`, and at a rate below it ranks among M items reject nothing. So what lies
    far :meth:`beyond` all of them has typicality 0.

    ``lowest`` is the second part of the lowest item that a catalog has added, at most 0; no state keeps it.

    ``subclass`` is the subclass of each item within its predicted class, where classes have named ones.

    ``weight`` is set where another class prior is asked for: the new over the old share of each item's class, 1 on
    average. Ranks over all classes then count weights instead of items, and the new item has the mean weight of its
    predicted class. Ranks within a class count items: a prior does not change what a class looks like.

    A class without out-of-fold items may use substitute scores (``stand_in``, of class ``stand_for``). They count
    within the class, but not in the pooled ranks.

    Source: Vovk, Gammerman, Shafer, Algorithmic Learning in a Random World (2005), inductive and Mondrian conformal;
    Podkopaev and Ramdas, Distribution-free uncertainty quantification for classification under label shift, UAI 2021.
    """

    center: Float[Tensor, " 2"]
    spread: Float[Tensor, " 2"]
    scores: Float[Tensor, " M"]
    predicted: Int[Tensor, " M"]
    stand_in: Float[Tensor, " Q"] = field(default_factory=lambda: torch.zeros(0, dtype=torch.float64))
    stand_for: Int[Tensor, " Q"] = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))
    own_scale: Float[Tensor, " S"] = field(default_factory=lambda: torch.zeros(0, dtype=torch.float64))
    lowest: Float[Tensor, ""] = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))
    subclass: Int[Tensor, " L"] = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))
    weight: Float[Tensor, " W"] = field(default_factory=lambda: torch.zeros(0, dtype=torch.float64))

    @classmethod
    def fit(
        cls,
        log_density: Float[Tensor, " M"],
        background: Float[Tensor, " M"],
        predicted: Int[Tensor, " M"],
        raw: Float[Tensor, " M"] | None = None,
        subclass: Int[Tensor, " M"] | None = None,
        weight: Float[Tensor, " M"] | None = None,
    ) -> "Typicality":
        """Fit the typicality to out-of-fold known items.

        Args:
            log_density: log-density under the mixture, in nats.
            background: log-density under the background, in nats.
            predicted: the predicted class of each item, right or wrong, as for new items.
            raw: another score of each item; ``None`` for the one from the two densities.
            subclass: the subclass of each item within its predicted class, where classes have named ones.
            weight: of each item in ranks over all classes; ``None`` for equal ones.

        Raises:
            LabelError: fewer than two out-of-fold items.
        """
        if len(predicted) < MIN_HELD_OUT:
            raise LabelError(
                f"Only {len(predicted)} items can be held out to set the limit for unknown. "
                "Give at least two classes two photos each."
            )
        both = _raw(log_density, background)
        scale = _scale(both)
        own = scale[:0, 0] if raw is None else _scale(raw[None].double())[:, 0]
        unsorted = cls(scale[0], scale[1], both[0], predicted, own_scale=own)
        scores = unsorted.score(log_density, background, raw)
        order = scores.argsort()
        kinds = unsorted.subclass if subclass is None else subclass[order]
        shares = unsorted.weight if weight is None else weight[order].double() / weight.double().mean()
        return replace(unsorted, scores=scores[order], predicted=predicted[order], subclass=kinds, weight=shares)

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
        by_density = (lifted < near) | self.score(log_density, background).isneginf()
        return by_density | self.beyond(log_density)

    def beyond(self, log_density: Float[Tensor, " N"]) -> Bool[Tensor, " N"]:
        """Whether an item lies so far from everything that its typicality is 0, whatever its rank.

        Its log-density is ten times farther below the median than that of any known item, and 1,000 spreads (and nats)
        or more, as of features in another unit than those of the fit. Genuine items are hardly ever there, also where a
        handful of items gives a spread that is too small by chance.
        """
        fall = self.center[1] - log_density.double()
        lowest = torch.minimum(self.scores[:1].sum(), self.lowest).clamp_max(-BEYOND_SPREADS / BEYOND_TIMES)
        return ~(fall <= -BEYOND_TIMES * lowest * self.spread[1].clamp_min(1.0))

    def reaching(self, log_density: Float[Tensor, " N"]) -> "Typicality":
        """The same, where items of these log-densities (in nats) are known too, so none is :meth:`beyond` all others.

        A catalog calls this with what was enrolled, which may vary more than the classes of the fit.
        """
        fall = (log_density.double() - self.center[1]) / self.spread[1].clamp_min(1.0)
        return replace(self, lowest=torch.minimum(self.lowest, fall.min())) if len(fall) else self

    def pooled(self, score: Float[Tensor, " N"]) -> Float[Tensor, " N"]:
        """Share of out-of-fold items of all classes that score no higher, including the item itself."""
        return rank(self.limits, score, self.weight)

    @cached_property
    def limits(self) -> Float[Tensor, " M"]:
        """The :func:`limits` of the out-of-fold items of all classes."""
        return limits(self.scores)

    def __call__(self, score: Float[Tensor, " N"], predicted: Int[Tensor, " N"]) -> Float[Tensor, " N"]:
        """Typicality of new items from their scores and predicted classes, in [0, 1]."""
        own = self._within_classes
        blended = _blend(own.below(score, predicted), self.pooled(score), own.count(predicted))
        reference, weight = self.blended
        return rank(reference, blended, weight, self.class_weight(predicted))

    def class_weight(self, predicted: Int[Tensor, " N"]) -> Float[Tensor, " N"]:
        """The weight of a new item by its predicted class: the mean over that class's out-of-fold items, else 1."""
        if not len(self.weight):
            return torch.ones_like(predicted, dtype=torch.float64)
        place, count = self.predicted + 1, int(torch.cat([self.predicted, predicted]).max()) + 2
        total, items = torch.bincount(place, self.weight, count), torch.bincount(place, minlength=count)
        return torch.where(items > 0, total / items.clamp_min(1), 1.0)[predicted + 1]

    @cached_property
    def of_subclasses(self) -> "Typicality":
        """The typicality within subclasses, by the same scores; without known subclasses, items count for all alike."""
        none = torch.zeros(0, dtype=torch.int64)
        known = self.subclass if len(self.subclass) else torch.full_like(self.predicted, -1)
        return replace(self, predicted=known, subclass=none, stand_in=self.stand_in[:0], stand_for=none)

    def count(self, predicted: Int[Tensor, " N"]) -> Float[Tensor, " N"]:
        """Number of items behind the typicality of each class."""
        return self._within_classes.count(predicted)

    @cached_property
    def _within_classes(self) -> "ClassRanks":
        """Ranks within each class, including its substitute scores."""
        return ClassRanks.of(torch.cat([self.scores, self.stand_in]), torch.cat([self.predicted, self.stand_for]))

    @cached_property
    def blended(self) -> tuple[Float[Tensor, " M"], Float[Tensor, " W"]]:
        """Sorted blended ranks of the out-of-fold items, each among the others, and the weights of these items."""
        own, pooled = ClassRanks.of(self.scores, self.predicted), share_below(self.limits, self.scores, self.weight)
        others = own.below(self.scores, self.predicted) - 1
        ranks = _blend(others, pooled, own.count(self.predicted) - 1)
        order = ranks.argsort()
        return ranks[order], self.weight[order] if len(self.weight) else self.weight

    def state(self) -> dict[str, Tensor]:
        """All tensors by name."""
        state = {"center": self.center, "spread": self.spread, "scores": self.scores, "predicted": self.predicted}
        state |= {"own_scale": self.own_scale} if len(self.own_scale) else {}
        state |= {"subclass": self.subclass} if len(self.subclass) else {}
        state |= {"weight": self.weight} if len(self.weight) else {}
        return state | ({"stand_in": self.stand_in, "stand_for": self.stand_for} if len(self.stand_in) else {})


@dataclass(frozen=True)
class ClassRanks:
    """Ranks of scores among the reference scores of one class, for all classes at once.

    ``limits`` are those of the scores of all classes; ``place`` holds class and position of each, as one sorted number.
    """

    limits: Float[Tensor, " M"]
    place: Int[Tensor, " M"]

    @classmethod
    def of(cls, scores: Float[Tensor, " M"], label: Int[Tensor, " M"]) -> "ClassRanks":
        """From the reference scores and their classes."""
        sorted_scores, order = scores.sort()
        width = len(scores) + 1
        return cls(limits(sorted_scores), (label[order] * width + torch.arange(len(order))).sort().values)

    def below(self, new: Float[Tensor, " N"], label: Int[Tensor, " N"]) -> Float[Tensor, " N"]:
        """Number of reference scores of the same class that are no larger."""
        position = torch.searchsorted(self.limits, new.contiguous(), right=True)
        return self._up_to(label, position) - self._up_to(label, 0)

    def count(self, label: Int[Tensor, " N"]) -> Float[Tensor, " N"]:
        """Number of reference scores of a class."""
        return self._up_to(label, len(self.limits)) - self._up_to(label, 0)

    def _up_to(self, label: Int[Tensor, " N"], position: Int[Tensor, " N"] | int) -> Float[Tensor, " N"]:
        return torch.searchsorted(self.place, label * (len(self.limits) + 1) + position).double()


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


def limits(held: Float[Tensor, " M"]) -> Float[Tensor, " M"]:
    """The least score of which each of the sorted reference scores counts as no larger.

    It lies a little below the reference score, and reference scores that are tied within rounding have one limit. So no
    limit is near a reference score: asked again, its item has the same rank, although the last digits of its score
    depend on the other items of the batch. Among very many scores, which lie close, less is a tie.
    """
    gap = nn.functional.pad(held.diff(), (1, 0), value=torch.inf)[: len(held)]
    apart = gap > min(TIE, 0.5 / max(1, len(held)))
    first = (apart * torch.arange(len(held))).cummax(0).values if len(held) else held.long()
    return (held - (0.5 * gap).clamp_max(TOLERANCE))[first]


def can_reject(held: int, rate: float) -> bool:
    """Whether ranks among ``held`` items can fall below a rate: the smallest is 1 / (1 + held)."""
    return 1 / (1 + held) < rate


def below(held: Float[Tensor, " M"], new: Float[Tensor, " N"]) -> Float[Tensor, " N"]:
    """Number of sorted reference values that are no larger."""
    return torch.searchsorted(held, new.contiguous(), right=True).double()


def share_below(
    held: Float[Tensor, " M"], new: Float[Tensor, " N"], weight: Float[Tensor, " W"]
) -> Float[Tensor, " N"]:
    """Share of the sorted reference values, by weight if there are weights, that are no larger."""
    if not len(weight):
        return below(held, new) / len(held)
    return _weight_below(held, new, weight) / weight.sum()


def rank(
    held: Float[Tensor, " M"],
    new: Float[Tensor, " N"],
    weight: Float[Tensor, " W"] | None = None,
    own: Float[Tensor, " N"] | float = 1.0,
) -> Float[Tensor, " N"]:
    """Conformal rank: (1 + number of reference values no larger) / (1 + number of reference values).

    Args:
        held: sorted reference values.
        new: values to rank.
        weight: of the reference values, which count so much instead of one each; none if empty.
        own: weight of the new values, in place of the ones, where there are weights.
    """
    if weight is None or not len(weight):
        return (1 + below(held, new)) / (1 + len(held))
    return (own + _weight_below(held, new, weight)) / (own + weight.sum())


def _weight_below(
    held: Float[Tensor, " M"], new: Float[Tensor, " N"], weight: Float[Tensor, " M"]
) -> Float[Tensor, " N"]:
    """Total weight of the sorted reference values that are no larger."""
    total = nn.functional.pad(weight.cumsum(0), (1, 0))
    return total[torch.searchsorted(held, new.contiguous(), right=True)]


def _blend(below: Float[Tensor, " N"], pooled: Float[Tensor, " N"], count: Float[Tensor, " N"]) -> Float[Tensor, " N"]:
    """Share of the ``count`` class items that are below, shrunk toward the pooled share."""
    return (below + POOLED_ITEMS * pooled) / (count + POOLED_ITEMS)
