"""Features made elsewhere become a store, from the command line on."""

import numpy as np
import pytest
import torch

from mixtura.cli.app import run
from mixtura.errors import UsageError
from mixtura.features.store import FeatureStore
from mixtura.tasks import import_features


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    return rng.normal(size=(6, 3)).astype(np.float32), np.array(list("aabbcc"))


def test_npz_and_npy_give_the_same_rows(tmp_path, arrays):
    x, y = arrays
    np.savez(tmp_path / "f.npz", embedding=x, label=y)
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", y)
    assert run(["data", "import", str(tmp_path / "f.npz"), "-o", str(tmp_path / "a")]) == 0
    labels = ["--labels", str(tmp_path / "y.npy")]
    assert run(["data", "import", str(tmp_path / "x.npy"), "-o", str(tmp_path / "b"), *labels]) == 0
    for name in "ab":
        features = FeatureStore.open(tmp_path / name).read()
        np.testing.assert_array_equal(features.embedding, x)
        assert features.label == y.tolist()


def test_dgmmc_folder(tmp_path, arrays):
    x, y = arrays
    folder = tmp_path / "Train"
    folder.mkdir()
    for row, vector in enumerate(x):
        torch.save(torch.from_numpy(vector.copy()), folder / f"{row}.pt")
    (tmp_path / "labels.txt").write_text("\n".join(y.tolist()) + "\n")
    store = import_features.run(folder, tmp_path / "store", "dgmmc", tmp_path / "labels.txt", "clip", "train")
    features = store.read()
    np.testing.assert_array_equal(features.embedding, x)
    assert features.label == y.tolist()
    assert set(features.split) == {"train"}
    assert features.identity["name"] == "imported:clip"


@pytest.mark.parametrize(
    ("layout", "words"),
    [(None, "--layout"), ("parket", "parquet"), ("dgmmc", "--labels")],
)
def test_a_layout_that_does_not_fit_is_named(tmp_path, layout, words):
    with pytest.raises(UsageError, match=words):
        import_features.run(tmp_path / "features", tmp_path / "store", layout)


def test_a_store_is_not_overwritten(tmp_path, arrays, capsys):
    x, y = arrays
    np.savez(tmp_path / "f.npz", embedding=x, label=y)
    arguments = ["data", "import", str(tmp_path / "f.npz"), "-o", str(tmp_path / "a")]
    assert run(arguments) == 0
    assert run(arguments) == 73
    assert "already holds features" in capsys.readouterr().err
