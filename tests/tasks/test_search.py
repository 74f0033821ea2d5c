"""Search in stored items against the obvious loops."""

import sys
import types

import numpy as np
import pytest
import torch

from mixtura.datasets.items import Problem
from mixtura.errors import FingerprintMismatch, LabelError, MissingExtra, NoInput, UnknownName, UsageError
from mixtura.features import neighbors
from mixtura.features.neighbors import Exact
from mixtura.features.records import to_features
from mixtura.features.store import FeatureStore
from mixtura.sections import EncoderSection
from mixtura.tasks import search
from mixtura.tasks.collection import Collection, filtered, open_collection

SECTION = EncoderSection(name="tiny")


def place_of(features, path="somewhere"):
    from pathlib import Path

    return Collection(Path(path), features, SECTION, lambda id: None)


def cosine_of(x):
    unit = x.astype(np.float64) / np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True)
    return unit @ unit.T


def naive(features):
    """Precision at 1, 5, 10 and mean average precision by walking down each ranking."""
    cosine, label = cosine_of(features.embedding), features.label
    found = {1: [], 5: [], 10: [], "map": []}
    for i, own in enumerate(label):
        others = [j for j in np.argsort(-cosine[i]) if j != i]
        hits = [label[j] == own and own is not None for j in others]
        if own is None or not any(hits):
            continue
        for k in (1, 5, 10):
            found[k].append(sum(hits[:k]) / k)
        ranks = [rank for rank, hit in enumerate(hits, 1) if hit]
        found["map"].append(np.mean([(n + 1) / rank for n, rank in enumerate(ranks)]))
    return {name: float(np.mean(values)) for name, values in found.items()}


@pytest.mark.parametrize("rows", [1, 7, 256])
def test_precision_and_map_equal_the_walk_down_each_ranking(cloud, monkeypatch, rows):
    monkeypatch.setattr(search, "_BLOCK_QUERIES", rows)
    features = cloud(n=60, classes=5, separation=0.7)
    labels = [None if i % 11 == 0 else "alone" if i == 5 else own for i, own in enumerate(features.label)]
    features = to_features(features.__class__(**(vars(features) | {"label": labels})), features.identity)
    found, expected = search.evaluate(place_of(features)), naive(features)
    assert found.precision == pytest.approx({k: expected[k] for k in (1, 5, 10)})
    assert found.mean_average_precision == pytest.approx(expected["map"], abs=1e-6)
    assert (found.alone, found.items, found.queries) == (1, 60, 60 - 6 - 1)
    assert set(found.by_class) == {"c0", "c1", "c2", "c3", "c4"}


def test_other_items_may_be_asked_for(cloud):
    features = cloud(n=80, classes=4, separation=0.7)
    train, test = features.select_split("train"), features.select_split("test")
    found = search.measure(train, test)
    cosine = cosine_of(np.concatenate([test.embedding, train.embedding]))[: len(test), len(test) :]
    right = [train.label[j] == own for j, own in zip(cosine.argmax(1), test.label, strict=True)]
    assert found.precision[1] == pytest.approx(np.mean(right))
    assert found.queries == len(test) and found.items == len(train)


def test_many_items_are_asked_for_by_a_sample(cloud, monkeypatch):
    monkeypatch.setattr(search, "MAX_QUERIES", 20)
    assert search.measure(cloud(n=90)).queries == 20


def test_the_ceiling_is_what_a_perfect_search_reaches(features):
    x = np.repeat(np.eye(3), [2, 3, 12], axis=0)
    found = search.measure(features(x, ["a"] * 2 + ["b"] * 3 + ["c"] * 12))
    assert found.precision == pytest.approx(found.ceiling)
    assert found.ceiling[10] == pytest.approx((2 * 0.1 + 3 * 0.2 + 12 * 1.0) / 17)
    assert found.mean_average_precision == 1.0


def test_labels_that_occur_once_measure_nothing(features):
    with pytest.raises(LabelError, match="No label occurs twice among 4"):
        search.measure(features(np.eye(4), ["a", "b", "c", None]))


def test_a_stored_item_does_not_find_itself_and_a_file_finds_all(cloud, tmp_path):
    from pathlib import Path

    features = cloud(n=12, classes=3)
    found = search.run(place_of(features), [Path("i3"), Path("i7")], k=20)
    cosine = cosine_of(features.embedding)
    for one, row in zip(found.results, (3, 7), strict=True):
        order = [f"i{j}" for j in np.argsort(-cosine[row]) if j != row]
        assert [near.id for near in one.neighbors] == order
        assert [near.label for near in one.neighbors] == [f"c{int(id[1:]) % 3}" for id in order]
        assert one.neighbors[0].similarity == pytest.approx(sorted(cosine[row])[-2], abs=1e-6)
    assert found.recall is None and found.items == 12


