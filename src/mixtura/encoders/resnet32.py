"""ResNet-32 for small pictures, to be trained from scratch: 64 numbers a photo.

Source: He, Zhang, Ren and Sun, Deep Residual Learning for Image Recognition (CVPR 2016), section 4.2: 6 n + 2 layers
for CIFAR, here with n = 5, and shortcuts without parameters.
"""

from pathlib import Path
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from mixtura.encoders.scratch import Scratch, init_convolutions
from mixtura.identity import NO_TAPS

WIDTHS = (16, 32, 64)
DEPTH = 5  # blocks of two convolutions a stage


class ResNet32(Scratch):
    """A convolution and three stages of five residual blocks; the average of the last is the vector.

    Args:
        size: side in pixels; 32 unless given, at least 8.
        weights: a ``.safetensors`` of what :meth:`network` has become; drawn from ``seed`` unless given.
        device: where the network runs.
        taps: layers whose averages and deviations follow the vector; see :mod:`mixtura.encoders.taps`.
        seed: of the drawn weights; 0 unless given.

    Raises:
        UsageError: the size or the taps do not fit, or weights and a seed are given.
        NoInput: the weights are missing.
        DataError: they do not fit.
    """

    name = "resnet32"
    reductions: ClassVar[dict[str, int]] = {f"stages.{place}": 2**place for place in range(3)}
    smallest = 8

    def __init__(
        self,
        size: int | None = None,
        weights: Path | None = None,
        device: str | torch.device = "cpu",
        taps: str = NO_TAPS,
        seed: int | None = None,
    ) -> None:
        self.settle(size, weights, device, taps, seed, {})

    def build(self) -> nn.Module:
        """The network with drawn weights."""
        return init_convolutions(_Network())


class _Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = _convolution(3, WIDTHS[0], 1)
        self.stages = nn.Sequential(*(_stage(a, b) for a, b in zip((WIDTHS[0], *WIDTHS), WIDTHS, strict=False)))

    def forward(self, x: Float[Tensor, "N 3 H W"]) -> Float[Tensor, "M D"]:
        return self.stages(self.first(x).relu()).mean((2, 3))


def _stage(into: int, out: int) -> nn.Sequential:
    return nn.Sequential(_Block(into, out), *(_Block(out, out) for _ in range(DEPTH - 1)))


class _Block(nn.Module):
    """Two convolutions; the shortcut takes every second position and fills new channels with zeros (option A)."""

    def __init__(self, into: int, out: int) -> None:
        super().__init__()
        self.stride, self.more = out // into, out - into
        self.path = nn.Sequential(_convolution(into, out, self.stride), nn.ReLU(), _convolution(out, out, 1))

    def forward(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N K H2 W2"]:
        short = x[:, :, :: self.stride, :: self.stride]
        return (self.path(x) + functional.pad(short, (0, 0, 0, 0, 0, self.more))).relu()


def _convolution(into: int, out: int, stride: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(into, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out))
