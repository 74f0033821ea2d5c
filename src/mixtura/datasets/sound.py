"""Decode a payload (a file or its bytes) into one waveform: one channel at the requested sample rate.

Hostile files arrive here, as in :mod:`mixtura.datasets.decode` for pictures. Anything that would cost too much memory
or time is refused by its header, before decoding:

- at most 64 MiB of file, 10 minutes, 8 channels, and 1,000 to 192,000 samples/s;
- regular files only: no pipes, devices or folders;
- four formats, recognized by their first bytes, never by file name: WAV, FLAC, Ogg (Vorbis, Opus), MP3.

Channels are averaged; other rates are resampled by polyphase filtering. Samples are in [-1, 1]; float samples may
slightly exceed this. Every failure is a :class:`~mixtura.errors.BadSound` with a reason code.
"""

import math
import re
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from mixtura.datasets.decode import Payload, read_bytes
from mixtura.datasets.paths import readable
from mixtura.errors import BadSound, MissingExtra
from mixtura.formats import with_article

MAX_SECONDS = 600
MAX_CHANNELS = 8
MIN_RATE, MAX_RATE = 1_000, 192_000  # samples/s
MAX_LEVEL = 2.0**16  # floats may exceed [-1, 1], or hold 16-bit integers; anything larger is not a sound
_BLOCK_FRAMES = 1 << 16  # frames decoded at once
_MAX_CHUNKS = 1000  # chunks of a WAV file to skip before its samples
_UNKNOWN_LENGTH = 0xFFFFFFFF  # the WAV length written by programs that write to a pipe

Waveform = Float32[np.ndarray, " T"]

_SOUND_PATTERNS: dict[str, re.Pattern[bytes]] = {
    "WAV": re.compile(rb"RIFF....WAVE", re.DOTALL),
    "FLAC": re.compile(rb"fLaC"),
    "Ogg": re.compile(rb"OggS"),
    "MP3": re.compile(rb"ID3|\xff[\xe2\xe3\xf2\xf3\xfa\xfb]"),
}
SOUND_FORMATS = tuple(_SOUND_PATTERNS)

_REFUSED_PATTERNS: dict[str, re.Pattern[bytes]] = {
    "M4A or MP4": re.compile(rb"....ftyp", re.DOTALL),
    "AAC": re.compile(rb"\xff[\xf0\xf1\xf8\xf9]"),
    "WMA": re.compile(rb"\x30\x26\xb2\x75"),
    "AIFF": re.compile(rb"FORM....AIF[FC]", re.DOTALL),
    "MIDI": re.compile(rb"MThd"),
    "AMR": re.compile(rb"#!AMR"),
    "AU": re.compile(rb"\.snd"),
    "large WAV (RF64)": re.compile(rb"RF64"),
}


def is_sound(data: bytes) -> bool:
    """Whether bytes start like a supported sound file.

    >>> is_sound(b"OggS"), is_sound(b"RIFF1234WEBP")
    (True, False)
    """
    return any(magic.match(data) for magic in _SOUND_PATTERNS.values())


def decode(payload: Payload, rate: int, *, name: str | None = None) -> Waveform:
    """Return the sound in a payload as one channel.

    Args:
        payload: a file or its bytes.
        rate: sample rate of the result, in samples/s.
        name: name of the sound in messages; the path by default.

    Raises:
        BadSound: the sound cannot be decoded safely; ``reason`` says why.
        MissingExtra: soundfile is not installed.
    """
    shown = name or (readable(str(payload)) if isinstance(payload, Path) else "sound")
    if isinstance(payload, np.ndarray):
        raise BadSound(f"{shown}: is an array of pixels, not a sound. Give an encoder for photos.", "not_a_sound")
    data = read_bytes(payload, name=shown, wrong=BadSound)
    kind = _sniff(data, shown)
    wave, own_rate = _read(data, kind, shown)
    return resample(_checked(wave, shown), own_rate, rate)


