"""From the journal back into the catalog: unknown photos become products, confirmed photos set the limits."""

from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest

from mixtura.catalog import Catalog
from mixtura.catalog.journal import Journal
from mixtura.errors import LabelError, NoInput, UsageError
from mixtura.features import imports
from mixtura.features.store import FeatureStore
from mixtura.metrics.intervals import wilson
from mixtura.recipe import resolve
from mixtura.records.journal import LoggedDecision
from mixtura.tasks import discover, fit, recalibrate
from mixtura.tasks.recalibrate import ConfirmedPhotos

D = 12


def centers(count, seed=0):
    return 4 * np.random.default_rng(seed).standard_normal((count, D))


def near(mean, n, seed, spread=1.0):
    return (mean + spread * np.random.default_rng(seed).standard_normal((n, D))).astype(np.float32)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory, features):
    """A model of five classes, made from a feature store."""
    folder = tmp_path_factory.mktemp("shop")
    mean, label = centers(5), np.arange(400) % 4
    x = np.concatenate([near(mean[c], 100, seed=c) for c in range(4)])
    label = np.repeat(np.arange(4), 100)
    imports.save(features(x, [f"c{c}" for c in label]), folder / "store")
    fit.run(resolve({"data.kind": "features", "data.root": folder / "store", "output": folder / "model"}))
    return folder


@pytest.fixture
def shop(bundle, tmp_path):
    """A catalog of its own for each test, with its journal."""
    import shutil

    shutil.copytree(bundle / "model", tmp_path / "model")
    catalog = Catalog.open(tmp_path / "model")
    journal = Journal.open(tmp_path / "model", keep_photos=True)
    yield catalog, journal
    journal.close()
    catalog.close()


def ask(catalog, journal, x):
    return journal.log(catalog.decide([str(i) for i in range(len(x))], x), x)


def test_unknown_photos_of_two_products_are_two_groups(shop):
    catalog, journal = shop
    strange = centers(3, seed=9) * 2
    kettles = ask(catalog, journal, near(strange[0], 8, seed=1))
    ask(catalog, journal, near(centers(5)[0], 30, seed=2))
    mugs = ask(catalog, journal, near(strange[1], 5, seed=3))
    ask(catalog, journal, near(strange[2], 2, seed=4))  # two are no group
    first, second = discover.run(journal, catalog)
    assert set(first.ids) == set(kettles) and set(second.ids) == set(mugs)
    assert (first.size, second.size) == (8, 5)
    assert first.id == f"g-{kettles[0][:8]}"
    assert first.nearest in {f"c{c}" for c in range(4)}
    assert 0.5 < first.tightness <= 1 and 0 < first.usual <= 1
    rows = discover.Space(catalog.known()).place(journal.embedding(kettles))
    assert first.tightness == pytest.approx(np.linalg.norm(rows.mean(0)))
    assert first.ids[0] == kettles[int((rows @ rows.mean(0)).argmax())]


def test_a_group_keeps_its_id_when_it_grows(shop):
    catalog, journal = shop
    strange = centers(3, seed=9)[0] * 2
    ask(catalog, journal, near(strange, 4, seed=1))
    [before] = discover.run(journal, catalog)
    ask(catalog, journal, near(strange, 4, seed=2))
    [after] = discover.run(journal, catalog)
    assert after.id == before.id and after.size == 8


def test_an_accepted_group_is_enrolled_and_settled_and_recognized(shop):
    catalog, journal = shop
    strange = centers(3, seed=9) * 2
    ask(catalog, journal, near(strange[0], 6, seed=1))
    [group] = discover.run(journal, catalog)
    effect = discover.accept(journal, catalog, group.id, "red kettle")
    assert effect.product is not None and effect.product.name == "red kettle" and effect.product.items == 6
    assert discover.run(journal, catalog) == () and journal.unknowns() == ()
    assert journal.answered() == ()  # a name for a group is no confirmation of its photos
    assert len(recalibrate.from_journal(journal, catalog)) == 0
    again = catalog.decide([str(i) for i in range(20)], near(strange[0], 20, seed=5))
    assert all(one.label == "red kettle" for one in again)
    assert sum(one.verdict != "unknown" for one in again) >= 15
    with pytest.raises(NoInput, match="There are no groups now"):
        discover.accept(journal, catalog, group.id, "red kettle")


def test_a_photo_that_is_asked_about_again_and_again_counts_once(shop):
    catalog, journal = shop
    x = near(centers(3, seed=9)[0] * 2, 2, seed=1)
    ask(catalog, journal, np.concatenate([x, x, x]))
    assert discover.run(journal, catalog) == ()
    ask(catalog, journal, near(centers(3, seed=9)[0] * 2, 1, seed=2))
    [group] = discover.run(journal, catalog)
    assert group.size == 3 and len(group.ids) == 7
    effect = discover.accept(journal, catalog, group.id, "kettle")
    assert effect.product is not None and effect.product.items == 3
    assert journal.unknowns() == ()


