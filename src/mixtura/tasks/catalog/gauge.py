"""Held-out items of the fitted classes: how much a newcomer may take from them, and how its own items will score."""

from dataclasses import dataclass
from functools import cached_property
from statistics import NormalDist

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mixtura.core import shots
from mixtura.core.mixture import Mixture
from mixtura.core.moments import Moments, present
from mixtura.scores.typicality import Typicality
from mixtura.tasks.catalog.sums import Base, Items, sums_of

TAKEN = 1 / 2000  # share of the right answers among held-out items that one newcomer may turn wrong
CLASSES, SPARE = 30, 4  # fitted classes that play newcomers, and items that each must have beyond the shots
ROWS = 20  # scores that stand for a newcomer's own held-out items
SEED = 0
NORMAL = NormalDist()
QUARTILE = NORMAL.inv_cdf(0.75)


@dataclass(frozen=True)
class Gauge:
    """Items of fitted classes, some of which (``judge``) are held out of the mixture that scores them."""

    base: Base
    items: Items
    judge: Bool[Tensor, " N"]

    @cached_property
    def _fitted(self) -> tuple[Mixture, Moments]:
        """The mixture of the items that do not judge, and its sums; the model's own where it is no function of sums."""
        learned = ~self.judge
        items = Items(self.items.x[learned], self.items.labels[learned], self.items.weight[learned])
        sums = sums_of(self.base.model.mixture, items)
        index = (sums.weight > 1e-9).nonzero()[:, 0]
        if not self.base.exact:
            return self.base.model.mixture.to(torch.float64).select(index), sums.select(index)
        return self.base.rebuilt(sums, index), sums.select(index)

    @cached_property
    def _held(self) -> tuple[Float[Tensor, "M D"], Int[Tensor, " M"], Float[Tensor, "M C"]]:
        """Held-out rows whose class is known without them, their classes, and their class joint."""
        mixture, _ = self._fitted
        assert mixture.owner is not None
        rows = self.judge & torch.isin(self.items.labels, mixture.owner)
        x = self.items.x[rows]
        return x, self.items.labels[rows], mixture.class_joint(x).double()

    @cached_property
    def _background(self) -> Float[Tensor, " M"]:
        return self._fitted[0].background().evidence(self._held[0]).double()

    @cached_property
    def classes(self) -> int:
        """Fitted classes."""
        return len(self.items.labels.unique())

    def lifts(self, handfuls: list[Float[Tensor, "M D"]]) -> Float[Tensor, " P"]:
        """What each newcomer gets back for its uncertain mean, in nats: all of it, unless it would take too much."""
        made, density = self._newcomers(handfuls)
        _, labels, joint = self._held
        right = joint.argmax(1) == labels
        return torch.minimum(made.lift, self._most(joint[right].max(1).values[:, None] - density[right]))

    def residuals(self, count: int, typicality: Typicality) -> Float[Tensor, " R"]:
        """Scores of held-out items of classes of which the mixture knew only ``count`` items, where they were found.

        Each of some fitted classes plays a newcomer in turn: its components are left out, and it is enrolled again
        from a few of its own items.
        """
        players = self._players(count)
        if not players:
            return torch.zeros(0, dtype=torch.float64)
        made, density = self._newcomers(list(players.values()))
        _, labels, joint = self._held
        scores: list[Tensor] = []
        for place, c in enumerate(players):
            others = joint.clone()
            others[:, c] = -torch.inf
            best, mine = others.max(1), density[:, place]
            right = (best.indices == labels) & (labels != c)
            lift = torch.minimum(made.lift[place], self._most((best.values - mine)[right, None])[0])
            found = (labels == c) & (mine + lift > best.values)
            evidence = torch.logaddexp(others[found].logsumexp(1), mine[found] + lift)
            scores.append(typicality.score(evidence, self._background[found]))
        return torch.cat(scores).sort().values

    def _players(self, count: int) -> dict[int, Float[Tensor, "M D"]]:
        """Items of some fitted classes, drawn by a fixed seed."""
        generator = torch.Generator().manual_seed(SEED)
        players: dict[int, Tensor] = {}
        for c in present(self.items.labels):
            own = ((self.items.labels == c) & ~self.judge).nonzero()[:, 0]
            if len(own) >= count + SPARE and len(players) < CLASSES:
                players[c] = self.items.x[own[torch.randperm(len(own), generator=generator)[:count]]]
        return players

    def _newcomers(self, handfuls: list[Float[Tensor, "M D"]]) -> tuple[shots.Newcomers, Float[Tensor, "M P"]]:
        """Newcomers beside the mixture, and the log-density of the held-out rows with each at an average weight."""
        mixture, sums = self._fitted
        made = shots.newcomers(mixture, sums, handfuls, self.base.floor, self.base.prior)
        even = torch.tensor(len(handfuls) / self.classes, dtype=torch.float64).log()
        return made, made.mixture.joint(self._held[0]).double() + even

    def _most(self, gap: Float[Tensor, "M P"]) -> Float[Tensor, " P"]:
        """The largest lift of each newcomer that takes no more than its share of right answers, given their leads.

        Where that share is less than one item, the lower half of the leads is continued as a normal distribution.
        """
        if not len(gap):
            return torch.zeros(gap.shape[1], dtype=gap.dtype)
        most = gap.kthvalue(min(int(TAKEN * len(gap)) + 1, len(gap)), dim=0).values - 1e-6
        if len(gap) * TAKEN >= 1:
            return most
        low, middle = torch.quantile(gap, torch.tensor([0.25, 0.5], dtype=gap.dtype), dim=0)
        return torch.minimum(most, middle + (middle - low) / QUARTILE * NORMAL.inv_cdf(TAKEN))


def stand_in(residuals: Float[Tensor, " R"]) -> Float[Tensor, " Q"]:
    """A few scores that are spread as many are."""
    if len(residuals) <= ROWS:
        return residuals
    return torch.quantile(residuals, (torch.arange(ROWS, dtype=torch.float64) + 0.5) / ROWS)
