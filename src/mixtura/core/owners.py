"""Which class owns which component; unequal counts are normal."""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def class_joint(joint: Float[Tensor, "N K"], owner: Int[Tensor, " K"], n_classes: int) -> Float[Tensor, "N C"]:
    r"""Log-sum-exp of the joint over each class's components, in nats; minus infinity for a class without any.

    .. math:: \log p(x, c) = \operatorname{logsumexp}_{k:\, o_k = c} \log p(x, k)
    """
    if len(owner) == n_classes and torch.equal(owner, torch.arange(n_classes, device=owner.device)):
        return joint
    index = owner.expand_as(joint)
    lowest = joint.new_full((len(joint), n_classes), -torch.inf)
    top = lowest.scatter_reduce(1, index, joint.detach(), "amax")
    top = torch.where(top.isfinite(), top, 0.0)
    sums = torch.zeros_like(top).scatter_add(1, index, (joint - top[:, owner]).exp())
    return torch.where(sums > 0, sums, 1.0).log() + torch.where(sums > 0, top, -torch.inf)


def mask_others(
    joint: Float[Tensor, "N K"], owner: Int[Tensor, " K"], labels: Int[Tensor, " N"]
) -> Float[Tensor, "N K"]:
    """The joint with minus infinity wherever a component is not owned by the row's class."""
    return joint.masked_fill(owner != labels[:, None], -torch.inf)
