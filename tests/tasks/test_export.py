"""Exported graphs against the model, and the runner in a process that has neither mixtura nor torch."""

import importlib.util
import inspect
import json
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import mixtura
from mixtura.cli.app import run as command
from mixtura.core.covariance import FAMILIES
from mixtura.core.mixture import Mixture
from mixtura.datasets import demo
from mixtura.datasets.decode import decode
from mixtura.encoders.lite0 import Lite0
from mixtura.encoders.onnx_graph import to_onnx
from mixtura.encoders.timm import Timm
from mixtura.encoders.tiny import Tiny
from mixtura.encoders.torchvision_repair import import_timm
from mixtura.errors import CannotWrite, MissingExtra, NoInput, UsageError
from mixtura.features.projection import Chain
from mixtura.fitting import fit as fitting
from mixtura.heads import HEADS
from mixtura.model import bundle
from mixtura.model.model import Model
from mixtura.names import find
from mixtura.onnx import graph as onnx_graph
from mixtura.onnx import runner
from mixtura.pipeline.factory import encoder_of, steps_of
from mixtura.recipe import resolve
from mixtura.scores import verdict
from mixtura.scores.typicality import FAR_SPREADS, Typicality
from mixtura.sections import DecisionSection, EncoderSection
from mixtura.tasks import export

