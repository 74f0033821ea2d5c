"""Reductions from components to classes; classes may have different numbers of components."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class ClassLogSumExp:
    r"""Log-sum-exp over each class's components, without data-dependent branches; supports export, compile and vmap.

    .. math:: \log p(x, c) = \operatorname{logsumexp}_{k:\, o_k = c} \log p(x, k)

    ``members`` holds the component indices of each class, padded with K; ``single`` means that component k is class k.
    """

    members: Int[Tensor, "C M"]
    single: bool

    @classmethod
    def of(cls, component_class: Int[Tensor, " K"], n_classes: int) -> "ClassLogSumExp":
        """Build from the class of each component; a class may have none."""
        n_components = len(component_class)
        single = n_components == n_classes and torch.equal(
            component_class, torch.arange(n_classes, device=component_class.device)
        )
        counts = torch.bincount(component_class, minlength=n_classes)
        order = component_class.argsort(stable=True)
        first = (counts.cumsum(0) - counts)[component_class[order]]
        members = component_class.new_full((n_classes, max(1, int(counts.max()) if n_components else 1)), n_components)
        members[component_class[order], torch.arange(n_components, device=component_class.device) - first] = order
        return cls(members, single)

    def __call__(self, log_prob: Float[Tensor, "*N K"]) -> Float[Tensor, "*N C"]:
        """Class log-probabilities in nats; a class without components or weight has -inf, with zero gradient."""
        if self.single:
            return log_prob
        lowest = torch.finfo(log_prob.dtype).min  # a log-sum-exp of only minus infinity has a NaN gradient
        total = class_log_sum_exp(log_prob.clamp_min(lowest), self.members)
        return torch.where(total > lowest, total, -torch.inf)


def class_log_sum_exp(log_prob: Float[Tensor, "*N K"], members: Int[Tensor, "C M"]) -> Float[Tensor, "*N C"]:
    """Log-sum-exp over each row of ``members``, for finite values; see :class:`ClassLogSumExp`."""
    return torch.nn.functional.pad(log_prob, (0, 1), value=-torch.inf)[..., members].logsumexp(-1)


def mask_others(
    joint: Float[Tensor, "N K"], component_class: Int[Tensor, " K"], labels: Int[Tensor, " N"]
) -> Float[Tensor, "N K"]:
    """Component log-probabilities with minus infinity for components of other classes than the sample's label."""
    return joint.masked_fill(component_class != labels[:, None], -torch.inf)
