"""Prototype head: predicts the class with the nearest learnable prototype, by angle or distance."""

import math
from collections.abc import Callable
from typing import Any, ClassVar, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mixtura.core.scale import upcast
from mixtura.errors import UsageError
from mixtura.heads import init
from mixtura.heads.base import Groups, Head
from mixtura.heads.joint import follow, held, log_gain
from mixtura.names import nearest


def cosine(x: Float[Tensor, "*N D"], prototypes: Float[Tensor, "K D"]) -> Float[Tensor, "*N K"]:
    """Cosine similarity to each prototype; 0 for a zero sample."""
    return nn.functional.normalize(x, dim=-1) @ nn.functional.normalize(prototypes).T


def euclidean(x: Float[Tensor, "*N D"], prototypes: Float[Tensor, "K D"]) -> Float[Tensor, "*N K"]:
    """Negative half squared distance to each prototype, divided by D."""
    half = 0.5 * (x.square().sum(-1, keepdim=True) + prototypes.square().sum(1))
    return (x @ prototypes.T - half) / x.shape[-1]


def soft(groups: Groups, scores: Float[Tensor, "*N K"]) -> Float[Tensor, "*N C"]:
    """Log-sum-exp over the prototypes of each class."""
    return groups(scores)


def best(groups: Groups, scores: Float[Tensor, "*N K"]) -> Float[Tensor, "*N C"]:
    """Maximum over the prototypes of each class."""
    return nn.functional.pad(scores, (0, 1), value=-torch.inf)[..., groups.members].amax(-1)


DISTANCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"cosine": cosine, "euclidean": euclidean}
"""Similarities of samples and prototypes by name; higher is nearer."""
POOLINGS: dict[str, Callable[[Groups, Tensor], Tensor]] = {"soft": soft, "best": best}
"""Poolings from prototypes to classes by name."""
METRIC_CENTERS = {"cosine": False, "euclidean": True}
"""Whether a metric centers the samples; angles are measured from the feature origin."""


@final
class PrototypeHead(Head):
    r"""One or more learnable prototypes per class, :math:`s_c(x) = \operatorname{pool}_{k:\,o_k=c} e^t m(x, p_k)`.

    The head has no density.

    Args:
        dimension: D.
        n_classes: C.
        components: prototypes per class, one number for all or one per class.
        metric: a name in :data:`DISTANCES`.
        pool: a name in :data:`POOLINGS`.

    Raises:
        UsageError: an unknown metric or pooling.

    Source: Snell, Swersky and Zemel, Prototypical Networks, NeurIPS 2017 (Euclidean); Gidaris and Komodakis,
    Dynamic Few-Shot Visual Learning without Forgetting, CVPR 2018 (cosine with a learned scale).
    """

    name: ClassVar[str] = "prototype"
    knows_shares: ClassVar[bool] = False
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
        """Head initialized at the class or cluster means, with the scale of maximum likelihood.

        Args:
            x: training samples.
            labels: the class of each sample.
            n_classes: C.
            components: prototypes per class; at most half the number of its samples.
            seed: for k-means++.
            metric: a name in :data:`DISTANCES`.
            pool: a name in :data:`POOLINGS`.
        """
        cls(1, n_classes, components, metric, pool)  # fails early on invalid options
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
        head.settle_precision()
        return head

    def best_log_scale(self, x: Float[Tensor, "N D"], labels: Int[Tensor, " N"]) -> float:
        """Log of the scale that maximizes the likelihood of the labels."""
        near = self.nearness(x[: init.TEMPERATURE_SAMPLES])
        spread = max(float(near.std(1).mean()), torch.finfo(near.dtype).tiny ** 0.5) if near.shape[1] > 1 else 1.0
        degrees = init.fit_temperature(lambda rows: best(self.groups, self.nearness(rows) / spread), x, labels)
        return -math.log(degrees * spread)

    @torch.no_grad()
    def set_temperature(self, degrees: float) -> None:
        """Calibrate by dividing the scores by a temperature."""
        self.log_scale.sub_(math.log(degrees))

    def config(self) -> dict[str, Any]:
        """Constructor arguments as plain values; they rebuild the head before its state is loaded."""
        return {
            "dimension": self.dimension,
            "n_classes": self.n_classes,
            "components": self.counts,
            "metric": self.metric,
            "pool": self.pool,
        }

    def nearness(self, x: Float[Tensor, "*N D"]) -> Float[Tensor, "*N K"]:
        """Similarity of each sample to each prototype, before scaling."""
        if METRIC_CENTERS[self.metric] and self.follows(x):
            rows, _ = follow(x.to(self.working(x)), self.center, self.unit)
        else:
            x = self.in_reach(x, self.unit)
            rows = (x - self.center.to(x.dtype)) / self.unit.to(x.dtype)
        return DISTANCES[self.metric](rows, self.prototype.to(x.dtype))

    def cancellation(self) -> Float[Tensor, " K"]:
        """Squared distances of the prototypes to the center, in nats; none between angles."""
        prototype = upcast(self.prototype)
        lengths = prototype.square().mean(1) if METRIC_CENTERS[self.metric] else torch.zeros_like(prototype[:, 0])
        return lengths * upcast(self.log_scale).exp()

    def class_scores(self, x: Float[Tensor, "*N D"]) -> Float[Tensor, "*N C"]:
        """Class logits."""
        nearness = self.nearness(x)
        log_scale = held(upcast(self.log_scale)) if self.follows(x) else upcast(self.log_scale)
        return POOLINGS[self.pool](self.groups, log_scale.exp() * nearness)

    def join(self) -> None:
        """Set the scale at which the scores are as steep as those of a new linear layer."""
        prototype = upcast(self.prototype)
        shorter = prototype / self.dimension**0.5 if METRIC_CENTERS[self.metric] else nn.functional.normalize(prototype)
        self.log_scale.fill_(log_gain(shorter))
