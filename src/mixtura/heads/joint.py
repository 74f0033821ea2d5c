"""What heads do while the network below them is trained: units that follow its features, and a round start."""

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, distributed

PSEUDO_ROWS = 8  # rows that the units so far count as within a mini-batch, so that one of a single row has units too
MEMORY_ROWS = 512  # rows that the stored units remember; a tenth of them is new after a mini-batch of 64
ROUND_SHARE = 0.5  # of the scaled identity in the covariances that joint training starts from
LINEAR_SLOPE = 3**-0.5  # length of a weight row of a new nn.Linear
RARE_SHARE = 0.01  # of the average variance that is added to that of each feature
LEAST_SHARE = 1e-6  # of the stored variance that a mini-batch of equal rows has at least


def follow(
    x: Float[Tensor, "*N D"], center: Float[Tensor, " D"], unit: Float[Tensor, "*U"]
) -> tuple[Float[Tensor, "*N D"], Float[Tensor, "*U"]]:
    r"""Samples in the units of their mini-batch, and its unit; ``center`` and ``unit`` are moved toward the batch.

    .. math:: z = (x - m) / u, \qquad m = \frac{n \bar x + n_0 a}{n + n_0}, \qquad
        u^2 = \frac{\sum_i (x_i - m)^2 + n_0 [(a - m)^2 + u_0^2]}{n + n_0}

    The stored center a and unit :math:`u_0` count as :math:`n_0` rows. The gradient passes through m and u, so the
    loss does not change when a layer below scales all features: a step that is too long lengthens that layer's
    weights, which shortens the next ones. Processes of one group share their sums.

    Args:
        x: features that a network computed, in the compute dtype.
        center: a, a buffer.
        unit: :math:`u_0`, a buffer: one number for the average variance of all features, or one per feature.

    Source: Ioffe and Szegedy, Batch Normalization, ICML 2015; Arora, Li and Lyu, Theoretical Analysis of Auto
    Rate-Tuning by Batch Normalization, ICLR 2019.
    """
    off = x - center.to(x.dtype)
    rows = off.reshape(-1, x.shape[-1])
    count, first, second = _shared(len(rows), rows.sum(0), rows.square().sum(0))
    shift, before = first / (count + PSEUDO_ROWS), unit.to(x.dtype).square()
    within = _alike(second / (count + PSEUDO_ROWS) - shift.square(), unit)
    root = (within.clamp_min(0) + PSEUDO_ROWS / (count + PSEUDO_ROWS) * before).sqrt()
    with torch.no_grad():
        share, mean = count / (count + MEMORY_ROWS), first / max(count, 1)
        new = _alike(second / max(count, 1) - mean.square(), unit).clamp_min(LEAST_SHARE * before)
        center.add_((share * mean).to(center.dtype))
        unit.copy_(before.lerp(new, share).clamp_min(torch.finfo(unit.dtype).tiny).sqrt())
    return (off - shift) / root, root


def _alike(variance: Float[Tensor, " D"], unit: Float[Tensor, "*U"]) -> Float[Tensor, "*U"]:
    """The average variance, or one per feature; a feature that is rarely active has at least a share of the average."""
    average = variance.mean()
    return variance + RARE_SHARE * average if unit.ndim else average


def _connected() -> bool:
    """Whether several processes train together."""
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


@torch.no_grad()
def rows_of_all(x: Float[Tensor, "*N D"]) -> int:
    """The number of samples in all processes of the group; each of them must call it."""
    rows = x.numel() // x.shape[-1]
    if not _connected():
        return rows
    total = torch.tensor([rows], device=x.device)
    distributed.all_reduce(total)
    return int(total)


def _shared(
    count: int, first: Float[Tensor, " D"], second: Float[Tensor, " D"]
) -> tuple[float, Float[Tensor, " D"], Float[Tensor, " D"]]:
    """Row count and sums over all processes, differentiable."""
    if not _connected():
        return float(count), first, second
    packed = torch.cat([first.new_tensor([float(count)]), first, second])
    total: Tensor = _Sum.apply(packed)  # pyright: ignore[reportAssignmentType]
    first, second = total[1:].chunk(2)
    return float(total[0].detach()), first, second


class _Sum(torch.autograd.Function):
    """The sum of a tensor over all processes, whose losses all depend on it: so the gradient is summed too."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _Sum.forward(ctx, gradients[0])


def held(parameter: Tensor) -> Tensor:
    """The parameter as a constant that still has a gradient, zero; data-parallel training needs one of each."""
    return parameter.detach() + 0 * parameter


@torch.no_grad()
def log_gain(directions: Float[Tensor, "K D"]) -> float:
    r"""Log of the factor on cosines with unit ``directions`` that makes them as steep as a new ``nn.Linear``.

    Steepness is per spread of a feature, which for samples of length one is at most :math:`1 / \sqrt D`.
    """
    apart = float((directions - directions.mean(0)).square().sum(1).mean().sqrt())
    slope = apart / directions.shape[1] ** 0.5
    return math.log(LINEAR_SLOPE / slope) if slope > torch.finfo(directions.dtype).eps else 0.0
