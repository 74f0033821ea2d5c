"""Classification losses of heads: conditional, joint, hybrid, and with a margin."""

import math
from dataclasses import dataclass
from typing import ClassVar, cast, final

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from mixtura.errors import UsageError
from mixtura.interfaces import GenerativeHead, Head

Weights = Float[Tensor, " N"] | None


@final
@dataclass(frozen=True)
class Conditional:
    r"""Cross-entropy of the class given the sample, with label smoothing, class weights and logit adjustment.

    .. math:: -\frac{\sum_n w_n \left[(1 - \epsilon)\, a_{y_n} \log q_{n y_n}
            + \tfrac{\epsilon}{C} \sum_c a_c \log q_{nc}\right]}{\sum_n w_n a_{y_n}}, \qquad
        q_n = \operatorname{softmax}_c [\log p(c \mid x_n) + \tau \log \pi_c]

    Args:
        label_smoothing: :math:`\epsilon`, share of the label spread over all classes, in [0, 1).
        class_weight: :math:`a_c`, the weight of each class; ``None`` for equal.
        logit_adjustment: :math:`\tau`, the factor of the log-priors added to the scores in training; 1 balances
            the classes in prediction.
        log_prior: :math:`\log \pi_c`, log-frequencies of the classes in the training samples, for the adjustment.

    Raises:
        UsageError: an argument out of range, or not one value per class of the head.

    Source: Szegedy et al., Rethinking the Inception Architecture, CVPR 2016 (smoothing); Menon et al., Long-tail
    Learning via Logit Adjustment, ICLR 2021.
    """

    reads: ClassVar[str] = "head"
    needs_density: ClassVar[bool] = False
    label_smoothing: float = 0.0
    class_weight: tuple[float, ...] | None = None
    logit_adjustment: float = 0.0
    log_prior: tuple[float, ...] | None = None

    @classmethod
    def from_options(
        cls,
        label_smoothing: float = 0.0,
        class_weight: tuple[float, ...] | None = None,
        logit_adjustment: float = 0.0,
        log_prior: tuple[float, ...] | None = None,
    ) -> "Conditional":
        """Build from the options of a recipe; log-priors are dropped without logit adjustment."""
        return cls(label_smoothing, class_weight, logit_adjustment, log_prior if logit_adjustment else None)

    def __post_init__(self) -> None:
        if not 0 <= self.label_smoothing < 1:
            raise UsageError(f"Label smoothing {self.label_smoothing} is out of range. Give a share from 0 to below 1.")
        weights = self.class_weight
        if weights is not None and not (all(0 <= a < math.inf for a in weights) and any(weights)):
            raise UsageError(f"Class weights {weights} do not fit. Give numbers of zero or more, not all zero.")
        if not 0 <= self.logit_adjustment < math.inf:
            raise UsageError(f"Logit adjustment {self.logit_adjustment} is out of range. Give 0 for none, 1, or more.")
        if self.logit_adjustment and self.log_prior is None:
            raise UsageError(
                f"Logit adjustment {self.logit_adjustment} needs log_prior, the log-shares of the classes."
            )
        if self.log_prior is not None and not all(-math.inf < p <= 0 for p in self.log_prior):
            raise UsageError(f"Log-priors {self.log_prior} do not fit. Give logs of shares above 0 and at most 1.")

    def __call__(
        self,
        head: Head,
        x: Float[Tensor, "N D"],
        labels: Int[Tensor, " N"],
        weight: Weights = None,
    ) -> Float[Tensor, ""]:
        """Mean loss in nats."""
        if self == PLAIN_CONDITIONAL and weight is None:  # takes half the time for a small head
            return -head(x).gather(1, labels[:, None]).mean()
        return self.of_log_posterior(head(x), labels, weight)

    def of_log_posterior(
        self, log_posterior: Float[Tensor, "N C"], labels: Int[Tensor, " N"], weight: Weights = None
    ) -> Float[Tensor, ""]:
        """Loss of log-posteriors, or of any scores whose softmax is the posterior."""
        scores = log_posterior
        if self.logit_adjustment and self.log_prior is not None:
            scores = scores + self.logit_adjustment * _of_classes("log-priors", self.log_prior, scores)
        share = None if self.class_weight is None else _of_classes("class weights", self.class_weight, scores)
        loss = functional.cross_entropy(
            scores, labels, weight=share, reduction="none", label_smoothing=self.label_smoothing
        )
        count = torch.ones_like(loss) if weight is None else weight.to(loss)
        total = count if share is None else count * share[labels]
        return (count * loss).sum() / total.sum()


PLAIN_CONDITIONAL = Conditional()
"""Plain cross-entropy."""


@final
@dataclass(frozen=True)
class Generative:
    r"""Negative joint log-density of sample and class, :math:`-\log p(x, y)`: maximum likelihood.

    Source: Bishop, Pattern Recognition and Machine Learning (2006), section 4.2.
    """

    reads: ClassVar[str] = "head"
    needs_density: ClassVar[bool] = True

    @classmethod
    def from_options(cls) -> "Generative":
        """Build the objective; it has no options."""
        return cls()

    def __call__(
        self,
        head: Head,
        x: Float[Tensor, "N D"],
        labels: Int[Tensor, " N"],
        weight: Weights = None,
    ) -> Float[Tensor, ""]:
        """Mean loss in nats.

        Raises:
            NoDensity: the head has no density.
        """
        joint = head.component_log_prob(x)
        return _mean(-_own(cast(GenerativeHead, head).groups(joint), labels), weight)


