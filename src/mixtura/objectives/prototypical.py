"""The loss of episodes: how well queries are told apart by the class means of a few support samples."""

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from mixtura.core import few_shot
from mixtura.errors import UsageError

DISTANCES = ("euclidean", "cosine")
"""Squared Euclidean distance, and one minus the cosine of the angle."""


@final
@dataclass(frozen=True)
class Prototypical:
    r"""Cross-entropy of the class of each query, by its distance to the prototypes: the means of the support samples.

    .. math:: -\log \frac{\exp(-d(q, c_y))}{\sum_w \exp(-d(q, c_w))}, \qquad c_w = \frac1S \sum_s x_{ws}

    with :math:`d(q, c) = \|q - c\|^2` or :math:`1 - \cos(q, c)`. The gradient reaches the network by the queries and,
    through the prototypes, by the support samples. Nothing scales the distances: by Euclidean ones the network learns
    their scale, and cosines stay between -1 and 1, so their loss cannot fall to zero.

    Args:
        distance: ``euclidean`` or ``cosine``.

    Raises:
        UsageError: another name.

    Source: Snell, Swersky and Zemel, Prototypical networks for few-shot learning, NeurIPS 2017, sections 2.2 and 2.3.
    """

    reads: ClassVar[str] = "episodes"
    needs_density: ClassVar[bool] = False
    distance: str = "euclidean"

    @classmethod
    def from_options(cls, distance: str = "euclidean") -> "Prototypical":
        """Build from the options of a recipe."""
        return cls(distance)

    def __post_init__(self) -> None:
        if self.distance not in DISTANCES:
            raise UsageError(f"There is no distance {self.distance!r}. Use one of: {', '.join(DISTANCES)}.")

    def __call__(
        self,
        support: Float[Tensor, "W S D"],
        query: Float[Tensor, "M D"],
        labels: Int[Tensor, " M"],
        weight: Float[Tensor, " M"] | None = None,
    ) -> Float[Tensor, ""]:
        """Mean loss of the queries of one episode, in nats.

        Args:
            support: samples of each class.
            query: samples to classify.
            labels: their classes, as places in ``support``.
            weight: of each query; ``None`` for equal.
        """
        return self.of_scores(self.scores(support[None], query[None])[0], labels, weight)

    @staticmethod
    def of_scores(
        scores: Float[Tensor, "M W"], labels: Int[Tensor, " M"], weight: Float[Tensor, " M"] | None = None
    ) -> Float[Tensor, ""]:
        """The same, of the scores of the queries."""
        loss = functional.cross_entropy(scores, labels, reduction="none")
        return loss.mean() if weight is None else (loss * weight.to(loss)).sum() / weight.to(loss).sum()

    def scores(self, support: Float[Tensor, "E W S D"], query: Float[Tensor, "E M D"]) -> Float[Tensor, "E M W"]:
        """Minus the distance of each query to each prototype, up to a constant of the query, for E episodes at once.

        In float32 or float64, whatever the format of the samples.
        """
        wide = torch.promote_types(support.dtype, torch.float32)
        with torch.autocast(support.device.type, enabled=False):  # bfloat16 keeps three digits of large distances
            support, query = support.to(wide), query.to(wide)
            if self.distance == "cosine":
                mean = functional.normalize(support.mean(2), dim=-1)
                return functional.normalize(query, dim=-1) @ mean.mT
            center = support.mean((1, 2), keepdim=True)
            return 2 * few_shot.prototype(support - center, query - center[:, 0])
