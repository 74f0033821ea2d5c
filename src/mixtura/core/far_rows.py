"""Scores of samples far from all components, where single precision has no digits left to compare them."""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mixtura.core.mixture import Mixture
from mixtura.core.scale import within

MAX_NATS = {torch.float32: 1e6, torch.float64: 1e12}  # of a best score that can be compared with the others
REACH = 1e100  # coordinates at which squares fit into float64
Score = Callable[[Float[Tensor, "N D"]], Float[Tensor, "N K"]]


def class_scores(mixture: Mixture, x: Float[Tensor, "N D"], compared: bool = False) -> Float[Tensor, "N C"]:
    """Class log-probabilities of samples, in nats; in float64 if some are too far away for float32."""
    return scores_of(mixture.class_log_prob, x, mixture.mean, compared)


def scores_of(
    score: Score, x: Float[Tensor, "N D"], means: Float[Tensor, "J D"], compared: bool = False
) -> Float[Tensor, "N K"]:
    """Scores of samples, in nats; in float64 if some are too far away for float32.

    Samples whose squares are beyond float64 too are scored where they would be at ``REACH``, in the same direction.

    Args:
        score: of samples, computed in float64 for samples in float64.
        x: the samples.
        means: of the components; samples are far from their center.
        compared: score samples that are too far away to compare their classes as :func:`comparable` does.
    """
    scores = score(x)
    far = is_far(scores, x.dtype)
    if not bool(far.any()):
        return scores
    scores, center = scores.double(), means.double().mean(0)
    rows = within(x[far].double() - center, REACH)
    scores[far] = comparable(score, rows, center) if compared else score(rows + center)
    return scores


def comparable(score: Score, rows: Float[Tensor, "N D"], center: Float[Tensor, " D"]) -> Float[Tensor, "N K"]:
    """Scores of far samples, given about a center in float64, where digits are left to compare them; traceable.

    Samples without such digits are scored nearer by in the same direction, where the same class leads.
    """
    exact = score(rows + center)
    nearer = (MAX_NATS[torch.float64] / exact.amax(1, keepdim=True).abs()).sqrt()
    return torch.where(nearer < 1, score(rows * nearer.clamp_max(1.0) + center), exact)


def is_far(scores: Float[Tensor, "N K"], dtype: torch.dtype) -> Bool[Tensor, " N"]:
    """Samples of a precision whose scores it cannot compare; NaN cannot be compared at all."""
    return ~(scores.amax(1).abs() <= MAX_NATS.get(dtype, MAX_NATS[torch.float32]))


def posterior_of(scores: Float[Tensor, "N C"], dtype: torch.dtype = torch.float64) -> Float[Tensor, "N C"]:
    """Probabilities in a precision; equal where a sample is too far away for any score."""
    posterior = scores.softmax(1).to(dtype)
    return torch.where(posterior.isnan(), 1 / scores.shape[1], posterior)
