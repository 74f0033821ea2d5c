"""Clusters of items: their order, margins, quality, and what becomes of them."""

import csv
import sys
import types

import numpy as np
import pytest
import torch

from mixtura.datasets.listing import load
from mixtura.errors import CannotWrite, DataError, NoInput, UnknownName, UsageError
from mixtura.features.projection import L2
from mixtura.features.records import to_features
from mixtura.features.store import FeatureStore
from mixtura.names import find
from mixtura.recipe import resolve
from mixtura.tasks import cluster_files, contact_sheets, fit
from mixtura.tasks.cluster import METHODS, run
from mixtura.tasks.cluster_methods import Partition, points_of


def rows_of(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def uneven(features):
    """Three clouds of 40, 24 and 16 rows; labels a, b and c, the last without."""
    rng = np.random.default_rng(0)
    sizes = [40, 24, 16]
    x = np.concatenate([5 * rng.standard_normal(12) + rng.standard_normal((n, 12)) for n in sizes])
    return features(x, ["a"] * 40 + ["b"] * 24 + [None] * 16)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_found_and_numbers_its_clusters_by_size(uneven, method):
    assert find(METHODS, method).__doc__
    found = run(uneven, method, None if method == "hdbscan" else 3)
    assert [one.number for one in found.clusters][:3] == [1, 2, 3]
    sizes = [one.size for one in found.clusters if one.number]
    assert sizes == sorted(sizes, reverse=True) == [int((found.number == n).sum()) for n in (1, 2, 3)]
    assert found.noise == int((found.number == 0).sum()) and len(found.number) == 80
    assert sorted(row for one in found.clusters for row in one.typical) == list(range(80))
    assert found.silhouette > 0.5 and found.stability > 0.7 and found.labeled == 64
    assert found.rand > 0.8 and found.information > 0.8


def test_typical_rows_are_near_and_borderline_rows_between(uneven):
    found = run(uneven, "kmeans", 3)
    x = points_of(L2()(torch.from_numpy(uneven.embedding)), torch.arange(80))[0].x.double().numpy()
    middle = np.stack([x[found.number == n].mean(0) for n in (1, 2, 3)])
    apart = np.linalg.norm(x[:, None] - middle, axis=2)
    for row in range(80):
        own = apart[row, found.number[row] - 1]
        after = min(apart[row, n] for n in range(3) if n != found.number[row] - 1)
        assert found.margin[row] == pytest.approx((after - own) / max(after, own), abs=1e-9)
    for one in found.clusters:
        near = [apart[row, one.number - 1] for row in one.typical]
        assert near == sorted(near)
        margins = [found.margin[row] for row in one.borderline]
        assert margins == sorted(margins) and set(one.borderline) == set(one.typical)


def test_the_most_frequent_label_is_told(uneven):
    found = run(uneven, "kmeans", 3)
    assert [(one.label, one.share) for one in found.clusters] == [("a", 1.0), ("b", 1.0), (None, 0.0)]


def test_one_cluster_has_no_borders(uneven):
    found = run(uneven, "mixture", 1)
    assert np.isnan(found.silhouette) and (found.margin == 1).all() and found.stability == 1.0


def test_the_length_of_a_feature_does_not_matter(uneven):
    scale = np.random.default_rng(1).uniform(0.1, 10, (80, 1)).astype(np.float32)
    scaled = to_features(type(uneven)(**(vars(uneven) | {"embedding": uneven.embedding * scale})), uneven.identity)
    assert np.array_equal(run(uneven, "kmeans", 3).number, run(scaled, "kmeans", 3).number)


def test_the_same_seed_gives_the_same_clusters(uneven):
    first, second = run(uneven, "minibatch-kmeans", 4, seed=2), run(uneven, "minibatch-kmeans", 4, seed=2)
    assert np.array_equal(first.number, second.number) and first.stability == second.stability


def test_stability_is_low_where_there_is_nothing_to_find(features):
    x = np.random.default_rng(0).standard_normal((80, 12))
    assert run(features(x, ["a"] * 80), "kmeans", 5).stability < 0.6


def test_a_method_of_ones_own(uneven, monkeypatch):
    def halves(points, clusters, seed):
        label = (np.arange(len(points.x)) % 2 == 0).astype(np.int64)
        label[:2] = -1
        return Partition(label, np.full(len(label), 0.5), "two, of course")

    monkeypatch.setitem(sys.modules, "mine", types.SimpleNamespace(halves=halves))
    found = run(uneven, "mine:halves")
    assert found.noise == 2 and found.clusters[-1].number == 0 and found.how == "two, of course"


def test_questions_without_sense(uneven):
    with pytest.raises(UsageError, match="41 clusters cannot be made of 80 items"):
        run(uneven, "kmeans", 41)
    with pytest.raises(NoInput, match="There are 3 items"):
        run(uneven.select([0, 1, 2]))
    with pytest.raises(UnknownName, match="Did you mean 'kmeans'"):
        run(uneven, "kmean")
    with pytest.raises(UsageError, match="hdbscan finds"):
        run(uneven, "hdbscan", 3)


def test_the_table_is_read_as_it_was_written_or_edited(uneven, tmp_path):
    found = run(uneven, "hdbscan")
    path = cluster_files.write_table(found, tmp_path / "out")
    rows = rows_of(path)
    assert list(rows[0]) == list(cluster_files.TABLE_COLUMNS) and [row["id"] for row in rows] == uneven.id
    assert {row["cluster"] for row in rows} <= {"1", "2", "3", "noise"}
    assert all(0 <= float(row["probability"]) <= 1 for row in rows)
    assert cluster_files.read_table(tmp_path / "out") == {row["id"]: row["cluster"] for row in rows}
    path.write_text(path.read_text().replace(",1,", ",mug,"))
    assert "mug" in cluster_files.read_table(tmp_path / "out").values()
    assert all(
        row["probability"] == "" for row in rows_of(cluster_files.write_table(run(uneven, "kmeans", 2), tmp_path))
    )


@pytest.mark.parametrize(("separator", "encoding"), [(";", "utf-8-sig"), ("\t", "utf-16")])
def test_a_table_is_read_as_a_spreadsheet_saves_it(uneven, tmp_path, separator, encoding):
    path = cluster_files.write_table(run(uneven, "kmeans", 3), tmp_path)
    before = cluster_files.read_table(tmp_path)
    path.write_text(path.read_text(encoding="utf-8").replace(",", separator) + 4 * separator + "\n", encoding=encoding)
    assert cluster_files.read_table(tmp_path) == before


def test_tables_that_are_no_tables(tmp_path):
    with pytest.raises(NoInput, match="Cluster first"):
        cluster_files.read_table(tmp_path)
    for text in ("", "id,source\na,b\n", "id,cluster\n"):
        (tmp_path / cluster_files.TABLE_FILE).write_text(text)
        with pytest.raises(DataError, match="no column"):
            cluster_files.read_table(tmp_path)


def test_clusters_get_names():
    cluster = {"a": "1", "b": "2", "c": "noise", "d": "plate", "e": "3"}
    assert cluster_files.named(cluster, {"1": " mug ", "3": ""}) == {"a": "mug", "b": "cluster-2", "d": "plate"}
    assert cluster_files.named(cluster, {"1": "mug", "2": "mug", "noise": "rest"})["c"] == "rest"
    with pytest.raises(UsageError, match=r"no cluster '4'.*Known: 1, 2, 3, noise, plate"):
        cluster_files.named(cluster, {"4": "x"})
    with pytest.raises(UsageError, match=r"'a\\nb' holds a line break.*Give one line of text"):
        cluster_files.named(cluster, {"1": "a\nb"})
    with pytest.raises(UsageError, match="No cluster is left"):
        cluster_files.named({"a": "1", "b": "noise"}, {"1": ""})


def test_the_list_is_what_fit_reads(tmp_path):
    for name in ("a b.jpg", "50%.jpg", "deep/ü.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    label = {"a b.jpg": "mug", "50%25.jpg": "plate, blue", "deep/ü.jpg": "mug"}
    with pytest.raises(DataError, match="of other photos"):
        cluster_files.as_list({"gone.jpg": "mug"}, tmp_path, 0)
    made = cluster_files.as_list(label | {"gone.jpg": "mug"}, tmp_path, 3)
    items = load(made.path).items
    assert {item.id: item.label for item in items} == label
    assert made.classes == {"mug": 2, "plate, blue": 1} and made.left_out == 4
    with pytest.raises(CannotWrite, match="there already"):
        cluster_files.as_list(label, tmp_path, 0)


def test_the_store_is_what_fit_reads(uneven, tmp_path):
    cluster = {id: str(n) for id, n in zip(uneven.id, run(uneven, "kmeans", 3).number.tolist(), strict=True)}
    made = cluster_files.as_store(cluster_files.named(cluster, {"1": "big", "3": ""}), uneven, tmp_path)
    stored = FeatureStore.open(made.path).read()
    assert made.classes == {"big": 40, "cluster-2": 24} and made.left_out == 16
    assert set(stored.label) == {"big", "cluster-2"} and stored.superlabel[0] == "a"
    report = fit.run(resolve({"data.kind": "features", "data.root": str(made.path), "output": str(tmp_path / "m")}))
    assert report.evaluation.classes == ("big", "cluster-2") and report.evaluation.metrics["top1"] == 1.0


def test_the_sheet_shows_typical_then_borderline(uneven):
    found = run(uneven, "kmeans", 3)
    sheet = contact_sheets.of_clusters(found, "Clusters")
    first = sheet.groups[0]
    assert first.name == "Cluster 1" and first.note == "40 items, 100% a"
    typical, borderline = first.strips
    assert [one.id for one in typical.pictures] == [uneven.id[row] for row in found.clusters[0].typical[:18]]
    assert not {one.id for one in typical.pictures} & {one.id for one in borderline.pictures}
    assert dict(sheet.facts)["Stability"].startswith(f"{found.stability:.3f}")
    noisy = contact_sheets.of_clusters(run(uneven, "hdbscan"), "Clusters")
    assert noisy.groups[-1].name in ("In no cluster", "Cluster 3")
