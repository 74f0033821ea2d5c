"""Weights under the names of timm: the same vectors there, and what is refused."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

import mixtura
from mixtura.cli.app import run as command
from mixtura.encoders.own import write_encoder
from mixtura.encoders.torchvision_repair import import_timm
from mixtura.errors import CannotWrite, UsageError
from mixtura.pipeline.factory import encoder_of, trainable_of
from mixtura.sections import EncoderSection
from mixtura.tasks import export_timm

CLOSE = 1e-5  # of the largest number of the vectors
SIDE = 64


def photos_in(folder):
    rng = np.random.default_rng(0)
    for c in range(2):
        (folder / f"c{c}").mkdir(parents=True)
        for number in range(12):
            pixels = rng.integers(100 * c, 100 * c + 150, (SIDE, SIDE, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"c{c}" / f"{number:02}.png")
    return folder


def model_of(tmp_path, encoder):
    keys = {"encoder.size": SIDE, "extract.workers": 0} | encoder
    return mixtura.fit(photos_in(tmp_path / "photos"), tmp_path / "shop", keys).bundle_path


def trained(section, folder):
    """The name of an encoder in ``folder`` after a step of training."""
    encoder = trainable_of(section)
    network = encoder.network()
    torch.manual_seed(0)
    noise = torch.randint(0, 256, (4, 3, SIDE, SIDE), dtype=torch.uint8)
    network(noise).square().mean().backward()
    torch.optim.SGD(network.parameters(), 0.01).step()
    write_encoder(folder, encoder, network)
    return f"own:{folder}"


@pytest.fixture
def weights(tmp_path):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_file(import_timm().create_model("test_resnet").state_dict(), tmp_path / "weights.safetensors")
    return tmp_path / "weights.safetensors"


@pytest.mark.parametrize("kind", ["lite0", "timm", "own of lite0", "own of timm"])
def test_timm_gives_the_same_vectors(kind, weights, tmp_path, capsys):
    """The file alone is asked: its name of the network, its size, mean and deviation."""
    told = {"encoder.name": "timm:test_resnet", "encoder.weights": weights} if "timm" in kind else {}
    given = {"encoder.name": "lite0"} | told
    if "own" in kind:
        section = EncoderSection(**{key.removeprefix("encoder."): value for key, value in given.items()}, size=SIDE)
        given = {"encoder.name": trained(section, tmp_path / "trained")}
    model = model_of(tmp_path, given)
    file = tmp_path / "encoder.safetensors"
    assert command(["export", str(model), "--timm", str(file), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    with safe_open(file, "pt") as opened:
        facts = opened.metadata()
    assert said["timm_name"] == facts["timm_name"]
    assert json.loads(facts["input_size"]) == [3, SIDE, SIDE]
    theirs = import_timm().create_model(facts["timm_name"], num_classes=0, checkpoint_path=str(file)).eval()
    encoder = encoder_of(mixtura.from_pretrained(model).encoder)
    batch = torch.stack([encoder.prepare(Image.open(path)) for path in sorted(tmp_path.glob("photos/*/00.png"))])
    mean, std = (torch.tensor(json.loads(facts[key])).reshape(1, 3, 1, 1) for key in ("mean", "std"))
    with torch.no_grad():
        found = theirs((batch / 255 - mean) / std)
    expected = encoder.encode(batch)[:, : found.shape[1]]  # what taps add comes after it
    assert expected.shape == found.shape
    assert (found - expected).abs().max() <= CLOSE * expected.abs().max()


def test_other_networks_and_other_options_are_refused(tmp_path, capsys):
    model, file = model_of(tmp_path, {"encoder.name": "tiny"}), tmp_path / "encoder.safetensors"
    with pytest.raises(UsageError, match="not one of timm's"):
        export_timm.run(model, file)
    with pytest.raises(UsageError, match="does not end with"):
        export_timm.run(model, tmp_path / "encoder.pth")
    assert command(["export", str(model), "--timm", str(file), "-o", str(tmp_path / "onnx")]) == 2
    assert "Leave out" in capsys.readouterr().err
    assert not file.exists()


def test_only_an_earlier_export_is_replaced(weights, tmp_path):
    model = model_of(tmp_path, {"encoder.name": "timm:test_resnet", "encoder.weights": weights})
    before = (model / "model.safetensors").read_bytes()
    for other in (model / "model.safetensors", weights):
        with pytest.raises(CannotWrite, match="exists"):
            export_timm.run(model, other)
    assert (model / "model.safetensors").read_bytes() == before
    file = tmp_path / "new" / "encoder.safetensors"
    assert export_timm.run(model, file).size == export_timm.run(model, file).size == file.stat().st_size
