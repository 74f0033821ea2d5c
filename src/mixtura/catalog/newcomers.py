"""Validation on items of the fitted classes: how much a newcomer may take from them, and how its own items score."""

import math
from dataclasses import dataclass, field
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mixtura.catalog.players import Players
from mixtura.catalog.priors import shift_of
from mixtura.catalog.statistics import FittedStatistics, sums_of
from mixtura.core import left_out, novel
from mixtura.core.between import BetweenClasses
from mixtura.core.classes import NO_WEIGHT
from mixtura.core.mixture import Mixture
from mixtura.core.moments import LabeledItems, Moments, present
from mixtura.model.prior import AskedPrior
from mixtura.scores.typicality import Typicality

MAX_LOST_SHARE = 1 / 2000  # share of validation items that one newcomer may turn wrong: ten cost half a point
AT_MOST = 1 / 200  # limit of that share for any newcomer
HELD_OUT_CLASSES, MIN_SPARE_ITEMS = (
    50,
    4,
)  # fitted classes that simulate newcomers, and items that each needs beyond the support set
CALIBRATION_SCORES = 20  # scores that represent a newcomer's own validation items
SIMULATION_SEED = 0


@dataclass(frozen=True)
class NewcomerCalibration:
    """Items of the fitted classes, split into validation rows (``judge``) and the rest, which the mixture is fitted on.

    ``sums`` include all of the items, by component of the model. ``asked`` is the class prior of the catalog.
    """

    base: FittedStatistics
    sums: Moments
    items: LabeledItems
    judge: Bool[Tensor, " N"]
    asked: AskedPrior = field(default_factory=AskedPrior)

    @cached_property
    def players(self) -> Players:
        """All items of the fitted classes, which play newcomers that are compared with their own shots."""
        return Players(self.base, self.sums, self.items)

    @cached_property
    def _fitted(self) -> tuple[Mixture, Moments]:
        """The mixture without the validation items, and its sums; the model's own if it is no function of sums."""
        held = self.items.select(self.judge)
        sums = self.sums - sums_of(self.base.model.mixture, held)
        index = (sums.weight > NO_WEIGHT).nonzero()[:, 0]
        if not self.base.exact:
            return self.base.model.mixture.to(torch.float64).select(index), sums.select(index)
        return self.base.rebuilt(sums, index), sums.select(index)

    @cached_property
    def _between(self) -> BetweenClasses:
        """How the means of that mixture vary."""
        mixture, sums = self._fitted
        return BetweenClasses.of(mixture, sums.weight)

    @cached_property
    def _held(self) -> tuple[Float[Tensor, "M D"], Int[Tensor, " M"], Float[Tensor, "M C"]]:
        """Validation rows whose class is still in the mixture, their classes, and their class log-probabilities."""
        mixture, _ = self._fitted
        assert mixture.component_class is not None
        rows = self.judge & torch.isin(self.items.labels, mixture.component_class)
        x = self.items.x[rows]
        joint = mixture.class_log_prob(x).double() + shift_of(self.asked, self.base.model, mixture)
        return x, self.items.labels[rows], joint

    @cached_property
    def _background(self) -> Float[Tensor, " M"]:
        return left_out.scores_with_background(self._fitted[0], self._held[0])[1].double()

    def lifts(self, handfuls: list[Float[Tensor, "_ D"]]) -> Float[Tensor, " P"]:
        """The lift of each newcomer in nats: the log-density it gets back for its uncertain mean.

        The full lift, unless simulated newcomers with as many items would then take more than their share of the other
        classes' items, or this newcomer more than its own limit.
        """
        density = self._newcomers(handfuls)[1]
        _, labels, joint = self._held
        best = joint.max(1)
        lead = (best.values[:, None] - density).masked_fill((best.indices != labels)[:, None], torch.inf)
        own = lead.kthvalue(int(AT_MOST * len(lead)) + 1, dim=0).values
        return torch.minimum(own, torch.tensor([self._played(len(rows)).lift for rows in handfuls]).to(own))

    def residuals(self, count: int, typicality: Typicality) -> Float[Tensor, " R"]:
        """Typicality scores, sorted, of the validation items that simulated newcomers win back."""
        played = self._played(count)
        parts = [typicality.score(*pair) for pair in played.found]
        return torch.cat([torch.zeros(0, dtype=torch.float64), *parts]).sort().values

    @cached_property
    def _games(self) -> dict[int, "SimulatedNewcomers"]:
        return {}

    def _played(self, count: int) -> "SimulatedNewcomers":
        """The simulation of newcomers with ``count`` items each; cached."""
        if count not in self._games:
            self._games[count] = self._play(count)
        return self._games[count]

    def _play(self, count: int) -> "SimulatedNewcomers":
        """Simulate newcomers: in turn, leave out the components of a fitted class and enroll it again."""
        players = self.support_sets(count)
        if not players:
            return SimulatedNewcomers(0.0, ())
        made, density = self._newcomers(list(players.values()))
        _, labels, joint = self._held
        leads: list[Tensor] = []
        rest: list[tuple[Tensor, Tensor]] = []
        for place, c in enumerate(players):
            others = joint.clone()
            others[:, c] = -torch.inf
            best = others.max(1)
            lead = best.values - density[:, place]
            right = (best.indices == labels)[labels != c]
            leads.append(lead[labels != c].masked_fill(~right, torch.inf))  # what is already wrong cannot be lost
            rest.append((others[labels == c].logsumexp(1), lead[labels == c]))
        pooled = torch.cat(leads)
        most = pooled.kthvalue(int(MAX_LOST_SHARE * len(pooled)) + 1).values if len(pooled) else torch.zeros(())
        lift = min(float(made.lift[0]), float(most))
        found: list[tuple[Tensor, Tensor]] = []
        for place, (c, (others, lead)) in enumerate(zip(players, rest, strict=True)):
            won = lead < lift
            mine = density[labels == c, place][won] + lift
            found.append((torch.logaddexp(others[won], mine), self._background[labels == c][won]))
        return SimulatedNewcomers(lift, tuple(found))

    def _newcomers(self, handfuls: list[Float[Tensor, "_ D"]]) -> tuple[novel.NovelComponents, Float[Tensor, "M P"]]:
        """Newcomers beside the mixture, and the log-density of each validation row under each, at an average weight."""
        mixture, sums = self._fitted
        made = novel.novel_components(mixture, sums, handfuls, self.base.floor, self.base.prior, self._between)
        even = math.log(len(handfuls) / len(present(self.items.labels)))
        return made, made.mixture.component_log_prob(self._held[0]).double() + even

    def support_sets(self, count: int) -> dict[int, Float[Tensor, "_ D"]]:
        """Support sets of ``count`` items from some fitted classes, sampled with a fixed seed."""
        generator = torch.Generator().manual_seed(SIMULATION_SEED)
        players: dict[int, Tensor] = {}
        for c in present(self.items.labels):
            own = ((self.items.labels == c) & ~self.judge).nonzero()[:, 0]
            if len(own) >= count + MIN_SPARE_ITEMS and len(players) < HELD_OUT_CLASSES:
                players[c] = self.items.x[own[torch.randperm(len(own), generator=generator)[:count]]]
        return players


@dataclass(frozen=True)
class SimulatedNewcomers:
    """Result of a simulation: the lift in nats, and log_prob and background of the newcomers' own validation items."""

    lift: float
    found: tuple[tuple[Float[Tensor, "_"], Float[Tensor, "_"]], ...]


def stand_in(residuals: Float[Tensor, " R"]) -> Float[Tensor, " Q"]:
    """At most ``CALIBRATION_SCORES`` quantiles with the same distribution as all residuals."""
    if len(residuals) <= CALIBRATION_SCORES:
        return residuals
    return torch.quantile(residuals, (torch.arange(CALIBRATION_SCORES, dtype=torch.float64) + 0.5) / CALIBRATION_SCORES)
