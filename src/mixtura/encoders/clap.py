"""The audio tower of CLAP, through transformers, from the Hugging Face hub or from a local folder.

Source: Wu, Chen, Zhang, Hui, Berg-Kirkpatrick and Dubnov, Large-scale Contrastive Language-Audio Pretraining with
Feature Fusion and Keyword-to-Caption Augmentation (ICASSP 2023).
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from mixtura.encoders.common import OwnNames, hash_tensors
from mixtura.encoders.sounds import Clips, SoundNetwork, Waveform, refuse_size
from mixtura.encoders.torchvision_repair import import_transformers
from mixtura.encoders.weights import load_weights
from mixtura.errors import NoInput, UsageError
from mixtura.formats import reason_of

_KEYS = (
    "sampling_rate",
    "feature_size",
    "fft_window_size",
    "hop_length",
    "max_length_s",
    "frequency_min",
    "frequency_max",
    "top_db",
    "padding",
    "truncation",
)
_FUSION = ("patch_embed.fusion_model.", "patch_embed.mel_conv2d.")  # parts that only sounds with ``is_longer`` pass


class Clap(SoundNetwork):
    """CLAP's projected audio embedding, the vector that it compares with texts.

    The network hears clips of one length, 10 s as published. A shorter sound is repeated as its processor says; a
    longer one is cut into clips by us: the processor would cut at random, and the same sound would give another vector
    each time. For the same reason the fusion of a whole long sound with its parts, which some of the published
    networks have, is not used.

    Args:
        model: a name of the hub, or a folder that ``save_pretrained`` has written, with its feature extractor.
        size: must be ``None``.
        weights: a ``.safetensors`` of what :meth:`network` has become; the network's own unless given.
        device: where the network runs.
        clips: mean over clips of the network's own length, one after another, unless given; ``none`` hears the first.
        normalize: whether each clip's vector is scaled to unit length, as CLAP compares them; yes unless given.

    Raises:
        MissingExtra: transformers is not installed.
        UsageError: a size is given, or the clips do not fit.
        NoInput: there is no such network, neither in the folder nor on the hub, or no such weights.
        DataError: the weights do not fit the network.
    """

    fixed = True
    unit = True

    def __init__(
        self,
        model: str,
        size: int | None = None,
        weights: Path | None = None,
        device: str | torch.device = "cpu",
        clips: Clips | None = None,
        normalize: bool | None = None,
    ) -> None:
        self.name = f"clap:{model}"
        refuse_size(self.name, size)
        self._extractor, network = _open(model)
        if weights is not None:
            load_weights(network, weights)
        self.sample_rate = int(self._extractor.sampling_rate)
        self.default = Clips("mean", seconds=float(self._extractor.max_length_s))
        settings = {key: getattr(self._extractor, key) for key in _KEYS}
        hashed = hash_tensors(network.state_dict())
        self.settle(hashed, f"CLAP {json.dumps(settings)}", clips, normalize, device, ("transformers",))
        self.dimension = int(network.config.projection_dim)
        self._network = _Embeddings(network).to(self.device)

    def front(self, clip: Waveform) -> Float[Tensor, "channels frames bands"]:
        """The log-mel spectrum of a clip, as the network's own processor makes it."""
        wave = clip if len(clip) else np.zeros(1, np.float32)
        made = self._extractor(wave, sampling_rate=self.sample_rate, return_tensors="np")
        return torch.from_numpy(np.asarray(made["input_features"][0], np.float32))

    def vectors(self, clips: Float[Tensor, "N channels frames bands"]) -> Float[Tensor, "N D"]:
        """The projected embeddings."""
        return self._network(clips)

    def network(self) -> nn.Module:
        """A fresh network to train, as transformers builds it, from spectra of clips to vectors; a copy in memory.

        One vector a clip, of unit length if the encoder's are; cutting and averaging stay in ``encode``. The fusion of
        long sounds, which some networks have, stays frozen: no vector depends on it.
        """
        network = self.to_train(self._network)
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(not any(part in name for part in _FUSION))
        return network


class _Embeddings(OwnNames):
    """CLAP's audio tower from spectra of clips to projected embeddings."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, clips: Float[Tensor, "N channels frames bands"]) -> Float[Tensor, "N D"]:
        """The embeddings; no clip is longer than the network's window, whatever the processor rolls."""
        longer = torch.zeros(len(clips), 1, dtype=torch.bool, device=clips.device)
        return self.network(input_features=clips, is_longer=longer).audio_embeds.float()


def _open(model: str) -> tuple[Any, Any]:
    """The feature extractor and the network in eval mode."""
    transformers = import_transformers()
    try:
        extractor = transformers.ClapFeatureExtractor.from_pretrained(model)
        network = transformers.ClapAudioModelWithProjection.from_pretrained(model)
    except (OSError, ValueError, RuntimeError) as error:
        raise NoInput(
            f"The network {model!r} cannot be had: {reason_of(error)}. Give a folder with config.json, "
            "model.safetensors and preprocessor_config.json, or a name of the hub."
        ) from error
    if not isinstance(network.config.projection_dim, int):
        raise UsageError(f"{model!r} has no audio projection. Choose a network of CLAP.")
    return extractor, network.eval().requires_grad_(False)
