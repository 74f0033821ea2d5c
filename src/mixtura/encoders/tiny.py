"""A tiny random network: an encoder for tests, made in a millisecond and the same on every machine."""

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Num, UInt8
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from mixtura.encoders import NATIVE_SIZES
from mixtura.encoders.common import (
    checked_device,
    checked_size,
    hash_tensors,
    library_versions,
    squash,
    squash_steps,
    to_tensor,
    to_train,
)
from mixtura.encoders.taps import Positions, Tapped, layers_of, settled
from mixtura.encoders.weights import load_weights
from mixtura.identity import NO_TAPS, fingerprint, with_blocks

STAGES = ("bend", "mix")


class Tiny:
    """Two random convolutions, then the mean and the maximum of each of 16 channels.

    Args:
        size: side in pixels; 32 unless given, at least 8.
        weights: a file of what :meth:`network` has become; the random ones of ``seed`` unless given.
        device: where the network runs.
        seed: of the weights.
        taps: layers whose averages and deviations follow the vector: ``last-1``, ``last-2`` or their names; the
            automatic choice is none.

    Raises:
        UsageError: the size is out of range, or the taps do not fit.
        NoInput: the weights are missing.
        DataError: they do not fit.
    """

    name = "tiny"
    draft = None
    stages = ("bend",)

    def __init__(
        self,
        size: int | None = None,
        weights: Path | None = None,
        device: str | torch.device = "cpu",
        seed: int = 0,
        taps: str = NO_TAPS,
    ) -> None:
        self.size = checked_size(size, default=NATIVE_SIZES["tiny"], smallest=8)
        self.device = checked_device(device)
        generator = torch.Generator().manual_seed(seed)
        first = torch.randn(8, 3, 3, 3, generator=generator) / 27**0.5
        second = torch.randn(16, 8, 3, 3, generator=generator) / 72**0.5
        network = _Network(first, second).requires_grad_(False)
        if weights is not None:
            load_weights(network, weights)
        layers = layers_of(taps, self.name, STAGES, STAGES, auto=())
        photo = torch.zeros(1, 3, self.size, self.size)
        tapped, blocks = settled(taps, Tapped(network, network, layers, Positions()), photo)
        self.dimension = blocks[-1].stop if blocks else 32
        identity = {
            "name": self.name,
            "size": f"{self.size} px",
            "weights": hash_tensors(network.state_dict()),
            "preprocessing": "whole photo resized to a square, bicubic, aspect ratio not kept; x / 127.5 - 1",
            "dtype": "float32",
        }
        self.identity = with_blocks(identity, blocks)
        self.fingerprint = fingerprint(self.identity)
        self.versions = library_versions()
        self._network = tapped.to(self.device)

    def prepare(self, image: Image.Image) -> UInt8[Tensor, "3 H W"]:
        """The whole photo at the encoder's size, as bytes."""
        return to_tensor(squash(image, self.size))

    @torch.inference_mode()
    def encode(self, batch: Num[Tensor, "N 3 H W"]) -> Float[Tensor, "N D"]:
        """The vectors of a batch of prepared photos, float32, on the CPU."""
        return self._network(batch.to(self.device)).cpu()

    def network(self) -> nn.Module:
        """A fresh network to train."""
        return to_train(self._network)

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
        self.first, self.second = nn.Parameter(first), nn.Parameter(second)
        self.bend, self.mix = nn.LeakyReLU(0.1), nn.Identity()

    def forward(self, batch: Num[Tensor, "N 3 H W"]) -> Float[Tensor, "M D"]:
        x = batch.float() / 127.5 - 1
        x = self.bend(functional.conv2d(x, self.first, stride=2))
        x = self.mix(functional.conv2d(x, self.second, stride=2))
        return torch.cat([x.mean((2, 3)), x.amax((2, 3))], dim=1)