@final
@dataclass(frozen=True)
class Hybrid:
    r"""Conditional loss plus a share of the generative loss per dimension.

    .. math:: -\log p(y \mid x) - \frac{\lambda}{D} \log p(x, y)

    Args:
        generative_weight: :math:`\lambda`, zero or more; at 1, a nat of density per dimension counts as a nat of
            class log-probability.
        conditional: the first term, with its smoothing, class weights and adjustment.

    Raises:
        UsageError: a negative weight.

    Source: Lasserre, Bishop and Minka, Principled Hybrids of Generative and Discriminative Models, CVPR 2006.
    """

    reads: ClassVar[str] = "head"
    needs_density: ClassVar[bool] = True
    generative_weight: float = 0.1
    conditional: Conditional = Conditional()

    @classmethod
    def from_options(
        cls,
        generative_weight: float = 0.1,
        label_smoothing: float = 0.0,
        class_weight: tuple[float, ...] | None = None,
        logit_adjustment: float = 0.0,
        log_prior: tuple[float, ...] | None = None,
    ) -> "Hybrid":
        """Build from the options of a recipe."""
        return cls(
            generative_weight, Conditional.from_options(label_smoothing, class_weight, logit_adjustment, log_prior)
        )

    def __post_init__(self) -> None:
        if not 0 <= self.generative_weight < math.inf:
            raise UsageError(
                f"Generative weight {self.generative_weight} is out of range. Give a number of zero or more."
            )

    def __call__(
        self,
        head: Head,
        x: Float[Tensor, "N D"],
        labels: Int[Tensor, " N"],
        weight: Weights = None,
    ) -> Float[Tensor, ""]:
        """Mean loss in nats.

        Raises:
            NoDensity: the head has no density.
        """
        density = Generative()(head, x, labels, weight)
        share = self.generative_weight / cast(GenerativeHead, head).density_dimension
        return self.conditional(head, x, labels, weight) + share * density


@final
@dataclass(frozen=True)
class LargeMargin:
    r"""Cross-entropy with a margin on the distance to the correct class, plus its negative log-likelihood.

    With :math:`d_k` half the squared Mahalanobis distance to component k, in nats:

    .. math:: -\log\operatorname{softmax}_y \operatorname{logsumexp}_{k:\, o_k = c}
        \left[\log p(x, k) - a\, d_k\, \mathbb 1[o_k = y]\right] - \lambda \log p(x, y)

    Args:
        margin: :math:`a`, zero or more.
        generative_weight: :math:`\lambda`, zero or more; the density sums over dimensions, so use less for many.

    Raises:
        UsageError: a negative margin or weight.

    Source: Wan et al., Rethinking Feature Distribution for Loss Functions in Image Classification, CVPR 2018.
    """

    reads: ClassVar[str] = "head"
    needs_density: ClassVar[bool] = True
    margin: float = 0.1
    generative_weight: float = 0.01

    @classmethod
    def from_options(cls, margin: float = 0.1, generative_weight: float = 0.01) -> "LargeMargin":
        """Build from the options of a recipe."""
        return cls(margin, generative_weight)

    def __post_init__(self) -> None:
        if not 0 <= self.margin < math.inf:
            raise UsageError(f"Margin {self.margin} is out of range. Give a number of zero or more.")
        if not 0 <= self.generative_weight < math.inf:
            raise UsageError(f"Generative weight {self.generative_weight} is out of range. Give zero or more.")

    def __call__(
        self,
        head: Head,
        x: Float[Tensor, "N D"],
        labels: Int[Tensor, " N"],
        weight: Weights = None,
    ) -> Float[Tensor, ""]:
        """Mean loss in nats.

        Raises:
            NoDensity: the head has no density.
        """
        joint = head.component_log_prob(x)
        dense = cast(GenerativeHead, head)
        own = dense.groups.component_class == labels[:, None]
        pushed = joint - self.margin * torch.where(own, dense.distances(x), 0.0)
        wrong = functional.cross_entropy(dense.groups(pushed), labels, reduction="none")
        return _mean(wrong - self.generative_weight * _own(dense.groups(joint), labels), weight)


def _own(class_log_prob: Float[Tensor, "N C"], labels: Int[Tensor, " N"]) -> Float[Tensor, " N"]:
    return class_log_prob.gather(1, labels[:, None])[:, 0]


def _mean(loss: Float[Tensor, " N"], weight: Weights) -> Float[Tensor, ""]:
    if weight is None:
        return loss.mean()
    return (loss * weight.to(loss)).sum() / weight.to(loss).sum()


def _of_classes(what: str, values: tuple[float, ...], like: Float[Tensor, "N C"]) -> Float[Tensor, " C"]:
    if len(values) != like.shape[1]:
        raise UsageError(f"{len(values)} {what} were given for {like.shape[1]} classes. Give one a class.")
    return torch.tensor(values, dtype=like.dtype, device=like.device)
