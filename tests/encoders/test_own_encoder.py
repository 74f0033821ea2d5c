"""A trained encoder in a folder: the same vectors anywhere, nothing from elsewhere, and names that timm knows."""

import json
import shutil

import pytest
import torch
from PIL import Image

from mixtura.encoders.cnn import Cnn
from mixtura.encoders.hf import HuggingFace
from mixtura.encoders.lite0 import Lite0, packaged_weights
from mixtura.encoders.own import (
    DESCRIPTION_FILE,
    WEIGHTS_FILE,
    Own,
    encoder_files,
    read_description,
    timm_weights,
    write_encoder,
)
from mixtura.encoders.runtime import fixed_photos
from mixtura.encoders.timm import Timm
from mixtura.encoders.tiny import Tiny
from mixtura.encoders.torchvision_repair import import_timm
from mixtura.errors import BundleError, UsageError
from mixtura.identity import differences, taps_of
from mixtura.interfaces import ExportableEncoder
from mixtura.pipeline import factory
from mixtura.sections import EncoderSection

MAKES = {
    "lite0": lambda places: Lite0(size=48, taps="auto"),
    "tiny": lambda places: Tiny(size=48),
    "cnn": lambda places: Cnn(size=48, filters=2, taps="last-2", dropout=0.1),
    "timm": lambda places: Timm("test_resnet", size=48, weights=places["weights"]),
    "small stem": lambda places: Timm("resnet18", size=32, stem="small", seed=0),
    "hf": lambda places: HuggingFace(str(places["vit"]), size=48, taps="last-1"),
}


@pytest.fixture(params=MAKES)
def trained(request, resnet_weights, vit_folder):
    """An encoder and its network after a step of training, in evaluation mode."""
    encoder = MAKES[request.param]({"weights": resnet_weights, "vit": vit_folder})
    network = encoder.network()
    network(photos(encoder)).square().mean().backward()
    torch.optim.SGD([p for p in network.parameters() if p.requires_grad], 0.1).step()
    return encoder, network.eval()


def photos(encoder):
    return torch.stack([encoder.prepare(photo) for photo in fixed_photos()])


def close(found, expected, tolerance=1e-4):
    return (found - expected).abs().max() <= tolerance * expected.abs().max()


def test_a_folder_is_the_trained_encoder(trained, tmp_path):
    encoder, network = trained
    write_encoder(tmp_path / "shop", encoder, network, trained=("head",))
    own = Own(str(tmp_path / "shop"))
    batch = photos(encoder)
    assert torch.equal(torch.stack([own.prepare(photo) for photo in fixed_photos()]), batch)
    with torch.no_grad():
        expected = network(batch)
    assert close(own.encode(batch), expected) and close(own.network().eval()(batch).detach(), expected)
    assert own.dimension == encoder.dimension and own.draft == encoder.draft
    assert taps_of(own.identity) == taps_of(encoder.identity)
    assert own.identity["preprocessing"] == encoder.identity["preprocessing"]
    assert own.description.trained == ("head",)
    assert isinstance(own, ExportableEncoder) == isinstance(encoder, ExportableEncoder)


def test_the_folder_may_be_moved_and_nothing_else_is_needed(trained, tmp_path, monkeypatch):
    encoder, network = trained
    write_encoder(tmp_path / "shop", encoder, network)
    here = Own(str(tmp_path / "shop"))
    shutil.move(tmp_path / "shop", tmp_path / "elsewhere")
    monkeypatch.setattr("mixtura.encoders.lite0.packaged_weights", None)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    there = Own(str(tmp_path / "elsewhere"))
    assert there.fingerprint == here.fingerprint and not differences(here.identity, there.identity)
    assert str(tmp_path) not in json.dumps(there.identity)
    assert str(tmp_path) not in (tmp_path / "elsewhere" / DESCRIPTION_FILE).read_text()
    assert torch.equal(here.encode(photos(encoder)), there.encode(photos(encoder)))


def test_training_goes_on_from_it(trained, tmp_path):
    """The description is that of the first network, and the weights are the new ones."""
    encoder, network = trained
    write_encoder(tmp_path / "one", encoder, network)
    one = Own(str(tmp_path / "one"))
    again = one.network()
    with torch.no_grad():
        next(again.parameters()).add_(1)
    write_encoder(tmp_path / "two", one, again)
    two = Own(str(tmp_path / "two"))
    skip = {"sha256", "trained"}
    assert one.description.model_dump(exclude=skip) == two.description.model_dump(exclude=skip)
    assert two.fingerprint != one.fingerprint
    assert close(two.encode(photos(encoder)), again.eval()(photos(encoder)).detach())


def test_the_same_weights_are_the_same_files(trained):
    encoder, network = trained
    one, two = encoder_files(encoder, network, ("a",)), encoder_files(encoder, encoder.network(), ("a",))
    assert one == encoder_files(encoder, network, ("a",)) and set(one) == {WEIGHTS_FILE, DESCRIPTION_FILE}
    assert one[WEIGHTS_FILE] != two[WEIGHTS_FILE] and one[DESCRIPTION_FILE] != two[DESCRIPTION_FILE]


