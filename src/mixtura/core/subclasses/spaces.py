"""The rows of each class on its leading axes, in an order and with units that depend on their values only."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mixtura.core import linalg
from mixtura.core.axes import fix_signs
from mixtura.core.content import content_order
from mixtura.core.cross_fitting import content_units
from mixtura.core.moments import class_means

MAX_AXES = 32
UNITS_AN_AXIS = 16
"""Independent rows for each axis. K kinds span K - 1 axes, so kinds of this size always fit into their span."""

MIN_AXES = 2
SUBSPACE_STEPS = 8
EXTRA_AXES = 16  # axes that the subspace iteration carries beyond those asked for
MIN_VARIANCE = 1e-6  # of the first axis's variance


@dataclass(frozen=True)
class ClassRows:
    """Rows of one class: their indices, their coordinates about the class mean, and their units.

    Rows of one unit (equal ones, and those of one group) never judge each other. The variance of the first axis is one.
    """

    row: Int[Tensor, " N"]
    x: Float[Tensor, "N R"]
    unit: Int[Tensor, " N"]

    @property
    def n_units(self) -> int:
        """Number of independent units."""
        return int(self.unit.max()) + 1 if len(self.unit) else 0


def class_rows(
    x: Float[Tensor, "N D"], labels: Int[Tensor, " N"], groups: Int[Tensor, " N"], n_classes: int
) -> list[ClassRows]:
    """The rows of each class on the class's own leading axes within the pooled ones.

    The pooled axes are the 32 principal axes of all rows about their class means: there, 40 photos need not tell 1,280
    directions apart. A class then keeps its own leading directions among these, one for 16 independent rows.
    The results do not depend on the order of the rows, nor on the numbers of the classes.

    Args:
        x: the features.
        labels: the class of each row, from 0.
        groups: numbers; rows with the same one are not independent.
        n_classes: C.
    """
    order, _ = content_order(x, 0)
    unit = content_units(x, groups)[order]
    x, labels = x[order], labels[order]
    centered = x - class_means(x, labels, n_classes)[labels].to(x.dtype)
    pooled = centered @ leading_axes(centered, MAX_AXES)
    found: list[ClassRows] = []
    for c in range(n_classes):
        own = (labels == c).nonzero()[:, 0]
        numbers = _by_occurrence(unit[own])
        count = int(numbers.max()) + 1 if len(own) else 0
        found.append(ClassRows(order[own], own_axes(pooled[own], axes_for(count)), numbers))
    return found


def axes_for(units: int) -> int:
    """The number of axes that so many independent rows support."""
    return min(MAX_AXES, max(MIN_AXES, units // UNITS_AN_AXIS))


def leading_axes(x: Float[Tensor, "N D"], count: int) -> Float[Tensor, "D R"]:
    """The first principal axes of centered rows, by subspace iteration; exact if D is at most ``count`` + 16.

    Source: Halko, Martinsson and Tropp, Finding structure with randomness, 2011.
    """
    width = min(x.shape[1], count + EXTRA_AXES)
    generator = torch.Generator().manual_seed(0)
    basis = torch.randn(x.shape[1], width, generator=generator, dtype=torch.float64).to(x.device)
    for _ in range(SUBSPACE_STEPS if width < x.shape[1] else 1):
        basis = linalg.orthonormal(basis)
        basis = (x.mT @ (x @ basis.to(x.dtype))).double()
    basis = linalg.orthonormal(basis) if width < x.shape[1] else torch.eye(width, dtype=basis.dtype, device=x.device)
    product = (x @ basis.to(x.dtype)).double()
    _, turn = linalg.eigh(product.mT @ product)
    return fix_signs(basis @ turn[:, :count]).to(x.dtype)


def own_axes(x: Float[Tensor, "N R"], count: int) -> Float[Tensor, "N Q"]:
    """Centered rows on at most ``count`` of their own principal axes, those of no variance left out."""
    rows = x.double()
    variance, turn = linalg.eigh(rows.mT @ rows)
    kept = max(1, min(count, int((variance > MIN_VARIANCE * variance[0]).sum())))
    scale = (variance[0] / max(len(x), 1)).sqrt()
    turned = rows @ fix_signs(turn[:, :kept])
    return (turned / torch.where(scale > 0, scale, torch.ones_like(scale))).float().contiguous()


def _by_occurrence(numbers: Int[Tensor, " N"]) -> Int[Tensor, " N"]:
    """The numbers as 0, 1, ... in the order in which they occur."""
    seen: dict[int, int] = {}
    return torch.tensor([seen.setdefault(one, len(seen)) for one in map(int, numbers)], dtype=torch.int64)
