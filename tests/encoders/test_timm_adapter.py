"""The timm adapter against timm itself."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from mixtura.encoders.timm import Timm
from mixtura.encoders.torchvision_repair import import_timm
from mixtura.errors import DataError, NoInput, UnknownName, UsageError


def photo(width, height, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("size", [None, 96])
def test_equals_timms_own_pipeline(resnet_weights, size):
    timm = import_timm()
    network = timm.create_model("test_resnet", pretrained=False)
    network.load_state_dict(load_file(resnet_weights))
    network.reset_classifier(0)
    config = timm.data.resolve_model_data_config(network) | ({"input_size": (3, size, size)} if size else {})
    transform = timm.data.create_transform(**config)
    photos = [photo(200, 150, 0), photo(80, 120, 1)]
    with torch.inference_mode():
        expected = network.eval()(torch.stack([transform(image) for image in photos]))
    encoder = Timm("test_resnet", size, resnet_weights)
    found = encoder.encode(torch.stack([encoder.prepare(image) for image in photos]))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_the_file_format_does_not_change_the_identity(resnet_weights, tmp_path):
    torch.save(load_file(resnet_weights), tmp_path / "w.pth")
    assert (
        Timm("test_resnet", weights=tmp_path / "w.pth").fingerprint
        == Timm("test_resnet", weights=resnet_weights).fingerprint
    )


def test_a_transformer_takes_its_size(tmp_path):
    network = import_timm().create_model("test_vit", pretrained=False, img_size=96)
    save_file(network.state_dict(), tmp_path / "v.safetensors")
    encoder = Timm("test_vit", 96, tmp_path / "v.safetensors")
    assert encoder.encode(encoder.prepare(photo(100, 100))[None]).shape == (1, encoder.dimension)
    with pytest.raises(DataError, match="'pos_embed'"):
        Timm("test_vit", None, tmp_path / "v.safetensors")
    with pytest.raises(DataError, match="cannot read photos at 128 px with these weights; leave the size out"):
        Timm("test_vit", 128, tmp_path / "v.safetensors")


@pytest.mark.parametrize("size", [0, -1, 100_000])
def test_a_senseless_size_is_refused(resnet_weights, size):
    with pytest.raises(UsageError, match=f"{size} px is out of range. Give a side of 1 to 4096 pixels"):
        Timm("test_resnet", size, resnet_weights)


def test_unknown_network_names_near_ones():
    with pytest.raises(UnknownName, match=r"no network 'resnt18'. Near: .*resnet18"):
        Timm("resnt18")


def test_missing_extra_and_reshaped_tensors_are_refused(resnet_weights, tmp_path):
    tensors = load_file(resnet_weights)
    name = next(iter(tensors))
    wrong = {
        "missing": {key: value for key, value in tensors.items() if key != name},
        "extra": tensors | {"surprise": torch.zeros(1)},
        "shape": tensors | {name: torch.zeros(2)},
    }
    for case, content in wrong.items():
        save_file(content, tmp_path / f"{case}.safetensors")
        with pytest.raises(DataError, match="does not fit the network: 1 tensors"):
            Timm("test_resnet", weights=tmp_path / f"{case}.safetensors")


def test_weights_that_are_no_weights(tmp_path):
    with pytest.raises(NoInput, match="missing or unreadable"):
        Timm("test_resnet", weights=tmp_path / "none.safetensors")
    for name, content in (("a.safetensors", b"junk"), ("b.pth", b"junk"), ("c.pth", b"cos\nsystem\n(S'false'\ntR.")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match="is no weight file"):
            Timm("test_resnet", weights=tmp_path / name)


def test_a_size_that_the_network_cannot_take(tmp_path):
    with pytest.raises(UsageError, match="0 px is out of range"):
        Timm("test_resnet", 0, tmp_path / "any")


@pytest.mark.slow
def test_without_a_hub_the_message_names_the_local_form():
    code = (
        "from mixtura.encoders.timm import Timm\n"
        "from mixtura.errors import NoInput\n"
        "try:\n    Timm('test_resnet')\nexcept NoInput as error:\n    print(error)\n"
    )
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": "/nonexistent", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=120)
    assert "timm:test_resnet@weights.safetensors" in done.stdout, done.stderr
