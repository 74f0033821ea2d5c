"""A few-shot evaluation: its classes are new, its figures those of the episodes, and gaussian is what enroll does."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import SGDClassifier

from mixtura.catalog import Catalog, Shot
from mixtura.datasets.episodes import Design
from mixtura.errors import LabelError, UnknownName, UsageError
from mixtura.features import imports
from mixtura.metrics.intervals import t_interval
from mixtura.names import find
from mixtura.recipe import resolve
from mixtura.sections import DataSection
from mixtura.tasks import fewshot, fit
from mixtura.tasks.fewshot import CLASSIFIERS, accuracies, drawn, of_features, of_model, of_part, run

CLASSES = 12


@pytest.fixture(scope="module")
def crowd(cloud):
    """Twelve overlapping classes of 25 rows."""
    return cloud(n=25 * CLASSES, classes=CLASSES, dimension=8, separation=1.2)


@pytest.fixture(scope="module")
def material(crowd):
    return of_features(crowd, "0.5", 0)


@pytest.fixture(scope="module")
def shop(crowd, tmp_path_factory):
    """A model of eight classes; four others were kept out."""
    folder = tmp_path_factory.mktemp("few")
    imports.save(crowd, folder / "store")
    keys = {"data.kind": "features", "data.root": folder / "store", "output": folder / "shop"}
    fit.run(resolve(keys | {"data.unknown": ("c0", "c1", "c2", "c3")}))
    return folder / "shop"


def test_every_classifier_is_found_and_measured_on_the_same_episodes(material):
    listed = drawn(material, "nway", Design(5, 2, 5, 40, 3))
    found = run(material, listed, [*CLASSIFIERS])
    assert [one.classifier for one in found.results] == [*CLASSIFIERS]
    assert (found.classes, found.base, found.items, found.seed) == (6, 6, 150, 3)
    for one in found.results:
        mean, half = t_interval(one.accuracy.tolist())
        assert one.accuracy.shape == (40,) and (one.mean, one.high) == (mean, min(1.0, mean + half))
        assert one.mean > 0.5 and one.difference == pytest.approx(one.mean - found.results[0].mean)
    gaussian = next(one for one in found.results if one.classifier == "gaussian")
    assert gaussian.mean >= found.results[0].mean - 0.02


@pytest.mark.parametrize("way", [2, 4])
def test_sgd_logistic_is_scikit_learn_s_for_each_episode(material, way):
    listed = drawn(material, "nway", Design(way, 3, 4, 5, 0))
    x, right = material.unit.numpy(), []
    for episode in listed.located(material.novel.id, material.novel.label).episodes:
        made = SGDClassifier(loss="log_loss", random_state=0)
        made.fit(x[episode.support.ravel()], np.repeat(np.arange(way), 3))
        right.append(np.mean(made.predict(x[episode.query.ravel()]) == np.repeat(np.arange(way), 4)))
    (found,) = run(material, listed, ["sgd-logistic"]).results
    np.testing.assert_allclose(found.accuracy, right)


def test_without_normalizing_classifiers_read_the_features_as_they_are(material):
    listed, raw = drawn(material, "nway", Design(4, 3, 5, 20, 0)), replace(material, normalize=False)
    found = run(raw, listed, ["prototype", "raw-prototype", "knn"])
    np.testing.assert_array_equal(found.results[0].accuracy, found.results[1].accuracy)
    assert found.facts["normalized"] is False and run(material, listed, ["knn"]).facts["normalized"] is True
    longer = replace(material, novel=replace(material.novel, embedding=7 * material.novel.embedding))
    for one in (material, longer):  # of unit length, whatever the length was
        np.testing.assert_allclose(one.unit.norm(dim=1), 1, rtol=1e-5)


def test_features_as_they_are_change_nothing_for_classifiers_with_a_space_of_their_own(material):
    listed, raw = drawn(material, "nway", Design(4, 3, 5, 2, 0)), replace(material, normalize=False)
    for names in (["raw-prototype"], ["gaussian", "calibration"]):
        with pytest.raises(UsageError, match=f"nothing changes for {' and '.join(names)}. Leave out --no-normalize"):
            run(raw, listed, names)
        run(material, listed, names)


def test_raw_prototype_is_the_nearest_mean_of_the_features_as_they_are(features):
    """Classes that only differ in length, far from the origin."""
    rng = np.random.default_rng(0)
    label = np.repeat(np.arange(4), 9)
    x = 1000 + label[:, None] + 0.4 * rng.standard_normal((36, 8))
    material = of_features(features(x, [f"c{c}" for c in label]), "0", 0)
    listed = drawn(material, "nway", Design(3, 2, 4, 20))
    found = run(material, listed, ["prototype", "raw-prototype"]).results
    given = material.novel.embedding.astype(np.float64)
    for place, one in enumerate(listed.located(material.novel.id, material.novel.label).episodes):
        means, queries = given[one.support].mean(1), given[one.query]
        nearest = ((queries[:, :, None] - means) ** 2).sum(-1).argmin(-1)
        assert found[1].accuracy[place] == (nearest == np.arange(3)[:, None]).mean()
    assert found[1].mean > found[0].mean + 0.3


def test_accuracies_do_not_depend_on_the_chunks(material, monkeypatch):
    episodes = drawn(material, "nway", Design(5, 1, 3, 30)).episodes
    for name in ("prototype", "gaussian"):
        space = find(CLASSIFIERS, name)(material)
        whole = accuracies(space, episodes)
        monkeypatch.setattr(fewshot, "CHUNK_NUMBERS", 1)
        np.testing.assert_array_equal(accuracies(space, episodes), whole)
        monkeypatch.undo()


def test_episodes_of_several_sizes_keep_their_order(features):
    """Superclasses of two and of three classes; an episode's accuracy is the one that it has alone."""
    rng = np.random.default_rng(0)
    label = np.repeat(np.arange(5), 8)
    x = rng.standard_normal((5, 6))[label] + rng.standard_normal((40, 6))
    given = features(x, [f"c{c}" for c in label], superlabel=["s" if c < 2 else "t" for c in label])
    material = of_features(given, "0", 0)
    listed = drawn(material, "intra", Design(2, 1, 4, 20))
    found = run(material, listed, ["nearest"])
    assert {*found.way.tolist()} == {2, 3} and found.named.startswith("intra-superclass (2- to 3-way)")
    space = find(CLASSIFIERS, "nearest")(material)
    located = listed.located(material.novel.id, material.novel.label)
    alone = [accuracies(space, [one])[0] for one in located.episodes]
    np.testing.assert_array_equal(found.results[0].accuracy, alone)


