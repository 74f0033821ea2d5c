"""The log-mel front end against transformers' own, and its laws."""

import numpy as np
import pytest
import torch

from mixtura.encoders.logmel import Bank, LogMel, from_mel, log_mel, to_mel
from mixtura.encoders.torchvision_repair import import_transformers


@pytest.fixture(scope="module")
def audio():
    return import_transformers().audio_utils


@pytest.mark.parametrize("scale", ["htk", "slaney"])
def test_mel_there_and_back(audio, scale):
    hertz = torch.tensor([0.0, 1.0, 440.0, 999.9, 1000.0, 1000.1, 8000.0, 20_000.0], dtype=torch.float64)
    mel = to_mel(hertz, scale)
    np.testing.assert_allclose(mel.numpy(), audio.hertz_to_mel(hertz.numpy(), scale), rtol=1e-9)
    torch.testing.assert_close(from_mel(mel, scale), hertz, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("scale", ["htk", "slaney"])
@pytest.mark.parametrize("area", [True, False])
@pytest.mark.parametrize(
    ("bands", "low", "high", "window", "rate"), [(64, 50, 14_000, 1024, 48_000), (40, 0, 4000, 512, 8000)]
)
def test_filters_are_those_of_transformers(audio, scale, area, bands, low, high, window, rate):
    found = Bank(bands, float(low), float(high), scale, area).filters(window, rate)
    expected = audio.mel_filter_bank(
        window // 2 + 1, bands, low, high, rate, norm="slaney" if area else None, mel_scale=scale
    ).T
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5, atol=1e-9)


def test_spectra_are_those_of_the_processor_of_clap():
    extractor = import_transformers().ClapFeatureExtractor(max_length_s=1, truncation="rand_trunc")
    wave = np.random.default_rng(0).standard_normal(48_000).astype(np.float32)
    expected = extractor(wave, sampling_rate=48_000, return_tensors="np")["input_features"][0, 0].T
    filters = Bank(64, 0.0, 14_000.0, "slaney", True).filters(1024, 48_000)
    found = log_mel(torch.from_numpy(wave)[None], filters, 480)[0] * (10 / np.log(10))  # nepers to decibels
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4, atol=1e-3)


def test_silence_is_the_least_energy():
    filters = Bank().filters(1024, 22_050)
    assert log_mel(torch.zeros(1, 4096), filters, 512).unique().tolist() == pytest.approx([np.log(1e-10)])


def test_a_tone_lights_its_band():
    time = torch.arange(22_050) / 22_050
    encoder = LogMel()
    for hertz in (200.0, 1000.0, 5000.0):
        wave = torch.sin(2 * torch.pi * hertz * time).numpy()
        mean = encoder.encode(encoder.prepare(wave)[None])[0, :64]
        center = Bank().filters(1024, 22_050)[mean.argmax()].argmax() * 22_050 / 1024
        assert abs(center.item() - hertz) < 0.1 * hertz


def test_twice_as_loud_moves_the_means_only():
    encoder = LogMel()
    wave = np.random.default_rng(0).standard_normal(22_050).astype(np.float32) / 4
    soft, loud = (encoder.encode(encoder.prepare(x)[None])[0] for x in (wave, 2 * wave))
    torch.testing.assert_close(loud[:64] - soft[:64], torch.full((64,), 2 * np.log(2)).float(), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(loud[64:], soft[64:], rtol=1e-3, atol=1e-3)