def test_photos_of_a_product_that_is_undone_wait_again(shop):
    catalog, journal = shop
    ids = ask(catalog, journal, near(centers(3, seed=9)[0] * 2, 5, seed=1))
    [group] = discover.run(journal, catalog)
    discover.accept(journal, catalog, group.id, "kettle")
    catalog.undo()
    [again] = discover.run(journal, catalog)
    assert set(again.ids) == set(ids) and journal.unknowns() == ()


def test_a_group_that_is_not_there_is_named(shop):
    catalog, journal = shop
    ask(catalog, journal, near(centers(3, seed=9)[0] * 2, 4, seed=1))
    with pytest.raises(NoInput, match="There is no group 'g-x'"):
        discover.accept(journal, catalog, "g-x", "kettle")
    assert len(catalog.products()) == 4


def test_scattered_unknowns_are_no_product(shop):
    catalog, journal = shop
    rng = np.random.default_rng(0)
    ask(catalog, journal, (30 * rng.standard_normal((20, D))).astype(np.float32))
    assert len(journal.unknowns()) >= 18
    assert sum(group.size for group in discover.run(journal, catalog)) <= 3


def client_photos(n, seed, spread=1.25):
    """Photos of the four classes with more scatter than those of the catalog."""
    mean, label = centers(5), np.arange(n) % 4
    x = np.concatenate([near(mean[c], 1, seed=1000 * seed + i, spread=spread) for i, c in enumerate(label)])
    return ConfirmedPhotos(x, tuple(f"c{c}" for c in label))


def test_recalibration_brings_the_false_reject_rate_back(shop):
    catalog, _ = shop
    made = recalibrate.recalibrate(catalog, client_photos(100, seed=1))
    assert made.before.false_reject.value > 0.10
    assert made.after.false_reject.low <= 0.05 <= made.after.false_reject.high
    assert made.after.right == made.before.right  # limits change no class
    assert made.after.found.value > made.before.found.value
    recalibrate.write(catalog, made)
    later = client_photos(1000, seed=2)
    rejected = int((catalog.model.answers(later.embedding).verdict == "unknown").sum())
    assert made.expected.low <= rejected / 1000 <= made.expected.high
    catalog.undo()
    assert (catalog.model.answers(later.embedding).verdict == "unknown").mean() > 0.10


def test_figures_after_are_of_photos_that_did_not_set_the_limit(shop):
    """Against the loop over folds by hand."""
    catalog, _ = shop
    photos = client_photos(60, seed=3)
    made = recalibrate.recalibrate(catalog, photos)
    fold = np.random.default_rng(0).permutation(60) % recalibrate.N_FOLDS
    label = np.array([int(name[1:]) for name in photos.label])
    rejected = 0
    for i in range(recalibrate.N_FOLDS):
        inside = recalibrate._fitted(catalog.model, photos.embedding[fold != i], label[fold != i])
        rejected += int((inside.answers(photos.embedding[fold == i]).verdict == "unknown").sum())
    assert made.after.false_reject.value == rejected / 60
    assert (made.after.false_reject.low, made.after.false_reject.high) == wilson(rejected, 60)
    assert made.count == 60 and made.products == 4


def test_the_stated_error_is_that_of_the_limit():
    """The false-reject rate of a limit set by 50 uniform scores, over many draws."""
    rng = np.random.default_rng(0)
    lowest = int(np.ceil(0.05 * 51)) - 1
    actual = np.sort(rng.random((20_000, 50)), axis=1)[:, lowest - 1]
    law = recalibrate.beta(lowest, 51 - lowest)
    assert law.std() == pytest.approx(actual.std(), rel=0.03) and law.mean() == pytest.approx(actual.mean(), rel=0.03)


def test_too_few_photos_are_refused_and_few_are_warned_about(shop):
    catalog, _ = shop
    with pytest.raises(LabelError, match="19 confirmed photos are too few"):
        recalibrate.recalibrate(catalog, client_photos(19, seed=1))
    assert any("rough limit" in note for note in recalibrate.recalibrate(catalog, client_photos(40, seed=1)).notes)
    assert not any("rough" in note for note in recalibrate.recalibrate(catalog, client_photos(50, seed=1)).notes)


def test_a_change_within_chance_is_written_by_force_only(shop):
    catalog, _ = shop
    made = recalibrate.recalibrate(catalog, client_photos(200, seed=4, spread=1.0))
    assert "fit these photos as they are" in made.objections[0]
    before = catalog.revision
    with pytest.raises(UsageError, match=r"within chance.*Nothing was written"):
        recalibrate.write(catalog, made)
    assert catalog.revision == before
    assert recalibrate.write(catalog, made, force=True).edit.kind == "calibrate"


def test_limits_of_another_model_are_not_written(shop):
    catalog, _ = shop
    made = recalibrate.recalibrate(catalog, client_photos(100, seed=1))
    with pytest.raises(UsageError, match="fitted again"):
        recalibrate.write(catalog, replace(made, bundle="another"))
    assert recalibrate.write(catalog, made).edit.kind == "calibrate"


