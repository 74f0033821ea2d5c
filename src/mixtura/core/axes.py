"""Principal axes of samples, with means and scatters summed in float64 tile by tile."""

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from mixtura.core import linalg

TILE_ROWS = 4096
"""Samples per tile; fixed, so results do not depend on how the caller batches the data."""


def mean_of(x: Shaped[Tensor, "N D"]) -> Float[Tensor, " D"]:
    """Column means in float64, summed relative to the first row, so large offsets cost no digits."""
    ref = x[0].double()
    total = torch.zeros_like(ref)
    for part in torch.split(x, TILE_ROWS):
        total += (part.double() - ref).sum(0)
    return ref + total / len(x)


def scatter_of(x: Shaped[Tensor, "N D"], mean: Float[Tensor, "M D"], index: Int[Tensor, " N"]) -> Float[Tensor, "D D"]:
    """Sum of outer products of the samples minus ``mean[index]``, in float64."""
    total = torch.zeros(x.shape[1], x.shape[1], dtype=torch.float64, device=x.device)
    for part, own in zip(torch.split(x, TILE_ROWS), torch.split(index, TILE_ROWS), strict=True):
        centered = part.double() - mean[own]
        total += centered.T @ centered
    return total


def fix_signs(basis: Float[Tensor, "D R"]) -> Float[Tensor, "D R"]:
    """Flip columns so that their largest entry is positive, because the sign of an eigenvector is arbitrary."""
    largest = basis.abs().argmax(0, keepdim=True)
    return basis * torch.where(basis.gather(0, largest) < 0, -1.0, 1.0)


def axes_of(x: Shaped[Tensor, "N D"]) -> tuple[Float[Tensor, " D"], Float[Tensor, "D R"], Float[Tensor, " R"]]:
    """Mean, principal axes and variances in descending order, up to the data's numerical rank; float64.

    With fewer rows than columns, the N x N Gram matrix is decomposed instead of the D x D scatter.
    """
    n, d = x.shape
    mean = mean_of(x)
    centered = x.double() - mean if n <= d else None
    if centered is None:
        value, basis = linalg.eigh(scatter_of(x, mean[None], torch.zeros(n, dtype=torch.int64, device=x.device)))
    else:
        value, basis = linalg.eigh(centered @ centered.T)
    value = value.clamp_min(0)
    tiny = value[0] * max(n, d) * torch.finfo(torch.float64).eps
    rank = max(1, min(n - 1, d, int((value > tiny).sum())))
    value, basis = value[:rank], basis[:, :rank]
    if centered is not None:
        basis = unit_columns(centered.T @ basis)
    return mean, fix_signs(basis), value / max(n - 1, 1)


def unit_columns(basis: Float[Tensor, "D R"]) -> Float[Tensor, "D R"]:
    """Columns normalized to length one; a zero column becomes the first coordinate axis."""
    length = linalg.squared_norms(basis.T).sqrt()
    first = torch.zeros_like(basis)
    first[0] = 1.0
    return torch.where(length > 0, basis / length.clamp_min(torch.finfo(basis.dtype).tiny), first)
