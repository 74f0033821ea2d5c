"""What encoders share whose networks mixtura defines: they begin with drawn weights and are there to be trained."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Num, UInt8
from PIL import Image
from torch import Tensor, nn

from mixtura.encoders import NATIVE_SIZES
from mixtura.encoders.common import (
    Normalized,
    channels_last,
    checked_device,
    checked_size,
    checked_start,
    drawn,
    hash_tensors,
    library_versions,
    squash,
    squash_steps,
    to_tensor,
    to_train,
)
from mixtura.encoders.taps import Positions, Tapped, later_stages, layers_of, settled
from mixtura.encoders.weights import load_weights
from mixtura.identity import UNTRAINED, fingerprint, with_blocks, with_options


class Scratch(ABC):
    """An encoder of photos but for its network; the whole photo is resized to a square and scaled to [-1, 1].

    Without a weight file the weights are drawn from a seed, and ``init`` in the identity says so: such an encoder is
    to be trained before features are of use. A subclass sets the class attributes, keeps its options and calls
    ``settle`` at the end of its ``__init__``. ``reductions`` says of each stage how many pixels of the photo one
    position stands for along a side; ``smallest`` is the least side in pixels.
    """

    name: str
    dimension: int
    reductions: ClassVar[Mapping[str, int]]
    smallest: ClassVar[int]

    @abstractmethod
    def build(self) -> nn.Module:
        """The network with weights drawn from torch's generator, from photos in [-1, 1] to vectors."""

    def settle(
        self,
        size: int | None,
        weights: Path | None,
        device: str | torch.device,
        taps: str,
        seed: int | None,
        options: Mapping[str, object],
    ) -> None:
        """Make the network, and what the encoder says of itself."""
        self.size = checked_size(size, default=NATIVE_SIZES[self.name], smallest=self.smallest)
        self.draft = 2 * self.size
        self.device = checked_device(device)
        self.stages = tuple(self.reductions)
        begin = checked_start(weights, seed, default=0)
        network = drawn(begin, self.build).eval().requires_grad_(False)
        if weights is not None:
            load_weights(network, weights)
        identity = {
            "name": self.name,
            "size": f"{self.size} px",
            "weights": hash_tensors(network.state_dict()),
            "preprocessing": "whole photo resized to a square, bicubic, aspect ratio not kept; x / 127.5 - 1; "
            f"JPEG draft {self.draft} px",
            "dtype": "float32",
        }
        identity = with_options(identity, options)
        identity |= {UNTRAINED: f"seed {begin}"} if weights is None else {}
        photo = torch.zeros(1, 3, self.size, self.size)
        layers = layers_of(taps, self.name, self.stages, self.stages, later_stages([*self.reductions.items()]))
        tapped, blocks = settled(taps, Tapped(network, network, layers, Positions()), photo)
        with torch.inference_mode():
            self.dimension = tapped(photo).shape[1]
        self.identity = with_blocks(identity, blocks)
        self.fingerprint = fingerprint(self.identity)
        self.versions = library_versions()
        self._network = self._scaled(channels_last(tapped.to(self.device)))

    def _scaled(self, network: nn.Module) -> nn.Module:
        half = torch.full((1,), 127.5, device=self.device)
        return Normalized(network, half, half).eval()

    def prepare(self, image: Image.Image) -> UInt8[Tensor, "3 H W"]:
        """The whole photo at the encoder's size, as bytes."""
        return to_tensor(squash(image, self.size))

    @torch.inference_mode()
    def encode(self, batch: Num[Tensor, "N 3 H W"]) -> Float[Tensor, "N D"]:
        """The vectors of a batch of prepared photos, float32, on the CPU."""
        return self._network(batch.to(device=self.device, memory_format=torch.channels_last)).cpu()

    def network(self) -> nn.Module:
        """A fresh network to train, with its scaling."""
        return to_train(self._network)

    def graph(self) -> nn.Module:
        """The network with its scaling, as a module that can be traced."""
        return self._network

    def steps(self) -> list[dict[str, Any]]:
        """What ``prepare`` does, as plain values."""
        return squash_steps(self.size)


def init_convolutions(network: nn.Module) -> nn.Module:
    """The network with its convolutions drawn for rectified units (He et al., ICCV 2015), by fan out."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return network
