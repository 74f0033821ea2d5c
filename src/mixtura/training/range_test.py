"""The learning-rate range test: a few dozen steps at rising rates, on a copy of the network, to find one that suits."""

import itertools
import math
from collections.abc import Generator
from contextlib import closing, nullcontext

import torch
from torch import nn

from mixtura.training.setup import Batch, Settings, Setup, count, parts

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
        follows from the seed, and the generators of PyTorch are left as they were.

    Source: Smith, Cyclical learning rates for training neural networks (WACV 2017), section 3.3; the tenth of the rate
    of the lowest loss is the rule of Howard and Gugger, fastai: a layered API for deep learning (2020).
    """
    device = next(trial.module.parameters()).device
    lowest, best, smoothed = math.inf, LOWEST, 0.0
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), closing(_endless(trial)) as batches:
        torch.manual_seed(settings.seed)
        for step, batch in enumerate(itertools.islice(batches, STEPS)):
            rate = LOWEST * (HIGHEST / LOWEST) ** (step / (STEPS - 1))
            loss = _step(trial, settings, batch, rate)
            smoothed = SMOOTHING * smoothed + (1 - SMOOTHING) * loss
            found = smoothed / (1 - SMOOTHING ** (step + 1))
            if not math.isfinite(found) or found > DIVERGED * lowest:
                break
            if found < lowest:
                lowest, best = found, rate
    return float(f"{BELOW * best:.1e}")


def _endless(trial: Setup) -> Generator[Batch, None, None]:
    """The batches of one epoch after the other; those without a row are left out."""
    for epoch in range(STEPS):  # an epoch has a batch at least
        for batch in trial.batches(epoch, 0):
            if count(batch):
                yield batch


def _step(trial: Setup, settings: Settings, batch: Batch, rate: float) -> float:
    """A step at a rate; returns the loss before it."""
    for group in trial.optimizer.param_groups:
        group["lr"] = rate * group.setdefault("initial_lr", group["lr"])
    trial.optimizer.zero_grad(set_to_none=True)
    device = next(trial.module.parameters()).device
    moved = {name: tensor.to(device) for name, tensor in batch.items()}
    total = 0.0
    for part in parts(moved, settings.accumulate):
        bf16 = settings.precision == "bf16"
        with torch.autocast(device.type, torch.bfloat16) if bf16 else nullcontext():
            made = trial.objective(trial.module, part)
        loss = (made[0] if isinstance(made, tuple) else made) * (count(part) / count(batch))
        loss.backward()
        total += loss.item()
    if settings.clip is not None:
        nn.utils.clip_grad_norm_(trial.module.parameters(), settings.clip)
    trial.optimizer.step()
    for hook in trial.hooks.values():
        hook.after_step(1)
    return total
