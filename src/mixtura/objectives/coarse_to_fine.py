"""The loss of SCGM-G: embeddings that come apart into subclasses, of which only the classes are known."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from mixtura.core.subclass_model import SubclassModel
from mixtura.errors import UsageError

NORMALIZED = ("embedding", "weight", "both", "none")
"""What is scaled to unit length in the class scores."""

UNASSIGNED = -1
"""The subclass of a row that has none yet."""

Assigned = Int[Tensor, " N"] | Float[Tensor, "N R"]
"""The subclass of each row, or :data:`UNASSIGNED`; or the share of each subclass in each row, all zero for none."""


@final
@dataclass(frozen=True)
class ScgmG:
    r"""Classify by class means, draw embeddings to their subclass means, and these to the means of their classes.

    .. math:: \mathcal L_{CE} + \gamma \sum_z q(z) \left[ -\log p(z \mid v) - \log p(y \mid z) \right], \qquad
        \mathcal L_{CE} = -\log \operatorname{softmax}_y (\operatorname{ReLU}(\hat v) \cdot M)

    with :math:`q` the assignment of the row, which is no function of the parameters. A row without one has the first
    term only. All three reach the network, and all means have a gradient.

    Args:
        weight: :math:`\gamma`, zero or more.
        angular: compare directions from the class mean in :math:`p(z \mid v)`.
        normalize: what has unit length in the class scores: ``embedding``, ``weight``, ``both`` or ``none``.
        distill_weight: share of the distillation terms, in [0, 1): that much of the loss is the divergence from a
            teacher's classes and subclasses.
        distill_temperature: by which both sides of a distillation are divided, above 0.

    Raises:
        UsageError: an argument is out of range.

    Source: Ni et al., Superclass-Conditional Gaussian Mixture Model for Learning Fine-Grained Embeddings, ICLR 2022,
    equations 7 and 8; Hinton, Vinyals and Dean, Distilling the Knowledge in a Neural Network, 2015 (distillation).
    """

    reads: ClassVar[str] = "subclasses"
    needs_density: ClassVar[bool] = False
    views: ClassVar[int] = 1
    weight: float = 0.5
    angular: bool = False
    normalize: str = "embedding"
    distill_weight: float = 0.0
    distill_temperature: float = 4.0

    @classmethod
    def from_options(
        cls,
        weight: float = 0.5,
        angular: bool = False,
        normalize: str = "embedding",
        distill_weight: float = 0.0,
        distill_temperature: float = 4.0,
    ) -> "ScgmG":
        """Build from the options of a recipe."""
        return cls(weight, angular, normalize, distill_weight, distill_temperature)

    def __post_init__(self) -> None:
        if not 0 <= self.weight < math.inf:
            raise UsageError(f"A weight of {self.weight} is out of range. Give a number of zero or more.")
        if self.normalize not in NORMALIZED:
            raise UsageError(f"There is no normalization {self.normalize!r}. Use one of: {', '.join(NORMALIZED)}.")
        if not 0 <= self.distill_weight < 1:
            raise UsageError(f"A distillation weight of {self.distill_weight} is out of range. Give 0 to below 1.")
        if not 0 < self.distill_temperature < math.inf:
            raise UsageError(f"A temperature of {self.distill_temperature} is out of range. Give a number above 0.")

    def __call__(
        self,
        model: SubclassModel,
        v: Float[Tensor, "N D"],
        labels: Int[Tensor, " N"],
        assigned: Assigned,
        weight: Float[Tensor, " N"] | None = None,
    ) -> tuple[Float[Tensor, ""], Mapping[str, Tensor]]:
        """Mean loss in nats, and its terms: ``class_loss``, ``subclass_loss`` and ``owner_loss``.

        Args:
            model: class and subclass means.
            v: embeddings.
            labels: class of each row.
            assigned: subclass of each row.
            weight: of each row; ``None`` for equal.
        """
        near, owner = subclass_terms(model, v, labels, assigned, self.angular)
        wrong = functional.cross_entropy(self.class_scores(model, v), labels, reduction="none")
        terms = {"class_loss": wrong, "subclass_loss": near, "owner_loss": owner}
        means = {name: mean_of(loss, weight) for name, loss in terms.items()}
        loss = means["class_loss"] + self.weight * (means["subclass_loss"] + means["owner_loss"])
        return loss, {name: mean.detach() for name, mean in means.items()}

    def class_scores(self, model: SubclassModel, v: Float[Tensor, "N D"]) -> Float[Tensor, "N C"]:
        """The class scores of the first term, whose weights are the class means."""
        embedding, own = NORMALIZED[0], NORMALIZED[1]
        v = functional.normalize(v, dim=1) if self.normalize in (embedding, "both") else v
        mean = functional.normalize(model.class_mean, dim=1) if self.normalize in (own, "both") else model.class_mean
        return v.relu() @ mean.T

    def distilled(
        self,
        model: SubclassModel,
        v: Float[Tensor, "N D"],
        teacher: SubclassModel,
        taught: Float[Tensor, "N D"],
        labels: Int[Tensor, " N"],
        weight: Float[Tensor, " N"] | None = None,
    ) -> Float[Tensor, ""]:
        r"""Divergence of classes and subclasses from those of a teacher, in nats.

        .. math:: T^2 \left[ \operatorname{KL}(p'_T(y) \| p_T(y))
            + \gamma \operatorname{KL}(p'_T(z) \| p_T(z)) \right]

        Args:
            model: the means that are trained.
            v: embeddings by the network that is trained.
            teacher: means of the teacher.
            taught: embeddings by the teacher's network.
            labels: class of each row.
            weight: of each row; ``None`` for equal.
        """
        classes = self._divergence(self.class_scores(model, v), self.class_scores(teacher, taught))
        subclasses = self._divergence(
            model.subclass_posterior(v, labels, self.angular), teacher.subclass_posterior(taught, labels, self.angular)
        )
        return mean_of(classes + self.weight * subclasses, weight)

    def _divergence(self, scores: Float[Tensor, "N K"], teacher: Float[Tensor, "N K"]) -> Float[Tensor, " N"]:
        degrees = self.distill_temperature
        own, other = (scores / degrees).log_softmax(1), (teacher / degrees).log_softmax(1)
        return degrees**2 * functional.kl_div(own, other, reduction="none", log_target=True).sum(1)


def subclass_terms(
    model: SubclassModel,
    v: Float[Tensor, "N D"],
    labels: Int[Tensor, " N"],
    assigned: Assigned,
    angular: bool = False,
) -> tuple[Float[Tensor, " N"], Float[Tensor, " N"]]:
    r"""The two terms of subclasses, :math:`-\log p(z \mid v)` and :math:`-\log p(y \mid z)`, of each row in nats.

    Args:
        model: class and subclass means.
        v: embeddings.
        labels: class of each.
        assigned: subclass of each, or the shares; both terms are zero for a row of none.
        angular: compare directions from the class mean.
    """
    share = _shares(assigned, len(model.mean), v.dtype)
    near = -(share * model.subclass_posterior(v, labels, angular)).sum(1)
    return near, -(share * model.class_given_subclass().T[labels]).sum(1)


def mean_of(loss: Float[Tensor, " N"], weight: Float[Tensor, " N"] | None) -> Float[Tensor, ""]:
    """The mean of the losses of rows by their weights."""
    return loss.mean() if weight is None else (loss * weight.to(loss)).sum() / weight.to(loss).sum()


def _shares(assigned: Assigned, count: int, dtype: torch.dtype) -> Float[Tensor, "N R"]:
    """The share of each subclass in each row."""
    if assigned.is_floating_point():
        return assigned.to(dtype)
    one = functional.one_hot(assigned.clamp_min(0), count).to(dtype)
    return one * (assigned != UNASSIGNED)[:, None]
