"""Runtimes: the vectors of PyTorch, by another library, told apart by nothing that a float16 store keeps."""

import json
import logging
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from mixtura.encoders import RUNTIMES, openvino_graph, runtime
from mixtura.encoders.lite0 import Lite0
from mixtura.encoders.timm import Timm
from mixtura.encoders.tiny import Tiny
from mixtura.errors import MissingExtra, UsageError
from mixtura.features.store import FeatureStore
from mixtura.identity import Block
from mixtura.interfaces import Encoder, ExportableEncoder, TrainableEncoder
from mixtura.pipeline import factory
from mixtura.recipe import resolve
from mixtura.sections import EncoderSection
from mixtura.tasks import extract

HERE = [name for name in RUNTIMES if runtime.installed(name)]
"""Every test works without the extra openvino, too."""


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


class Twice:
    """A runtime that is off by far more than rounding."""

    packages = ()
    version = "0"
    factor = 2.0

    def __init__(self, encoder, example, stored):
        self.graph = encoder.graph()

    def __call__(self, batch):
        with torch.inference_mode():
            return self.factor * self.graph(batch)


class Slightly(Twice):
    """One that is off by a tenth of what float16 is off by."""

    factor = 1 + 2.0**-15


class Fails(Twice):
    def __call__(self, batch):
        raise RuntimeError("No rule for\naten::curious.")


def noise(count, side=80):
    pixels = np.random.default_rng(1).integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    return [Image.fromarray(one) for one in pixels]


def relative_difference(encoder, batch):
    expected = encoder.encoder.encode(batch)
    return float((encoder.encode(batch) - expected).square().mean().sqrt() / expected.std())


@pytest.mark.slow
@pytest.mark.parametrize("name", HERE)
def test_vectors_are_those_of_pytorch(name, resnet_weights):
    for plain in (Lite0(64), Timm("test_resnet", 64, resnet_weights), Tiny()):
        encoder = runtime.on_runtime(plain, name, "cpu")
        assert encoder.settle() == name
        assert 0 < float(encoder.versions["runtime difference"].split()[0]) < 0.1
        photos = [encoder.prepare(photo) for photo in noise(17)]
        for count in (1, 2, 17):
            batch = torch.stack(photos[:count])
            assert relative_difference(encoder, batch) < 1e-5
            # Channels first in memory, too: how a batch lies is nobody's business.
            torch.testing.assert_close(encoder.encode(batch.contiguous()), encoder.encode(batch), rtol=0, atol=0)


@pytest.mark.parametrize("name", HERE)
def test_all_but_the_arithmetic_is_the_encoders_own(name):
    plain, encoder = Tiny(), runtime.on_runtime(Tiny(), name, "cpu")
    assert (encoder.identity, encoder.fingerprint, encoder.draft) == (plain.identity, plain.fingerprint, plain.draft)
    assert isinstance(encoder, Encoder) and isinstance(encoder, ExportableEncoder)
    assert isinstance(encoder, TrainableEncoder)
    assert encoder.versions == plain.versions
    encoder.encode(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))
    assert encoder.versions["runtime"].startswith(f"{name} ")


def test_a_converted_graph_is_kept_and_a_wrong_one_is_made_anew(cache, monkeypatch):
    made = []

    class Kept(Slightly):
        def __init__(self, encoder, example, stored):
            super().__init__(encoder, example, stored)
            made.append(stored)
            self.factor = 2.0 if stored else 1.0

    monkeypatch.setattr(runtime, "find", lambda table, name: Kept)
    assert runtime.Accelerated(Tiny(), "openvino", required=True).settle() == "openvino"
    assert made == [True, False]


