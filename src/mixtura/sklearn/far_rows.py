"""Scores of samples far from all components, where single precision has no digits left to compare them."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

MAX_NATS = {torch.float32: 1e6}  # of a best score; at this size, float32 numbers are 0.06 nats apart
REACH = 1e100  # coordinates at which squares fit into float64


def far_scores(score: Callable[[Tensor], Tensor], x: Float[Tensor, "N D"]) -> Float[Tensor, "N C"]:
    """Scores of samples; in float64 if some are too far away for float32.

    Samples whose squares are beyond float64 too are scored where they would be at ``REACH``, in the same direction.
    """
    scores = score(x)
    best = scores.amax(1)
    far = ~(best.abs() < MAX_NATS.get(x.dtype, torch.inf))  # NaN is far too
    if not bool(far.any()):
        return scores
    rows = x[far].double()
    scores = scores.double()
    scores[far] = score(rows * (REACH / rows.abs().amax(1, keepdim=True)).clamp_max(1.0))
    return scores


def posterior_of(scores: Float[Tensor, "N C"], dtype: torch.dtype) -> Float[Tensor, "N C"]:
    """Probabilities in the precision of the samples; equal where a sample is too far away for any score."""
    posterior = scores.softmax(1).to(dtype)
    return torch.where(posterior.isnan(), 1 / scores.shape[1], posterior)
