"""Fitted classes that play newcomers, each compared with its own shots by a model that has not seen it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mixtura.catalog.statistics import FittedStatistics, sums_of
from mixtura.core import novel, span
from mixtura.core.classes import NO_WEIGHT
from mixtura.core.covariance.tied import Tied
from mixtura.core.mixture import Mixture
from mixtura.core.moments import LabeledItems, Moments, labeled
from mixtura.scores.resemblance import NewcomerTest, OwnItems, ShotSets

MIN_PLAYERS = 5  # fitted classes; fewer say too little about newcomers
MAX_PLAYERS = 50  # fitted classes, drawn at random
PLAYER_FOLDS = 5  # models; each leaves out the players that it judges
SETS_PER_PLAYER = 5  # sets of shots; a player's further items depend on which shots it was given
MIN_FURTHER_ITEMS, MAX_FURTHER_ITEMS = 4, 8  # items of a player beyond each set
PLAYER_SEED = 0


@dataclass(frozen=True)
class Players:
    """Fitted classes as newcomers.

    ``items`` are all items of the fitted classes, ``sums`` the sums over them by component of the model. Distances
    use the closed form of these sums, also where the model has learned by gradients since.
    """

    base: FittedStatistics
    sums: Moments
    items: LabeledItems

    def test(self, shots: Sequence[tuple[int, Float[Tensor, "_ D"]]]) -> NewcomerTest | None:
        """The test of newcomers, from the class and the rows of each set of shots.

        Newcomers with at least the median number of items of a fitted class are left out, as they are known as well.
        ``None`` if none is left, or there are fewer than five players.
        """
        items = torch.zeros(1 + max((product for product, _ in shots), default=0))
        for product, rows in shots:
            items[product] += len(rows)
        few = [(product, rows) for product, rows in shots if items[product] < self._usual]
        most = self._most_shots
        if not few or most < 1:
            return None
        counts = [min(len(rows), most) for _, rows in few]
        games = sorted(set(counts))
        return NewcomerTest(
            _sets(self.base, *self._whole, [rows for _, rows in few]),
            torch.tensor([product for product, _ in few]),
            torch.tensor([games.index(count) for count in counts]),
            tuple(self._own(count) for count in games),
        )

    @cached_property
    def _sizes(self) -> Int[Tensor, " C"]:
        """Number of items of each class of the model."""
        return torch.bincount(self.items.labels[self.items.weight > 0], minlength=len(self.base.model.classes))

    @property
    def _usual(self) -> float:
        """The median number of items of a fitted class."""
        sizes = self._sizes[self._sizes > 0]
        return float(sizes.double().quantile(0.5)) if len(sizes) else 0.0

    @property
    def _most_shots(self) -> int:
        """The largest number of shots that enough players can spare; below 1, there is no test."""
        sizes = self._sizes.sort(descending=True).values
        return int(sizes[MIN_PLAYERS - 1]) - MIN_FURTHER_ITEMS if len(sizes) >= MIN_PLAYERS else 0

    @cached_property
    def _whole(self) -> tuple[Mixture, Moments]:
        return self._without([])

    def _without(self, gone: list[int]) -> tuple[Mixture, Moments]:
        """The mixture of the fitted classes except some, and its sums."""
        mixture, sums = self.base.model.mixture, self.sums
        assert mixture.component_class is not None
        out = torch.tensor(gone, dtype=torch.int64)
        rows = torch.isin(self.items.labels, out)
        if bool(rows.any()):
            sums = sums - sums_of(mixture, self.items.select(rows))
        kept = ((sums.weight > NO_WEIGHT) & ~torch.isin(mixture.component_class, out)).nonzero()[:, 0]
        if sums is self.base.sums and self.base.exact:
            return self.base.mixture.select(kept), sums.select(kept)
        return self.base.rebuilt(sums, kept), sums.select(kept)

    def folds(self, count: int) -> list[tuple[Mixture, Moments, dict[int, Tensor]]]:
        """A mixture without some players, its sums, and the rows of each of them in random order; cached.

        Players are drawn from the classes that can spare ``count`` shots and further items.
        """
        able = (self._sizes >= count + MIN_FURTHER_ITEMS).nonzero()[:, 0]
        if len(able) not in self._drawn:
            self._drawn[len(able)] = self._draw(able)
        return self._drawn[len(able)]

    @cached_property
    def _drawn(self) -> dict[int, list[tuple[Mixture, Moments, dict[int, Tensor]]]]:
        return {}

    def _draw(self, able: Int[Tensor, " A"]) -> list[tuple[Mixture, Moments, dict[int, Tensor]]]:
        generator = torch.Generator().manual_seed(PLAYER_SEED)
        drawn = able[torch.randperm(len(able), generator=generator)[:MAX_PLAYERS]].tolist()
        rows: dict[int, Tensor] = {}
        for c in drawn:
            own = ((self.items.labels == c) & (self.items.weight > 0)).nonzero()[:, 0]
            rows[c] = self.items.x[own[torch.randperm(len(own), generator=generator)]].double()
        parts = [drawn[place::PLAYER_FOLDS] for place in range(PLAYER_FOLDS)]
        return [(*self._without(part), {c: rows[c] for c in part}) for part in parts if part]

    @cached_property
    def _spanned(self) -> "Players":
        """The same players in coordinates of the space that their items span, where it has fewer dimensions.

        Distances between items stay the same: in all other dimensions, a tied covariance is a multiple of the identity.
        """
        model, given = self.base.model, self.base.prior
        classes, component_class = len(model.classes), model.mixture.component_class
        alone = component_class is not None and len(component_class) == classes
        if not (isinstance(model.mixture.covariance, Tied) and alone and span.pays(self.items.x)):
            return self
        x, prior = span.coordinates(self.items.x.double(), given)
        items, scale = replace(self.items, x=x), 1.0 if given.scale is None else given.scale
        (sums,) = labeled(Tied, x, items.labels, classes, items.weight.double())
        floor = float(torch.as_tensor(self.base.floor / scale**2).mean())
        made = Mixture.from_moments(sums, floor, prior, component_class, classes)
        base = FittedStatistics(replace(model, mixture=made), sums, floor, prior, exact=True)
        return Players(base, sums, items)

    @cached_property
    def _games(self) -> dict[int, OwnItems]:
        return {}

    def _own(self, count: int) -> OwnItems:
        """How further items of the players resemble ``count`` shots of their class; cached."""
        if count not in self._games:
            few = self._spanned
            pairs = [
                _play(few.base, mixture, sums, list(rows.values()), count) for mixture, sums, rows in few.folds(count)
            ]
            self._games[count] = OwnItems.of(*(torch.cat(values) for values in zip(*pairs, strict=True)))
        return self._games[count]


def _play(
    base: FittedStatistics, mixture: Mixture, sums: Moments, rows: list[Float[Tensor, "_ D"]], count: int
) -> tuple[Float[Tensor, " R"], Float[Tensor, " R"]]:
    """How near and alike the further items of each player are to several sets of its shots."""
    sets, log_prob, place = scored(base, mixture, sums, rows, count)
    near, alike = sets.resemblance(log_prob)
    return near.gather(1, place)[:, 0], alike.gather(1, place)[:, 0]


def scored(
    base: FittedStatistics, mixture: Mixture, sums: Moments, rows: list[Float[Tensor, "_ D"]], count: int
) -> tuple[ShotSets, Float[Tensor, "R Q"], Int[Tensor, "R 1"]]:
    """Several sets of shots of each player, the log-densities of the items beside them, and the set of each item."""
    turned = [own.roll(turn * count, 0) for own in rows for turn in range(SETS_PER_PLAYER)]
    sets = _sets(base, mixture, sums, [own[:count] for own in turned])
    further = [own[count : count + MAX_FURTHER_ITEMS].float() for own in turned]  # as later items
    place = torch.repeat_interleave(torch.arange(len(turned)), torch.tensor([len(own) for own in further]))
    return sets, sets.mixture.component_log_prob(torch.cat(further)), place[:, None]


def _sets(base: FittedStatistics, mixture: Mixture, sums: Moments, shots: list[Tensor]) -> ShotSets:
    """Sets of shots beside a mixture, with the covariances that they get as new classes."""
    covariance = novel.novel_covariance(mixture, sums, shots, base.floor, base.prior)
    sets = ShotSets.of([rows.double() for rows in shots], mixture.mean.mean(0), covariance)
    return sets.to(torch.float32)
