"""ResNet-12, the network of few-shot learning, to be trained from scratch: 640 numbers a photo.

Sources: Oreshkin, Rodriguez and Lacoste, TADAM (NeurIPS 2018); Lee, Maji, Ravichandran and Soatto, Meta-Learning with
Differentiable Convex Optimization (CVPR 2019), for the widths, the slope and the dropout; Ghiasi, Lin and Le, DropBlock
(NeurIPS 2018).
"""

from pathlib import Path
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mixtura.encoders.common import checked_dropout
from mixtura.encoders.scratch import Scratch, init_convolutions
from mixtura.encoders.torchvision_repair import import_torchvision
from mixtura.identity import NO_TAPS

WIDTHS = (64, 160, 320, 640)
SLOPE = 0.1  # of the leaky rectifier
SQUARE = 5  # side in positions of what DropBlock removes, in the last two blocks


class ResNet12(Scratch):
    """Four residual blocks of three convolutions, each with a 2 x 2 maximum; the average of the last is the vector.

    Args:
        size: side in pixels; 84 unless given, at least 16.
        weights: a ``.safetensors`` of what :meth:`network` has become; drawn from ``seed`` unless given.
        device: where the network runs.
        taps: layers whose averages and deviations follow the vector; see :mod:`mixtura.encoders.taps`.
        dropout: share that training sets to zero: single numbers in the first two blocks, squares of 5 x 5 positions
            (DropBlock) in the last two. The papers take 0.1.
        seed: of the drawn weights; 0 unless given.

    Raises:
        UsageError: the size, the dropout or the taps do not fit, or weights and a seed are given.
        NoInput: the weights are missing.
        DataError: they do not fit.
    """

    name = "resnet12"
    reductions: ClassVar[dict[str, int]] = {f"blocks.{place}": 2 ** (place + 1) for place in range(4)}
    smallest = 16

    def __init__(
        self,
        size: int | None = None,
        weights: Path | None = None,
        device: str | torch.device = "cpu",
        taps: str = NO_TAPS,
        dropout: float = 0.0,
        seed: int | None = None,
    ) -> None:
        self.dropout = checked_dropout(dropout)
        self.settle(size, weights, device, taps, seed, {"dropout": self.dropout})

    def build(self) -> nn.Module:
        """The network with drawn weights."""
        return init_convolutions(_Network(self.dropout))


class _Network(nn.Module):
    def __init__(self, dropout: float) -> None:
        super().__init__()
        drops = [nn.Dropout(dropout), nn.Dropout(dropout), _DropSquares(dropout), _DropSquares(dropout)]
        widths = zip((3, *WIDTHS), WIDTHS, drops, strict=False)
        self.blocks = nn.Sequential(*(_Block(into, out, drop) for into, out, drop in widths))

    def forward(self, x: Float[Tensor, "N 3 H W"]) -> Float[Tensor, "M D"]:
        return self.blocks(x).mean((2, 3))


class _Block(nn.Module):
    """Three convolutions beside one of a single position, joined before the last rectifier."""

    def __init__(self, into: int, out: int, drop: nn.Module) -> None:
        super().__init__()
        first, second = _convolution(into, out, 3), _convolution(out, out, 3)
        self.path = nn.Sequential(first, nn.LeakyReLU(SLOPE), second, nn.LeakyReLU(SLOPE), _convolution(out, out, 3))
        self.shortcut = _convolution(into, out, 1)
        self.after = nn.Sequential(nn.LeakyReLU(SLOPE), nn.MaxPool2d(2), drop)

    def forward(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N K H2 W2"]:
        return self.after(self.path(x) + self.shortcut(x))


class _DropSquares(nn.Module):
    """DropBlock; on maps that are smaller than a square, with the largest square of an odd side that they hold.

    It is torchvision's: that of timm drops most of a map of 5 x 5 positions at a share of 0.1.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C H W"]:
        if not self.training or self.share == 0:
            return x
        side = min(SQUARE, *x.shape[2:])
        return import_torchvision().ops.drop_block2d(x, self.share, side - 1 + side % 2)


def _convolution(into: int, out: int, side: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(into, out, side, padding=side // 2, bias=False), nn.BatchNorm2d(out))
