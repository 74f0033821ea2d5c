"""What holds of every encoder of photos in the table; those of sounds have a kit of their own."""

import numpy as np
import pytest
import torch
from PIL import Image

from mixtura.encoders import ENCODERS
from mixtura.encoders.common import checked_device, hash_tensors, split_name
from mixtura.encoders.sizes import size_of
from mixtura.errors import UsageError
from mixtura.identity import blocks_of, fingerprint
from mixtura.interfaces import Encoder
from mixtura.names import find

SOUNDS = {"soundnet", "logmel", "clap", "imagebind"}  # see test_sound_encoders.py
DRAWN = ["cnn", "resnet12", "resnet32", "autoencoder"]
NAMES = ["lite0", "pixels", "tiny", "timm:test_resnet@{weights}", "hf:{vit}", "own:{own}", "imagebind-vision", *DRAWN]
FURTHER = {"options", "init", "network"}  # what the identities of some say too
TAPPED = [("lite0", "auto"), ("tiny", "last-2"), ("timm:test_resnet@{weights}", "auto"), ("hf:{vit}", "last-1")]


def photo(width, height, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def test_the_list_covers_the_table():
    assert {split_name(name)[0] for name in NAMES} == set(ENCODERS) - SOUNDS


@pytest.fixture(params=[*((name, None) for name in NAMES), *TAPPED])
def taps(request):
    return request.param[1]


@pytest.fixture
def make(request, taps, resnet_weights, vit_folder, own_folder):
    name = request.node.callspec.params["taps"][0]
    key, options = split_name(name.format(weights=resnet_weights, vit=vit_folder, own=own_folder))
    options |= {"taps": taps} if taps else {}
    options |= {"weights": request.getfixturevalue("imagebind_weights")} if name == "imagebind-vision" else {}
    return lambda **more: find(ENCODERS, key)(**options, **more)


def test_is_an_encoder(make, taps):
    encoder = make(size=48)
    assert isinstance(encoder, Encoder)
    assert encoder.fingerprint == fingerprint(encoder.identity)
    told = {"taps"} if taps else set()
    assert {"name", "size", "weights", "preprocessing", "dtype"} | told == set(encoder.identity) - FURTHER
    assert not taps or blocks_of(encoder.identity)[-1].stop == encoder.dimension
    assert all(isinstance(value, str) for value in [*encoder.identity.values(), *encoder.versions.values()])
    assert encoder.draft is None or encoder.draft >= 2 * 48


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P"])
def test_any_photo_gives_one_finite_vector(make, mode):
    encoder = make(size=48)
    photos = [photo(w, h).convert(mode) for w, h in ((1, 1), (300, 3), (48, 48), (33, 90))]
    found = encoder.encode(torch.stack([encoder.prepare(image) for image in photos]))
    assert found.shape == (4, encoder.dimension)
    assert found.dtype == torch.float32
    assert torch.isfinite(found).all()
    assert not found.requires_grad


def test_same_settings_same_vectors_and_fingerprint(make):
    first, second, other = make(size=48), make(size=48), make(size=64)
    batch = torch.stack([first.prepare(photo(50, 60, seed)) for seed in range(3)])
    assert first.fingerprint == second.fingerprint != other.fingerprint
    torch.testing.assert_close(first.encode(batch), second.encode(batch))


def test_the_size_that_is_recorded_makes_the_same_encoder(make):
    own = make()
    again = make(size=size_of(own.identity))
    assert again.identity == own.identity
    batch = own.prepare(photo(50, 60))[None]
    torch.testing.assert_close(own.encode(batch), again.encode(batch))


@pytest.mark.parametrize("size", [0, -1, 100_000])
def test_a_size_that_no_network_takes_is_refused(make, size):
    with pytest.raises(UsageError, match=f"Encoder size {size} px is out of range. Give a side of"):
        make(size=size)


def test_photos_differ_and_order_does_not_matter(make):
    encoder = make(size=48)
    batch = torch.stack([encoder.prepare(photo(50, 60, seed)) for seed in range(4)])
    found = encoder.encode(batch)
    assert torch.pdist(found).min() > 1e-4
    torch.testing.assert_close(encoder.encode(batch.flip(0)).flip(0), found, rtol=1e-4, atol=1e-5)


def test_encoding_leaves_the_random_state_alone(make):
    encoder = make(size=48)
    before = torch.get_rng_state()
    encoder.encode(encoder.prepare(photo(50, 60))[None])
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", ["pixels"])
def test_weights_where_there_are_none(name, tmp_path):
    with pytest.raises(UsageError, match=f"{name!r} has no weight file"):
        find(ENCODERS, name)(weights=tmp_path / "w.safetensors")


@pytest.mark.parametrize("device", ["cuda:99", "abacus"])
def test_a_device_that_is_not_here(device):
    with pytest.raises(UsageError, match=f"{device}.*cannot be used"):
        checked_device(device)


@pytest.mark.parametrize("name", ["timm", "timm:", "timm:resnet18@", "timm:@file"])
def test_incomplete_names(name):
    with pytest.raises(UsageError, match=r"timm:NAME"):
        split_name(name)


def test_pixels_are_the_pixels():
    image = photo(8, 8)
    encoder = find(ENCODERS, "pixels")(size=8)
    expected = np.asarray(image).transpose(2, 0, 1).reshape(-1) / 255
    np.testing.assert_allclose(encoder.encode(encoder.prepare(image)[None])[0].numpy(), expected, rtol=1e-6)


def test_the_hash_of_weights_sees_names_values_shapes_and_formats():
    base = {"a": torch.arange(4.0), "b": torch.ones(2)}
    variants = [
        base,
        {"a": torch.arange(4.0), "c": torch.ones(2)},
        {"a": torch.arange(4.0).reshape(2, 2), "b": torch.ones(2)},
        {"a": torch.arange(4.0, dtype=torch.float64), "b": torch.ones(2)},
        {"a": torch.arange(4.0) + 1e-7, "b": torch.ones(2)},
    ]
    assert len({hash_tensors(tensors) for tensors in variants}) == len(variants)
    assert hash_tensors(dict(reversed(base.items()))) == hash_tensors(base)
