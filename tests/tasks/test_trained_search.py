"""Search and clusters after training see photos as the trained network does, not as the one it began with."""

import csv
import json
import shlex
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch.nn.functional import normalize

from mixtura.cli.app import run as command
from mixtura.features.store import FeatureStore
from mixtura.model import bundle
from mixtura.pipeline import factory
from mixtura.recipe import resolve
from mixtura.sections import EncoderSection
from mixtura.tasks import cluster, fit, train

SIDE, KINDS = 16, 3
KEYS = {
    "encoder.name": "cnn",
    "encoder.size": SIDE,
    "encoder.taps": "none",
    "extract.workers": 0,
    "train.epochs": 6,
    "train.batch_size": 8,
    "train.learning_rate": 3e-3,
}


def stripes(rng, kind):
    """A photo with stripes of the direction of its kind, in any color, under noise."""
    y, x = np.mgrid[:SIDE, :SIDE]
    angle = np.pi * kind / KINDS
    wave = np.sin(x * np.cos(angle) + y * np.sin(angle) + rng.uniform(0, 2 * np.pi))
    pixels = 128 + 60 * wave[..., None] * rng.uniform(0.5, 1, 3) + rng.normal(0, 15, (SIDE, SIDE, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """``shop``, a model whose network was trained from scratch on ``photos``, and ``inbox`` with photos of no class."""
    root, rng = tmp_path_factory.mktemp("trained"), np.random.default_rng(0)
    (root / "inbox").mkdir()
    for kind in range(KINDS):
        (root / "photos" / f"c{kind}").mkdir(parents=True)
        for number in range(24):
            stripes(rng, kind).save(root / "photos" / f"c{kind}" / f"{number:02}.png")
        for number in range(6):
            stripes(rng, kind).save(root / "inbox" / f"{kind}-{number}.png")
    assert train.run(resolve({"data.root": root / "photos", "output": root / "shop"} | KEYS)).training.replaced
    return root


def vectors(root, paths, trained=True):
    """What the network gives for photos, with the weights in the model's folder or those that it began with."""
    encoder = factory.trainable_of(EncoderSection(name="cnn", size=SIDE, taps="none"), seed=0)
    network = encoder.network()
    if trained:
        network.load_state_dict(load_file(root / "shop" / "encoder.safetensors"))
    with torch.no_grad():
        return network.eval()(torch.stack([encoder.prepare(Image.open(path).convert("RGB")) for path in paths]))


def test_search_ranks_by_the_trained_network(made, capsys):
    query = made / "inbox" / "1-0.png"
    assert command(["search", str(made / "shop"), str(query), "-k", "72", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["results"][0]["neighbors"]
    paths = [made / "photos" / one["source"] for one in found]
    told = torch.tensor([one["similarity"] for one in found])
    cosine = {name: _cosine(made, query, paths, name == "trained") for name in ("trained", "start")}
    torch.testing.assert_close(told, cosine["trained"], rtol=0, atol=2e-3)  # stored in float16
    assert (told - cosine["start"]).abs().max() > 0.05
    assert len(found) == 72 and (told.diff() <= 0).all()


def _cosine(root, query, paths, trained):
    own, others = (normalize(vectors(root, given, trained)) for given in ([query], paths))
    return (others @ own[0]).float()


def test_new_photos_are_clustered_as_the_trained_network_sees_them(made, tmp_path, capsys):
    inbox = made / "inbox"
    words = ["cluster", str(made / "shop"), str(inbox), "-o", str(tmp_path / "out")]
    assert command([*words, "--clusters", "3", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    features = FeatureStore.open(tmp_path / "out" / "features").read()
    paths = [inbox / source for source in features.source]
    got = torch.from_numpy(features.embedding).float()
    assert len(got) == 18
    torch.testing.assert_close(got, vectors(made, paths), rtol=2e-3, atol=2e-3)
    assert (got - vectors(made, paths, trained=False)).abs().max() > 0.05
    with open(record["table"]) as file:
        rows = list(csv.DictReader(file))
    assert [int(row["cluster"]) for row in rows] == cluster.run(features, clusters=3).number.tolist()
    assert command([*words, "--accept", "--name", "1=a", "--name", "2=b", "--name", "3=c"]) == 0
    said = capsys.readouterr().out
    assert f"--encoder own:{made / 'shop'}" in " ".join(said.split())


def test_accepted_clusters_are_fitted_with_the_encoder_as_the_model_has_it(made, tmp_path, capsys):
    network = factory.trainable_of(EncoderSection(name="cnn", filters=8), seed=5).network()
    weights = tmp_path / "to begin.safetensors"  # a space needs quotes
    save_file({key: one.contiguous() for key, one in network.state_dict().items()}, weights)
    shutil.copytree(made / "inbox", tmp_path / "inbox", ignore=shutil.ignore_patterns("*.csv"))
    keys = {
        "encoder.name": "cnn",
        "encoder.size": 24,
        "encoder.taps": "blocks.1,blocks.2",
        "encoder.weights": weights,
        "encoder.filters": 8,
    }
    fit.run(resolve({"data.root": made / "photos", "output": tmp_path / "shop"} | keys))
    words = ["cluster", str(tmp_path / "shop"), str(tmp_path / "inbox"), "-o", str(tmp_path / "out")]
    assert command([*words, "--clusters", "3"]) == 0
    features = FeatureStore.open(tmp_path / "out" / "features").read()
    capsys.readouterr()
    assert command([*words, "--accept", "--name", "1=a", "--name", "2=b", "--name", "3=c"]) == 0
    said = capsys.readouterr().out
    fitting = shlex.split(said[said.index("mixtura fit") :])[1:]
    assert command(fitting) == 0
    model = bundle.from_pretrained(tmp_path / "out")
    assert dict(model.identity) == dict(features.identity)


def test_the_items_of_a_trained_model_are_clustered_by_their_own_features(made, tmp_path, capsys):
    assert command(["cluster", str(made / "shop"), "-o", str(tmp_path / "out"), "--clusters", "3", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    features = FeatureStore.open(made / "shop" / "features").read()
    paths = [made / "photos" / source for source in features.source]
    of_start = replace(features, embedding=vectors(made, paths, trained=False).numpy())
    assert record["adjusted_rand"] == pytest.approx(cluster.run(features, clusters=3).rand)
    assert record["adjusted_rand"] > cluster.run(of_start, clusters=3).rand + 0.2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("{inbox}", "{shop}"), "is no model and no feature store"),
        (("{shop}", "{shop}/features"), "holds features already"),
        (("{shop}", "{inbox}", "--product", "c1"), "--product clusters the items of one product"),
        (("{shop}", "{inbox}", "--encoder", "tiny"), "--encoder has no effect: the encoder of"),
        (("{shop}", "{inbox}", "--fast"), "--fast has no effect: the encoder of"),
    ],
)
def test_what_does_not_fit_together_is_told(made, tmp_path, words, said, capsys):
    given = [word.format(inbox=made / "inbox", shop=made / "shop") for word in words]
    assert command(["cluster", *given, "-o", str(tmp_path / "out")]) == 2
    told = capsys.readouterr().err
    assert said in told and len(told.splitlines()) == 1 and not (tmp_path / "out").exists()
