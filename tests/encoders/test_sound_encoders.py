"""What holds of every encoder of sounds in the table, and of each for itself."""

import json
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from mixtura.encoders import ENCODERS
from mixtura.encoders.common import hash_tensors, split_name
from mixtura.encoders.sounds import Clips, cut
from mixtura.encoders.torchvision_repair import import_transformers
from mixtura.errors import DataError, MissingExtra, NoInput, UsageError
from mixtura.identity import fingerprint
from mixtura.interfaces import Encoder, SoundEncoder
from mixtura.names import find

NAMES = ["soundnet", "logmel", "clap plain", "clap fused", "imagebind"]


def sound(seconds, rate, seed=0):
    """Noise that comes and goes, with a tone."""
    time = np.arange(max(1, round(seconds * rate))) / rate
    noise = np.random.default_rng(seed).standard_normal(len(time)) * np.abs(np.sin(3 * time + seed))
    return (0.1 * noise + 0.2 * np.sin(2 * np.pi * (300 + 200 * seed) * time)).astype(np.float32)


@pytest.fixture(params=NAMES)
def make(request):
    def build(name, **more):
        return find(ENCODERS, name)(**more)

    name, _, kind = request.param.partition(" ")
    if kind:
        folder = request.getfixturevalue("clap_folders")[kind]
        return lambda **more: build(name, model=str(folder), **more)
    if name == "logmel":
        return lambda **more: build(name, **more)
    weights = request.getfixturevalue(f"{name}_weights")
    return lambda **more: build(name, weights=weights, **more)


def encode(encoder, wave):
    return encoder.encode(encoder.prepare(wave)[None])[0]


def test_is_an_encoder_of_sounds(make):
    encoder = make()
    assert isinstance(encoder, SoundEncoder)
    assert not isinstance(encoder, Encoder)
    assert encoder.fingerprint == fingerprint(encoder.identity)
    assert set(encoder.identity) == {"name", "weights", "preprocessing", "clips", "normalization", "dtype"}
    assert all(isinstance(value, str) for value in [*encoder.identity.values(), *encoder.versions.values()])


@pytest.mark.parametrize("seconds", [1e-5, 0.05, 0.7, 2.0, 3.3])
@pytest.mark.parametrize("how", ["none", "mean"])
def test_any_length_gives_one_finite_vector(make, seconds, how):
    encoder = make(clips=Clips(how))
    found = encode(encoder, sound(seconds, encoder.sample_rate))
    assert found.shape == (encoder.dimension,)
    assert found.dtype == torch.float32
    assert torch.isfinite(found).all()
    assert not found.requires_grad


def test_silence_gives_finite_numbers(make):
    encoder = make()
    assert torch.isfinite(encode(encoder, np.zeros(encoder.sample_rate, np.float32))).all()


def test_same_settings_same_vectors_and_fingerprint_whatever_rolls(make):
    first, second = make(), make()
    wave = sound(3.3, first.sample_rate)
    np.random.seed(1)  # noqa: NPY002  processors of transformers draw from the global state
    one = encode(first, wave)
    np.random.seed(2)  # noqa: NPY002
    torch.testing.assert_close(encode(second, wave), one, rtol=0, atol=0)
    assert first.fingerprint == second.fingerprint


def test_sounds_differ_and_neighbors_in_a_batch_do_not_matter(make):
    encoder = make()
    batch = torch.stack([encoder.prepare(sound(1.5, encoder.sample_rate, seed)) for seed in range(4)])
    found = encoder.encode(batch)
    assert torch.pdist(found).min() > 1e-4
    alone = torch.cat([encoder.encode(one[None]) for one in batch])
    torch.testing.assert_close(alone, found, rtol=1e-4, atol=1e-4)


def test_averaging_is_the_mean_of_the_clips(make):
    averaged = make(clips=Clips("mean"))
    single = make(clips=Clips("none"))
    seconds, rate = averaged.clips.seconds, averaged.sample_rate
    wave = sound(2.5 * seconds, rate)
    length = round(seconds * rate)
    parts = [wave[:length], wave[length : 2 * length], wave[-length:]]
    expected = torch.stack([encode(single, part) for part in parts]).mean(0)
    torch.testing.assert_close(encode(averaged, wave), expected, rtol=1e-4, atol=1e-4)


