"""A model on disk: the same bits back, nothing but the whole of it, and an earlier one never lost."""

import errno
import hashlib
import json

import numpy as np
import pytest
from safetensors.torch import load, save

from mixtura import files
from mixtura.core import FAMILIES
from mixtura.errors import BundleError, CannotWrite, NoInput, OutOfSpace
from mixtura.model.bundle import CONFIG_FILE, TENSORS_FILE, Config, from_pretrained, save_pretrained

STEPS = (
    ["lda"],
    [{"name": "pca", "explained_variance": 0.9}, "whiten"],
    ["power"],
    [{"name": "random_features", "dimension": 9}],
)
COLUMNS = ("posterior", "predicted", "probability", "typicality", "score", "verdict", "reason", "subclass")


@pytest.fixture(scope="module")
def points():
    return np.random.default_rng(1).standard_normal((50, 6)).astype(np.float32) * 4


@pytest.fixture(scope="module")
def model(cloud, learn):
    return learn(cloud(120, 3), head__family="tied", head__shrinkage=0.1)


@pytest.fixture(scope="module")
def other(cloud, learn):
    return learn(cloud(90, 2, seed=5), head__family="tied", head__shrinkage=0.1)


@pytest.fixture
def saved(model, tmp_path):
    save_pretrained(model, tmp_path / "m")
    return tmp_path / "m"


def same(ours, theirs):
    return all(np.array_equal(getattr(ours, name), getattr(theirs, name)) for name in COLUMNS)


@pytest.mark.parametrize(
    ("family", "components", "steps"),
    [*((family, 1 + (family != "lowrank"), []) for family in FAMILIES), *(("tied", 1, steps) for steps in STEPS)],
)
def test_a_model_comes_back_with_the_same_bits(cloud, learn, tmp_path, points, family, components, steps):
    model = learn(
        cloud(120, 3), head__family=family, head__n_components=components, projection=steps, head__rank=2,
        head__shrinkage=0.1,
    )  # fmt: skip
    save_pretrained(model, tmp_path / "m")
    again = from_pretrained(tmp_path / "m")
    assert same(model.answers(points), again.answers(points))
    assert (again.classes, again.encoder, again.identity) == (model.classes, model.encoder, model.identity)
    assert again.facts == json.loads(json.dumps(model.facts))
    save_pretrained(again, tmp_path / "n")
    for name in (CONFIG_FILE, TENSORS_FILE):
        assert (tmp_path / "m" / name).read_bytes() == (tmp_path / "n" / name).read_bytes()


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS])
@pytest.mark.parametrize("good_writes", range(4))
def test_a_write_that_fails_leaves_the_earlier_model_whole(other, saved, monkeypatch, error, good_writes):
    others = {"metrics.json": b"{}", "README.md": b"new"}
    (saved / "README.md").write_bytes(b"old")
    before = {path.name: path.read_bytes() for path in saved.iterdir()}
    written = []

    def fail(path, data, write=files._write_through):
        if len(written) == good_writes:
            path.write_bytes(data[: len(data) // 2])
            raise OSError(error, "no")
        written.append(path)
        write(path, data)

    monkeypatch.setattr(files, "_write_through", fail)
    full = error in (errno.ENOSPC, errno.EDQUOT)
    with pytest.raises(OutOfSpace if full else CannotWrite, match=r"what was saved before is intact") as caught:
        save_pretrained(other, saved, others)
    assert caught.value.exit_code == (74 if full else 73)
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == before
    from_pretrained(saved)


def test_a_folder_that_cannot_be_made_is_named(saved):
    with pytest.raises(CannotWrite, match=r"model\.safetensors/deeper"):
        save_pretrained(from_pretrained(saved), saved / TENSORS_FILE / "deeper")


@pytest.mark.parametrize("damage", ["truncate", "flip", "empty", "missing", "folder"])
def test_damaged_tensors_are_refused(saved, damage):
    path = saved / TENSORS_FILE
    data = path.read_bytes()
    path.unlink()
    if damage == "folder":
        path.mkdir()
    elif damage != "missing":
        middle = len(data) // 2
        flipped = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
        path.write_bytes({"truncate": data[:-7], "flip": flipped, "empty": b""}[damage])
    with pytest.raises(BundleError, match=r"model\.safetensors .*Run mixtura fit again; the features are kept\."):
        from_pretrained(saved)


@pytest.mark.parametrize("change", ["missing", "extra", "nan", "unknown part", "not safetensors"])
def test_tensors_that_do_not_belong_are_refused_though_the_hash_is_right(saved, change):
    state = load((saved / TENSORS_FILE).read_bytes())
    if change == "missing":
        del state["typicality.scores"]
    elif change == "nan":
        state["mixture.mean"][0, 0] = float("nan")
    else:
        state["mixture.more" if change == "extra" else "code.main"] = state["mixture.mean"].clone()
    data = b"\x80\x04pickle" if change == "not safetensors" else save(state)
    (saved / TENSORS_FILE).write_bytes(data)
    edit(saved, sha256=hashlib.sha256(data).hexdigest())
    with pytest.raises(BundleError, match="Run mixtura fit again"):
        from_pretrained(saved)


def edit(folder, **changes):
    config = json.loads((folder / CONFIG_FILE).read_text())
    (folder / CONFIG_FILE).write_text(json.dumps(config | changes))


def test_no_configuration_is_no_model(saved):
    (saved / CONFIG_FILE).unlink()
    for path in (saved, saved / "nowhere", saved / TENSORS_FILE):
        with pytest.raises(NoInput, match=r"is no model: config\.json is missing\. Give a folder"):
            from_pretrained(path)


def test_another_layout_is_named(saved):
    edit(saved, layout=3)
    with pytest.raises(BundleError, match=r"has layout 3, this mixtura reads 1 and 2\. Fit again\."):
        from_pretrained(saved)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "\xff", '{"layout": 1}', '{"layout": 1, "more": 2}'])
