"""Log-densities of a tile, without the class weights."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor


@dataclass(frozen=True)
class Scores:
    """Log-densities in nats under each class and under the background; ``lossy`` units lost too many digits.

    ``peak`` are the largest log-densities of each class and of the background, where classes share a covariance.
    """

    log_density: Float[Tensor, "B R C"]
    background: Float[Tensor, "B R"] | None
    lossy: Bool[Tensor, " B"]
    peak: Float[Tensor, "B 2"] | None = None

    def squares(self) -> Float[Tensor, "B R 2"] | None:
        """Squared distances to the nearest class mean and to the mean of the background, each under its covariance."""
        if self.peak is None or self.background is None:
            return None
        return squares_of(self.peak[:, None], self.log_density, self.background)


def squares_of(
    peak: Float[Tensor, "*#N 2"], log_density: Float[Tensor, "*N C"], background: Float[Tensor, "*N"]
) -> Float[Tensor, "*N 2"]:
    """Squared distances to the nearest class mean and to the background's, from log-densities and their peaks."""
    return (2 * (peak - torch.stack([log_density.amax(-1), background], -1))).clamp_min(0)


def mixed(parts: list[Scores], share: Float[Tensor, "B P"]) -> Scores:
    """Scores interpolated between those at several anchors."""
    if len(parts) == 1:
        return parts[0]
    lossy = torch.stack([part.lossy for part in parts]).any(0)
    log_density = torch.stack([part.log_density for part in parts], -1) @ share[:, None, :, None]
    behind = [part.background for part in parts if part.background is not None]
    background = (torch.stack(behind, -1) @ share[:, :, None])[..., 0] if behind else None
    peaks = [part.peak for part in parts if part.peak is not None]
    peak = (torch.stack(peaks, -1) @ share[:, :, None])[..., 0] if peaks else None
    return Scores(log_density[..., 0], background, lossy, peak)
