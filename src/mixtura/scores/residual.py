"""Length of the part of a row outside the subspace of the known rows."""

from dataclasses import dataclass, replace
from typing import ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor

from mixtura.core import linalg
from mixtura.core.cross_fitting import OutOfFold
from mixtura.scores.base import ROWS, Edits, KnownRows

MIN_REST = 1e-4  # of a newcomer's distance from the center, outside the subspace, below which it adds no direction
WIDTHS = {2048: 1000, 768: 512}  # features from which on the subspace has so many dimensions; below, half of them


@final
@dataclass(frozen=True)
class Residual:
    r"""Length of the part of a row outside the principal subspace of the known rows, as in ViM without its logit.

    .. math:: s(x) = -\| (I - B B^\top)(x - c) \|_2

    with c the mean of the known rows and B the leading eigenvectors of their covariance: 1,000 from 2,048 dimensions
    on, 512 from 768 on, else half of the dimensions, and at most half as many as there are rows. The subspace stays as
    it was fitted when a catalog changes; each newcomer adds one direction, that of its own mean outside it.

    Source: Wang, Li, Feng, Zhang, ViM: Out-Of-Distribution with Virtual-logit Matching, CVPR 2022, section 4.
    """

    center: Float[Tensor, " D"]
    basis: Float[Tensor, "D R"]
    sees: ClassVar[str] = ROWS

    @classmethod
    def fit(cls, known: KnownRows) -> "Residual":
        """The score of known rows."""
        x, weight = known.rows.x, known.rows.weight.to(known.rows.x)
        center = (weight[:, None] * x).sum(0) / weight.sum()
        scaled = (x - center) * weight.sqrt()[:, None]
        _, basis = linalg.svd_right(scaled, subspace_width(len(x), known.prior.averaged_over(x.shape[1])))
        return cls(center, basis.to(x).contiguous())

    @classmethod
    def left_out(cls, held: OutOfFold) -> None:
        """``None``: the scores of rows that were left out do not follow from their densities."""

    def __call__(
        self, x: Float[Tensor, "N D"], log_prob: Float[Tensor, " N"], background: Float[Tensor, " N"]
    ) -> Float[Tensor, " N"]:
        """Minus the length of each row's part outside the subspace."""
        shifted = x - self.center
        return -(shifted - shifted @ self.basis @ self.basis.T).square().sum(1).sqrt()

    def follow(self, edits: Edits) -> "Residual":
        """The score after the edits of a catalog."""
        if not edits.newcomers:
            return self
        means = torch.stack([rows.mean(0) for rows in edits.newcomers]).to(self.basis) - self.center
        rest = means - means @ self.basis @ self.basis.T
        length, directions = linalg.svd_right(rest, len(rest))
        new = length > MIN_REST * linalg.squared_norms(means).max().sqrt()  # newcomers alike, or inside, add none
        return replace(self, basis=torch.cat([self.basis, directions[:, new].to(self.basis)], 1))

    def state(self) -> dict[str, Tensor]:
        """All tensors by name."""
        return {"center": self.center, "basis": self.basis}

    @classmethod
    def from_state(cls, state: dict[str, Tensor]) -> "Residual":
        """The inverse of :meth:`state`."""
        return cls(**state)


def subspace_width(count: int, dimension: int) -> int:
    """Dimension of the subspace of ``count`` rows of ``dimension`` features."""
    wide = next((width for least, width in WIDTHS.items() if dimension >= least), dimension // 2)
    return max(1, min(wide, dimension - 1, count // 2))
