"""``mixtura search`` and ``mixtura cluster`` as people type them, on small photos and the tiny encoder."""

import csv
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from mixtura.catalog import Catalog
from mixtura.cli.app import run

COLORS = {"apple": (200, 30, 30), "pear": (150, 200, 60), "plum": (90, 30, 120)}


def photo(rng, color):
    y, x = np.mgrid[:40, :40]
    disk = (y - rng.integers(17, 23)) ** 2 + (x - rng.integers(17, 23)) ** 2 < rng.integers(10, 15) ** 2
    picture = np.where(disk[..., None], np.array(color), 235) + rng.normal(0, 12, (40, 40, 3))
    return Image.fromarray(picture.clip(0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """``sorted/`` with a folder a kind, ``mixed/`` with the same photos without labels, ``new.jpg``, and a model."""
    folder, rng = tmp_path_factory.mktemp("bench"), np.random.default_rng(0)
    (folder / "mixed").mkdir()
    for kind, color in COLORS.items():
        (folder / "sorted" / kind).mkdir(parents=True)
        for number in range(14):
            picture = photo(rng, color)
            for path in (folder / "sorted" / kind / f"{number}.png", folder / "mixed" / f"{kind}{number}.png"):
                picture.save(path)
    photo(rng, COLORS["pear"]).save(folder / "new.jpg", quality=95)
    assert run(["fit", str(folder / "sorted"), "-o", str(folder / "shop"), "--encoder", "tiny", "-q"]) == 0
    return folder


@pytest.fixture
def shop(bench, tmp_path, monkeypatch):
    """A copy of the model, beside which commands run."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(bench / "shop", tmp_path / "shop")
    return tmp_path / "shop"


def test_search_answers_in_three_ways(mixtura, bench, shop):
    record = json.loads(mixtura("search", shop, bench / "new.jpg", "-k", 4, "--json").out)
    near = record["results"][0]["neighbors"]
    assert len(near) == 4 and near[0]["label"] == "pear" and record["index"] == "exact"
    lines = mixtura("search", shop, bench / "new.jpg", "-k", 4, "-q").out.splitlines()
    assert [line.split("\t")[1] for line in lines] == [one["id"] for one in near]
    table = mixtura("search", shop, bench / "new.jpg", "-k", 4).out
    assert "Searched 42 items." in table and near[0]["source"] in table


def test_search_draws_a_sheet_with_the_query(mixtura, bench, shop):
    assert mixtura("search", shop, bench / "new.jpg", "-k", 3, "--sheet", "found.html").code == 0
    assert (shop.parent / "found.html").read_text().count("data:image/jpeg") == 4


def test_a_broken_query_is_told_and_the_others_are_answered(mixtura, bench, shop):
    (shop.parent / "broken.jpg").write_bytes(b"?")
    answer = mixtura("search", shop, bench / "new.jpg", "broken.jpg", "--json")
    assert answer.code == 66
    assert json.loads(answer.out)["results"][1]["error"]["reason"] == "not_an_image"


def test_search_measures_itself(mixtura, shop):
    record = json.loads(mixtura("search", shop, "--evaluate", "--json").out)
    assert record["precision"]["1"] == 1.0 and record["mean_average_precision"] > 0.9 and record["queries"] == 42
    assert "map\t" in mixtura("search", shop, "--evaluate", "-q").out
    assert "A perfect search" in mixtura("search", shop, "--evaluate", "--where", "label=pear").out


def test_search_finds_near_duplicates(mixtura, shop):
    record = json.loads(mixtura("search", shop, "--duplicates", "--limit", 0.9, "--json").out)
    assert record["limit"] == 0.9 and record["groups"]
    assert mixtura("search", shop, "--duplicates", "--sheet", "same.html").code == 0
    assert (shop.parent / "same.html").exists()


def test_a_catalog_is_searched_as_it_is_now(mixtura, bench, shop):
    catalog = Catalog.open(shop)
    catalog.rename(catalog.product("pear").id, "Williams pear")
    near = json.loads(mixtura("search", shop, bench / "new.jpg", "-k", 1, "--json").out)["results"][0]["neighbors"][0]
    assert near["label"] == "Williams pear" and near["id"].isdecimal()
    again = json.loads(mixtura("search", shop, near["id"], "-k", 42, "--json").out)["results"][0]
    assert (
        near["id"] not in {one["id"] for one in again["neighbors"]}
        and len(again["neighbors"]) == len(catalog.known()) - 1
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "Give a photo to search for"),
        (("a.jpg", "--evaluate"), "Give a photo to search for"),
        (("a.jpg", "--limit", "0.9"), "--limit belongs to --duplicates"),
        (("a.jpg", "--where", "label"), "--where label=pear"),
        (("--evaluate", "--sheet", "x.html"), "no pictures to show"),
        (("a.jpg", "--index", "exakt"), "Did you mean 'exact'"),
        (("--duplicates", "--limit", "2"), "no cosine"),
    ],
)
def test_searches_without_sense(mixtura, shop, words, said):
    answer = mixtura("search", shop, *words)
    assert answer.code == 2 and said in answer.err and len(answer.err.splitlines()) == 1


def test_photos_without_labels_become_classes(mixtura, bench, tmp_path, monkeypatch):
    """Cluster, look, accept by name, fit; the features are computed once."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(bench / "mixed", tmp_path / "photos")
    made = json.loads(mixtura("cluster", "photos", "-o", "out", "--clusters", 3, "--encoder", "tiny", "--json").out)
    assert [one["size"] for one in made["clusters"]] == [14, 14, 14] and made["adjusted_rand"] is None
    assert (tmp_path / "out/clusters.html").read_text().count("data:image/jpeg") == 42
    kinds = [one["items"][0].rstrip("0123456789.png") for one in made["clusters"]]
    names = [f"--name={number}={kind}" for number, kind in enumerate(kinds, 1)]
    answer = mixtura("cluster", "photos", "-o", "out", "--accept", *names)
    assert answer.code == 0 and "mixtura fit photos/labels.csv -o out" in answer.out
    rows = list(csv.DictReader((tmp_path / "photos/labels.csv").read_text(encoding="utf-8").splitlines()))
    assert all(row["file_name"].startswith(row["label"]) for row in rows) and len(rows) == 42
    parts = sorted((tmp_path / "out/features").glob("*.parquet"))
    fitted = mixtura("fit", "photos/labels.csv", "-o", "out", "--encoder", "tiny", "--json")
    assert json.loads(fitted.out)["metrics"]["top1"] == 1.0
    assert set(parts) <= set((tmp_path / "out/features").glob("*.parquet"))
    answer = mixtura("cluster", "photos", "-o", "out", "--accept")
    assert answer.code == 73 and "labels.csv is there already" in answer.err


def test_a_store_is_clustered_and_accepted_as_a_store(mixtura, shop):
    store = shop / "features"
    made = json.loads(mixtura("cluster", store, "--clusters", 3, "--method", "kmeans", "--json").out)
    assert made["adjusted_rand"] == 1.0 and made["table"] == "clusters/clusters.csv"
    assert mixtura("cluster", store, "--accept", "--name", "1=one", "-q").out.strip() == "clusters/accepted"
    fitted = mixtura("fit", "clusters/accepted", "-o", "again", "--json")
    assert set(json.loads(fitted.out)["classes"]) == {"one", "cluster-2", "cluster-3"}


def test_one_product_of_a_catalog_is_clustered_and_split(mixtura, shop):
    answer = mixtura("cluster", shop, "--product", "pear", "--clusters", 2, "-o", "kinds")
    assert answer.code == 0
    line = next(line.strip() for line in answer.out.splitlines() if "mixtura split" in line)
    before = Catalog.open(shop).product("pear").items
    words = line.replace("NAME", "small").split()[1:]
    assert mixtura(*words).code == 0
    sizes = {product.name: product.items for product in Catalog.open(shop).products()}
    assert sizes["small"] == len(words) - 4 and sizes["pear"] + sizes["small"] == before
    whole = mixtura("cluster", shop, "--product", "plum", "--clusters", 1, "-o", "kinds").out
    assert "leave it whole" in whole and "adjusted Rand" not in whole
    assert "no product" in mixtura("cluster", shop, "--product", "pair").err.lower()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--clusters", "many"), "neither a number of 1 or more nor auto"),
        (("--clusters", "0"), "neither a number"),
        (("--clusters", "30"), "cannot be made of 42 items"),
        (("--name", "1=a"), "--name belongs to --accept"),
        (("--accept", "--method", "birch"), "uses the clusters of the last run"),
        (("--accept", "--name", "a"), "has no '='"),
        (("--method", "kmean"), "Did you mean 'kmeans'"),
        (("--method", "hdbscan", "--clusters", "2"), "hdbscan finds"),
    ],
)
def test_clusters_without_sense(mixtura, shop, words, said):
    answer = mixtura("cluster", shop / "features", *words)
    assert answer.code == 2 and said in answer.err and len(answer.err.splitlines()) == 1


def test_accepting_before_clustering(mixtura, shop):
    answer = mixtura("cluster", shop / "features", "--accept")
    assert answer.code == 66 and "Cluster first" in answer.err


def test_a_model_of_imported_features_says_what_takes_features_in_place_of_photos(mixtura, tmp_path):

    x = np.random.default_rng(0).standard_normal((40, 4)).astype(np.float32)
    x[::2] += 6
    np.savez(tmp_path / "rows.npz", embedding=x, label=np.array(["a", "b"] * 20))
    Image.new("RGB", (20, 20)).save(tmp_path / "a.png")
    assert mixtura("data", "import", tmp_path / "rows.npz", "-o", tmp_path / "store").code == 0
    assert mixtura("fit", tmp_path / "store", "-o", tmp_path / "shop").code == 0
    for words in (["search", tmp_path / "shop"], ["enroll", tmp_path / "shop", "c"]):
        answer = mixtura(*words, tmp_path / "a.png")
        assert answer.code == 2, answer.err
        assert "Only mixtura predict" in answer.err
        assert "Give their features" not in answer.err
