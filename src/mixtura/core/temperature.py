"""One number that makes probabilities honest."""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

LOWEST, HIGHEST = -4.0, 10.0  # of the log-temperature: e^-4 to e^10
STEPS = 34  # golden sections: the bracket shrinks to 1e-6


def nll(joint: Float[Tensor, "N C"], labels: Int[Tensor, " N"], temperature: float = 1.0) -> float:
    """Mean negative log-probability of the right class, in nats, at a temperature (1 = as is)."""
    log_posterior = (joint.double() / temperature).log_softmax(1)
    return -float(log_posterior.gather(1, labels[:, None]).mean())


def doubted(joint: Float[Tensor, "N C"], labels: Int[Tensor, " N"], temperature: float) -> float:
    r"""The loss with one doubt in it: that of the labels, N times, and once that of the runner-up among the least sure.

    Where every held-out row is right, the bare loss would fall for ever as the temperature goes to zero. The doubt is
    the mean over the tenth of the rows whose two best classes lie closest, so that neither a class nor a row that is
    far from all others has a say in it.
    """
    return _doubted(joint, labels)(temperature)


def _doubted(joint: Float[Tensor, "N C"], labels: Int[Tensor, " N"]) -> Callable[[float], float]:
    """The loss as a function of the temperature; what does not depend on it is computed once."""
    scores, count = joint.double(), len(labels)
    top = scores.topk(min(2, scores.shape[1]), dim=1)
    least_sure = (top.values[:, 0] - top.values[:, -1]).argsort()[: max(1, count // 10)]
    rival = top.indices[least_sure, -1:]

    def loss(temperature: float) -> float:
        log_posterior = (scores / temperature).log_softmax(1)
        chosen = log_posterior.gather(1, labels[:, None])
        doubt = log_posterior[least_sure].gather(1, rival)
        return -float((count * chosen.mean() + torch.where(doubt.isfinite(), doubt, 0.0).mean()) / (count + 1))

    return loss


def best(joint: Float[Tensor, "N C"], labels: Int[Tensor, " N"]) -> float:
    r"""The temperature :math:`T` that minimizes the negative log-likelihood of ``softmax(joint / T)``, with one doubt.

    The loss is convex in 1/T, so it has one valley along log T, which golden sections find.

    Source: Guo et al., On Calibration of Modern Neural Networks, ICML 2017.
    """
    golden, doubt = (5**0.5 - 1) / 2, _doubted(joint, labels)
    low, high = LOWEST, HIGHEST
    inner = [high - golden * (high - low), low + golden * (high - low)]
    loss = [doubt(math.exp(t)) for t in inner]
    for _ in range(STEPS):
        if loss[0] <= loss[1]:
            high, inner[1], loss[1] = inner[1], inner[0], loss[0]
            inner[0] = high - golden * (high - low)
            loss[0] = doubt(math.exp(inner[0]))
        else:
            low, inner[0], loss[0] = inner[0], inner[1], loss[1]
            inner[1] = low + golden * (high - low)
            loss[1] = doubt(math.exp(inner[1]))
    return math.exp((low + high) / 2)


def fit(joint: Float[Tensor, "N C"], labels: Int[Tensor, " N"]) -> float:
    """The best temperature if it also helps on rows that did not choose it, else 1.

    Each half of the rows is judged, with one doubt, at the temperature of the other half; only if that lowers the
    loss over all rows is the temperature of all rows kept.
    """
    if len(labels) < 4:
        return 1.0
    even, odd = slice(0, None, 2), slice(1, None, 2)
    crossed = doubted(joint[even], labels[even], best(joint[odd], labels[odd])) * len(labels[even])
    crossed += doubted(joint[odd], labels[odd], best(joint[even], labels[even])) * len(labels[odd])
    plain = doubted(joint[even], labels[even], 1.0) * len(labels[even])
    plain += doubted(joint[odd], labels[odd], 1.0) * len(labels[odd])
    return best(joint, labels) if crossed < plain else 1.0
