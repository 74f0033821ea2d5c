"""The narrow half of a convolutional autoencoder, to be trained by reconstruction: its bottleneck is the vector.

The shape is that of ``conv_ae`` of the Mila toolkit (image_classification_simulation, 2022). The half that draws photos
from vectors is :mod:`mixtura.generators.autoencoder`.
"""

from pathlib import Path
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mixtura.encoders.scratch import Scratch, init_convolutions
from mixtura.errors import UsageError
from mixtura.identity import NO_TAPS

HALVINGS = 4
DIVISORS = tuple(2**place for place in range(HALVINGS))


class Autoencoder(Scratch):
    """Four convolutions of F, F / 2, F / 4 and F / 8 filters, each with a rectifier and a 2 x 2 maximum.

    The vector holds the numbers of the last maps, channel by channel: 4 x 4 x 4 at 64 px and 32 filters, 4 x 14 x 14
    at 224 px. The last layer has no rectifier, so that both signs are of use to a mixture of Gaussians.

    Args:
        size: side in pixels, a multiple of 16; 64 unless given.
        weights: a ``.safetensors`` of what :meth:`network` has become; drawn from ``seed`` unless given.
        device: where the network runs.
        taps: layers whose averages and deviations follow the vector; see :mod:`mixtura.encoders.taps`.
        filters: F, a multiple of 8.
        seed: of the drawn weights; 0 unless given.

    Raises:
        UsageError: the size, the filters or the taps do not fit, or weights and a seed are given.
        NoInput: the weights are missing.
        DataError: they do not fit.
    """

    name = "autoencoder"
    reductions: ClassVar[dict[str, int]] = {f"blocks.{place}": 2 ** (place + 1) for place in range(HALVINGS)}
    smallest = 2**HALVINGS

    def __init__(
        self,
        size: int | None = None,
        weights: Path | None = None,
        device: str | torch.device = "cpu",
        taps: str = NO_TAPS,
        filters: int = 32,
        seed: int | None = None,
    ) -> None:
        if filters % DIVISORS[-1] or filters < 1:
            raise UsageError(f"encoder.filters {filters} does not fit {self.name}. Give a multiple of {DIVISORS[-1]}.")
        if size is not None and size >= self.smallest and size % self.smallest:
            raise UsageError(f"Encoder size {size} px does not fit {self.name}. Give a multiple of {self.smallest}.")
        self.filters = filters
        self.settle(size, weights, device, taps, seed, {"filters": filters})
        side = self.size // self.smallest
        self.bottleneck = (filters // DIVISORS[-1], side, side)

    def build(self) -> nn.Module:
        """The network with drawn weights."""
        return init_convolutions(_Network(self.filters))


class _Network(nn.Module):
    def __init__(self, filters: int) -> None:
        super().__init__()
        widths = [filters // divisor for divisor in DIVISORS]
        steps = list(zip((3, *widths), widths, [nn.ReLU()] * (HALVINGS - 1) + [nn.Identity()], strict=False))
        self.blocks = nn.Sequential(
            *(nn.Sequential(nn.Conv2d(a, b, 3, padding=1), bend, nn.MaxPool2d(2)) for a, b, bend in steps)
        )

    def forward(self, x: Float[Tensor, "N 3 H W"]) -> Float[Tensor, "M D"]:
        return self.blocks(x).flatten(1)
