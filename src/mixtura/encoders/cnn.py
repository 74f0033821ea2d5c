"""A plain convolutional network to be trained from scratch: four blocks of two convolutions, 128 numbers a photo.

The shape is that of the ``classic-cnn`` of the Mila toolkit (image_classification_simulation, 2022): eight 3 x 3
convolutions, each with batch norm, rectifier and dropout of channels, a 2 x 2 maximum after every second.
"""

import itertools
from pathlib import Path
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mixtura.encoders.common import checked_dropout
from mixtura.encoders.scratch import Scratch, init_convolutions
from mixtura.identity import NO_TAPS

MULTIPLIERS = (1, 2, 4, 4, 8, 8, 16, 16)
GRID = 2  # positions a side before the linear layers, whatever the size of the photo
HIDDEN, DIMENSION = 256, 128


class Cnn(Scratch):
    """Eight convolutions and two linear layers, the last of which gives the 128 numbers of a photo.

    The maps of the last block are averaged to 2 x 2 positions, so photos of any size have vectors of one length and
    weights fit every size. At 32 px, 2 x 2 is what they are.

    Args:
        size: side in pixels; 64 unless given, at least 16.
        weights: a ``.safetensors`` of what :meth:`network` has become; drawn from ``seed`` unless given.
        device: where the network runs.
        taps: layers whose averages and deviations follow the vector; see :mod:`mixtura.encoders.taps`.
        filters: channels of the first convolution; the others have 2 to 16 times as many.
        dropout: share of channels, and of the 256 numbers before the vector, that training sets to zero.
        seed: of the drawn weights; 0 unless given.

    Raises:
        UsageError: the size, the dropout or the taps do not fit, or weights and a seed are given.
        NoInput: the weights are missing.
        DataError: they do not fit.
    """

    name = "cnn"
    reductions: ClassVar[dict[str, int]] = {f"blocks.{place}": 2 ** (place + 1) for place in range(4)}
    smallest = 16

    def __init__(
        self,
        size: int | None = None,
        weights: Path | None = None,
        device: str | torch.device = "cpu",
        taps: str = NO_TAPS,
        filters: int = 4,
        dropout: float = 0.0,
        seed: int | None = None,
    ) -> None:
        self.filters, self.dropout = filters, checked_dropout(dropout)
        self.settle(size, weights, device, taps, seed, {"filters": filters, "dropout": self.dropout})

    def build(self) -> nn.Module:
        """The network with drawn weights."""
        return init_convolutions(_Network(self.filters, self.dropout))


class _Network(nn.Module):
    def __init__(self, filters: int, dropout: float) -> None:
        super().__init__()
        widths = [3, *(filters * multiplier for multiplier in MULTIPLIERS)]
        layers = [_convolution(a, b, dropout) for a, b in itertools.pairwise(widths)]
        pairs = zip(layers[::2], layers[1::2], strict=True)
        self.blocks = nn.Sequential(*(nn.Sequential(one, two, nn.MaxPool2d(2)) for one, two in pairs))
        self.pool = nn.AdaptiveAvgPool2d(GRID)
        self.hidden = nn.Linear(widths[-1] * GRID**2, HIDDEN)
        self.drop = nn.Dropout(dropout)
        self.vector = nn.Linear(HIDDEN, DIMENSION)

    def forward(self, x: Float[Tensor, "N 3 H W"]) -> Float[Tensor, "M D"]:
        x = self.pool(self.blocks(x)).flatten(1)
        return self.vector(self.drop(self.hidden(x).relu()))


def _convolution(into: int, out: int, dropout: float) -> nn.Sequential:
    """3 x 3, without a bias, which the batch norm has."""
    convolution = nn.Conv2d(into, out, 3, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(out), nn.ReLU(), nn.Dropout2d(dropout))
