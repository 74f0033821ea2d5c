"""Sounds on disk."""

import io

import numpy as np
import pytest
import soundfile


@pytest.fixture(scope="session")
def tone():
    """A function from (seconds, rate, channels, hertz) to samples, frames x channels."""

    def make(seconds=0.5, rate=8000, channels=1, hertz=440.0):
        time = np.arange(round(seconds * rate)) / rate
        wave = 0.5 * np.sin(2 * np.pi * hertz * time)
        return np.stack([wave] * channels, axis=1).astype(np.float32)

    return make


@pytest.fixture(scope="session")
def written(tone):
    """A function from samples, a rate and a format to the bytes of a file."""

    def make(samples=None, rate=8000, format="WAV", subtype=None):
        target = io.BytesIO()
        soundfile.write(target, tone(rate=rate) if samples is None else samples, rate, format=format, subtype=subtype)
        return target.getvalue()

    return make
