"""The numbers behind the projections: checks, widths, class centers and discriminant axes, summed in float64."""

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from mixtura.core import linalg
from mixtura.core.axes import TILE_ROWS, fix_signs, mean_of
from mixtura.errors import LabelError, NonFinite, UsageError, WrongDimension


def work_dtype(x: Shaped[Tensor, "..."]) -> torch.dtype:
    """The dtype to compute in: float64 stays, everything else (half, integers) becomes float32."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def check_features(x: Shaped[Tensor, "N D"]) -> None:
    """Refuse features that cannot be fitted on.

    Raises:
        WrongDimension: no row or no column.
        NonFinite: NaN or infinity; names the count and the first five rows.
    """
    if 0 in x.shape:
        raise WrongDimension(f"A projection needs at least one row and one column, got {tuple(x.shape)}.")
    bad = ~torch.isfinite(x).all(1)
    if bad.any():
        rows = torch.nonzero(bad)[:5, 0].tolist()
        raise NonFinite(
            f"{int(bad.sum())} of {len(x)} rows hold NaN or infinity (first: {rows}). Remove or repair them."
        )


def project(x: Shaped[Tensor, "N W"], mean: Float[Tensor, " D"], basis: Float[Tensor, "D R"]) -> Float[Tensor, "N R"]:
    """``(x - mean) @ basis``: subtract first, so that a large common offset costs no digits.

    Raises:
        WrongDimension: the rows have another width than the basis.
    """
    check_width(x, len(mean))
    return (x.to(torch.promote_types(work_dtype(x), basis.dtype)) - mean).to(basis.dtype) @ basis


def check_width(x: Shaped[Tensor, "N D"], width: int) -> None:
    """Refuse rows of another width than the projection was fitted on.

    Raises:
        WrongDimension: always with both widths.
    """
    if x.shape[1] != width:
        raise WrongDimension(
            f"The projection was fitted on {width} dimensions, got {x.shape[1]}. Use features of the same encoder."
        )


def count_for(variance: Float[Tensor, " R"], explained: float) -> int:
    """How many leading variances reach a fraction ``explained`` of their sum.

    Raises:
        UsageError: the fraction is not in (0, 1].
    """
    if not 0 < explained <= 1:
        raise UsageError(f"Explained variance is a fraction above 0 and at most 1, as 0.95 for 95%; got {explained}.")
    if explained == 1:
        return len(variance)
    cumulative = variance.double().cumsum(0)
    return min(len(variance), 1 + int((cumulative < cumulative[-1] * explained).sum()))


def class_centers(
    x: Shaped[Tensor, "N D"], labels: Int[Tensor, " N"] | None
) -> tuple[Int[Tensor, " N"], Float[Tensor, "C D"], Float[Tensor, " C"]]:
    """Class index per row, class means and class shares, over the classes that occur; float64.

    Raises:
        LabelError: no labels, or one class only.
    """
    if labels is None:
        raise LabelError("LDA needs a label for each row. Give labels, or use pca or whiten.")
    _, index, count = torch.unique(labels, return_inverse=True, return_counts=True)
    if len(count) < 2:
        raise LabelError("LDA needs two classes at least, got one. Use pca or whiten.")
    ref = mean_of(x)
    center = torch.zeros(len(count), x.shape[1], dtype=torch.float64, device=x.device)
    for part, own in zip(x.split(TILE_ROWS), index.split(TILE_ROWS), strict=True):
        center.index_add_(0, own, part.double() - ref)
    return index, ref + center / count[:, None], count.double() / len(x)


def discriminant(within: Float[Tensor, "D D"], between: Float[Tensor, "C D"], shrinkage: float) -> Float[Tensor, "D D"]:
    """Axes v with v' S_w v = 1, ordered by v' S_b v; ``between`` holds the rows whose outer products sum to S_b.

    S_w is whitened by its eigenvalues, floored at 1e-10 of their mean: singular scatter needs no special case.
    """
    value, axis = linalg.eigh(within)
    average = value.mean().clamp(min=0)
    floored = ((1 - shrinkage) * value + shrinkage * average).clamp(min=float(average) * 1e-10)
    scale = torch.where(floored > 0, floored, torch.ones_like(floored)).rsqrt()
    white = axis * scale
    coordinates = between @ white
    _, turn = linalg.eigh(coordinates.T @ coordinates)
    return fix_signs(white @ turn)
