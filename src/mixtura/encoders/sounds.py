"""What encoders of sounds share: how a sound is cut into clips, and everything around the network."""

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor, nn
from torch.nn import functional

from mixtura.encoders.common import OwnNames, checked_device, library_versions, to_train
from mixtura.errors import UsageError
from mixtura.identity import fingerprint

Waveform = Float32[np.ndarray, " T"]
_AT_ONCE = 1 << 22  # input values that go through a network together; bounds the memory of long sounds


@dataclass(frozen=True)
class Clips:
    """How a sound is cut before it is encoded.

    ``none``: not at all, the whole sound is encoded at once; a network that takes one length only hears its first
    ``seconds``. ``mean``: clips of ``seconds``, one every ``hop`` seconds and one that ends with the sound, are encoded
    each for itself, and their vectors are averaged. Seconds and hop are the encoder's own unless given.
    """

    how: str = "mean"
    seconds: float | None = None
    hop: float | None = None

    @classmethod
    def from_identity(cls, identity: Mapping[str, str]) -> "Clips | None":
        """The clips that an identity tells of.

        >>> Clips.from_identity({"clips": Clips("mean", 5.0, 2.5).describe()})
        Clips(how='mean', seconds=5.0, hop=2.5)
        """
        told = identity.get("clips", "")
        if told == "none":
            return cls("none")
        found = re.fullmatch(r"mean of clips of (\S+) s every (\S+) s", told)
        return cls("mean", float(found[1]), float(found[2])) if found else None

    def describe(self) -> str:
        """For an identity."""
        return "none" if self.how == "none" else f"mean of clips of {self.seconds!r} s every {self.hop!r} s"

    def settled(self, default: "Clips", fixed: bool) -> "Clips":
        """These clips with what is not given filled in.

        Args:
            default: the encoder's own; its seconds are known.
            fixed: whether the network takes clips of ``default.seconds`` only.

        Raises:
            UsageError: a value makes no sense, or the network takes another length only.
        """
        if self.how not in ("none", "mean"):
            raise UsageError(f"Clips {self.how!r} are unknown. Known: none (the whole sound at once), mean.")
        seconds = float(default.seconds or 1) if self.seconds is None else self.seconds
        hop = seconds if self.hop is None else self.hop
        if not (0.01 <= hop <= 600 and 0.01 <= seconds <= 600):
            raise UsageError(f"Clips of {seconds} s every {hop} s are out of range. Give 0.01 to 600 seconds.")
        if fixed and seconds != default.seconds:
            raise UsageError(f"This encoder takes clips of {default.seconds} s only, not {seconds} s. Leave it out.")
        return Clips(self.how, seconds, hop)


def cut(wave: Waveform, length: int, hop: int) -> list[Float32[np.ndarray, " C"]]:
    """Clips of ``length`` samples, one every ``hop``, and a last one that ends with the sound; a short sound is one.

    >>> [clip.tolist() for clip in cut(np.arange(5, dtype=np.float32), 2, 2)]
    [[0.0, 1.0], [2.0, 3.0], [3.0, 4.0]]
    """
    last = max(0, len(wave) - length)
    starts = list(range(0, last + 1, hop))
    if starts[-1] != last:
        starts.append(last)
    return [wave[start : start + length] for start in starts]


def at_least(wave: Waveform, length: int) -> Float32[np.ndarray, " L"]:
    """The sound, with silence behind it if it has fewer than ``length`` samples."""
    return np.pad(wave, (0, max(0, length - len(wave))))


class SoundNetwork(ABC):
    """A sound encoder but for its network: cuts, pads, batches, averages, and says so in its identity.

    A subclass sets the class attributes and calls ``settle`` at the end of its ``__init__``.
    """

    name: str
    dimension: int
    sample_rate: int
    default = Clips("none", seconds=5.0)
    fixed = False  # whether the network takes clips of one length only
    shortest = 1  # samples; silence is added to less
    unit = False  # whether each clip's vector has unit length unless asked otherwise

    def settle(
        self,
        weights: str,
        preprocessing: str,
        clips: Clips | None,
        normalize: bool | None,
        device: str | torch.device,
        packages: tuple[str, ...] = (),
    ) -> None:
        """Fill in the options, and what the encoder says of itself."""
        self.clips = (clips or self.default).settled(self.default, self.fixed)
        self.normalize = self.unit if normalize is None else normalize
        self.device = checked_device(device)
        self.identity = {
            "name": self.name,
            "weights": weights,
            "preprocessing": f"mean of channels; polyphase resampling to {self.sample_rate} Hz; {preprocessing}",
            "clips": self.clips.describe(),
            "normalization": "unit length" if self.normalize else "none",
            "dtype": "float32",
        }
        self.fingerprint = fingerprint(self.identity)
        self.versions = library_versions("scipy", *packages)

    def prepare(self, wave: Waveform) -> Float[Tensor, "C ..."]:
        """The sound as clips, each as the network takes it."""
        return torch.stack([self.front(clip) for clip in self._cut(wave)])

    def _cut(self, wave: Waveform) -> list[Float32[np.ndarray, " C"]]:
        seconds, hop = self.clips.seconds or 0, self.clips.hop or 0
        length, step = round(seconds * self.sample_rate), max(1, round(hop * self.sample_rate))
        if self.clips.how == "mean":
            return cut(wave, length, step)
        return [wave[:length] if self.fixed else wave]

    @torch.inference_mode()
    def encode(self, batch: Float[Tensor, "N C ..."]) -> Float[Tensor, "N D"]:
        """The vectors of a batch of prepared sounds, float32, on the CPU."""
        count, clips = batch.shape[:2]
        flat = batch.flatten(0, 1)
        rows = max(1, _AT_ONCE // max(1, flat[0].numel())) if len(flat) else 1
        vectors = torch.cat([self.vectors(part.to(self.device)).float().cpu() for part in flat.split(rows)])
        if self.normalize:
            vectors = functional.normalize(vectors, dim=1)
        return vectors.reshape(count, clips, -1).mean(1)

    def front(self, clip: Waveform) -> Float[Tensor, "..."]:
        """One clip as the network takes it; by default its samples, silence added to a short one."""
        length = round((self.clips.seconds or 0) * self.sample_rate) if self.clips.how == "mean" else 0
        return torch.from_numpy(at_least(clip, max(length, self.shortest)))

    @abstractmethod
    def vectors(self, clips: Float[Tensor, "N ..."]) -> Float[Tensor, "N D"]:
        """The vectors of a batch of clips, not scaled yet."""

    def to_train(self, network: nn.Module) -> nn.Module:
        """A copy of a frozen network of clips to train, with the scaling to unit length that ``encode`` does."""
        return to_train(_UnitLength(network) if self.normalize else network)


class _UnitLength(OwnNames):
    """A network whose vectors are scaled to unit length."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, clips: Float[Tensor, "N ..."]) -> Float[Tensor, "N D"]:
        """The vectors of a batch of clips."""
        return functional.normalize(self.network(clips), dim=1)


def refuse_size(name: str, size: int | None) -> None:
    """For encoders of sounds, which have no side in pixels.

    Raises:
        UsageError: one is given.
    """
    if size is not None:
        raise UsageError(f"Encoder {name!r} takes sounds, and a size of {size} px was given. Leave the size out.")
