"""Learnable prototypes: the class whose prototype is nearest, by angle or by distance."""

import math
from collections.abc import Callable
from typing import Any, ClassVar, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mixtura.errors import UsageError
from mixtura.heads import init
from mixtura.heads.base import Groups, Head, wide
from mixtura.names import nearest


def cosine(x: Float[Tensor, "*N D"], prototypes: Float[Tensor, "K D"]) -> Float[Tensor, "*N K"]:
    """Cosine of the angle to each prototype; 0 for a row of zeros."""
    return nn.functional.normalize(x, dim=-1) @ nn.functional.normalize(prototypes).T


def euclidean(x: Float[Tensor, "*N D"], prototypes: Float[Tensor, "K D"]) -> Float[Tensor, "*N K"]:
    """Minus half the squared distance to each prototype, a D-th of it."""
    half = 0.5 * (x.square().sum(-1, keepdim=True) + prototypes.square().sum(1))
    return (x @ prototypes.T - half) / x.shape[-1]


def soft(groups: Groups, scores: Float[Tensor, "*N K"]) -> Float[Tensor, "*N C"]:
    """Log-sum-exp over the prototypes of a class."""
    return groups(scores)


def best(groups: Groups, scores: Float[Tensor, "*N K"]) -> Float[Tensor, "*N C"]:
    """The best prototype of a class alone."""
    return nn.functional.pad(scores, (0, 1), value=-torch.inf)[..., groups.members].amax(-1)


DISTANCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"cosine": cosine, "euclidean": euclidean}
"""How near a row is to a prototype; more is nearer."""
POOLINGS: dict[str, Callable[[Groups, Tensor], Tensor]] = {"soft": soft, "best": best}
"""What a class makes of its prototypes."""
METRIC_CENTERS = {"cosine": False, "euclidean": True}
"""Whether a metric takes rows about their center; angles are about the origin of the features."""


@final
class PrototypeHead(Head):
    r"""One or more learnable prototypes a class, :math:`s_c(x) = \operatorname{pool}_{k:\,o_k=c} e^t m(x, p_k)`.

    It has no density.

    Args:
        dimension: D.
        n_classes: C.
        components: prototypes a class, one number for all or one a class.
        metric: a name in :data:`DISTANCES`.
        pool: a name in :data:`POOLINGS`.

    Raises:
        UsageError: a metric or a pool that does not exist.

    Source: Snell, Swersky and Zemel, Prototypical Networks, NeurIPS 2017 (Euclidean); Gidaris and Komodakis,
    Dynamic Few-Shot Visual Learning without Forgetting, CVPR 2018 (cosine with a learned scale).
    """

    name: ClassVar[str] = "prototype"
    center: Tensor
    unit: Tensor

    def __init__(
        self,
        dimension: int,
        n_classes: int,
        components: init.Counts = 1,
        metric: str = "cosine",
        pool: str = "soft",
    ) -> None:
        super().__init__()
        for kind, name, table in (("metric", metric, DISTANCES), ("pool", pool, POOLINGS)):
            if name not in table:
                raise UsageError(f"A prototype head has no {kind} {name!r}. {nearest(name, table)}")
        self.dimension, self.n_classes, self.metric, self.pool = dimension, n_classes, metric, pool
        self.counts = init.components_per_class(components, n_classes)
        self.groups = Groups(init.component_class_of(self.counts), n_classes)
        self.prototype = nn.Parameter(torch.randn(sum(self.counts), dimension))
        self.log_scale = nn.Parameter(torch.zeros(()))
        self.register_buffer("center", torch.zeros(dimension))
        self.register_buffer("unit", torch.ones(()))

    @classmethod
    def from_rows(
        cls,
        x: init.Rows,
        labels: init.Labels,
        n_classes: int,
        *,
        components: init.Counts = 1,
        seed: int = 0,
        metric: str = "cosine",
        pool: str = "soft",
    ) -> "PrototypeHead":
        """The head at the means of the classes, or of their clusters, with the scale that suits the rows best.

        Args:
            x: rows to learn from.
            labels: the class of each row.
            n_classes: C.
            components: prototypes a class; a class never gets more than half its rows.
            seed: of k-means++.
            metric: a name in :data:`DISTANCES`.
            pool: a name in :data:`POOLINGS`.
        """
        cls(1, n_classes, components, metric, pool)  # bad options are told before any work
        rows, labels = init.checked(x, labels, n_classes)
        center, unit = init.center_and_scale(rows)
        placed = rows - center.to(rows.dtype) if METRIC_CENTERS[metric] else nn.functional.normalize(rows)
        mixture, counts = init.clusters(placed, labels, n_classes, components, seed)
        head = cls(rows.shape[1], n_classes, counts, metric, pool).to(rows.device, rows.dtype)
        means = mixture.mean
        with torch.no_grad():
            if METRIC_CENTERS[metric]:
                head.center.copy_(center)
                head.unit.copy_(unit)
                head.prototype.copy_(means / unit)
            else:
                head.prototype.copy_(nn.functional.normalize(means) * rows.shape[1] ** 0.5)
            head.log_scale.fill_(head.best_log_scale(rows, labels))
        return head

    def best_log_scale(self, x: Float[Tensor, "N D"], labels: Int[Tensor, " N"]) -> float:
        """The log of the scale under which the labels of some rows are most likely."""
        near = self.nearness(x[: init.TEMPERATURE_SAMPLES])
        spread = max(float(near.std(1).mean()), torch.finfo(near.dtype).tiny ** 0.5) if near.shape[1] > 1 else 1.0
        degrees = init.fit_temperature(lambda rows: best(self.groups, self.nearness(rows) / spread), x, labels)
        return -math.log(degrees * spread)

    @torch.no_grad()
    def set_temperature(self, degrees: float) -> None:
        """Divide the scores by a temperature."""
        self.log_scale.sub_(math.log(degrees))

    def config(self) -> dict[str, Any]:
        """Plain values that build the same head before its state is loaded."""
        return {
            "dimension": self.dimension,
            "n_classes": self.n_classes,
            "components": self.counts,
            "metric": self.metric,
            "pool": self.pool,
        }

    def nearness(self, x: Float[Tensor, "*N D"]) -> Float[Tensor, "*N K"]:
        """How near each row is to each prototype, before any scale."""
        rows = (x.to(wide(self.prototype).dtype) - wide(self.center)) / wide(self.unit)
        return DISTANCES[self.metric](rows, wide(self.prototype))

    def class_scores(self, x: Float[Tensor, "*N D"]) -> Float[Tensor, "*N C"]:
        """Logits."""
        return POOLINGS[self.pool](self.groups, wide(self.log_scale).exp() * self.nearness(x))
