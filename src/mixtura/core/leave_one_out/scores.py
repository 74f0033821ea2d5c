"""Log-densities of a tile, without the class weights."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor


@dataclass(frozen=True)
class Scores:
    """Log-densities in nats under each class and under the background; ``lossy`` units lost too many digits."""

    log_density: Float[Tensor, "B R C"]
    background: Float[Tensor, "B R"] | None
    lossy: Bool[Tensor, " B"]


def mixed(parts: list[Scores], share: Float[Tensor, "B P"]) -> Scores:
    """Scores interpolated between those at several anchors."""
    if len(parts) == 1:
        return parts[0]
    lossy = torch.stack([part.lossy for part in parts]).any(0)
    log_density = torch.stack([part.log_density for part in parts], -1) @ share[:, None, :, None]
    behind = [part.background for part in parts if part.background is not None]
    background = torch.stack(behind, -1) @ share[:, :, None] if behind else None
    return Scores(log_density[..., 0], None if background is None else background[..., 0], lossy)
