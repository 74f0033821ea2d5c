"""The embedder of a trained network: it goes where the network goes, and few-shot episodes are read through it."""

import csv
import json
import shutil

import pytest
import torch

import mixtura
from mixtura.cli.app import run as command
from mixtura.encoders.own import EMBEDDER_FILE, read_files
from mixtura.errors import BundleError, UsageError
from mixtura.features.store import FeatureStore
from mixtura.recipe import resolve
from mixtura.tasks import train
from mixtura.training.checkpoint import Checkpoints

PLAIN = {"encoder.name": "cnn", "encoder.size": 16, "encoder.filters": 4, "train.epochs": 1, "train.batch_size": 8}
KEYS = PLAIN | {"coarse": {"embedder": "mlp", "dimension": 3}}
CASES = {"conditional": {}, "supcon": {}, "maskcon": {}, "conditional with taps": {"encoder.taps": "auto"}}


@pytest.fixture(scope="module")
def photos(tmp_path_factory, two_colors):
    return two_colors(tmp_path_factory.mktemp("embedder") / "photos", 12)


def trained(photos, output, keys, fresh=False):
    recipe = resolve({"data.root": photos, "output": output, "extract.workers": 0} | keys)
    return train.run(recipe, fresh).fit.bundle_path


@pytest.fixture(scope="module", params=CASES)
def first(request, photos):
    keys = KEYS | {"train.objective": request.param.partition(" ")[0]} | CASES[request.param]
    return trained(photos, photos.parent / request.param.replace(" ", "-"), keys)


@pytest.fixture
def shop(first, tmp_path):
    return shutil.copytree(first, tmp_path / "shop")


def test_its_embeddings_are_those_of_training(first):
    newest = Checkpoints(first / "training" / "checkpoints").newest()[0]
    assert newest is not None
    state = newest.tensors
    one, other = ([state[f"module.head.embedder.{place}.{end}"] for end in ("weight", "bias")] for place in (0, 2))
    features = torch.from_numpy(FeatureStore.open(first / "features").read().embedding)
    vectors = features[:, : one[0].shape[1]]
    expected = torch.relu(vectors @ one[0].T + one[1]) @ other[0].T + other[1]
    assert torch.allclose(mixtura.load_embedder(first)(vectors), expected, atol=1e-5)


def test_episodes_through_it_are_named_so(first, photos, tmp_path, capsys):
    new = tmp_path / "new"
    for name in ("red", "blue"):
        shutil.copytree(photos / name, new / f"new {name}")
    words = ["fewshot", str(first), str(new), "--way", "2", "--query", "5", "--episodes", "5", "--json", "-q"]
    for tap in ("backbone", "embedder"):
        assert command([*words, "--classifier", "prototype,gaussian", "--tap", tap, "-o", str(tmp_path / tap)]) == 0
        found = json.loads(capsys.readouterr().out)
        rows = list(csv.DictReader((tmp_path / tap / "fewshot.csv").open()))
        assert found["facts"]["tap"] == tap and {row["tap"] for row in rows} == {tap}
        for said in (" ".join(found["notes"]), (tmp_path / tap / "fewshot.html").read_text()):
            assert ("through the embedder" in said) == (tap == "embedder")


def test_it_goes_where_its_network_goes(shop, photos, tmp_path):
    before = read_files(shop)
    assert EMBEDDER_FILE in before
    other = mixtura.fit(photos, tmp_path / "other", {"encoder.name": f"own:{shop}"}).bundle_path
    assert read_files(other) == before
    trained(photos, shop, PLAIN, fresh=True)
    assert read_files(shop / "training-1" / "encoder") == before
    with pytest.raises(UsageError, match="has no embedder"):  # that of the earlier network is none of this one
        mixtura.load_embedder(shop)
    mixtura.fit(photos, other, {"encoder.name": "tiny"})
    assert read_files(other / "encoder-1") == before and not (other / EMBEDDER_FILE).exists()


def test_a_changed_byte_is_told_before_any_answer(shop, photos):
    content = bytearray((shop / EMBEDDER_FILE).read_bytes())
    content[-1] ^= 1
    (shop / EMBEDDER_FILE).write_bytes(content)
    with pytest.raises(BundleError, match=r"embedder\.safetensors was altered"):
        mixtura.load_embedder(shop)
    assert command(["predict", str(shop), str(photos / "red" / "00.png"), "-q"]) == 65
    (shop / EMBEDDER_FILE).unlink()
    assert command(["fewshot", str(shop), str(photos), "--tap", "embedder", "-q"]) == 65


def test_photos_and_stores_have_none(first, photos, tmp_path, capsys):
    for place in (photos, first / "features"):
        assert command(["fewshot", str(place), "--tap", "embedder", "-o", str(tmp_path / "few"), "-q"]) == 2
        assert f"{place} has no embedder: it is not a model" in capsys.readouterr().err
    assert not (tmp_path / "few").exists()