def test_gaussian_is_what_the_catalog_enrolls(shop):
    """The same shots enrolled by name, and the queries decided by the catalog's model among the newcomers."""
    material = of_model(shop)
    assert set(material.novel.classes) == {"c0", "c1", "c2", "c3"}
    listed = drawn(material, "allway", Design(2, 3, 15, 1))
    (episode,) = listed.located(material.novel.id, material.novel.label).episodes
    catalog = Catalog.open(shop)
    embedding = material.novel.embedding
    names = [f"new {place}" for place in range(4)]
    for name, rows in zip(names, episode.support, strict=True):
        catalog.enroll(name, [Shot(embedding[row], f"{10**6 + row:064x}", str(row)) for row in rows])
    model = catalog.model
    place = [model.classes.index(name) for name in names]
    with torch.inference_mode():
        scores = model.mixture.class_log_prob(model.project(embedding[episode.query.ravel()]))[:, place]
        space = find(CLASSIFIERS, "gaussian")(material)
        rows = (space.rows[torch.from_numpy(part)][None] for part in (episode.support, episode.query.ravel()))
        found = space.scores(*rows)[0]
    catalog.close()
    torch.testing.assert_close(found.log_softmax(1), scores.log_softmax(1), atol=1e-3, rtol=1e-3)
    result = run(material, listed, ["gaussian"]).results[0]
    label = torch.arange(4).repeat_interleave(15)
    assert result.mean == pytest.approx((scores.argmax(1) == label).double().mean().item())


def test_base_and_novel_classes_never_meet(crowd, shop, tmp_path):
    material = of_features(crowd, "3", 1)
    assert len(material.base.classes) == 3 and not set(material.base.classes) & set(material.novel.classes)
    listed = drawn(of_features(crowd, "0", 0), "allway", Design(2, 1, 2, 1))
    with pytest.raises(LabelError, match="Few-shot classes must be new"):
        run(material, listed, ["prototype"])
    with pytest.raises(LabelError, match="are among those to learn from and among those to test on"):
        of_features(crowd, "split", 0)
    data = DataSection(kind="features", root=shop.parent / "store")
    with pytest.raises(LabelError, match="8 classes are among those to learn from"):
        of_model(shop, data)


def test_classes_of_a_split_are_used_where_they_differ(crowd):
    parts = ["train" if label < "c5" else "test" for label in crowd.label]
    material = of_features(crowd.with_split(dict(zip(crowd.id, parts, strict=True))), "auto", 0)
    assert set(material.base.classes) == {label for label in crowd.label if label < "c5"}
    assert of_features(crowd, "auto", 0).base.classes == of_features(crowd, "0.5", 0).base.classes


def test_new_classes_can_follow_a_model(shop, cloud, tmp_path):
    other = cloud(n=60, classes=3, dimension=8, seed=9)
    imports.save(other.select(np.arange(60)), tmp_path / "other")
    section = DataSection(kind="features", root=tmp_path / "other")
    material = of_model(shop, section)
    found = run(material, drawn(material, "allway", Design(2, 1, 5, 20)), ["prototype", "gaussian"])
    assert (found.classes, found.base, found.items) == (3, 8, 60) and found.facts["base"]["family"]


def test_what_cannot_be_measured_is_told(crowd, material, shop, learn):
    listed = drawn(material, "nway", Design(5, 1, 2, 2))
    with pytest.raises(UnknownName):
        run(material, listed, ["prototyp"])
    without = of_features(crowd, "0", 0)
    with pytest.raises(UsageError, match="borrow from base classes, and there are none"):
        run(without, listed, ["gaussian"])
    for base in ("x", "-1", "1.5", "nan"):
        with pytest.raises(UsageError, match="Give a number of classes, a share below 1, auto or split"):
            of_features(crowd, base, 0)
    with pytest.raises(UsageError, match="in the part 'val'"):
        of_part(material, "val")
    assert set(of_part(material, "test").novel.split) == {"test"}
