"""Log-mel spectra: a front end for sounds, and an encoder that needs no weights."""

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from mixtura.encoders.common import refuse_weights
from mixtura.encoders.sounds import Clips, SoundNetwork, refuse_size

_BREAK, _BREAK_MEL = 1000.0, 15.0  # where Slaney's scale turns from linear to logarithmic, in Hz and in mel
_STEP = math.log(6.4) / 27  # its logarithmic steps


def to_mel(hertz: Float[Tensor, "..."], scale: str) -> Float[Tensor, "..."]:
    r"""Frequencies on the mel scale.

    .. math:: \text{htk: } 2595 \log_{10}(1 + f / 700); \quad
        \text{slaney: } 3f / 200 \text{ below 1000 Hz, } 15 + 27 \ln(f / 1000) / \ln 6.4 \text{ above}

    Args:
        hertz: frequencies, in Hz.
        scale: ``htk`` or ``slaney``.
    """
    if scale == "htk":
        return 2595 * torch.log10(1 + hertz / 700)
    above = _BREAK_MEL + torch.log(hertz.clamp(min=_BREAK) / _BREAK) / _STEP
    return torch.where(hertz < _BREAK, hertz * (_BREAK_MEL / _BREAK), above)


def from_mel(mel: Float[Tensor, "..."], scale: str) -> Float[Tensor, "..."]:
    """The inverse of :func:`to_mel`, in Hz."""
    if scale == "htk":
        return 700 * (10 ** (mel / 2595) - 1)
    above = _BREAK * torch.exp(_STEP * (mel.clamp(min=_BREAK_MEL) - _BREAK_MEL))
    return torch.where(mel < _BREAK_MEL, mel * (_BREAK / _BREAK_MEL), above)


@dataclass(frozen=True)
class Bank:
    """Triangular filters, evenly spaced on a mel scale.

    ``bands`` filters from ``low`` to ``high`` Hz; with ``area`` each is divided by half its width in Hz, so that a
    flat spectrum gives equal bands (Slaney's norm).
    """

    bands: int = 64
    low: float = 50.0
    high: float = 11_025.0
    scale: str = "slaney"
    area: bool = True

    def filters(self, window: int, rate: int) -> Float[Tensor, "M F"]:
        """The weight of each of ``window // 2 + 1`` frequencies in each band; ``rate`` in samples a second."""
        ends = to_mel(torch.tensor([self.low, self.high], dtype=torch.float64), self.scale)
        edges = from_mel(
            torch.linspace(ends[0].item(), ends[1].item(), self.bands + 2, dtype=torch.float64), self.scale
        )
        hertz = torch.linspace(0, rate / 2, window // 2 + 1, dtype=torch.float64)
        width = edges.diff()
        rising = (hertz - edges[:-2, None]) / width[:-1, None]
        falling = (edges[2:, None] - hertz) / width[1:, None]
        filters = torch.minimum(rising, falling).clamp(min=0)
        return (filters * (2 / (edges[2:] - edges[:-2]))[:, None] if self.area else filters).float()


def log_mel(
    waves: Float[Tensor, "N T"], filters: Float[Tensor, "M F"], hop: int, least: float = 1e-10
) -> Float[Tensor, "N M frames"]:
    r"""Natural logarithms of the energy in mel bands.

    .. math:: \ln \max\big(\textstyle\sum_f B_{mf} |X_{ft}|^2,\ \varepsilon\big)

    with X the short-time Fourier transform under a Hann window, frames centered, ends mirrored.

    Args:
        waves: one channel each, at least half a window long.
        filters: of :meth:`Bank.filters`; their width says the window.
        hop: samples from frame to frame.
        least: energy below which nothing is told apart.
    """
    window = 2 * (filters.shape[1] - 1)
    hann = torch.hann_window(window, device=waves.device)
    spectrum = torch.stft(waves, window, hop, window=hann, center=True, pad_mode="reflect", return_complex=True)
    return (filters @ spectrum.abs().square()).clamp(min=least).log()


class LogMel(SoundNetwork):
    """Mean and standard deviation over time of 64 log-mel bands: 128 numbers, no weights, works everywhere.

    22,050 Hz, windows of 1,024 samples every 512, bands from 50 to 11,025 Hz on Slaney's scale.

    Args:
        size: must be ``None``.
        weights: must be ``None``; there are none.
        device: where it is computed.
        clips: the whole sound at once unless given; ``mean`` takes clips of 5 s unless told.
        normalize: whether each clip's vector is scaled to unit length; no unless given.

    Raises:
        UsageError: a size or weights are given, or the clips make no sense.
    """

    name = "logmel"
    dimension = 128
    sample_rate = 22_050
    window, hop = 1024, 512
    shortest = window

    def __init__(
        self,
        size: int | None = None,
        weights: Path | None = None,
        device: str | torch.device = "cpu",
        clips: Clips | None = None,
        normalize: bool | None = None,
    ) -> None:
        refuse_size(self.name, size)
        refuse_weights(self.name, weights)
        bank = Bank()
        described = f"log-mel, window {self.window}, hop {self.hop}, {bank}; mean and standard deviation over time"
        self.settle("none", described, clips, normalize, device)
        self._filters = bank.filters(self.window, self.sample_rate).to(self.device)

    def vectors(self, clips: Float[Tensor, "N T"]) -> Float[Tensor, "N D"]:
        """Mean and standard deviation of each band."""
        frames = log_mel(clips, self._filters, self.hop)
        return torch.cat([frames.mean(2), frames.std(2, unbiased=False)], dim=1)
