"""The learning-rate range test: a few dozen steps at rising rates, on a copy of the network, to find one that suits."""

import itertools
import math
from collections.abc import Generator
from contextlib import closing

from mixtura.training import distributed
from mixtura.training.setup import Batch, Settings, Setup, count
from mixtura.training.state import own_random_numbers
from mixtura.training.steps import Steps

STEPS = 64
LOWEST, HIGHEST = 1e-6, 10.0
SMOOTHING = 0.8  # share of the smoothed loss that a step keeps
DIVERGED = 4.0  # times the lowest smoothed loss
BELOW = 0.1  # of the rate of the lowest loss


def suitable_rate(trial: Setup, settings: Settings) -> float:
    r"""Return the learning rate to begin a run with, found on a copy of its network; call it once, before the run.

    Step t of T = 64 has the rate :math:`r_t = 10^{-6} \cdot 10^{7 t / (T - 1)}`. The test ends where the smoothed loss
    is above four times its lowest value, or not finite. The answer is a tenth of the rate at which it was lowest, to
    two digits.

    Args:
        trial: on a copy of the network, which is used up, with an optimizer of its own at a rate of 1. Batches are
            those of the first epochs.
        settings: of the run; clipping, precision and the parts of a batch apply to the test too.

    Returns:
        A rate from 1e-7 to 1, per step. The same at every call for the same batches and weights: what dropout draws
        follows from the seed, and the generators of PyTorch are left as they were. Every process must call it.

    Source: Smith, Cyclical learning rates for training neural networks (WACV 2017), section 3.3; the tenth of the rate
    of the lowest loss is the rule of Howard and Gugger, fastai: a layered API for deep learning (2020).
    """
    device = next(trial.module.parameters()).device
    lowest, best, smoothed = math.inf, LOWEST, 0.0
    with (
        own_random_numbers(device, settings.seed + distributed.rank()),
        closing(Steps(trial, settings)) as steps,
        closing(_endless(trial)) as batches,
    ):
        for step, (batch, rows) in enumerate(itertools.islice(batches, STEPS)):
            rate = LOWEST * (HIGHEST / LOWEST) ** (step / (STEPS - 1))
            loss = _step(trial, steps, (batch, rows), rate)
            smoothed = SMOOTHING * smoothed + (1 - SMOOTHING) * loss
            found = smoothed / (1 - SMOOTHING ** (step + 1))
            if not math.isfinite(found) or found > DIVERGED * lowest:
                break
            if found < lowest:
                lowest, best = found, rate
    return float(f"{BELOW * best:.1e}")


def _endless(trial: Setup) -> Generator[tuple[Batch, float], None, None]:
    """The batches of one epoch after the other, and their rows over all processes; those without any are left out."""
    for epoch in range(STEPS):  # an epoch has a batch at least
        for batch in trial.batches(epoch, 0):
            rows = distributed.total([float(count(batch))])[0]
            if rows:
                yield batch, rows


def _step(trial: Setup, steps: Steps, batch: tuple[Batch, float], rate: float) -> float:
    """A step at a rate; returns the loss before it."""
    steps.set_rate(rate)
    loss = distributed.total([sum(part["loss"] for part in steps.gradient(*batch))])[0] / batch[1]
    steps.move()
    for hook in trial.hooks.values():
        hook.after_step(1)
    return loss