def test_every_option_is_part_of_the_identity(make):
    plain = make()
    others = [make(normalize=not plain.normalize), make(clips=Clips("mean", hop=0.5)), make(clips=Clips("none"))]
    prints = {encoder.fingerprint for encoder in [plain, *others]}
    assert len(prints) == 4 - (plain.clips.how == "none")
    for encoder in [plain, *others]:
        told = Clips.from_identity(encoder.identity)
        assert told.how == encoder.clips.how
        assert told.how == "none" or told == encoder.clips


def test_unit_length_where_it_is_asked_for(make):
    encoder = make(normalize=True, clips=Clips("none"))
    assert encode(encoder, sound(1.0, encoder.sample_rate)).norm().item() == pytest.approx(1, abs=1e-5)
    other = make(normalize=False, clips=Clips("none"))
    assert encode(other, sound(1.0, other.sample_rate)).norm().item() != pytest.approx(1, abs=1e-3)


def test_a_size_in_pixels_is_refused(make):
    with pytest.raises(UsageError, match=r"takes sounds, and a size of 96 px was given"):
        make(size=96)


@pytest.mark.parametrize(
    ("clips", "said"),
    [
        (Clips("max"), "'max' are unknown"),
        (Clips("mean", seconds=-1.0), "out of range"),
        (Clips("mean", hop=0.0), "out of range"),
        (Clips("mean", seconds=float("nan")), "out of range"),
    ],
)
def test_clips_that_make_no_sense(make, clips, said):
    with pytest.raises(UsageError, match=said):
        make(clips=clips)


@pytest.mark.parametrize("make", ["clap plain", "imagebind"], indirect=True)
def test_networks_of_one_length_say_so(make):
    with pytest.raises(UsageError, match=r"takes clips of \d.0 s only, not 0.7 s"):
        make(clips=Clips("mean", seconds=0.7))


@pytest.mark.parametrize(("length", "hop"), [(4, 4), (4, 2), (4, 1), (3, 5), (100, 7)])
def test_clips_cover_the_sound_to_its_end(length, hop):
    wave = np.arange(23, dtype=np.float32)
    clips = cut(wave, length, hop)
    assert {len(clip) for clip in clips} == {min(length, 23)}
    assert clips[-1][-1] == 22
    assert [clip[0] for clip in clips[:-1]] == [hop * i for i in range(len(clips) - 1)]
    if hop <= length:
        assert {value for clip in clips for value in clip} == set(wave)


# SoundNet


def test_soundnet_is_the_published_network(soundnet_weights, soundnet_tensors):
    """Against modules of torch, convolution, batch norm and pooling one by one."""
    modules = []
    for index, (padding, pool) in enumerate([(32, 8), (16, 8), (8, 1), (4, 1), (2, 4)], 1):
        part = {name.partition(".")[2]: t for name, t in soundnet_tensors.items() if name.startswith(f"conv{index}.")}
        out, into, width = part["weights"].shape
        convolution, norm = nn.Conv1d(into, out, width, 2, padding), nn.BatchNorm1d(out)
        convolution.load_state_dict({"weight": part["weights"], "bias": part["biases"]})
        statistics = {"running_mean": part["mean"], "running_var": part["var"], "num_batches_tracked": torch.tensor(0)}
        norm.load_state_dict({"weight": part["gamma"], "bias": part["beta"], **statistics})
        modules += [convolution, norm, nn.ReLU(), nn.MaxPool1d(pool)]
    wave = sound(1.3, 22_050)
    with torch.no_grad():
        maps = nn.Sequential(*modules).eval()(256 * torch.from_numpy(wave)[None, None])[0]
    expected = torch.cat([maps.mean(1), maps.amax(1)])
    found = encode(find(ENCODERS, "soundnet")(weights=soundnet_weights), wave)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


# CLAP


