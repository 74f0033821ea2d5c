"""The held-out density of every number of kinds, for a batch of samples with the same folds."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mixtura.core.subclasses.tied_mixtures import Problems, TiedMixtures, fit, seeds

N_FOLDS = 5
N_STARTS = 8


@dataclass(frozen=True)
class Trial:
    """A number of kinds for each sample: the gain in held-out log-likelihood over one Gaussian, and the whole fit.

    ``gain`` is in nats, the sum over all rows; minus infinity where a kind would hold too few rows.
    """

    count: int
    gain: Float[Tensor, " B"]
    fit: TiedMixtures


def folds_of(unit: Int[Tensor, " N"]) -> Int[Tensor, " N"]:
    """The fold of each row: units are dealt in turn, and a unit stays together."""
    return unit % N_FOLDS


def trials(
    x: Float[Tensor, "B N R"],
    fold: Int[Tensor, " N"],
    counts: Sequence[int],
    min_rows: int,
    generator: torch.Generator,
) -> list[Trial]:
    """Try numbers of kinds: rows of a fold are scored by the mixture of the other folds.

    Args:
        x: centered samples.
        fold: the fold of each row, the same for all samples.
        counts: numbers of kinds, each more than one.
        min_rows: rows that every kind must hold in the fit to all rows.
        generator: for the starts, which all counts share.
    """
    apart = fold == torch.arange(N_FOLDS, device=fold.device)[:, None]
    held = apart.to(x.dtype)
    problems = Problems.of(x, torch.cat([1 - held, torch.ones_like(held[:1])]))
    start = seeds(x, problems.weight.repeat(N_STARTS, 1), max(counts), generator)
    one = _held_out(fit(problems, start[:, :, :1]), x, held)
    found: list[Trial] = []
    for count in counts:
        fitted = fit(problems, start[:, :, :count])
        whole = fitted.select(torch.full((len(x), 1), N_FOLDS, device=x.device))
        kind = whole.joint(x)[:, 0].argmax(1)
        least = torch.nn.functional.one_hot(kind, count).sum(1).amin(1)
        gain = _held_out(fitted, x, held) - one
        found.append(Trial(count, torch.where(least >= min_rows, gain, -math.inf), whole))
    return found


def _held_out(fitted: TiedMixtures, x: Float[Tensor, "B N R"], held: Float[Tensor, "F N"]) -> Float[Tensor, " B"]:
    return (fitted.log_prob(x)[:, :N_FOLDS] * held).sum((1, 2), dtype=torch.float64)


def largest_gain(found: Sequence[Trial]) -> Float[Tensor, " B"]:
    """The gain of the best number of kinds; 0 where one Gaussian is best."""
    return torch.stack([one.gain for one in found]).amax(0).clamp_min(0)