CLOSE = 1e-5  # absolute for shares; for log-densities relative to their size, or to a nat a dimension
CASES = {
    "full": ["pca", "whiten"],
    "tied": ["lda"],
    "lowrank": ["l2"],
    "diagonal": [{"name": "random", "dimension": 8}, {"name": "power", "power": 0.3}],
    "spherical": [{"name": "random_features", "dimension": 20}, "power", "identity"],
}
ISOLATED = """
import sys, runpy
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "mixtura", "torchvision", "timm", "scipy", "sklearn", "onnx"}:
            raise ImportError(f"{name} is not for the runner")
sys.meta_path.insert(0, Block())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def run_isolated(folder, *arguments):
    """The runner by itself: isolated mode, and what it must not need blocked."""
    words = [sys.executable, "-I", "-c", ISOLATED, str(folder / "run.py"), *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True, check=False)


def outputs(graph, features):
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    names = list(onnx_graph.OUTPUT_NAMES)
    assert [output.name for output in session.get_outputs()] == names
    return dict(zip(names, session.run(names, {"features": features}), strict=True))


def assert_close(model, found, features):
    answers, x = model.answers(features), model.project(features)
    scale = np.maximum(np.abs(model.mixture.log_prob(x).numpy()), model.mixture.dimension)
    np.testing.assert_allclose(found["posterior"], answers.posterior, rtol=0, atol=CLOSE)
    np.testing.assert_allclose(found["typicality"], answers.typicality, rtol=0, atol=CLOSE)
    assert (np.abs(found["log_prob"] - model.mixture.log_prob(x).numpy()) <= CLOSE * scale).all()
    assert (np.abs(found["background"] - model.background.log_prob(x).numpy()) <= CLOSE * scale).all()
    np.testing.assert_array_equal(found["subclass"], answers.subclass)
    np.testing.assert_allclose(found["pooled"], model.typicality.pooled(torch.from_numpy(answers.score)), atol=CLOSE)


def model_of(family):
    """A model with random parts and classes of 1, 2, 2 and 2 components, and rows like its own."""
    rng = torch.Generator().manual_seed(0)
    labels = torch.arange(264) % 4
    rows = 3 * torch.randn(4, 12, generator=rng)[labels] + torch.randn(264, 12, generator=rng)
    steps = resolve({"data.root": "nowhere", "projection": CASES[family]}).projection
    chain = Chain.fit(rows[:200], labels[:200], steps_of(steps))
    x = chain(rows)
    component_class = torch.tensor([0, 1, 1, 2, 2, 3, 3])
    mean = torch.stack([x[:200][labels[:200] == c].mean(0) for c in component_class])
    mean += 0.1 * torch.randn(mean.shape, generator=rng)
    spread = x.var(0).expand(7, -1) * (0.2 + torch.rand(7, 1, generator=rng))
    below = 0.03 * torch.randn(7, x.shape[1], x.shape[1], generator=rng).tril(-1)
    whiten = torch.diag_embed(spread.clamp_min(0.1).rsqrt()) + below
    parts = {
        "spherical": {"variance": spread.mean(1)},
        "diagonal": {"variance": spread},
        "lowrank": {"variance": spread, "factor": 0.2 * torch.randn(7, x.shape[1], 2, generator=rng)},
        "tied": {"precision_tril": whiten[:1]},
        "full": {"precision_tril": whiten},
    }
    weight = torch.rand(7, generator=rng).log_softmax(0)
    mixture = Mixture(weight, mean, FAMILIES[family].from_state(parts[family]), component_class, 4)
    known = mixture.log_prob(x[:200]), mixture.background().log_prob(x[:200]), mixture.class_log_prob(x[:200]).argmax(1)
    typicality, section = Typicality.fit(*known), EncoderSection(name="tiny")
    decision = DecisionSection()
    model = Model(tuple("abcd"), section, {"name": "tiny"}, 12, chain, mixture, 1.7, typicality, decision)
    return model, rows.numpy()


@pytest.mark.parametrize("family", CASES)
def test_head_graph_is_the_model(family):
    """All families, all projections, classes of one and of two components, any number of rows."""
    model, embedding = model_of(family)
    graph = onnx_graph.head_bytes(model)
    for rows in (1, 7, 64):
        assert_close(model, outputs(graph, embedding[-rows:]), embedding[-rows:])
    assert_far_rows_agree(model, graph, embedding)


def assert_far_rows_agree(model, graph, embedding):
    """In class, verdict and probability, among other rows, which stay as they are.

    The graph compares the classes of a far row nearer by, in single precision.
    """
    direction = np.random.default_rng(5).normal(size=(4, 12))
    rows = [(size * direction / np.abs(direction).max()).astype(np.float32) for size in (1e6, 1e19, 1e30, 3e38)]
    mixed = np.concatenate([embedding[:3], *rows, embedding[3:6]])
    found, answers = outputs(graph, mixed), model.answers(mixed)
    np.testing.assert_array_equal(found["posterior"].argmax(1), answers.predicted)
    np.testing.assert_allclose(found["posterior"], answers.posterior, rtol=0, atol=10 * CLOSE)
    np.testing.assert_array_equal(found["subclass"], answers.subclass)
    np.testing.assert_array_equal(found["typicality"], answers.typicality)
    np.testing.assert_array_equal(found["posterior"][:3], outputs(graph, embedding[:3])["posterior"])


@pytest.mark.parametrize("family", CASES)
def test_head_graph_of_a_mixture_that_needs_float64_is_the_model(family):
    """A class 10,000 units away would cost the others their digits in float32."""
    model, embedding = model_of(family)
    mean = model.mixture.mean.clone()
    mean[-2:] += 1e4
    model = replace(model, mixture=replace(model.mixture, mean=mean))
    assert model.mixture.operands(torch.float32)[0].dtype == torch.float64
    found = outputs(onnx_graph.head_bytes(model), embedding[-16:])
    x = model.project(embedding[-16:])
    np.testing.assert_allclose(found["posterior"], model.answers(embedding[-16:]).posterior, rtol=0, atol=CLOSE)
    exact = model.mixture.to(torch.float64).log_prob(x.double())
    np.testing.assert_allclose(found["log_prob"], exact, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("name", sorted(set(HEADS) - {"gaussian"}))
def test_the_graph_of_a_model_with_a_head_of_its_own(name):
    """The head gives the posterior; how typical a row is comes from the mixture beside it."""
    model, embedding = model_of("diagonal")
    x, labels = model.projection(torch.from_numpy(embedding)), torch.arange(264) % 4
    kind = find(HEADS, name)
    model = replace(model, head=kind.from_rows(x, labels, 4, components=2 if kind.multi_component else 1).eval())
    graph = onnx_graph.head_bytes(model)
    for rows in (1, 7, 64):
        found = outputs(graph, embedding[-rows:])
        assert_close(model, found, embedding[-rows:])
    assert_far_rows_agree(model, graph, embedding)
    alone = model.mixture.posterior(x[-64:]).numpy()
    assert np.abs(found["posterior"] - alone).max() > 1e-3


def test_head_graph_counts_ties_as_the_model_does(cloud, learn):
    """The held-out scores themselves: each comparison is with an equal number."""
    model = learn(cloud(n=200, classes=3), head__family="diagonal")
    rank = onnx_graph.Rank(model.typicality, len(model.classes))
    score = model.typicality.scores
    evidence = (score - FAR_SPREADS) * model.typicality.spread[1] + model.typicality.center[1]
    background = evidence - 1e6  # far more than any class: the plain evidence decides
    predicted = model.typicality.predicted
    found = rank(evidence, background, predicted)
    again = model.typicality.score(evidence, background)
    np.testing.assert_array_equal(found[0], again)
    np.testing.assert_array_equal(found[1], model.typicality(again, predicted))
    np.testing.assert_array_equal(found[2], model.typicality.pooled(again))


KINDS = {"apple": (200, 30, 30), "pear": (150, 200, 60), "plum": (90, 30, 120)}


def picture(rng, kind, size=48):
    """A disk of the kind's color, with noise."""
    y, x = np.mgrid[:size, :size]
    disk = (y - rng.integers(20, 28)) ** 2 + (x - rng.integers(20, 28)) ** 2 < rng.integers(12, 18) ** 2
    noisy = np.where(disk[..., None], np.array(KINDS[kind]), 235) + rng.normal(0, 12, (size, size, 3))
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A model of photos by the tiny encoder with its export, and new photos of many kinds."""
    folder = tmp_path_factory.mktemp("export")
    rng = np.random.default_rng(0)
    for kind in KINDS:
        (folder / "photos" / kind).mkdir(parents=True)
        for number in range(12):
            picture(rng, kind).save(folder / "photos" / kind / f"{number}.png")
    given = {"data.root": str(folder / "photos"), "output": str(folder / "shop"), "encoder.name": "tiny"}
    mixtura.fit(mixtura.resolve(given))
    assert command(["export", str(folder / "shop"), "--onnx", "-q"]) == 0
    inbox = folder / "inbox"
    inbox.mkdir()
    for number, kind in enumerate((*KINDS, *KINDS, *KINDS)):
        picture(rng, kind, 40 + 30 * number).save(inbox / f"{number}.jpg")
    turned = Image.Exif()
    turned[0x0112] = 6
    picture(rng, "plum", 300).crop((0, 0, 300, 100)).save(inbox / "turned.jpg", exif=turned)
    picture(rng, "pear").convert("LA").save(inbox / "gray.png")
    Image.fromarray(rng.integers(0, 256, (30, 60, 3), dtype=np.uint8)).save(inbox / "noise.webp", lossless=True)
    return folder


def agree(folder, paths, wanted):
    """The runner of an export says what mixtura has said."""
    done = run_isolated(folder, *paths, "--json")
    assert done.returncode == 0, done.stderr
    for answer, want in zip(json.loads(done.stdout), wanted, strict=True):
        assert abs(answer["probability"] - want["probability"]) <= CLOSE
        assert abs(answer["typicality"] - want["typicality"]) <= CLOSE
        for key in ("id", "label", "verdict", "reason", "subclass"):
            assert answer[key] == want[key], key


def test_the_runner_answers_as_mixtura_does_and_needs_neither_it_nor_torch(shop):
    paths = sorted((shop / "inbox").iterdir())
    wanted = [decision.to_dict() for decision in mixtura.predict(shop / "shop", paths)]
    assert {answer["verdict"] for answer in wanted} >= {"match", "unknown"}
    agree(shop / "shop" / "onnx", paths, wanted)


def test_an_export_holds_the_edits_of_the_catalog(shop, tmp_path):
    folder = shutil.copytree(shop / "shop", tmp_path / "shop", ignore=shutil.ignore_patterns("onnx"))
    rng = np.random.default_rng(3)
    for number in range(8):
        color = np.array((60, 200, 200)) + rng.normal(0, 20, (48, 48, 3))
        Image.fromarray(color.clip(0, 255).astype(np.uint8)).save(tmp_path / f"sea{number}.png")
    paths = sorted(tmp_path.glob("*.png")) + sorted((shop / "inbox").iterdir())
    assert command(["enroll", str(folder), "sea", *map(str, paths[:4]), "-q"]) == 0
    assert command(["remove", str(folder), "--product", "plum", "-q"]) == 0
    wanted = [decision.to_dict() for decision in mixtura.predict(folder, paths[4:])]
    assert {answer["label"] for answer in wanted} >= {"sea", "apple"} and len(wanted[0]["candidates"]) == 3
    assert command(["export", str(folder), "-q"]) == 0
    agree(folder / "onnx", paths[4:], wanted)


def test_the_folder_holds_what_it_says_and_no_weights_beside(shop):
    folder = shop / "shop" / "onnx"
    assert {path.name for path in folder.iterdir()} == set(export.EXPORT_FILES)
    config = json.loads((folder / "config.json").read_text())
    assert config["classes"] == sorted(KINDS) and config["encoder"]["input"] == [3, 32, 32]
    program = (folder / "run.py").read_text()
    assert "import mixtura" not in program and "from mixtura" not in program
    assert inspect.getsource(verdict.judge) in program


def test_a_damaged_photo_is_a_row_and_a_code(shop, tmp_path):
    (tmp_path / "text.jpg").write_text("no photo")
    (tmp_path / "half.jpg").write_bytes((shop / "inbox" / "8.jpg").read_bytes()[:900])
    good = shop / "inbox" / "0.jpg"
    done = run_isolated(shop / "shop" / "onnx", tmp_path / "text.jpg", good, tmp_path / "half.jpg", tmp_path / "none")
    assert done.returncode == 66 and not done.stderr
    words = [line.split("\t")[1] for line in done.stdout.splitlines()]
    assert words[0] == words[2] == words[3] == "error" and words[1] in ("match", "unsure", "unknown")


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        (lambda f: (f / "head.onnx").write_bytes(b"junk"), 65, "is not the file that was exported"),
        (lambda f: (f / "encoder.onnx").unlink(), 66, "cannot be read"),
        (lambda f: (f / "config.json").write_text("{"), 65, "config.json is damaged"),
        (lambda f: (f / "config.json").unlink(), 66, "holds no config.json"),
    ],
)
def test_a_damaged_export_is_one_sentence(shop, tmp_path, change, code, said):
    folder = tmp_path / "copy"
    folder.mkdir()
    for path in (shop / "shop" / "onnx").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    change(folder)
    done = run_isolated(folder, shop / "inbox" / "0.jpg")
    assert done.returncode == code and said in done.stderr and len(done.stderr.splitlines()) == 1


def test_a_model_of_features_takes_arrays_of_vectors(tmp_path, cloud, learn):
    data = cloud(n=200)
    model = replace(learn(data), encoder=EncoderSection(name="imported:clip"))
    bundle.save_pretrained(model, tmp_path / "m")
    made = export.run(tmp_path / "m", tmp_path / "out")
    assert set(made.sizes) == export.EXPORT_FILES - {"encoder.onnx"} and made.difference <= CLOSE
    np.save(tmp_path / "x.npy", data.embedding[:5])
    done = run_isolated(tmp_path / "out", tmp_path / "x.npy", "--json")
    answers = json.loads(done.stdout)
    assert [answer["verdict"] for answer in answers] == model.answers(data.embedding[:5]).verdict.tolist()
    np.save(tmp_path / "wide.npy", np.zeros((2, 99)))
    np.save(tmp_path / "nan.npy", np.full((2, 6), np.nan))
    (tmp_path / "junk.npy").write_bytes(b"junk")
    for name, said in (("wide", "takes N x 6"), ("nan", "NaN"), ("junk", "no array"), ("none", "cannot be read")):
        done = run_isolated(tmp_path / "out", tmp_path / f"{name}.npy")
        assert done.returncode in (65, 66) and said in done.stderr and len(done.stderr.splitlines()) == 1
    assert "made of features" in run_isolated(tmp_path / "out", tmp_path / "a.jpg").stdout


@pytest.mark.parametrize("mode", ["RGB", "L", "LA", "RGBA", "P", "1", "CMYK", "I;16"])
def test_the_runner_reads_pictures_as_mixtura_does(mode, tmp_path):
    rng = np.random.default_rng(0)
    wide = Image.fromarray(rng.integers(0, 65536, (30, 50), dtype=np.uint16))
    image = wide if mode == "I;16" else Image.fromarray(rng.integers(0, 256, (30, 50, 4), dtype=np.uint8)).convert(mode)
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        image.save(path, exif=exif)
        np.testing.assert_array_equal(np.asarray(runner.decode(path, None)), np.asarray(decode(path)))
    if mode == "I;16":
        Image.fromarray(np.asarray(wide) // 16).save(path)  # 12 bits
        np.testing.assert_array_equal(np.asarray(runner.decode(path, None)), np.asarray(decode(path)))


def test_the_runner_reads_a_large_jpeg_where_it_can_be_reduced(tmp_path):
    Image.new("L", (9504, 6336), 90).save(tmp_path / "a.jpg")
    found = runner.decode(tmp_path / "a.jpg", 224)
    np.testing.assert_array_equal(np.asarray(found), np.asarray(decode(tmp_path / "a.jpg", draft=224)))
    with pytest.raises(runner.Refused, match="too many"):
        runner.decode(tmp_path / "a.jpg", None)


def test_the_runner_uses_the_same_reduced_jpegs_and_first_frames(tmp_path):
    rng = np.random.default_rng(0)
    frames = [Image.fromarray(rng.integers(0, 256, (400, 300), dtype=np.uint8)) for _ in range(2)]
    for name, draft in (("a.jpg", 64), ("a.gif", 64), ("a.webp", None), ("a.bmp", None), ("a.ppm", None)):
        more = {"save_all": True, "append_images": frames[1:]} if name in ("a.gif", "a.webp") else {}
        frames[0].save(tmp_path / name, **more)
        found = runner.decode(tmp_path / name, draft)
        np.testing.assert_array_equal(np.asarray(found), np.asarray(decode(tmp_path / name, draft=draft)))


@pytest.mark.parametrize("mode", ["center", "squash", "border"])
def test_the_preparation_of_a_network_in_plain_words(mode, tmp_path):
    network = import_timm().create_model("test_resnet", pretrained=False)
    save_file(network.state_dict(), tmp_path / "w.safetensors")
    encoder = Timm("test_resnet", 96, tmp_path / "w.safetensors")
    encoder._data["crop_mode"] = mode
    if mode == "border":
        with pytest.raises(UsageError, match="cannot be exported"):
            encoder.steps()
        return
    encoder._prepare = import_timm().data.create_transform(**encoder._data, use_prefetcher=True)
    rng = np.random.default_rng(0)
    for size in ((200, 150), (80, 120), (33, 300), (1, 5)):
        image = Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8))
        wanted = encoder.prepare(image).numpy()
        for step in encoder.steps():
            image = runner.STEPS[step["step"]](image, step)
        np.testing.assert_array_equal(np.asarray(image).transpose(2, 0, 1), wanted)


@pytest.mark.parametrize(
    ("name", "taps"),
    [
        ("pixels", "none"),
        ("timm:test_resnet@w.safetensors", "none"),
        ("timm:test_resnet@w.safetensors", "auto"),
        ("timm:test_vit@v.safetensors", "auto"),
        ("lite0", "auto"),
    ],
)
def test_encoder_graphs_are_the_encoders(name, taps, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_file(import_timm().create_model("test_resnet", pretrained=False).state_dict(), "w.safetensors")
    save_file(import_timm().create_model("test_vit", pretrained=False, img_size=32).state_dict(), "v.safetensors")
    encoder = encoder_of(EncoderSection(name=name, size=32, taps=taps))
    assert (taps == "auto") == ("taps" in encoder.identity)
    graph, difference = export._encoder_bytes(encoder)
    assert difference <= CLOSE
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    for rows in (1, 7):
        assert len(session.run(["features"], {"photos": np.zeros((rows, 3, 32, 32), np.uint8)})[0]) == rows


class Opaque(Tiny):
    """An encoder that keeps its arithmetic to itself."""

    name = "opaque"
    graph = None  # a protocol does not count it


def test_an_encoder_that_cannot_be_exported(shop, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "encoder_for", lambda model: Opaque())
    with pytest.raises(UsageError, match=r"'opaque' cannot be exported\. Use lite0"):
        export.run(shop / "shop", tmp_path / "new")
    assert not (tmp_path / "new").exists()


class Curious(torch.nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


def test_a_network_that_cannot_be_traced_is_one_sentence():
    with pytest.raises(UsageError, match="cannot be written as ONNX") as caught:
        to_onnx(Curious(), torch.ones(3, 2), "x", ("y",))
    assert "\n" not in str(caught.value)


def test_what_stands_in_the_way_is_told_before_any_work(shop, tmp_path, monkeypatch, capsys):
    with pytest.raises(NoInput, match="is no model"):
        export.run(tmp_path)
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(CannotWrite, match=r"holds 'thesis\.txt'"):
        export.run(shop / "shop", tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "mine"
    assert command(["export", str(shop / "shop"), "--format", "tflite"]) == 2
    assert "There is no format 'tflite'. There is one: onnx." in capsys.readouterr().err
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxscript" else find(name))
    with pytest.raises(MissingExtra, match=r"onnxscript.*pip install 'mixtura\[onnx\]'"):
        export.run(shop / "shop")


@pytest.mark.slow
def test_real_photos_through_the_default_encoder(features, gathered):
    """Clothes by lite0 and the automatic choice of a family: graphs chained as the runner chains them."""
    data, encoder = demo.load(), Lite0(96)
    chosen = [*range(0, len(data), 8)]
    photos = torch.stack([encoder.prepare(data.image(i, draft=encoder.draft)) for i in chosen]).contiguous()
    embedding = encoder.encode(photos).numpy()
    labels = [data.items[i].label for i in chosen]
    model = fitting.learn(resolve({"data.root": "nowhere"}), gathered(features(embedding, labels)))
    head = onnx_graph.head_bytes(model)
    graph, difference = export._encoder_bytes(encoder)
    assert difference <= CLOSE
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    new = slice(4, None, 5)  # the test part
    found = session.run(["features"], {"photos": photos[new].numpy()})[0]
    np.testing.assert_allclose(found, embedding[new], rtol=0, atol=CLOSE * np.abs(embedding).max())
    assert_close(model, outputs(head, embedding[new]), embedding[new])
    assert np.abs(outputs(head, found)["posterior"] - model.answers(embedding[new]).posterior).max() <= CLOSE


def test_the_runner_tells_an_empty_photo_from_one_that_is_too_large(tmp_path):
    (tmp_path / "empty.png").touch()
    with (tmp_path / "large.png").open("wb") as file:
        file.truncate(runner.MAX_BYTES + 1)
    for name, said in (("empty.png", r"is empty \(0 bytes\)"), ("large.png", "above 64 MiB")):
        with pytest.raises(runner.Refused, match=said):
            runner._read(tmp_path / name)