def test_size_and_taps_are_those_of_the_training_unless_given(own_folder):
    own, large, tapped = Own(str(own_folder)), Own(str(own_folder), size=64), Own(str(own_folder), taps="last-1")
    assert own.identity["size"] == "48 px" and large.identity["size"] == "64 px"
    assert "taps" not in own.identity and tapped.dimension > own.dimension
    assert len({own.fingerprint, large.fingerprint, tapped.fingerprint}) == 3


def test_an_encoder_from_outside_is_described_by_its_name(tmp_path, monkeypatch):
    description = {"layout": 1, "encoder": "stranger.nets:Net", "taps": "none", "sha256": ""}
    write_encoder(tmp_path, Tiny(), Tiny().network())
    description["sha256"] = read_description(tmp_path).sha256
    (tmp_path / DESCRIPTION_FILE).write_text(json.dumps(description))
    with pytest.raises(BundleError, match="stranger"):
        Own(str(tmp_path))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text.replace('"sha256"', '"sha"'), "is damaged: sha"),
        (lambda text: text.replace('"layout": 1', '"layout": 2'), "is damaged: layout"),
        (lambda text: text[:-9], "is damaged: the file"),
        (lambda text: text.replace('"files": {}', '"files": {"../x": "y"}'), "is damaged: files"),
        (lambda text: text.replace('"encoder": "cnn"', '"encoder": "own:."'), "describes itself"),
    ],
)
def test_a_damaged_description(own_folder, tmp_path, change, said):
    shutil.copytree(own_folder, tmp_path / "own")
    path = tmp_path / "own" / DESCRIPTION_FILE
    path.write_text(change(path.read_text()))
    with pytest.raises(BundleError, match=said) as raised:
        Own(str(tmp_path / "own"))
    assert raised.value.exit_code == 65


def test_a_changed_byte_of_the_weights(own_folder, tmp_path):
    shutil.copytree(own_folder, tmp_path / "own")
    path = tmp_path / "own" / WEIGHTS_FILE
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    with pytest.raises(BundleError, match=r"was altered: its SHA-256 is .*Copy it again") as raised:
        Own(str(tmp_path / "own"))
    assert raised.value.exit_code == 65


def test_a_folder_without_an_encoder(tmp_path):
    with pytest.raises(BundleError, match="has no trained encoder"):
        Own(str(tmp_path))


def test_in_a_recipe(own_folder, monkeypatch):
    """Features of it say its kind and its weights; where it is, is said anew."""
    section = EncoderSection(name=f"own:{own_folder}")
    encoder = factory.encoder_of(section)
    assert encoder.identity["name"] == "own"
    again = factory.section_of(encoder.identity, section)
    assert again.name == section.name and factory.encoder_of(again).fingerprint == encoder.fingerprint
    with pytest.raises(UsageError, match=r"is incomplete\. Write own:FOLDER"):
        factory.encoder_of(factory.section_of(encoder.identity, EncoderSection()))
    monkeypatch.chdir(own_folder)
    assert factory.encoder_of(EncoderSection(name="own:.")).fingerprint == encoder.fingerprint


# The names of timm


def scaled(batch, mean, std):
    mean, std = (torch.tensor(value).reshape(1, 3, 1, 1) for value in (mean, std))
    return (batch / 255 - mean) / std


def test_lite0_by_the_names_of_timm():
    """The tensors of the published file, whose names are others, and those of timm, one by one in order."""
    encoder = Lite0(size=64)
    name, tensors = timm_weights(encoder, encoder.network())
    published = torch.load(packaged_weights(), weights_only=True)
    assert not set(published) & set(tensors)
    network = import_timm().create_model(name, pretrained=False, num_classes=0)
    assert list(tensors) == list(network.state_dict())
    assert all(torch.equal(one, other) for one, other in zip(tensors.values(), published.values(), strict=False))
    network.load_state_dict(tensors)
    with torch.no_grad():
        found = network.eval()(scaled(photos(encoder), (0.5,) * 3, (0.5,) * 3))
    assert close(encoder.encode(photos(encoder)), found)


@pytest.mark.parametrize("kind", ["lite0", "timm"])
def test_a_trained_network_works_in_timm(kind, resnet_weights, tmp_path):
    """With taps or without, and from its folder."""
    encoder = MAKES[kind]({"weights": resnet_weights})
    network = encoder.network()
    network(photos(encoder)).square().mean().backward()
    torch.optim.SGD(network.parameters(), 0.1).step()
    write_encoder(tmp_path, encoder, network)
    own = Own(str(tmp_path))
    name, tensors = timm_weights(own, own.network())
    theirs = import_timm().create_model(name, pretrained=False, num_classes=0)
    theirs.load_state_dict(tensors)
    half = (0.5,) * 3
    data = import_timm().data.resolve_model_data_config(theirs)
    mean, std = (half, half) if kind == "lite0" else (data["mean"], data["std"])
    with torch.no_grad():
        found = theirs.eval()(scaled(photos(encoder), mean, std))
    assert close(own.encode(photos(encoder))[:, : found.shape[1]], found)


def test_a_network_that_timm_does_not_have():
    for encoder in (Cnn(size=16), Tiny(), Timm("resnet18", stem="small", seed=0)):
        with pytest.raises(UsageError, match="is not one of timm's"):
            timm_weights(encoder, encoder.network())


def test_a_photo_of_one_color_is_a_photo(own_folder):
    own = Own(str(own_folder))
    assert own.encode(own.prepare(Image.new("L", (1, 1)))[None]).isfinite().all()
