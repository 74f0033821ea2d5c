"""The test of a newcomer: whether an item resembles its few shots as much as its own further items would."""

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mixtura.core.covariance import Covariance
from mixtura.core.mixture import Mixture
from mixtura.scores.typicality import below, rank

DIRECTION_FACTOR = 4.0  # factor of the direction's rank: a fifth of the false-reject rate is left to the direction
MIN_SQUARE = 1e-12  # squared distance, in units of the covariance, that two different points have at least


@dataclass(frozen=True)
class ShotSets:
    """P sets of shots and what items are compared with.

    ``mixture`` has a component at each set's mean, then one at the mean of the known classes for each set, both with
    the covariance of the set; ``count`` is the number of shots, ``reach`` the squared distance between the two means.
    """

    mixture: Mixture
    count: Float[Tensor, " P"]
    reach: Float[Tensor, " P"]

    @classmethod
    def of(cls, shots: list[Float[Tensor, "_ D"]], center: Float[Tensor, " D"], covariance: Covariance) -> "ShotSets":
        """Sets of shots with their covariances, and the mean of the known classes."""
        mean = torch.stack([rows.mean(0) for rows in shots])
        both, place = torch.cat([mean, center.expand_as(mean)]), torch.arange(len(mean)).repeat(2)
        mixture = Mixture(torch.zeros(len(both), dtype=mean.dtype), both, covariance.select(place))
        count = torch.tensor([float(len(rows)) for rows in shots], dtype=torch.float64)
        made = cls(mixture, count, torch.zeros_like(count))
        return replace(made, reach=made.squares(mixture.component_log_prob(mean))[:, len(mean) :].diagonal())

    @cached_property
    def peak(self) -> Float[Tensor, " Q"]:
        """The log-density of each component at its own mean, in nats."""
        exact = self.mixture.to(torch.float64)
        return exact.log_weight + exact.covariance.log_peak(exact.dimension)

    def squares(self, log_prob: Float[Tensor, "N Q"]) -> Float[Tensor, "N Q"]:
        """Squared distance to each component's mean under its covariance, from the component log-densities in nats."""
        return (2 * (self.peak - log_prob.double())).clamp_min(MIN_SQUARE)

    def resemblance(self, log_prob: Float[Tensor, "N Q"]) -> tuple[Float[Tensor, "N P"], Float[Tensor, "N P"]]:
        r"""How near each item is to each set of shots, and how alike in direction; both higher for its own items.

        With :math:`\bar x` the mean of k shots and :math:`m_0` that of the known classes,

        .. math:: near = \tfrac12 \log\|x - m_0\|^2 - \log\frac{\|x - \bar x\|^2}{1 + 1/k}, \qquad
            alike = \cos(x - m_0,\; \bar x - m_0)

        Half of what makes an item far from everything is taken off its distance to the shots: with none of it, the
        items of a class with a wide spread would be rejected; with all of it, the others of its kind would be taken.
        The angle does not depend on the spread of the class. An item so far away that its density is NaN is neither.
        """
        near, far = self.squares(log_prob).tensor_split(2, dim=1)
        reach = self.reach.clamp_min(MIN_SQUARE)
        closeness = 0.5 * far.log() - (near / (1 + 1 / self.count)).log()
        cosine = 0.5 * (far + reach - near) / (far * reach).sqrt()
        lost = closeness.isnan() | cosine.isnan()
        return torch.where(lost, -torch.inf, closeness), torch.where(lost, -torch.inf, cosine)

    def to(self, dtype: torch.dtype) -> "ShotSets":
        """The same sets with a mixture of another dtype."""
        return replace(self, mixture=self.mixture.to(dtype))


@dataclass(frozen=True)
class OwnItems:
    """How the further items of classes resemble their own shots: R values of each kind, sorted.

    ``lesser`` is the lesser rank of each item among the others.
    """

    near: Float[Tensor, " R"]
    alike: Float[Tensor, " R"]
    lesser: Float[Tensor, " R"]

    @classmethod
    def of(cls, near: Float[Tensor, " R"], alike: Float[Tensor, " R"]) -> "OwnItems":
        """Reference items from their two values, in any order."""
        held = near.sort().values, alike.sort().values
        ranks = [below(own, values) / len(own) for own, values in zip(held, (near, alike), strict=True)]
        return cls(*held, torch.minimum(ranks[0], DIRECTION_FACTOR * ranks[1]).sort().values)

    def __call__(self, near: Float[Tensor, " N"], alike: Float[Tensor, " N"]) -> Float[Tensor, " N"]:
        r"""Conformal p-value of new items.

        With :math:`r_{near}` and :math:`r_{alike}` the shares of items, the new one included, with no larger value,

        .. math:: u = \min(r_{near},\; 4\, r_{alike}), \qquad p = \frac{1 + \#\{i : u_i \le u\}}{1 + R}

        The second ranking makes p uniform for own items, however the two ranks depend on each other.
        """
        lesser = torch.minimum(rank(self.near, near), DIRECTION_FACTOR * rank(self.alike, alike))
        return rank(self.lesser, lesser)


@dataclass(frozen=True)
class NewcomerTest:
    """p-values for rows whose predicted class is a newcomer, from its own shots.

    ``product`` is the class of each set of shots; a newcomer may have several sets, of which the best counts.
    ``own[game[p]]`` are the reference items of set p: those of known classes that were given about as few shots.
    """

    sets: ShotSets
    product: Int[Tensor, " P"]
    game: Int[Tensor, " P"]
    own: tuple[OwnItems, ...]

    def __call__(self, x: Float[Tensor, "N D"], predicted: Int[Tensor, " N"]) -> Float[Tensor, " N"]:
        """The p-value of each row for its predicted class; 1 if this is no newcomer."""
        found = torch.ones(len(x), dtype=torch.float64)
        rows = torch.isin(predicted, self.product)
        if bool(rows.any()):
            near, alike = self.sets.resemblance(self.sets.mixture.component_log_prob(x[rows]))
            values = [
                self.own[game](near[:, place].contiguous(), alike[:, place].contiguous())
                for place, game in enumerate(self.game.tolist())
            ]
            other = self.product != predicted[rows, None]
            found[rows] = torch.stack(values, 1).masked_fill(other, 0).amax(1)
        return found