def resample(wave: Waveform, rate: int, wanted: int) -> Float32[np.ndarray, " S"]:
    """Resample a waveform; rates in samples/s (polyphase filter, Kaiser window of 5.0)."""
    if rate == wanted:
        return wave
    from scipy.signal import resample_poly

    shared = math.gcd(rate, wanted)
    return np.asarray(resample_poly(wave, wanted // shared, rate // shared), np.float32)


def _sniff(data: bytes, shown: str) -> str:
    for kind, magic in _SOUND_PATTERNS.items():
        if magic.match(data):
            return kind
    for kind, magic in _REFUSED_PATTERNS.items():
        if magic.match(data):
            raise BadSound(
                f"{shown}: is {with_article(kind)} file, which is not read. Save it as WAV or FLAC.",
                "format_not_allowed",
            )
    raise BadSound(
        f"{shown}: is not a sound, whatever its name says. Known: {', '.join(SOUND_FORMATS)}.", "not_a_sound"
    )


def _read(data: bytes, kind: str, shown: str) -> tuple[Waveform, int]:
    soundfile = _soundfile()
    try:
        with soundfile.SoundFile(BytesIO(data)) as file:
            _check_header(file, shown)
            if _ends_early(kind, data):
                raise _truncated(kind, shown)
            blocks = list(_mono(file))
            frames, rate = file.frames, file.samplerate
    except BadSound:
        raise
    except Exception as error:  # a decoder may raise anything on hostile bytes, and none of it may end a run
        message = f"{shown}: the {kind} file is damaged ({readable(str(error))[:120]}). Export it again."
        raise BadSound(message, "unreadable") from error
    wave = np.concatenate(blocks) if blocks else np.empty(0, np.float32)
    if not len(wave):
        raise BadSound(f"{shown}: the {kind} file holds no samples. Export it again.", "empty")
    if len(wave) < frames:
        raise _truncated(kind, shown)
    return wave, rate


def _soundfile() -> Any:
    try:
        import soundfile
    except (ImportError, OSError) as error:  # OSError: the package is installed but its library is missing
        raise MissingExtra(f"Sounds need soundfile ({error}). Run: pip install 'mixtura[audio]'") from error
    return soundfile


def _check_header(file: Any, shown: str) -> None:
    """Refuse a sound by its header."""
    if not MIN_RATE <= file.samplerate <= MAX_RATE:
        raise BadSound(
            f"{shown}: {file.samplerate:,} samples a second; {MIN_RATE:,} to {MAX_RATE:,} are read. Resample it.",
            "too_large" if file.samplerate > MAX_RATE else "unreadable",
        )
    if file.channels > MAX_CHANNELS:
        raise BadSound(f"{shown}: {file.channels} channels; at most {MAX_CHANNELS} are read. Mix it down.", "too_large")
    if file.frames > MAX_SECONDS * file.samplerate:
        raise BadSound(
            f"{shown}: {file.frames / file.samplerate:,.0f} seconds; at most {MAX_SECONDS} are read. Cut it.",
            "too_large",
        )


def _mono(file: Any) -> Iterator[Waveform]:
    """Yield blocks of the mean over channels, never more than the header claims."""
    left = file.frames
    while left > 0:
        block = file.read(min(left, _BLOCK_FRAMES), dtype="float32", always_2d=True)
        if not len(block):
            return
        left -= len(block)
        yield block.mean(axis=1)


def _checked(wave: Waveform, shown: str) -> Waveform:
    peak = float(np.abs(wave).max())
    if not peak <= MAX_LEVEL:  # also true for NaN
        what = f"levels up to {peak:.0e}" if math.isfinite(peak) else "NaN or infinite samples"
        raise BadSound(f"{shown}: holds {what}; samples should be in [-1, 1]. Export it again.", "not_finite")
    return wave


def _truncated(kind: str, shown: str) -> BadSound:
    message = f"{shown}: the {kind} file ends before the sound does. Copy or download it again."
    return BadSound(message, "truncated")


def _ends_early(kind: str, data: bytes) -> bool:
    """Whether the end of the file is missing in a way the decoder would not notice."""
    if kind == "WAV":
        start, size = _wav_samples(data)
        return size != _UNKNOWN_LENGTH and start + size > len(data)
    return kind == "Ogg" and not _ogg_is_whole(data)


def _wav_samples(data: bytes) -> tuple[int, int]:
    """Return the start of the samples in a WAV file and their stated size, in bytes; zeros if not stated."""
    at = 12
    for _ in range(_MAX_CHUNKS):
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        if data[at : at + 4] == b"data":
            return at + 8, size
        at += 8 + size + size % 2
    return 0, 0


def _ogg_is_whole(data: bytes) -> bool:
    """Whether the last page is marked as the last and is complete."""
    last = data[data.rfind(b"OggS") :]
    header = 27
    if len(last) < header or not last[5] & 0x04:
        return False
    lengths = last[header : header + last[26]]
    return len(last) >= header + last[26] + sum(lengths)
