"""A test of a class against one Gaussian, by samples of one Gaussian with the class's own mean and covariance."""

from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mixtura.core import linalg

DRAWS_AT_ONCE = 20


def samples(
    x: Float[Tensor, "N R"], unit: Int[Tensor, " N"], count: int, generator: torch.Generator
) -> Float[Tensor, "B N R"]:
    """Samples of one Gaussian that have exactly the mean (zero) and the covariance of ``x``.

    Given these, a sample of a Gaussian is a uniformly random rotation of its rows, so no parameter is left unknown and
    the test is exact. Where units hold several rows, a row is the sum of a Gaussian effect of its unit and one of its
    own, with the variances between and within units; the test is then approximate.
    """
    n, r = x.shape
    noise = torch.randn(count, n, r, generator=generator, dtype=torch.float64).to(x.device)
    rows = x.double()
    n_units = int(unit.max()) + 1
    if n_units < n:
        effect = torch.randn(count, n_units, r, generator=generator, dtype=torch.float64).to(x.device)
        between, within = _effects(rows, unit, n_units)
        noise = noise @ within + (effect @ between)[:, unit]
    noise = noise - noise.mean(1, keepdim=True)
    scatter = noise.mT @ noise
    white = linalg.right_divide_tril(noise, linalg.cholesky_of_definite(scatter + _jitter(scatter)))
    return (white @ _root(rows.mT @ rows)).to(x.dtype)


def _jitter(scatter: Float[Tensor, "B R R"]) -> Float[Tensor, "B R R"]:
    """A tiny multiple of the diagonal, for few units in many axes."""
    return torch.diag_embed(1e-9 * scatter.diagonal(dim1=1, dim2=2))


def _effects(
    x: Float[Tensor, "N R"], unit: Int[Tensor, " N"], n_units: int
) -> tuple[Float[Tensor, "R R"], Float[Tensor, "R R"]]:
    """Square roots of the covariances of the units' effects and of the rows' own."""
    size = torch.bincount(unit, minlength=n_units).to(x.dtype)
    mean = torch.zeros(n_units, x.shape[1], dtype=x.dtype, device=x.device).index_add_(0, unit, x) / size[:, None]
    apart = x - mean[unit]
    within = apart.mT @ apart / (len(x) - n_units)
    between = x.mT @ x / max(len(x) - 1, 1) - within
    return _root(between), _root(within)


def _root(matrix: Float[Tensor, "R R"]) -> Float[Tensor, "R R"]:
    """Symmetric square root of the positive part of a matrix."""
    value, basis = linalg.eigh(matrix)
    return (basis * value.clamp_min(0).sqrt()) @ basis.mT


def p_value(exceeded: Iterable[bool], draws: int, enough: int) -> float:
    """Sequential Monte Carlo p-value: the share of null draws at least as extreme as the data.

    Drawing stops after ``enough`` of them at draw l, and p = enough / l; else p = (g + 1) / (draws + 1) with g of them.

    >>> p_value(iter([True, False, True]), 199, 2), p_value([False] * 199, 199, 2)
    (0.6666666666666666, 0.005)

    Source: Besag and Clifford, Sequential Monte Carlo p-values, 1991.
    """
    found = 0
    for place, one in enumerate(exceeded, 1):
        found += one
        if found == enough:
            return enough / place
    return (found + 1) / (draws + 1)


def draws_reaching(
    x: Float[Tensor, "N R"],
    unit: Int[Tensor, " N"],
    observed: float,
    statistic: Callable[[Float[Tensor, "B N R"]], Float[Tensor, " B"]],
    draws: int,
    seed: int,
) -> Iterator[bool]:
    """Whether the statistic of each of ``draws`` samples of one Gaussian reaches that of the data; drawn when asked."""
    generator = torch.Generator().manual_seed(seed)
    for first in range(0, draws, DRAWS_AT_ONCE):
        drawn = samples(x, unit, min(DRAWS_AT_ONCE, draws - first), generator)
        yield from (bool(one) for one in statistic(drawn) >= observed)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's corrected p-values: those at most a level are a family of splits that errs at most that often.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]

    Source: Holm, A simple sequentially rejective multiple test procedure, 1979.
    """
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, top = [0.0] * len(p_values), 0.0
    for place, i in enumerate(order):
        top = max(top, min(1.0, (len(p_values) - place) * p_values[i]))
        adjusted[i] = top
    return adjusted
