"""Every accepted kind of sound has one meaning, and every hostile one is refused for a stated reason."""

import os
import struct
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from mixtura.datasets import sound as module
from mixtura.datasets.decode import MAX_BYTES
from mixtura.datasets.sound import MAX_CHANNELS, MAX_SECONDS, decode, is_sound, resample
from mixtura.errors import BadSound, MissingExtra

RATE = 8000


def reason(payload) -> str:
    with pytest.raises(BadSound) as caught:
        decode(payload, RATE, name="sound")
    assert str(caught.value).startswith("sound: ")
    return caught.value.reason


def wav(samples=b"\0\0" * 100, *, rate=RATE, channels=1, bits=16, kind=1, claimed=None) -> bytes:
    """A WAV file that may claim what it does not hold."""
    align = channels * bits // 8
    body = b"WAVEfmt " + struct.pack("<IHHIIHH", 16, kind, channels, rate, rate * align, align, bits)
    body += b"data" + struct.pack("<I", len(samples) if claimed is None else claimed) + samples
    return b"RIFF" + struct.pack("<I", len(body)) + body


@pytest.mark.parametrize(
    ("format", "subtype", "error"),
    [
        ("WAV", "PCM_16", 1e-4),
        ("WAV", "PCM_24", 1e-6),
        ("WAV", "FLOAT", 0),
        ("WAV", "DOUBLE", 1e-7),
        ("WAV", "PCM_U8", 1e-2),
        ("WAV", "ULAW", 5e-2),
        ("FLAC", "PCM_16", 1e-4),
        ("OGG", "VORBIS", 5e-2),
    ],
)
def test_formats_hold_what_was_written(written, tone, format, subtype, error):
    samples = tone()
    found = decode(written(samples, RATE, format, subtype), RATE)
    assert found.dtype == np.float32
    assert found.shape == (4000,)
    np.testing.assert_allclose(found, samples[:, 0], atol=error)


def test_mp3_holds_the_tone(written, tone):
    found = decode(written(tone(1.0, 16_000), 16_000, "MP3"), 16_000)
    assert abs(len(found) - 16_000) < 2400
    peak = np.abs(np.fft.rfft(found * np.hanning(len(found)))).argmax() * 16_000 / len(found)
    assert peak == pytest.approx(440, abs=2)


def test_opus_is_read(written, tone):
    found = decode(written(tone(1.0, 48_000), 48_000, "OGG", "OPUS"), 48_000)
    assert abs(len(found) - 48_000) < 100


@pytest.mark.parametrize("channels", [1, 2, MAX_CHANNELS])
def test_channels_are_averaged(written, channels):
    samples = np.random.default_rng(0).uniform(-1, 1, (70_000, channels)).astype(np.float32)
    found = decode(written(samples, RATE, "WAV", "FLOAT"), RATE)
    np.testing.assert_allclose(found, samples.mean(1), atol=1e-6)


@pytest.mark.parametrize(("own", "wanted"), [(44_100, 22_050), (8000, 22_050), (11_025, 48_000), (48_000, 16_000)])
def test_resampling_keeps_the_tone_and_the_length(tone, own, wanted):
    found = resample(tone(1.0, own)[:, 0], own, wanted)
    assert len(found) == wanted
    middle = slice(wanted // 10, -wanted // 10)
    np.testing.assert_allclose(found[middle], tone(1.0, wanted)[middle, 0], atol=2e-3)


def test_the_same_rate_changes_nothing(tone):
    wave = tone()[:, 0]
    assert resample(wave, RATE, RATE) is wave


def test_paths_and_bytes_mean_the_same(tmp_path, written):
    path = tmp_path / "a.jpg"  # the name says nothing
    path.write_bytes(written())
    np.testing.assert_array_equal(decode(path, RATE), decode(written(), RATE))


def test_threads_get_the_same(written):
    data = written(format="FLAC")
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: decode(data, 11_025), range(16)))
    assert all(np.array_equal(found[0], other) for other in found)


def test_a_length_that_a_pipe_could_not_know_is_no_fault():
    assert len(decode(wav(claimed=0xFFFFFFFF), RATE)) == 100


