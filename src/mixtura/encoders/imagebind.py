"""The audio branch of ImageBind, from an installation of the user's own.

ImageBind is no dependency of mixtura: its code and weights are under CC-BY-NC-SA 4.0 and may not be used
commercially. This adapter calls the functions of the installed package ``imagebind`` and holds none of its code.

Source: Girdhar et al., ImageBind: One Embedding Space To Bind Them All (CVPR 2023).
"""

import importlib
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mixtura.encoders.common import OwnNames, hash_tensors
from mixtura.encoders.sounds import Clips, SoundNetwork, Waveform, at_least, refuse_size
from mixtura.encoders.weights import load_tensors, read_tensors
from mixtura.errors import MissingExtra, NoInput

_BANDS, _FRAMES = 128, 204  # of the published front end
_MEAN, _STD = -4.268, 9.138  # of its log-mel values


class ImageBind(SoundNetwork):
    """ImageBind's audio embedding: 16 kHz, clips of 2 s, 1,024 numbers.

    Args:
        size: must be ``None``.
        weights: ``imagebind_huge.pth``, the same as safetensors, or a ``.safetensors`` of what :meth:`network` has
            become; fetched or found by the package itself if ``None``.
        device: where the network runs.
        clips: mean over clips of 2 s, one after another, unless given; ``none`` hears the first.
        normalize: whether each clip's vector is scaled to unit length; yes unless given.

    Raises:
        MissingExtra: the package is not installed.
        UsageError: a size is given, or the clips do not fit.
        NoInput: the weights are missing.
        DataError: the weights do not fit.
    """

    name = "imagebind"
    sample_rate = 16_000
    default = Clips("mean", seconds=2.0)
    fixed = True
    unit = True

    def __init__(
        self,
        size: int | None = None,
        weights: Path | None = None,
        device: str | torch.device = "cpu",
        clips: Clips | None = None,
        normalize: bool | None = None,
    ) -> None:
        refuse_size(self.name, size)
        self._data = _import("imagebind.data")
        branch, hashed = open_branch("AUDIO", weights)
        described = f"silence up to 2 s; imagebind.data.waveform2melspec, {_BANDS} x {_FRAMES}; (x - {_MEAN}) / {_STD}"
        self.settle(hashed, described, clips, normalize, device)
        self._network = branch.to(self.device)
        self.dimension = int(self.vectors(torch.zeros(1, 1, _BANDS, _FRAMES, device=self.device)).shape[1])

    def front(self, clip: Waveform) -> Float[Tensor, "1 bands frames"]:
        """The log-mel spectrum of a clip, as the package makes it, scaled."""
        wave = torch.from_numpy(at_least(clip, round((self.default.seconds or 0) * self.sample_rate)))
        made = self._data.waveform2melspec(wave[None].clone(), self.sample_rate, _BANDS, _FRAMES)
        return (made - _MEAN) / _STD

    @torch.inference_mode()
    def vectors(self, clips: Float[Tensor, "N 1 bands frames"]) -> Float[Tensor, "N D"]:
        """The audio embeddings."""
        return self._network(clips)

    def network(self) -> nn.Module:
        """A fresh network to train, the audio branch as the package builds it, from spectra of clips to vectors.

        One vector a clip, of unit length if the encoder's are; cutting and averaging stay in ``encode``.
        """
        return self.to_train(self._network)


class Embeddings(OwnNames):
    """One branch of ImageBind, from what its modality is prepared as to embeddings."""

    def __init__(self, network: nn.Module, kind: str) -> None:
        super().__init__()
        self.network, self.kind = network, kind

    def forward(self, batch: Float[Tensor, "N ..."]) -> Float[Tensor, "M D"]:
        """The embeddings of a batch."""
        return self.network({self.kind: batch})[self.kind].float()


def _import(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtra(
            f"ImageBind is not installed ({error}). It is no dependency of mixtura, because its license, "
            "CC-BY-NC-SA 4.0, forbids commercial use: install it yourself, or compute the features elsewhere and run: "
            "mixtura data import"
        ) from error


def open_branch(modality: str, weights: Path | None) -> tuple[Embeddings, str]:
    """Return one branch in eval mode, and the hash of all the weights that it was loaded with.

    Args:
        modality: the package's name of it, such as ``AUDIO``.
        weights: as of :class:`ImageBind`.

    Raises:
        MissingExtra: the package is not installed.
        NoInput: the weights are missing. DataError: they do not fit.
    """
    models = _import("imagebind.models.imagebind_model")
    kind = getattr(models.ModalityType, modality)
    try:
        network = models.imagebind_huge(pretrained=weights is None)
    except OSError as error:
        raise NoInput(f"ImageBind's own weights cannot be had ({error}). Give them with --weights.") from error
    tensors = network.state_dict() if weights is None else read_tensors(weights)
    hashed = hash_tensors(tensors)
    others = _drop_others(network, kind)
    if weights is not None:
        load_tensors(network, tensors, weights, spare=others)
    return Embeddings(network.eval().requires_grad_(False), kind), hashed


def _drop_others(network: nn.Module, kind: str) -> list[str]:
    """Remove the branches of other modalities, most of the network; their names.

    The network keeps a dict of modules by modality for each of its stages.
    """
    stages = [(name, stage) for name, stage in network.named_modules() if isinstance(stage, nn.ModuleDict)]
    others = [(name, stage, other) for name, stage in stages if kind in stage for other in stage if other != kind]
    for _, stage, other in others:
        del stage[other]
    return [f"{name}.{other}" for name, _, other in others]