@pytest.mark.parametrize("name", [name for name in HERE if name == "openvino"])
def test_openvino_converts_once_for_all_processes(name, cache, monkeypatch):
    first = runtime.on_runtime(Tiny(), name, "cpu")
    first.settle()
    kept = sorted((cache / "mixtura/openvino").iterdir())
    assert [path.suffix for path in kept] == [".bin", ".xml"]
    monkeypatch.setattr(openvino_graph, "_converted", None)
    again = runtime.on_runtime(Tiny(), name, "cpu")
    batch = torch.randint(0, 256, (5, 3, 32, 32), dtype=torch.uint8)
    assert torch.equal(again.encode(batch), first.encode(batch))
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    weights = kept[0].read_bytes()
    kept[0].unlink()
    kept[0].write_bytes(weights[::-1])  # damaged, and made anew
    third = runtime.Accelerated(Tiny(), name, required=True)
    assert torch.equal(third.encode(batch), first.encode(batch))


def test_openvino_does_not_report_to_its_makers(monkeypatch):
    if "openvino" in HERE:
        openvino_graph.import_openvino()
    told = [module for module in sys.modules if module.startswith(openvino_graph.TELEMETRY)]
    assert told == []


def test_auto_falls_back_and_says_why(monkeypatch, caplog):
    monkeypatch.setattr(runtime, "find", lambda table, name: Twice)
    encoder = runtime.Accelerated(Tiny(), "openvino", required=False)
    batch = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    with caplog.at_level(logging.WARNING):
        assert torch.equal(encoder.encode(batch), Tiny().encode(batch))
    assert encoder.versions["runtime"] == "torch"
    [said] = [record.getMessage() for record in caplog.records]
    assert "times the rounding of float16, so the two must not be mixed. PyTorch computes instead." in said


@pytest.mark.parametrize(("cls", "said"), [(Twice, "differ from PyTorch's by"), (Fails, "No rule for aten::curious")])
def test_a_runtime_that_was_asked_for_is_an_error(monkeypatch, cls, said):
    monkeypatch.setattr(runtime, "find", lambda table, name: cls)
    encoder = runtime.Accelerated(Tiny(), "openvino", required=True)
    with pytest.raises(UsageError, match=said) as caught:
        encoder.encode(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))
    assert str(caught.value).endswith(". Use encoder.runtime torch.")
    assert "\n" not in str(caught.value)


def test_the_limit_is_the_rounding_of_float16():
    x = torch.randn(50, 40, generator=torch.Generator().manual_seed(0))
    assert runtime.difference(x.half().float(), x) == pytest.approx(1)
    assert runtime.difference(x.bfloat16().float(), x) > 4  # what OpenVINO takes by itself on recent CPUs
    assert runtime.difference(x, x) == 0
    assert not runtime.difference(x * float("nan"), x) <= runtime.MAX_DIFFERENCE


@pytest.mark.parametrize("wrong", [0.0, float("nan")])
def test_small_columns_are_not_hidden_by_large_ones(wrong):
    """The columns of one layer may be a thousand times as large as those of another, of which none may be lost."""
    x = torch.randn(50, 40, generator=torch.Generator().manual_seed(0)) * torch.tensor([100.0, 0.01]).repeat_interleave(
        20
    )
    ours = x.clone()
    ours[:, 20:] = wrong
    blocks = [Block("last", "last", 0, 20), Block("early", "mean", 20, 40)]
    assert runtime.difference(ours, x) < 1 or wrong != 0
    assert not runtime.worst_difference(ours, x, blocks) <= runtime.MAX_DIFFERENCE


def test_auto_takes_openvino_where_it_pays(monkeypatch):
    monkeypatch.setattr(runtime, "installed", lambda name: name == "openvino")
    assert isinstance(runtime.on_runtime(Lite0(32), "auto", "cpu"), runtime.Accelerated)
    small, large = Tiny(), Lite0(32)
    assert runtime.on_runtime(small, "auto", "cpu") is small
    assert runtime.on_runtime(large, "auto", "cuda") is large
    assert runtime.on_runtime(large, "torch", "cpu") is large
    monkeypatch.setattr(runtime, "installed", lambda name: False)
    assert runtime.on_runtime(large, "auto", "cpu") is large