def hostile(written) -> dict[str, tuple[bytes, str]]:
    """Files by what is wrong with them, and the reason for which each is refused."""
    nan, huge = np.full(800, np.nan, np.float32), np.full(800, 1e30, np.float32)
    rng = np.random.default_rng(0)
    noise, wild = rng.bytes(4000), rng.uniform(-0.5, 0.5, 5 * RATE)  # several pages of Ogg
    flac, ogg, mp3 = written(format="FLAC"), written(wild, format="OGG"), written(format="MP3", rate=16_000)
    hours = bytearray(flac)
    hours[21] |= 0x0F  # the upper bits of the number of samples, in the first block of a FLAC
    return {
        "text": (b"these are words, not waves", "not_a_sound"),
        "nothing": (b"", "empty"),
        "zeros": (b"\0" * 1000, "not_a_sound"),
        "noise": (b"\x01" + noise, "not_a_sound"),
        "above the limit": (b"RIFF" + bytes(MAX_BYTES), "too_large"),
        "WAV cut off": (written()[:-1000], "truncated"),
        "WAV of a header": (wav(b""), "empty"),
        "WAV cut in its header": (written()[:20], "unreadable"),
        "WAV without samples": (b"RIFF\x04\0\0\0WAVE", "unreadable"),
        "WAV that claims hours": (wav(claimed=0x7FFFFFF0), "truncated"),
        "WAV of hours": (wav(bytes(2 * 1000 * (MAX_SECONDS + 1)), rate=1000), "too_large"),
        "WAV of no channels": (wav(channels=0), "unreadable"),
        "WAV of many channels": (wav(bytes(2 * 64 * 10), channels=64), "too_large"),
        "WAV of no rate": (wav(rate=0), "unreadable"),
        "WAV of a wild rate": (wav(rate=2_000_000_000), "too_large"),
        "WAV of an unknown code": (wav(kind=0x4242), "unreadable"),
        "WAV of NaN": (wav(nan.tobytes(), bits=32, kind=3), "not_finite"),
        "WAV of infinity": (wav((nan * 0 + np.inf).tobytes(), bits=32, kind=3), "not_finite"),
        "WAV of huge levels": (wav(huge.tobytes(), bits=32, kind=3), "not_finite"),
        "WAV of endless chunks": (b"RIFF....WAVE" + b"junk\0\0\0\0" * 5000, "unreadable"),
        "FLAC that claims hours": (bytes(hours), "too_large"),
        "FLAC cut off": (flac[: len(flac) // 2], "unreadable"),
        "FLAC of a header": (flac[:42], "unreadable"),
        "FLAC of noise": (b"fLaC" + noise, "unreadable"),
        "Ogg cut off": (ogg[: len(ogg) * 2 // 3], "truncated"),
        "Ogg of noise": (b"OggS" + noise, "unreadable"),
        "MP3 of noise": (b"ID3" + noise, "unreadable"),
        "MP3 of a header": (mp3[:8], "unreadable"),
        "M4A": (b"\0\0\0\x20ftypM4A ", "format_not_allowed"),
        "AIFF": (b"FORM\0\0\0\0AIFF", "format_not_allowed"),
        "WebP": (b"RIFF\0\0\0\0WEBPVP8 ", "not_a_sound"),
        "JPEG": (b"\xff\xd8\xff\xe0", "not_a_sound"),
    }


def test_hostile_files_are_refused_with_a_reason(written):
    cases = hostile(written)
    found = {what: reason(data) for what, (data, _) in cases.items()}
    assert found == {what: expected for what, (_, expected) in cases.items()}


def test_damaged_files_never_raise_anything_else(written):
    rng = np.random.default_rng(0)
    for format in ("WAV", "FLAC", "OGG", "MP3"):
        data = written(rate=16_000, format=format)
        for _ in range(25):
            broken = bytearray(data)
            for place in rng.integers(0, len(data), 8):
                broken[place] = rng.integers(256)
            try:
                found = decode(bytes(broken[: rng.integers(1, len(data) + 1)]), RATE)
            except BadSound:
                continue
            assert np.isfinite(found).all()
            assert len(found)


def test_what_is_no_regular_file(tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "loop.wav").symlink_to(tmp_path / "loop.wav")
    paths = [tmp_path, tmp_path / "pipe.wav", tmp_path / "loop.wav", tmp_path / "none.wav", tmp_path / "nul\0.wav"]
    assert [reason(path) for path in paths] == ["not_a_file"] * 5


def test_pixels_are_no_sound():
    assert reason(np.zeros((4, 4), np.uint8)) == "not_a_sound"


def test_sounds_are_told_from_pictures(written):
    assert all(is_sound(written(format=format, rate=16_000)) for format in ("WAV", "FLAC", "OGG", "MP3"))
    assert not any(is_sound(data) for data in (b"", b"RIFF1234WEBP", b"\xff\xd8\xff", b"\x89PNG", b"P5 "))


def test_without_the_library(monkeypatch, written):
    monkeypatch.setitem(sys.modules, "soundfile", None)
    with pytest.raises(MissingExtra, match=r"pip install 'mixtura\[audio\]'"):
        decode(written(), RATE)


def test_nothing_long_is_decoded_before_it_is_refused(monkeypatch, written):
    monkeypatch.setattr(module, "_mono", lambda file: pytest.fail("decoded"))
    assert reason(wav(bytes(2 * 1000 * (MAX_SECONDS + 1)), rate=1000)) == "too_large"