def test_limits_from_a_few_products_are_written_by_force_only(shop):
    catalog, _ = shop
    photos = client_photos(200, seed=1)
    one = np.array([label == "c1" for label in photos.label])
    made = recalibrate.recalibrate(catalog, ConfirmedPhotos(photos.embedding[one], ("c1",) * int(one.sum())))
    assert "3 of 4 products have no confirmed photo" in made.objections[-1]
    with pytest.raises(UsageError, match="Nothing was written"):
        recalibrate.write(catalog, made)


def test_confirmations_of_enrolled_photos_set_no_limits(shop):
    """Also when a client confirms them, one by one, and after the enrolled item was removed again."""
    catalog, journal = shop
    ids = ask(catalog, journal, near(centers(3, seed=9)[0] * 2, 24, seed=1))
    effect = discover.enroll(journal, catalog, ids, "red kettle")
    for id in ids:
        journal.feedback(id, effect.product.id)
    confirmed = recalibrate.from_journal(journal, catalog)
    assert len(confirmed) == 24
    with pytest.raises(LabelError, match="24 of 24 confirmed photos were learned from"):
        recalibrate.recalibrate(catalog, confirmed)
    catalog.undo()
    assert len(recalibrate.from_journal(journal, catalog)) == 0


def test_a_label_that_is_no_product_is_named(shop):
    catalog, _ = shop
    photos = client_photos(30, seed=1)
    with pytest.raises(LabelError, match="no product 'c9'"):
        recalibrate.recalibrate(catalog, replace(photos, label=("c9", *photos.label[1:])))


def test_a_label_that_is_a_kind_of_a_product_is_told_so(tmp_path, features):
    kind = np.repeat(np.arange(4), 60)
    x = np.concatenate([near(mean, 60, seed=k) for k, mean in enumerate(centers(4))])
    below, above = [f"c{k // 2}/{k % 2 + 1}" for k in kind], [f"c{k // 2}" for k in kind]
    imports.save(features(x, below, superlabel=above), tmp_path / "store")
    keys = {"data.kind": "features", "data.root": tmp_path / "store", "data.level": "both"}
    fit.run(resolve(keys | {"output": tmp_path / "model"}))
    confirmed = ConfirmedPhotos(x[:30], ("c0/2",) + ("c0",) * 29)
    catalog = Catalog.open(tmp_path / "model")
    with closing(catalog), pytest.raises(LabelError, match=r"'c0/2' is no product.*Give c0"):
        recalibrate.recalibrate(catalog, confirmed)


def test_answers_of_clients_are_confirmed_photos(shop):
    catalog, journal = shop
    photos = client_photos(24, seed=1)
    ids = ask(catalog, journal, photos.embedding)
    place = {product.name: product.id for product in catalog.products()}
    for id, name in zip(ids[:22], photos.label, strict=False):
        journal.feedback(id, place[name])
    journal.feedback(ids[22], None)
    journal.feedback(ids[23], "long-gone")
    confirmed = recalibrate.from_journal(journal, catalog)
    assert confirmed.label == photos.label[:22]
    np.testing.assert_allclose(confirmed.embedding, photos.embedding[:22], atol=0.02)
    assert all(isinstance(note, LoggedDecision) and note.told for note in journal.answered())
    assert len(recalibrate.from_journal(Journal.open(catalog.folder), catalog)) == 22


def test_a_feature_store_is_confirmed_photos(shop, tmp_path, features):
    catalog, _ = shop
    photos = client_photos(30, seed=1)
    imports.save(features(photos.embedding, list(photos.label)), tmp_path / "checked")
    assert FeatureStore.open(tmp_path / "checked").read().label[0] == "c0"
    assert recalibrate.from_folder(catalog, tmp_path / "checked").label == photos.label


def test_folders_of_confirmed_photos_must_be_named_like_products(shop, tmp_path):
    catalog, _ = shop
    with pytest.raises(NoInput, match="no such folder"):
        recalibrate.from_folder(catalog, tmp_path / "none")
    (tmp_path / "checked" / "c1").mkdir(parents=True)
    with pytest.raises(NoInput, match="holds no photos"):
        recalibrate.from_folder(catalog, tmp_path / "checked")
    (tmp_path / "checked" / "kettle").mkdir()
    (tmp_path / "checked" / "kettle" / "a.jpg").touch()
    with pytest.raises(LabelError, match="no product 'kettle'"):
        recalibrate.from_folder(catalog, tmp_path / "checked")


def test_photos_that_set_the_limits_are_judged_alone_as_in_a_folder(shop):
    """Their scores are the limits themselves, and the last digits of a score depend on the size of the batch."""
    catalog, _ = shop
    confirmed = client_photos(40, seed=5)
    recalibrate.write(catalog, recalibrate.recalibrate(catalog, confirmed), force=True)
    x, order = confirmed.embedding, np.random.default_rng(0).permutation(40)
    model = catalog.model
    assert len(model.typicality.scores) == 40
    together = model.answers(x)
    for rows in [[i] for i in range(len(x))] + [order.tolist(), *np.array_split(order, 9)]:
        found = model.answers(x[rows])
        np.testing.assert_array_equal(found.typicality, together.typicality[rows])
        np.testing.assert_array_equal(found.verdict, together.verdict[rows])