def test_a_configuration_that_is_none_is_refused(saved, text):
    (saved / CONFIG_FILE).write_bytes(text.encode("latin-1"))
    with pytest.raises(BundleError, match=r"config\.json"):
        from_pretrained(saved)


WRONG = {
    "classes": [[], ["a"], "abc", None, [1, 2, 3], ["a", "b", "c", "d"]],
    "encoder": [None, {"nam": "tiny"}, "tiny"],
    "identity": [None, {"name": 3}],
    "dimension": [0, 7, -1, "6", None],
    "projection": [{}, None, {"name": "pca"}, {"name": "chain", "steps": [{"name": "os:system"}]}],
    "family": ["full", "fulll", None, 3],
    "temperature": [0, -1.0, "1", None, float("nan"), float("inf")],
    "decision": [{"false_reject_rate": 2.0}, {"x": 1}, None],
    "facts": [None, []],
    "head": [{"name": "os:system"}, {"name": "linear"}, {"name": "linear", "dimension": 6, "n_classes": 3}, {}, 3],
    "layout": [0, "1", None],
    "score": ["os:system", "knnn", "knn", 3, {}],
    "subclasses": [{}, 3, {"names": ["a", "b"], "temperature": 1.0}, {"names": ["a", "b"], "temperature": 0}],
    "prior": [3, [], [0.5, 0.5], [0.5, 0.5, 0.0], [0.5, 0.5, "0"], {}],
    "encoder_sha256": ["no hash", 3, {}],
    "sha256": ["", None],
}


def test_every_key_is_tried():
    assert set(WRONG) == set(Config.model_fields)


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in WRONG.items() for value in values])
def test_a_configuration_with_one_wrong_value_is_refused(saved, key, value):
    edit(saved, **{key: value})
    with pytest.raises(BundleError):
        from_pretrained(saved)


@pytest.mark.parametrize("facts", [None, [1], "abc", 3])
def test_wrong_facts_of_an_earlier_layout_are_refused(saved, facts):
    edit(saved, layout=1, facts=facts)
    with pytest.raises(BundleError, match="wrong at facts"):
        from_pretrained(saved)