def test_what_cannot_be_had_is_one_sentence(monkeypatch):
    with pytest.raises(UsageError, match="on the CPU, not on cuda"):
        runtime.on_runtime(Tiny(), "onnx", "cuda")
    with pytest.raises(UsageError, match="'logmel' runs in PyTorch only"):
        factory.encoder_of(EncoderSection(name="logmel", runtime="onnx"))
    monkeypatch.setattr(runtime.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"needs openvino\. Run: pip install 'mixtura\[openvino\]'"):
        factory.encoder_of(EncoderSection(name="tiny", runtime="openvino"))
    with pytest.raises(UsageError, match=r"encoder\.runtime.*'auto', 'torch', 'openvino' or 'onnx'"):
        resolve({"encoder.runtime": "tensorrt"})


@pytest.fixture
def folder(tmp_path):
    """Photos of two classes."""
    for number, photo in enumerate(noise(12, 40)):
        path = tmp_path / "photos" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        photo.save(path)
    return tmp_path / "photos"


def run(folder, name, dtype="float16", **more):
    keys = {"data.root": folder, "encoder.name": "tiny", "encoder.runtime": name, "extract.dtype": dtype}
    return extract.run(resolve(keys | {"extract.store": folder.parent / "store"} | more))


def header(folder):
    return json.loads((folder.parent / "store/store.json").read_text())


@pytest.mark.parametrize("name", HERE)
def test_a_float16_store_takes_any_runtime(folder, name):
    expected = run(folder, "torch").done, FeatureStore.open(folder.parent / "store").read().embedding
    for path in sorted(folder.rglob("*.png"))[::2]:
        path.rename(path.with_suffix(".moved"))
    (folder.parent / "store").rename(folder.parent / "all")
    assert run(folder, "torch").done == 6
    for path in folder.rglob("*.moved"):
        path.rename(path.with_suffix(".png"))
    assert run(folder, name).done == 6
    store = FeatureStore.open(folder.parent / "store")
    whole = FeatureStore.open(folder.parent / "all").read()
    found = store.read().select_ids(whole.id).embedding
    assert np.abs(found - expected[1]).max() <= 2**-10 * np.abs(expected[1]).max()
    assert header(folder)["versions"].get("runtime", "torch") == "torch"
    last = pq.read_schema(store.part_paths()[-1]).metadata[b"versions"]
    assert json.loads(last)["runtime"].startswith(f"{name} ")


@pytest.mark.parametrize("name", HERE)
def test_a_float32_store_keeps_its_runtime(folder, name):
    assert run(folder, name, "float32").done == 12
    assert header(folder)["versions"]["runtime"].startswith(name)
    with pytest.raises(UsageError, match=f"of the runtime {name}, and torch rounds differently"):
        run(folder, "torch", "float32")
    next(folder.rglob("*.png")).unlink()
    noise(13, 40)[-1].save(folder / "a" / "new.png")
    assert run(folder, "auto", "float32").done == 1


def test_an_older_float32_store_stays_with_pytorch(folder, monkeypatch):
    run(folder, "torch", "float32")
    with pytest.raises(UsageError, match="of the runtime torch, and onnx rounds differently"):
        run(folder, "onnx", "float32")
    monkeypatch.setattr(runtime, "MIN_PARAMETERS", 1)
    monkeypatch.setattr(runtime, "installed", lambda name: True)  # OpenVINO would be taken
    noise(13, 40)[-1].save(folder / "a" / "new.png")
    assert run(folder, "auto", "float32").done == 1


def test_a_store_of_a_runtime_that_is_unknown_here(folder):
    run(folder, "torch", "float32")
    found = header(folder)
    found["versions"]["runtime"] = "os:system 1"
    (folder.parent / "store/store.json").write_text(json.dumps(found))
    with pytest.raises(UsageError, match="made with the runtime 'os:system'"):
        run(folder, "auto", "float32")
