"""Scores of samples far from all components, where single precision has no digits left to compare them."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mixtura.core.mixture import Mixture

MAX_NATS = {torch.float32: 1e6, torch.float64: 1e12}  # of a best score that can be compared with the others
REACH = 1e100  # coordinates at which squares fit into float64


def class_scores(mixture: Mixture, x: Float[Tensor, "N D"], compared: bool = False) -> Float[Tensor, "N C"]:
    """Class log-probabilities of samples, in nats; in float64 if some are too far away for float32.

    Samples whose squares are beyond float64 too are scored where they would be at ``REACH``, in the same direction.

    Args:
        mixture: that scores.
        x: the samples.
        compared: score samples that are too far away to compare their classes nearer by in the same direction, where
            the same class leads.
    """
    scores = mixture.class_log_prob(x)
    far = _far(scores, x.dtype)
    if not bool(far.any()):
        return scores
    scores, center = scores.double(), mixture.mean.double().mean(0)
    rows = x[far].double() - center
    rows = rows * (REACH / rows.abs().amax(1, keepdim=True)).clamp_max(1.0)
    scores[far] = exact = mixture.class_log_prob(rows + center)
    if compared and bool((further := _far(exact, torch.float64)).any()):
        nearer = (MAX_NATS[torch.float64] / exact[further].amax(1, keepdim=True).abs()).sqrt()
        scores[far.nonzero()[further, 0]] = mixture.class_log_prob(rows[further] * nearer + center)
    return scores


def _far(scores: Float[Tensor, "N C"], dtype: torch.dtype) -> Bool[Tensor, " N"]:
    """Samples whose scores a precision cannot compare; NaN cannot be compared at all."""
    return ~(scores.amax(1).abs() <= MAX_NATS[dtype])


def posterior_of(scores: Float[Tensor, "N C"], dtype: torch.dtype) -> Float[Tensor, "N C"]:
    """Probabilities in the precision of the samples; equal where a sample is too far away for any score."""
    posterior = scores.softmax(1).to(dtype)
    return torch.where(posterior.isnan(), 1 / scores.shape[1], posterior)
