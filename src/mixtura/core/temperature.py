"""Temperature scaling: one number that calibrates class probabilities."""

import math
from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

MIN_LOG_TEMPERATURE, MAX_LOG_TEMPERATURE = -4.0, 10.0  # search range, e^-4 to e^10
GOLDEN_STEPS = 34  # golden-section steps; the bracket shrinks to 1e-6


def nll(
    joint: Float[Tensor, "N C"],
    labels: Int[Tensor, " N"],
    temperature: float = 1.0,
    weight: Float[Tensor, " N"] | None = None,
) -> float:
    """Mean negative log-likelihood of the correct class, in nats, at a temperature (1 for unscaled)."""
    chosen = (joint.double() / temperature).log_softmax(1).gather(1, labels[:, None])[:, 0]
    return -float(chosen.mean() if weight is None else weight.double() @ chosen / weight.sum())


def smoothed_nll(
    joint: Float[Tensor, "N C"],
    labels: Int[Tensor, " N"],
    temperature: float,
    weight: Float[Tensor, " N"] | None = None,
) -> float:
    r"""Negative log-likelihood with one pseudo-sample, whose label is the runner-up class of the least certain samples.

    Without it, the loss falls forever as the temperature goes to zero if all samples are classified correctly. The
    pseudo-sample averages over the tenth of the samples with the closest two best classes, so distant classes or
    samples do not affect it.
    """
    return _smoothed_nll(joint, labels, weight)(temperature)


def _smoothed_nll(
    joint: Float[Tensor, "N C"], labels: Int[Tensor, " N"], weight: Float[Tensor, " N"] | None
) -> Callable[[float], float]:
    """:func:`smoothed_nll` as a function of the temperature; everything else is precomputed."""
    scores = joint.double()
    counts = torch.ones(len(labels), dtype=torch.float64, device=joint.device) if weight is None else weight.double()
    total = float(counts.sum())
    top = scores.topk(min(2, scores.shape[1]), dim=1)
    order = (top.values[:, 0] - top.values[:, -1]).argsort(stable=True)
    before = counts[order].cumsum(0) - counts[order]
    share = torch.minimum(counts[order], (max(1, total // 10) - before).clamp_min(0))  # of each sample in the tenth
    least_sure, share = order[share > 0], share[share > 0]
    rival = top.indices[least_sure, -1:]

    def loss(temperature: float) -> float:
        log_posterior = (scores / temperature).log_softmax(1)
        chosen = log_posterior.gather(1, labels[:, None])[:, 0]
        doubt = log_posterior[least_sure].gather(1, rival)[:, 0]
        doubt = share @ torch.where(doubt.isfinite(), doubt, 0.0) / share.sum()
        return -float((counts @ chosen + doubt) / (total + 1))

    return loss


def best(joint: Float[Tensor, "N C"], labels: Int[Tensor, " N"], weight: Float[Tensor, " N"] | None = None) -> float:
    r"""Temperature :math:`T` that minimizes the :func:`smoothed_nll` of ``softmax(joint / T)``.

    The loss is convex in 1/T and so unimodal in log T; golden-section search finds the minimum. A sample of ``weight``
    two equals two copies of it.

    Source: Guo et al., On Calibration of Modern Neural Networks, ICML 2017.
    """
    golden, doubt = (5**0.5 - 1) / 2, _smoothed_nll(joint, labels, weight)
    low, high = MIN_LOG_TEMPERATURE, MAX_LOG_TEMPERATURE
    inner = [high - golden * (high - low), low + golden * (high - low)]
    loss = [doubt(math.exp(t)) for t in inner]
    for _ in range(GOLDEN_STEPS):
        if loss[0] <= loss[1]:
            high, inner[1], loss[1] = inner[1], inner[0], loss[0]
            inner[0] = high - golden * (high - low)
            loss[0] = doubt(math.exp(inner[0]))
        else:
            low, inner[0], loss[0] = inner[0], inner[1], loss[1]
            inner[1] = low + golden * (high - low)
            loss[1] = doubt(math.exp(inner[1]))
    return math.exp((low + high) / 2)


def fit(
    joint: Float[Tensor, "N C"],
    labels: Int[Tensor, " N"],
    weight: Float[Tensor, " N"] | None = None,
    half: Bool[Tensor, " N"] | None = None,
) -> float:
    """Best temperature if it also helps on samples that did not select it, else 1.

    Each half of the samples is scored by :func:`smoothed_nll` at the temperature of the other half. The temperature of
    all samples is kept only if this lowers the total loss.

    Args:
        joint: out-of-fold class scores, in nats.
        labels: the correct class of each sample.
        weight: sample weights.
        half: mask of the first half; every other sample if it is not given.
    """
    counts = torch.ones(len(labels), dtype=torch.float64, device=joint.device) if weight is None else weight.double()
    first = torch.arange(len(labels), device=joint.device) % 2 == 0 if half is None else half
    halves = [(joint[side], labels[side], counts[side]) for side in (first, ~first)]
    if float(counts.sum()) < 4 or not all(float(part.sum()) > 0 for _, _, part in halves):
        return 1.0
    gain = 0.0
    for judge, settle in (halves, halves[::-1]):
        loss, total = _smoothed_nll(*judge), float(judge[2].sum())
        gain += total * (loss(1.0) - loss(best(*settle)))
    return best(joint, labels, counts) if gain > 0 else 1.0