@pytest.fixture
def photo_store(tmp_path):
    """A store of the features of six small photos, and the photos."""
    from PIL import Image

    from mixtura.encoders.tiny import Tiny
    from mixtura.features.records import Rows

    encoder, rng, paths = Tiny(), np.random.default_rng(0), []
    for number in range(6):
        picture = Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8))
        picture.save(tmp_path / f"{number}.png")
        paths.append(tmp_path / f"{number}.png")
    x = encoder.encode(torch.stack([encoder.prepare(Image.open(path)) for path in paths])).numpy()
    store = FeatureStore.create(tmp_path / "store", encoder.identity, encoder.dimension, "float32")
    names = [f"n{i}" for i in range(6)]
    none = [None] * 6
    store.append(Rows(x, names, names, list("aabbcc"), none, none, ["train"] * 5 + ["test"], np.ones(6), names))
    return store.path, paths


def test_photos_are_encoded_by_the_encoder_of_the_store(photo_store, tmp_path):
    store, paths = photo_store
    (tmp_path / "broken.png").write_bytes(b"no picture")
    found = search.run(open_collection(store), [paths[4], tmp_path / "broken.png", paths[0]], k=2)
    assert [near.id for near in (found.results[0].neighbors[0], found.results[2].neighbors[0])] == ["n4", "n0"]
    assert found.results[0].neighbors[0].similarity == pytest.approx(1.0, abs=1e-5)
    assert len(found.results[0].neighbors) == 2
    assert isinstance(found.results[1], Problem) and found.results[1].reason == "not_an_image"
    only = search.run(open_collection(store), [paths[4]], k=9, where=[("label", "b"), ("split", "train")])
    assert {near.id for near in only.results[0].neighbors} == {"n2", "n3"}


@pytest.mark.parametrize("mode", ["RGBA", "L", "LA", "CMYK", "P", "1"])
def test_photos_of_every_kind_are_queries(photo_store, tmp_path, mode):
    from PIL import Image

    store, paths = photo_store
    path = tmp_path / f"query.{'jpg' if mode == 'CMYK' else 'png'}"
    Image.open(paths[1]).convert(mode).save(path)
    assert len(search.run(open_collection(store), [path], k=3).results[0].neighbors) == 3


def test_the_items_are_never_encoded_again(photo_store, monkeypatch):
    """One query costs one encoder pass, whatever the size of the store."""
    from mixtura.encoders.tiny import Tiny

    store, paths = photo_store
    seen, encode = [], Tiny.encode
    monkeypatch.setattr(Tiny, "encode", lambda self, batch: seen.append(len(batch)) or encode(self, batch))
    search.run(open_collection(store), [paths[0]])
    assert seen == [1]


def test_another_encoder_is_refused(photo_store):
    store, paths = photo_store
    place = open_collection(store)
    other = to_features(place.features, place.features.identity | {"weights": "others"})
    with pytest.raises(FingerprintMismatch, match="weights"):
        search.run(Collection(store, other, place.encoder, place.picture), [paths[0]])


def test_items_are_narrowed_by_column(cloud):
    features = cloud(n=20)
    assert set(filtered(features, [("label", "c1"), ("split", "train")]).label) == {"c1"}
    with pytest.raises(NoInput, match="Did you mean 'c1'"):
        filtered(features, [("label", "c11")])
    with pytest.raises(NoInput, match="This column is empty"):
        filtered(features, [("group", "x")])
    with pytest.raises(UsageError, match="Did you mean 'label'"):
        filtered(features, [("lable", "c1")])


def test_what_is_no_place(tmp_path):
    with pytest.raises(NoInput, match="neither a model nor a feature store"):
        open_collection(tmp_path)


def test_an_index_of_ones_own_and_one_that_is_missing(cloud, monkeypatch):
    features, built = cloud(n=30), []

    class Own(Exact):
        @classmethod
        def build(cls, base, seed=0):
            built.append(len(base))
            return super().build(base)

    monkeypatch.setitem(sys.modules, "mine", types.SimpleNamespace(Own=Own))
    assert search.measure(features, index="mine:Own").recall == 1.0 and built == [30]
    with pytest.raises(UnknownName, match="Did you mean 'exact'"):
        search.measure(features, index="exakt")
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(MissingExtra, match="mixtura"):
        search.measure(features, index="ivf")


def test_the_inverted_index_agrees_where_it_has_found_everything(cloud):
    features = cloud(n=300)
    exact, found = search.measure(features), search.measure(features, index="ivf")
    assert 0 < found.recall <= 1
    assert found.mean_average_precision == exact.mean_average_precision
    assert found.precision[1] == pytest.approx(exact.precision[1], abs=0.1)


def test_blocks_do_not_matter(cloud, monkeypatch):
    features = cloud(n=50)
    whole = search.measure(features)
    monkeypatch.setattr(neighbors, "_QUERIES", 3)
    monkeypatch.setattr(neighbors, "_BASES", 7)
    assert search.measure(features) == whole
