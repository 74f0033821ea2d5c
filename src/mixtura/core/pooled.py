"""The sums of the tied family in one pass over labeled rows: one triangle of products for all classes."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mixtura.core.covariance import Tied
from mixtura.core.covariance.tied import rounded_up
from mixtura.core.moments import Moments, class_means, hard

ROWS = 2048  # a tile of rows stays in cache between its three uses
PANELS = 4  # of the triangle; more would make the products too narrow to be fast


def pooled(
    x: Float[Tensor, "N D"],
    labels: Int[Tensor, " N"],
    n_classes: int,
    weight: Float[Tensor, " N"] | None = None,
) -> Moments:
    r"""What :func:`mixtura.core.moments.hard` gives for the tied family, from a single pass.

    .. math:: \sum_c S_c = \sum_n w_n (x_n - a)(x_n - a)^\top - \sum_c W_c (\mu_c - a)(\mu_c - a)^\top

    about one point a for all classes. Where the difference would cost a float32 sum too many digits (classes far
    apart, tight within), the rows are summed about their own means instead, in a second pass.

    Args:
        x: the rows.
        labels: the class of each row.
        n_classes: C; classes without rows are welcome.
        weight: how often each row counts.
    """
    if len(x) == 0:
        return hard(Tied, x, labels, torch.zeros(n_classes, x.shape[1]), weight)
    anchor = x[:ROWS].mean(0)
    raw = _about(anchor, x, labels, n_classes, weight)
    moments = raw.centered()
    if x.dtype != torch.float64 and Tied.cancels(raw.second, moments.second):
        return hard(Tied, x, labels, class_means(x, labels, n_classes, weight), weight)
    return moments


def _about(
    anchor: Float[Tensor, " D"],
    x: Float[Tensor, "N D"],
    labels: Int[Tensor, " N"],
    n_classes: int,
    weight: Float[Tensor, " N"] | None,
) -> Moments:
    """Sums about one point: products in the precision of the rows within a tile, float64 over tiles."""
    dimension = x.shape[1]
    first = torch.zeros(n_classes, dimension, dtype=torch.float64, device=x.device)
    triangle = torch.zeros(dimension, dimension, dtype=torch.float64, device=x.device)
    buffer = torch.empty(min(ROWS, len(x)), dimension, dtype=x.dtype, device=x.device)
    product = torch.empty(dimension, dimension, dtype=x.dtype, device=x.device)
    counts = torch.ones(len(x), dtype=torch.float64, device=x.device) if weight is None else weight.double()
    tiles = (torch.split(t, ROWS) for t in (x, labels, counts))
    for rows, own, count in zip(*tiles, strict=True):
        shifted = torch.sub(rows, anchor, out=buffer[: len(rows)])
        if weight is not None:
            shifted.mul_(count.sqrt().to(x.dtype)[:, None])
        triangle += _upper_products(shifted, product.zero_())
        if weight is not None:
            shifted.mul_(count.sqrt().to(x.dtype)[:, None])
        first.index_add_(0, own, shifted.double())
    total = torch.zeros(n_classes, dtype=torch.float64, device=x.device).index_add_(0, labels, counts)
    second = rounded_up(triangle.triu() + triangle.triu(1).T, x.dtype)
    return Moments(Tied, anchor.double().expand(n_classes, -1), total, first, second[None])


def _upper_products(rows: Float[Tensor, "N D"], out: Float[Tensor, "D D"]) -> Float[Tensor, "D D"]:
    """``rows.T @ rows`` on and above the diagonal, in panels: three fifths of the work of the whole."""
    width = -(-rows.shape[1] // PANELS)
    for start in range(0, rows.shape[1], width):
        panel = slice(start, start + width)
        out[panel, start:].addmm_(rows[:, panel].T, rows[:, start:])
    return out