@pytest.mark.parametrize("kind", ["plain", "fused"])
def test_clap_is_what_transformers_computes(clap_folders, kind):
    transformers = import_transformers()
    clap_folder = clap_folders[kind]
    extractor = transformers.ClapFeatureExtractor.from_pretrained(clap_folder)
    network = transformers.ClapAudioModelWithProjection.from_pretrained(clap_folder).eval()
    wave = sound(0.6, 48_000)
    inputs = extractor(wave, sampling_rate=48_000, return_tensors="pt")
    inputs["is_longer"] = torch.zeros(1, 1, dtype=torch.bool)
    with torch.no_grad():
        expected = network(**inputs).audio_embeds[0]
    encoder = find(ENCODERS, "clap")(model=str(clap_folder), normalize=False)
    torch.testing.assert_close(encode(encoder, wave), expected, rtol=1e-4, atol=1e-5)
    assert (encoder.dimension, encoder.sample_rate, encoder.clips) == (16, 48_000, Clips("mean", 1.0, 1.0))


def test_clap_tells_other_weights_apart(clap_folders, tmp_path):
    transformers = import_transformers()
    clap_folder = clap_folders["plain"]
    network = transformers.ClapAudioModelWithProjection.from_pretrained(clap_folder)
    with torch.no_grad():
        network.audio_projection.linear1.bias.add_(1e-3)
    network.save_pretrained(tmp_path)
    transformers.ClapFeatureExtractor.from_pretrained(clap_folder).save_pretrained(tmp_path)
    first, other = (find(ENCODERS, "clap")(model=str(folder)) for folder in (clap_folder, tmp_path))
    assert first.identity["weights"] != other.identity["weights"]


def test_clap_that_is_not_there(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "clap_audio_model"}))
    with pytest.raises(NoInput, match="cannot be had"):
        find(ENCODERS, "clap")(model=str(tmp_path))


def test_clap_with_weights_that_are_not_there(clap_folders, tmp_path):
    with pytest.raises(NoInput, match=r"w\.safetensors are missing"):
        find(ENCODERS, "clap")(model=str(clap_folders["plain"]), weights=tmp_path / "w.safetensors")


@pytest.mark.parametrize("name", ["clap", "clap:"])
def test_clap_needs_the_name_of_a_network(name):
    with pytest.raises(UsageError, match=r"incomplete. Write clap:NAME of the hub, or clap:FOLDER"):
        split_name(name)


def test_clap_without_transformers(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtra, match=r"pip install 'mixtura\[hf\]'"):
        find(ENCODERS, "clap")(model="any")


# ImageBind


def test_imagebind_calls_the_package(imagebind_weights):
    encoder = find(ENCODERS, "imagebind")(weights=imagebind_weights, normalize=False)
    wave = sound(2.0, 16_000)
    spectrum = encoder._data.waveform2melspec(torch.from_numpy(wave.copy())[None], 16_000, 128, 204)
    weights = torch.load(imagebind_weights, weights_only=True)
    mean = ((spectrum + 4.268) / 9.138).mean(2)[0]
    expected = 3 * torch.tanh(weights["modality_trunks.audio.weight"] @ mean + weights["modality_trunks.audio.bias"])
    torch.testing.assert_close(encode(encoder, wave), expected, rtol=1e-4, atol=1e-5)
    assert encoder.dimension == 24


def test_imagebind_that_is_not_installed():
    with pytest.raises(MissingExtra, match=r"no dependency of mixtura.*CC-BY-NC-SA.*mixtura data import"):
        find(ENCODERS, "imagebind")()


def test_imagebind_without_its_weights(imagebind_weights, tmp_path):
    with pytest.raises(NoInput, match="own weights cannot be had"):
        find(ENCODERS, "imagebind")()
    with pytest.raises(NoInput, match="missing or unreadable"):
        find(ENCODERS, "imagebind")(weights=tmp_path / "none.pth")
    other = tmp_path / "other.safetensors"
    save_file({"modality_trunks.audio.weight": torch.zeros(2, 2)}, other)
    with pytest.raises(DataError, match="does not fit the network"):
        find(ENCODERS, "imagebind")(weights=other)


def test_imagebind_keeps_its_audio_branch_and_names_all_weights(imagebind_weights):
    encoder = find(ENCODERS, "imagebind")(weights=imagebind_weights)
    assert set(encoder._network.state_dict()) == {"modality_trunks.audio.weight", "modality_trunks.audio.bias"}
    assert encoder.identity["weights"] == hash_tensors(torch.load(imagebind_weights, weights_only=True))
