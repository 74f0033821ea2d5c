"""A tiny random network: an encoder for tests, made in a millisecond and the same on every machine."""

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Num, UInt8
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from mixtura.encoders.common import (
    checked_device,
    checked_size,
    hash_tensors,
    library_versions,
    refuse_weights,
    squash,
    squash_steps,
    to_tensor,
)
from mixtura.identity import fingerprint


class Tiny:
    """Two random convolutions, then the mean and the maximum of each of 16 channels.

    Args:
        size: side in pixels; 32 unless given, at least 8.
        weights: must be ``None``; they come from ``seed``.
        device: where the network runs.
        seed: of the weights.

    Raises:
        UsageError: the size is out of range, or weights are given.
    """

    name = "tiny"
    dimension = 32
    draft = None

    def __init__(
        self,
        size: int | None = None,
        weights: Path | None = None,
        device: str | torch.device = "cpu",
        seed: int = 0,
    ) -> None:
        refuse_weights(self.name, weights)
        self.size = checked_size(size, default=32, smallest=8)
        self.device = checked_device(device)
        generator = torch.Generator().manual_seed(seed)
        first = torch.randn(8, 3, 3, 3, generator=generator) / 27**0.5
        second = torch.randn(16, 8, 3, 3, generator=generator) / 72**0.5
        self.identity = {
            "name": self.name,
            "size": f"{self.size} px",
            "weights": hash_tensors({"first": first, "second": second}),
            "preprocessing": "whole photo resized to a square, bicubic, aspect ratio not kept; x / 127.5 - 1",
            "dtype": "float32",
        }
        self.fingerprint = fingerprint(self.identity)
        self.versions = library_versions()
        self._network = _Network(first, second).to(self.device)

    def prepare(self, image: Image.Image) -> UInt8[Tensor, "3 H W"]:
        """The whole photo at the encoder's size, as bytes."""
        return to_tensor(squash(image, self.size))

    @torch.inference_mode()
    def encode(self, batch: Num[Tensor, "N 3 H W"]) -> Float[Tensor, "N D"]:
        """The vectors of a batch of prepared photos, float32, on the CPU."""
        return self._network(batch.to(self.device)).cpu()

    def graph(self) -> nn.Module:
        """The network, as a module that can be traced."""
        return self._network

    def steps(self) -> list[dict[str, Any]]:
        """What ``prepare`` does, as plain values."""
        return squash_steps(self.size)


class _Network(nn.Module):
    """The two convolutions and what is read from them."""

    def __init__(self, first: Tensor, second: Tensor) -> None:
        super().__init__()
        self.register_buffer("first", first)
        self.register_buffer("second", second)

    def forward(self, batch: Num[Tensor, "N 3 H W"]) -> Float[Tensor, "N D"]:
        x = batch.float() / 127.5 - 1
        x = functional.leaky_relu(functional.conv2d(x, self.get_buffer("first"), stride=2), 0.1)
        x = functional.conv2d(x, self.get_buffer("second"), stride=2)
        return torch.cat([x.mean((2, 3)), x.amax((2, 3))], dim=1)
