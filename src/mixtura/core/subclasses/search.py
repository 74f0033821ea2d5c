"""The kinds of one class: the likeliest number on held-out rows that is stable and that one Gaussian would not show."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mixtura.core.subclasses import one_gaussian, stability
from mixtura.core.subclasses.held_out import N_FOLDS, Trial, folds_of, largest_gain, trials
from mixtura.core.subclasses.spaces import ClassRows

MIN_UNITS = 2 * N_FOLDS
"""Independent rows, below which a split cannot be judged."""

UNITS_A_KIND = 3

SPLIT, ASKED = "split", "asked"
FEW_ROWS, ONE_IS_LIKELIER, UNSTABLE, ONE_GAUSSIAN = "few_rows", "one_is_likelier", "unstable", "one_gaussian"
"""Why a class is split, and why it stays whole."""


@dataclass(frozen=True)
class Rules:
    """When a class is split.

    Args:
        most: kinds to try at most.
        min_rows: rows that every kind holds at least.
        stable: median Jaccard index in [0, 1] that every kind reaches over the half-samples.
        level: largest p-value in (0, 1) against one Gaussian.
        halves: half-samples.
        draws: samples of one Gaussian at most.
        enough: samples that look at least as split as the class, after which drawing stops.
        seed: for starts, half-samples and draws.
    """

    most: int = 12
    min_rows: int = 10
    stable: float = 0.75
    level: float = 0.01
    halves: int = 20
    draws: int = 199
    enough: int = 5
    seed: int = 0


@dataclass(frozen=True)
class KindsOfClass:
    """The answer for one class of N rows.

    ``kind`` N is numbered from 0, largest first, and ``probability`` N is in [0, 1]. ``gain`` holds the nats per row by
    which each number of kinds from two on beats one Gaussian on held-out rows. ``stability`` K is that of the kinds, or
    of the rejected ones; ``p_value`` is ``None`` where nothing was tested. ``likeliest`` is the number with the largest
    gain.
    """

    kind: Int[Tensor, " N"]
    probability: Float[Tensor, " N"]
    count: int
    likeliest: int
    gain: tuple[float, ...]
    stability: tuple[float, ...]
    p_value: float | None
    reason: str


def most_kinds(rows: ClassRows, rules: Rules) -> int:
    """The largest number of kinds that a class can be asked for; 1 if it has too few rows to judge a split."""
    if rows.n_units < MIN_UNITS:
        return 1
    return max(1, min(rules.most, len(rows.row) // rules.min_rows, rows.n_units // UNITS_A_KIND))


def whole(n_rows: int, reason: str) -> KindsOfClass:
    """One kind, untested."""
    zeros = torch.zeros(n_rows, dtype=torch.int64)
    return KindsOfClass(zeros, torch.ones(n_rows), 1, 1, (), (), None, reason)


def kinds_of(rows: ClassRows, rules: Rules, count: int | None = None) -> KindsOfClass:
    """The kinds of a class.

    All numbers of kinds up to the limits are tried. The answer is the one with the largest held-out density of those
    whose kinds are all stable; it stands if the class looks more split than samples of one Gaussian, for which the
    whole choice is repeated. A ``count`` that is asked for is checked in the same ways, and kept.

    Args:
        rows: of the class.
        rules: when to split.
        count: the number of kinds, or ``None`` to choose it; one that the class has too few rows for leaves it whole.
    """
    limit = most_kinds(rows, rules)
    if limit < 2 or (count or 0) > limit:
        return whole(len(rows.row), FEW_ROWS)
    if count == 1:
        return whole(len(rows.row), ASKED)
    counts = range(2, limit + 1) if count is None else (count,)
    least = rules.min_rows if count is None else 0
    fold = folds_of(rows.unit)

    def tried(x: Float[Tensor, "B N R"], seed: int) -> list[Trial]:
        return trials(x, fold, counts, least, torch.Generator().manual_seed(seed))

    found = tried(rows.x[None], rules.seed)
    gain = tuple(float(one.gain[0]) / len(rows.row) for one in found)
    ranked = sorted(found, key=lambda one: -float(one.gain[0]))
    if count is None:
        ranked = [one for one in ranked if float(one.gain[0]) > 0]
        if not ranked:
            return replace(whole(len(rows.row), ONE_IS_LIKELIER), gain=gain)
    chosen, stable = _stable(rows, ranked, rules)
    if count is None and min(stable) < rules.stable:
        return _answer(rows, chosen, gain, stable, None, UNSTABLE)
    observed = max(0.0, max(float(one.gain[0]) for one in found))
    seeds = iter(range(rules.seed + 1, rules.seed + 1 + rules.draws))  # each batch of draws starts anew
    exceeded = one_gaussian.draws_reaching(
        rows.x, rows.unit, observed, lambda x: largest_gain(tried(x, next(seeds))), rules.draws, rules.seed
    )
    p_value = one_gaussian.p_value(exceeded, rules.draws, rules.enough)
    reason = ASKED if count is not None else SPLIT if p_value <= rules.level else ONE_GAUSSIAN
    return _answer(rows, chosen, gain, stable, p_value, reason)


def _stable(rows: ClassRows, ranked: Sequence[Trial], rules: Rules) -> tuple[Trial, tuple[float, ...]]:
    """The first number of kinds that are all stable, or else the first; with the stability of its kinds."""
    generator = torch.Generator().manual_seed(rules.seed)
    weight = stability.half_samples(rows.unit, rules.halves, generator)
    first: tuple[Trial, tuple[float, ...]] | None = None
    for trial in ranked:
        halves = stability.kinds_of_halves(rows.x, weight, trial.count, generator)
        kind, _ = _by_size(trial, rows)
        stable = tuple(float(one) for one in stability.jaccard(kind, halves, weight, trial.count))
        if min(stable) >= rules.stable:
            return trial, stable
        first = first or (trial, stable)
    assert first is not None, "some number of kinds is ranked"
    return first


def _by_size(trial: Trial, rows: ClassRows) -> tuple[Int[Tensor, " N"], Float[Tensor, "N K"]]:
    """The kind of each row and the posterior of all kinds, largest kind first, ties by their first row."""
    posterior = trial.fit.joint(rows.x[None])[0, 0].softmax(0).T
    kind = posterior.argmax(1)
    places = [int(one) for one in kind]
    order = sorted(range(trial.count), key=lambda k: (-places.count(k), places.index(k) if k in places else 0))
    posterior = posterior[:, order]
    return posterior.argmax(1), posterior


def _answer(
    rows: ClassRows,
    trial: Trial,
    gain: tuple[float, ...],
    stable: tuple[float, ...],
    p_value: float | None,
    reason: str,
) -> KindsOfClass:
    kind, posterior = _by_size(trial, rows)
    best = max(range(len(gain)), key=lambda i: gain[i])
    likeliest = trial.count if reason == ASKED else best + 2
    if reason not in (SPLIT, ASKED):
        kind, posterior = torch.zeros_like(kind), torch.ones_like(posterior[:, :1])
    count = trial.count if reason in (SPLIT, ASKED) else 1
    return KindsOfClass(kind, posterior.amax(1), count, likeliest, gain, stable, p_value, reason)
