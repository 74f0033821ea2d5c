"""Temperature scaling: one number that calibrates class probabilities."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

MIN_LOG_TEMPERATURE, MAX_LOG_TEMPERATURE = -4.0, 10.0  # search range, e^-4 to e^10
TOLERANCE = 1e-6  # of the logarithm of a temperature, before the last Newton step squares the error
FEW_ROWS, ROWS_A_START = 512, 16  # more samples begin at the temperature of every 16th of them
TILE_NUMBERS = 1 << 16  # scores at once
LOWEST = 1e100  # nats; a score of minus infinity still has a square
LOG2_E = math.log2(math.e)  # exp2 stays fast on underflow, where exp is 30 times slower


def nll(
    joint: Float[Tensor, "N C"],
    labels: Int[Tensor, " N"],
    temperature: float = 1.0,
    weight: Float[Tensor, " N"] | None = None,
) -> float:
    """Mean negative log-likelihood of the correct class, in nats, at a temperature (1 for unscaled)."""
    best = joint.amax(1).double()
    own = joint.gather(1, labels[:, None])[:, 0].double() - best
    chosen = own / temperature - _below(joint, best, 1 / temperature)[0]
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
    return SmoothedLoss.of(joint, labels, weight)(temperature)


@dataclass(frozen=True)
class SmoothedLoss:
    r""":func:`smoothed_nll` as a function of the temperature T.

    With the scores u of each sample below its ``best`` one, and :math:`a_n` and L the ``share`` and the ``linear``
    part of labels and pseudo-sample. A sample whose label is impossible has an infinite loss at every temperature, so
    it is only in ``constant``:

    .. math:: \Big(\sum_n a_n \log\sum_c e^{u_{nc}/T} - L/T\Big) \Big/ (\text{total} + 1)
    """

    joint: Float[Tensor, "N C"]
    best: Float[Tensor, " N"]
    share: Float[Tensor, " N"]
    linear: float
    constant: float
    total: float

    @classmethod
    def of(
        cls, joint: Float[Tensor, "N C"], labels: Int[Tensor, " N"], weight: Float[Tensor, " N"] | None
    ) -> "SmoothedLoss":
        """The loss of samples, of which one of ``weight`` two counts twice."""
        counts = torch.ones_like(labels, dtype=torch.float64) if weight is None else weight.double()
        total = float(counts.sum())
        top = joint.topk(min(2, joint.shape[1]), dim=1).values.double()
        rival = top[:, -1] - top[:, 0]
        order = rival.argsort(descending=True, stable=True)
        before = counts[order].cumsum(0) - counts[order]
        tenth = torch.minimum(counts[order], (max(1, total // 10) - before).clamp_min(0))  # of each sample
        doubt = torch.empty_like(counts).scatter_(0, order, tenth / tenth.sum())
        doubt = torch.where(rival.isfinite(), doubt, 0.0)
        own = joint.gather(1, labels[:, None])[:, 0].double() - top[:, 0]
        constant = math.inf if bool((own.isneginf() & (counts > 0)).any()) else 0.0
        counts = torch.where(own.isneginf(), 0.0, counts)
        linear = counts @ torch.where(own.isneginf(), 0.0, own) + doubt @ torch.where(rival.isfinite(), rival, 0.0)
        return cls(joint, top[:, 0], counts + doubt, float(linear), constant, total)

    def __call__(self, temperature: float) -> float:
        """The loss in nats a sample."""
        log_sum = _below(self.joint, self.best, 1 / temperature)[0]
        return (float(self.share @ log_sum) - self.linear / temperature) / (self.total + 1) + self.constant

    def slope(self, inverse: float) -> tuple[float, float]:
        """First and second derivative by the inverse temperature, times the number of samples."""
        _, mean, variance = _below(self.joint, self.best, inverse)
        return float(self.share @ mean) - self.linear, float(self.share @ variance)


def _below(
    joint: Float[Tensor, "N C"], best: Float[Tensor, " N"], inverse: float
) -> tuple[Float[Tensor, " N"], Float[Tensor, " N"], Float[Tensor, " N"]]:
    """Log-partition function of each sample at an inverse temperature, and its first two derivatives.

    Scores count from each sample's best. Tiles fit in cache; whole tensors would take twice as long to allocate.
    """
    rows = max(1, TILE_NUMBERS // joint.shape[1])
    parts = list[tuple[Tensor, Tensor, Tensor]]()
    for scores, top in zip(torch.split(joint, rows), torch.split(best, rows), strict=True):
        below = (scores.double() - top[:, None]).clamp_min_(-LOWEST)
        power = (below * (LOG2_E * inverse)).exp2_()
        total = power.sum(1)
        mean = power.mul_(below).sum(1) / total
        parts.append((total.log(), mean, power.mul_(below).sum(1) / total - mean.square()))
    log_sum, mean, variance = (torch.cat(part) for part in zip(*parts, strict=True))
    return log_sum, mean, variance


def best(joint: Float[Tensor, "N C"], labels: Int[Tensor, " N"], weight: Float[Tensor, " N"] | None = None) -> float:
    r"""Temperature :math:`T` that minimizes the :func:`smoothed_nll` of ``softmax(joint / T)``.

    The loss is convex in 1/T. Newton steps in log T, halvings where they would leave the bracket, begin at the best
    temperature of a few of the samples. A sample of ``weight`` two equals two copies of it.

    Source: Guo et al., On Calibration of Modern Neural Networks, ICML 2017.
    """
    if len(joint) > FEW_ROWS:
        some = slice(None, None, ROWS_A_START)
        point = math.log(best(joint[some], labels[some], None if weight is None else weight[some]))
    else:
        point = 0.0
    loss, low, high = SmoothedLoss.of(joint, labels, weight), MIN_LOG_TEMPERATURE, MAX_LOG_TEMPERATURE
    while high - low > TOLERANCE:
        slope, curvature = loss.slope(math.exp(-point))
        if slope == 0:
            break
        low, high = (low, point) if slope < 0 else (point, high)
        step = slope / curvature * math.exp(point) if curvature > 0 else math.inf
        ahead = point + step
        if abs(step) < TOLERANCE:
            return math.exp(min(max(ahead, MIN_LOG_TEMPERATURE), MAX_LOG_TEMPERATURE))
        point = ahead if low < ahead < high else (low + high) / 2
    return math.exp(point)


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
        loss, total = SmoothedLoss.of(*judge), float(judge[2].sum())
        gain += total * (loss(1.0) - loss(best(*settle)))
    return best(joint, labels, counts) if gain > 0 else 1.0
