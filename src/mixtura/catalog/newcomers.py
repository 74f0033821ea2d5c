"""Held-out items of the fitted classes: how much a newcomer may take from them, and how its own items will score."""

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mixtura.catalog.statistics import FittedStatistics, LabeledItems, sums_of
from mixtura.core import novel
from mixtura.core.mixture import Mixture
from mixtura.core.moments import Moments, present
from mixtura.scores.typicality import Typicality

MAX_LOST_SHARE = 1 / 2000  # of held-out items may turn from right to wrong by one newcomer: ten cost half a point
AT_MOST = 1 / 200  # of held-out items, whatever the newcomer
HELD_OUT_CLASSES, MIN_SPARE_ITEMS = (
    50,
    4,
)  # fitted classes that play newcomers, and items that each must have beyond the shots
CALIBRATION_SCORES = 20  # scores that stand for a newcomer's own held-out items
SIMULATION_SEED = 0


@dataclass(frozen=True)
class NewcomerCalibration:
    """Items of fitted classes, some of which (``judge``) are held out of the mixture that scores them.

    ``sums`` are over all of the items, by component of the model.
    """

    base: FittedStatistics
    sums: Moments
    items: LabeledItems
    judge: Bool[Tensor, " N"]

    @cached_property
    def _fitted(self) -> tuple[Mixture, Moments]:
        """The mixture of the items that do not judge, and its sums; the model's own where it is no function of sums."""
        held = LabeledItems(self.items.x[self.judge], self.items.labels[self.judge], self.items.weight[self.judge])
        sums = self.sums - sums_of(self.base.model.mixture, held)
        index = (sums.weight > 1e-9).nonzero()[:, 0]
        if not self.base.exact:
            return self.base.model.mixture.to(torch.float64).select(index), sums.select(index)
        return self.base.rebuilt(sums, index), sums.select(index)

    @cached_property
    def _held(self) -> tuple[Float[Tensor, "M D"], Int[Tensor, " M"], Float[Tensor, "M C"]]:
        """Held-out rows whose class is known without them, their classes, and their class joint."""
        mixture, _ = self._fitted
        assert mixture.component_class is not None
        rows = self.judge & torch.isin(self.items.labels, mixture.component_class)
        x = self.items.x[rows]
        return x, self.items.labels[rows], mixture.class_log_prob(x).double()

    @cached_property
    def _background(self) -> Float[Tensor, " M"]:
        return self._fitted[0].background().log_prob(self._held[0]).double()

    def lifts(self, handfuls: list[Float[Tensor, "_ D"]]) -> Float[Tensor, " P"]:
        """What newcomers get back for their uncertain means, in nats.

        All of it, unless players of as many items would then take more than their share of the others' items, or this
        very newcomer more than it may at most.
        """
        density = self._newcomers(handfuls)[1]
        _, labels, joint = self._held
        best = joint.max(1)
        lead = (best.values[:, None] - density).masked_fill((best.indices != labels)[:, None], torch.inf)
        own = lead.kthvalue(int(AT_MOST * len(lead)) + 1, dim=0).values
        return torch.minimum(own, torch.tensor([self._played(len(rows)).lift for rows in handfuls]).to(own))

    def residuals(self, count: int, typicality: Typicality) -> Float[Tensor, " R"]:
        """Scores of held-out items of the players where these were found, sorted."""
        played = self._played(count)
        parts = [typicality.score(*pair) for pair in played.found]
        return torch.cat([torch.zeros(0, dtype=torch.float64), *parts]).sort().values

    @cached_property
    def _games(self) -> dict[int, "SimulatedNewcomers"]:
        return {}

    def _played(self, count: int) -> "SimulatedNewcomers":
        """What the players show when enrolled from so many items; found out once."""
        if count not in self._games:
            self._games[count] = self._play(count)
        return self._games[count]

    def _play(self, count: int) -> "SimulatedNewcomers":
        """Each of some fitted classes plays a newcomer: its components are left out, and it is enrolled again."""
        players = self._players(count)
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
            leads.append(lead[labels != c].masked_fill(~right, torch.inf))  # what was wrong cannot be taken
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
        """Newcomers beside the mixture, and the log-density of the held-out rows with each at an average weight."""
        mixture, sums = self._fitted
        made = novel.novel_components(mixture, sums, handfuls, self.base.floor, self.base.prior)
        even = math.log(len(handfuls) / len(present(self.items.labels)))
        return made, made.mixture.component_log_prob(self._held[0]).double() + even

    def _players(self, count: int) -> dict[int, Float[Tensor, "_ D"]]:
        """Items of some fitted classes, drawn by a fixed seed."""
        generator = torch.Generator().manual_seed(SIMULATION_SEED)
        players: dict[int, Tensor] = {}
        for c in present(self.items.labels):
            own = ((self.items.labels == c) & ~self.judge).nonzero()[:, 0]
            if len(own) >= count + MIN_SPARE_ITEMS and len(players) < HELD_OUT_CLASSES:
                players[c] = self.items.x[own[torch.randperm(len(own), generator=generator)[:count]]]
        return players


@dataclass(frozen=True)
class SimulatedNewcomers:
    """What the players showed: their lift, and the evidence and background of their own held-out items."""

    lift: float
    found: tuple[tuple[Float[Tensor, "_"], Float[Tensor, "_"]], ...]


def stand_in(residuals: Float[Tensor, " R"]) -> Float[Tensor, " Q"]:
    """A few scores that are spread as many are."""
    if len(residuals) <= CALIBRATION_SCORES:
        return residuals
    return torch.quantile(residuals, (torch.arange(CALIBRATION_SCORES, dtype=torch.float64) + 0.5) / CALIBRATION_SCORES)
