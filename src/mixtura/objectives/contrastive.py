"""Losses of two views of each row: its own key is near, and others are by their classes. SupCon, ANCOR and MaskCon."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from mixtura.errors import UsageError
from mixtura.objectives.coarse_to_fine import mean_of
from mixtura.objectives.contrast import Keys, Pairs, info_nce, log_sum

Terms = Mapping[str, Tensor]
"""What is logged of a loss, by name; without a gradient."""


@final
@dataclass(frozen=True)
class SupCon:
    r"""Supervised contrast: the keys of the class of a row are near, all others far.

    .. math:: -\frac{1}{|P|} \sum_{p \in P} \log \frac{\exp(v \cdot k_p / \tau)}{\sum_a \exp(v \cdot k_a / \tau)}

    where :math:`a` runs over the row's own key and those of other photos, and :math:`P` has the own one and those of
    the same class. Where no other key has the class, it is InfoNCE.

    Args:
        temperature: :math:`\tau`, above 0.

    Raises:
        UsageError: it is out of range.

    Source: Khosla et al., Supervised Contrastive Learning, NeurIPS 2020, equation 2, with keys of a momentum encoder.
    """

    reads: ClassVar[str] = "pairs"
    needs_density: ClassVar[bool] = False
    views: ClassVar[int] = 2
    queue_of_class: ClassVar[bool] = False
    learns_classes: ClassVar[bool] = False
    temperature: float = 0.1

    @classmethod
    def from_options(cls, temperature: float = 0.1) -> "SupCon":
        """Build from the options of a recipe."""
        return cls(temperature)

    def __post_init__(self) -> None:
        _check_temperature(self.temperature)

    def __call__(self, pairs: Pairs) -> tuple[Float[Tensor, ""], Terms]:
        """Mean loss in nats; it has no terms."""
        scores, keys = _scores(pairs, self.temperature)
        near = _with_own(pairs.own.label[:, None] == keys.label) & scores.isfinite()
        return mean_of(_cross_entropy(scores, near / near.sum(1, keepdim=True)), pairs.weight), {}


@final
@dataclass(frozen=True)
class MaskCon:
    r"""Contrast with soft targets: how near a key of the same class should be follows from the other view of the row.

    .. math:: -\sum_a \left[ w\, t_a + (1 - w)\, [a = \text{own}] \right]
        \log \frac{\exp(v \cdot k_a / \tau)}{\sum_b \exp(v \cdot k_b / \tau)}, \qquad
        t_a \propto \exp \frac{k \cdot k_a - \max_b k \cdot k_b}{\tau'}

    where :math:`t` is for keys of the row's class only, the maximum is over those of other photos, and the own key
    counts as much as the nearest of them. With :math:`w = 0` it is InfoNCE, and with :math:`w = 1` and a large
    :math:`\tau'` it is SupCon.

    Args:
        weight: :math:`w`, share of the soft targets, in [0, 1].
        temperature: :math:`\tau`, of the loss, above 0.
        target_temperature: :math:`\tau'`, of the targets, above 0; small values let the nearest keys alone be near.

    Raises:
        UsageError: an argument is out of range.

    Source: Feng and Patras, MaskCon (masked contrastive learning), CVPR 2023, section 3.
    """

    reads: ClassVar[str] = "pairs"
    needs_density: ClassVar[bool] = False
    views: ClassVar[int] = 2
    queue_of_class: ClassVar[bool] = False
    learns_classes: ClassVar[bool] = False
    weight: float = 0.5
    temperature: float = 0.1
    target_temperature: float = 0.05

    @classmethod
    def from_options(
        cls, temperature: float = 0.1, target_weight: float = 0.5, target_temperature: float = 0.05
    ) -> "MaskCon":
        """Build from the options of a recipe."""
        return cls(target_weight, temperature, target_temperature)

    def __post_init__(self) -> None:
        if not 0 <= self.weight <= 1:
            raise UsageError(f"A weight of {self.weight} is out of range. Give a share from 0 to 1.")
        _check_temperature(self.temperature)
        _check_temperature(self.target_temperature)

    def __call__(self, pairs: Pairs) -> tuple[Float[Tensor, ""], Terms]:
        """Mean loss in nats; it has no terms."""
        scores, keys = _scores(pairs, self.temperature)
        target = self.weight * self.targets(pairs.own, keys).to(scores.dtype)
        target[:, 0] += 1 - self.weight
        return mean_of(_cross_entropy(scores, target), pairs.weight), {}

    @torch.no_grad()
    def targets(self, own: Keys, others: Keys) -> Float[Tensor, "N K"]:
        """The soft target of each row, which sums to one: of its own key, and of those of other photos."""
        other = (own.label[:, None] != others.label) | (own.row[:, None] == others.row)
        near = (own.key @ others.key.T.to(own.key) / self.target_temperature).masked_fill(other, -torch.inf)
        best = functional.pad(near, (0, 1), value=-torch.inf).amax(1, keepdim=True)
        return torch.cat([torch.where(best.isfinite(), best, 0.0), near], 1).softmax(1)


@final
@dataclass(frozen=True)
class Ancor:
    r"""Cross-entropy of the class, and InfoNCE within the class, of directions as seen from the class's weight vector.

    .. math:: -\log \operatorname{softmax}_y (W v) - \log
        \frac{\exp(a_y(v) \cdot a_y(k) / \tau)}{\sum_a \exp(a_y(v) \cdot a_y(k_a) / \tau)},
        \qquad a_y(u) = \frac{\hat u - \hat W_y}{\lvert \hat u - \hat W_y \rvert}

    where :math:`a` runs over the row's own key and those of other photos of class :math:`y`. So the first term pulls
    classes together, and the second pulls the rows of a class apart, in directions that the first leaves free. The
    weights have a gradient by the first term only.

    Args:
        temperature: :math:`\tau`, above 0.

    Raises:
        UsageError: it is out of range.

    Source: Bukchin et al., Fine-grained Angular Contrastive Learning with Coarse Labels, CVPR 2021, section 3.
    """

    reads: ClassVar[str] = "pairs"
    needs_density: ClassVar[bool] = False
    views: ClassVar[int] = 2
    queue_of_class: ClassVar[bool] = True
    learns_classes: ClassVar[bool] = True
    temperature: float = 0.2

    @classmethod
    def from_options(cls, temperature: float = 0.2) -> "Ancor":
        """Build from the options of a recipe."""
        return cls(temperature)

    def __post_init__(self) -> None:
        _check_temperature(self.temperature)

    def __call__(self, pairs: Pairs, class_weight: Float[Tensor, "C D"]) -> tuple[Float[Tensor, ""], Terms]:
        """Mean loss in nats, and its terms: ``class_loss`` and ``contrast_loss``.

        Args:
            pairs: embeddings and keys.
            class_weight: :math:`W`; its products with embeddings, not scaled to unit length, are class scores.
        """
        wrong = functional.cross_entropy(pairs.v @ class_weight.T, pairs.own.label, reduction="none")
        apart = self.within_classes(pairs, class_weight.detach())
        classes, contrast = mean_of(wrong, pairs.weight), mean_of(apart, pairs.weight)
        return classes + contrast, {"class_loss": classes.detach(), "contrast_loss": contrast.detach()}

    def within_classes(self, pairs: Pairs, class_weight: Float[Tensor, "C D"]) -> Float[Tensor, " N"]:
        """The second term of each row."""
        center, labels = functional.normalize(class_weight, dim=1), pairs.own.label
        others = log_sum(
            pairs.v, pairs.own.row, pairs.bank, self.temperature, of=labels, centers=(center, labels)
        )  # fmt: skip
        return info_nce(pairs.v, pairs.own.key.to(pairs.v), others, self.temperature, center[labels])


def _scores(pairs: Pairs, temperature: float) -> tuple[Float[Tensor, "N K"], Keys]:
    """The similarity of each row to its own key and to those of other photos, over the temperature; and these."""
    v, keys = functional.normalize(pairs.v, dim=1), pairs.bank.all()
    own, other = (v * pairs.own.key.to(v)).sum(1, keepdim=True), v @ keys.key.T.to(v)
    same = _with_own(pairs.own.row[:, None] == keys.row, False)
    return torch.cat([own, other], 1).masked_fill(same, -torch.inf) / temperature, keys


def _cross_entropy(scores: Float[Tensor, "N K"], target: Float[Tensor, "N K"]) -> Float[Tensor, " N"]:
    """Of soft targets, which are zero where a score is minus infinity."""
    return -torch.where(target > 0, target * scores.log_softmax(1), 0.0).sum(1)


def _with_own(of_others: Bool[Tensor, "N L"], own: bool = True) -> Bool[Tensor, "N K"]:
    return functional.pad(of_others, (1, 0), value=own)


def _check_temperature(temperature: float) -> None:
    if not 0 < temperature < math.inf:
        raise UsageError(f"A temperature of {temperature} is out of range. Give a number above 0.")
