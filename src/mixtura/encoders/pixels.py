"""Raw pixels as features: the baseline that every network has to beat."""

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Num, UInt8
from PIL import Image
from torch import Tensor, nn

from mixtura.encoders import NATIVE_SIZES
from mixtura.encoders.common import checked_size, library_versions, refuse_weights, squash, squash_steps, to_tensor
from mixtura.identity import fingerprint


class Pixels:
    """The photo resized to ``size`` x ``size`` pixels, its values flattened and divided by 255.

    Args:
        size: side in pixels, 1 to 256; 16 unless given.
        weights: must be ``None``; there are none.
        device: has no effect; nothing is computed.

    Raises:
        UsageError: the size is out of range, or weights are given.
    """

    name = "pixels"
    draft = None

    def __init__(
        self, size: int | None = None, weights: Path | None = None, device: str | torch.device = "cpu"
    ) -> None:
        refuse_weights(self.name, weights)
        self.size = checked_size(size, default=NATIVE_SIZES["pixels"], largest=256)
        self.dimension = 3 * self.size**2
        self.identity = {
            "name": self.name,
            "size": f"{self.size} px",
            "weights": "none",
            "preprocessing": "whole photo resized to a square, bicubic, aspect ratio not kept; x / 255",
            "dtype": "float32",
        }
        self.fingerprint = fingerprint(self.identity)
        self.versions = library_versions()

    def prepare(self, image: Image.Image) -> UInt8[Tensor, "3 H W"]:
        """The whole photo at the encoder's size, as bytes."""
        return to_tensor(squash(image, self.size))

    def encode(self, batch: Num[Tensor, "N 3 H W"]) -> Float[Tensor, "N D"]:
        """The pixels of each photo, channel by channel, in [0, 1]."""
        return batch.cpu().flatten(1).float() / 255

    def graph(self) -> nn.Module:
        """The same as a module that can be traced."""
        return _Flat()

    def steps(self) -> list[dict[str, Any]]:
        """What ``prepare`` does, as plain values."""
        return squash_steps(self.size)


class _Flat(nn.Module):
    """Pixels to numbers."""

    def forward(self, batch: Num[Tensor, "N 3 H W"]) -> Float[Tensor, "N D"]:
        return batch.flatten(1).float() / 255
