"""A model that is fitted again in its folder: the journal stays, and the catalog is the new model's or all is old."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mixtura.catalog import Catalog, Shot, database, renewal
from mixtura.catalog.journal import Journal
from mixtura.errors import BundleError, CannotWrite, MixturaError, NoInput
from mixtura.features.records import Rows, to_features
from mixtura.features.store import FeatureStore
from mixtura.fitting import fit as fitting
from mixtura.model import bundle
from mixtura.recipe import resolve
from mixtura.records.decision import Decision
from mixtura.tasks import discover, drift, fit, predict, recalibrate, sweep

D = 8
FILE = "catalog.sqlite"


def rows(label, n, seed, dimension=D):
    mean = 5 * np.random.default_rng(label).standard_normal(dimension)
    return (mean + np.random.default_rng([label, seed]).standard_normal((n, dimension))).astype(np.float32)


def store(path, labels, name="tiny", size="32 px", dimension=D, each=30):
    """A store of features of some classes; the number of a class is its place in ``labels``."""
    x = np.concatenate([rows(c, each, 0, dimension) for c in range(len(labels))])
    label = [one for one in labels for _ in range(each)]
    ids, none = [f"{i}-{one}.jpg" for i, one in enumerate(label)], [None] * len(x)
    digests = [f"{i:064x}" for i in range(len(x))]
    identity = {"name": name, "size": size, "weights": "w"}
    table = Rows(x, ids, ids, label, none, none, none, np.ones(len(x)), digests)
    FeatureStore.create(path, identity, dimension, "float32").append(to_features(table, identity))
    return path


def fitted(source, folder, **options):
    keys = {key.replace("__", "."): value for key, value in options.items()}
    return fit.run(resolve({"data.kind": "features", "data.root": source, "output": folder} | keys))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    fitted(store(folder / "store", ("cup", "pot", "jug")), folder / "shop")
    with_journal(folder / "shop")
    return folder


def with_journal(folder):
    """Forty decisions, thirty of them confirmed, one with a thumbnail, eight of them strangers."""
    catalog, journal = Catalog.open(folder), Journal.open(folder, keep_photos=True)
    x = np.concatenate([rows(c, 10, 1) for c in range(3)] + [rows(7, 10, 1) * 2])
    ids = journal.log(catalog.decide([str(i) for i in range(40)], x), x, [b"\xff\xd8\xffsmall"] + [None] * 39)
    for place, id in enumerate(ids[:30]):
        journal.feedback(id, ("cup", "pot", "jug")[place // 10])
    journal.close()
    catalog.close()


@pytest.fixture
def shop(made, tmp_path):
    return shutil.copytree(made / "shop", tmp_path / "shop")


def written(folder):
    """All that a journal keeps, byte for byte."""
    db = sqlite3.connect(folder / FILE)
    assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    found = db.execute("SELECT * FROM decision ORDER BY number").fetchall()
    db.close()
    return found


def test_decisions_and_answers_survive_a_refit(made, shop):
    before = written(shop)
    assert len(before) == 40
    report = fitted(made / "store", shop, head__family="full")
    assert report.evaluation.facts["family"] == "full"
    assert written(shop) == before
    catalog, journal = Catalog.open(shop), Journal.open(shop)
    assert catalog.revision == 0 and catalog.model.facts["family"] == "full" and catalog.history() == ()
    assert [product.id for product in catalog.products()] == ["cup", "jug", "pot"]
    assert len(recalibrate.from_journal(journal, catalog)) == 30
    assert recalibrate.recalibrate(catalog, recalibrate.from_journal(journal, catalog)).count == 30
    assert drift.run(journal, catalog).count == 40 and drift.run(journal, catalog).window == 40
    [group] = discover.run(journal, catalog)
    assert group.size == 10
    assert discover.accept(journal, catalog, group.id, "kettle").product.items == 10
    assert journal.picture(before[0][1]) == b"\xff\xd8\xffsmall"
    journal.close()
    catalog.close()


def test_decisions_of_the_new_model_join_those_of_the_old_one(made, shop):
    old = {row[8] for row in written(shop)}
    fitted(made / "store", shop, head__family="diagonal")
    with_journal(shop)
    new = {row[8] for row in written(shop)} - old
    assert len(written(shop)) == 80 and len(old) == len(new) == 1


def test_products_keep_their_ids_when_others_come(tmp_path):
    """Names without a Latin letter get ids by their order, and confirmations hold on to these ids."""
    shop = tmp_path / "shop"
    fitted(store(tmp_path / "a", ("壺", "茶碗", "鍋")), shop)
    catalog = Catalog.open(shop)
    ids = {product.name: product.id for product in catalog.products()}
    catalog.close()
    fitted(store(tmp_path / "b", ("丼", "壺", "茶碗", "鍋")), shop)
    again = {product.name: product.id for product in Catalog.open(shop).products()}
    assert len(set(again.values())) == 4 and {name: again[name] for name in ids} == ids


def test_an_id_that_the_journal_knows_is_not_given_to_another_product(made, shop, tmp_path):
    Journal.open(shop).feedback(written(shop)[39][1], "kettle")  # of a product that has gone
    fitted(store(tmp_path / "b", ("cup", "jug", "Kettle", "pot")), shop)
    assert {product.id for product in Catalog.open(shop).products()} == {"cup", "jug", "pot", "kettle-2"}


def test_standing_edits_refuse_a_refit_and_undone_ones_do_not(made, shop):
    catalog = Catalog.open(shop)
    catalog.enroll("kettle", [Shot(x, f"{i + 1000:064x}", f"k{i}") for i, x in enumerate(rows(7, 3, 2))])
    catalog.rename("cup", "Cup")
    before, config = written(shop), (shop / bundle.CONFIG_FILE).read_bytes()
    for count in (2, 1):
        with pytest.raises(CannotWrite, match=f"holds {count} edit"):
            fitted(made / "store", shop)
        assert written(shop) == before and (shop / bundle.CONFIG_FILE).read_bytes() == config
        catalog.undo()
    catalog.close()
    fitted(made / "store", shop, head__family="full")
    assert written(shop) == before
    assert [product.name for product in Catalog.open(shop).products()] == ["cup", "jug", "pot"]


KILLED = """
import os, signal, sys
from mixtura import files
from mixtura.catalog import renewal
from mixtura.tasks import fit
from mixtura.recipe import resolve
from mixtura.records.decision import Decision
def die(*given):
    os.kill(os.getpid(), signal.SIGKILL)
def after(module, name):
    work = getattr(module, name)
    setattr(module, name, lambda *given: (work(*given), die()))
def after_calls(module, name, count):
    work, calls = getattr(module, name), []
    def counted(*given):
        work(*given)
        calls.append(0)
        if len(calls) == count:
            die()
    setattr(module, name, counted)
match sys.argv[3]:
    case "while the files are staged":
        after_calls(files, "_write_through", 2)
    case "when all are staged":
        files.publish = die
    case "when the tables are refilled":
        after(renewal, "refill")
    case "when the files count":
        files.settle = lambda folder: die() if (folder / ".next").exists() else None
    case "while the files are moved":
        def settle(folder):
            for path in sorted((folder / ".next").glob("*"))[:3]:  # the tensors are a later one
                path.replace(folder / path.name)
                if path.name == "metrics.json":
                    die()
        files.settle = settle
    case "when the files are moved":
        after(files, "publish")
flags = {"data.kind": "features", "data.root": sys.argv[1], "output": sys.argv[2], "head.family": "full"}
fit.run(resolve(flags))
"""
OLD_REMAINS = ("while the files are staged", "when all are staged", "when the tables are refilled")
NEW_COUNTS = ("when the files count", "while the files are moved", "when the files are moved")


def killed(made, shop, when):
    """A refit with another family that was killed."""
    ended = subprocess.run([sys.executable, "-c", KILLED, str(made / "store"), str(shop), when], check=False)
    assert ended.returncode == -signal.SIGKILL


@pytest.mark.parametrize("when", [*OLD_REMAINS, *NEW_COUNTS])
def test_a_kill_at_any_moment_leaves_one_whole_model_and_loses_nothing(made, shop, when):
    before, old = written(shop), bundle.fingerprint(shop)
    running = Catalog.open(shop)  # as that of a service
    killed(made, shop, when)
    assert (bundle.fingerprint(shop) == old) == (when in OLD_REMAINS)
    family = "full" if when in NEW_COUNTS else bundle.from_pretrained(shop).facts["family"]
    assert bundle.from_pretrained(shop).facts["family"] == family
    assert running.refresh() == (when in NEW_COUNTS)
    assert running.view().version == f"{bundle.fingerprint(shop)}r0"
    catalog, journal = Catalog.open(shop), Journal.open(shop)
    assert catalog.model.facts["family"] == family == running.model.facts["family"]
    assert len(recalibrate.from_journal(journal, catalog)) == 30
    assert written(shop) == before
    catalog.rename("cup", "Cup")
    assert running.product("Cup").id == "cup"
    for one in (journal, catalog, running):
        one.close()
    assert not list(shop.glob(".next*"))


def test_what_a_killed_fit_has_staged_is_cleared_away(made, shop):
    killed(made, shop, "when all are staged")
    assert list(shop.glob(".staged-*"))
    fitted(made / "store", shop, head__family="full")
    assert not list(shop.glob(".staged-*")) and Catalog.open(shop).model.facts["family"] == "full"


def test_a_fault_while_the_catalog_is_filled_leaves_the_old_model(made, shop, monkeypatch):
    before, old = written(shop), bundle.fingerprint(shop)
    with monkeypatch.context() as patch:

        def fail(*given):
            raise CannotWrite("The disk is out of order.")

        patch.setattr(renewal, "refill", fail)
        with pytest.raises(CannotWrite, match="out of order"):
            fitted(made / "store", shop, head__family="full")
    assert written(shop) == before and bundle.fingerprint(shop) == old
    assert Catalog.open(shop).view().version == f"{old}r0" and not list(shop.glob(".staged-*"))


def test_a_fault_while_the_model_is_written_leaves_the_old_one(made, shop, monkeypatch):
    def fail(*given):
        raise CannotWrite("The disk is out of order.")

    monkeypatch.setattr(bundle, "stage", fail)
    before, old = written(shop), bundle.fingerprint(shop)
    with pytest.raises(CannotWrite):
        fitted(made / "store", shop, head__family="full")
    assert written(shop) == before and Catalog.open(shop).view().version == f"{old}r0"


def test_of_two_fits_into_one_folder_the_second_is_told(made, shop, monkeypatch):
    learn, told = fitting.learn, []

    def learning(*given):
        with pytest.raises(CannotWrite) as error:
            fitted(made / "store", shop, head__family="diagonal")
        told.append(str(error.value))
        return learn(*given)

    monkeypatch.setattr(fit, "learn", learning)
    fitted(made / "store", shop, head__family="full")
    assert told == [
        f"{shop} is being written by another process (pid {os.getpid()}). Wait until it has finished, or stop it."
    ]
    assert Catalog.open(shop).model.facts["family"] == "full"


def test_a_number_of_an_item_never_names_another_one(made, shop):
    """Of a page that was loaded before the refit, for example, in a request to remove a photo."""
    old = {item.id for product in ("cup", "pot", "jug") for item in Catalog.open(shop).items(product)}
    fitted(made / "store", shop, head__family="full")
    catalog = Catalog.open(shop)
    new = {item.id for product in ("cup", "pot", "jug") for item in catalog.items(product)}
    assert len(old) == len(new) == 90 and not old & new
    with pytest.raises(NoInput):
        catalog.remove_item(min(old))


def test_an_edit_that_begins_while_a_new_model_comes_is_one_of_the_new_model(made, shop, monkeypatch):
    catalog = Catalog.open(shop)
    edit, calls = database.CatalogDatabase.edit, []

    def editing(self, kind):
        if not calls:
            calls.append(kind)
            fitted(made / "store", shop, head__family="full")
        return edit(self, kind)

    monkeypatch.setattr(database.CatalogDatabase, "edit", editing)
    assert catalog.rename("cup", "Cup").edit.number > 0
    assert Catalog.open(shop).product("Cup").id == "cup"
    assert Catalog.open(shop).model.facts["family"] == "full" == catalog.model.facts["family"]


def test_a_folder_that_takes_the_place_of_another_is_followed(made, shop, tmp_path):
    """As with mv, or rm -r and a new fit: what is said afterwards is in the file that everybody opens."""
    catalog, journal = Catalog.open(shop), Journal.open(shop)
    shop.rename(tmp_path / "old")
    with pytest.raises(NoInput):
        catalog.refresh()
    x = rows(0, 2, 9)
    with pytest.raises(CannotWrite):
        journal.log([Decision("a", "cup", 0.9, 0.4, "match", None, "Said.", 0)] * 2, x)
    fitted(made / "store", shop, head__family="full")
    assert catalog.refresh() and catalog.model.facts["family"] == "full"
    journal.log(catalog.decide(["a", "b"], x), x)
    catalog.rename("cup", "Cup")
    assert len(written(shop)) == 2 and Catalog.open(shop).product("Cup").id == "cup"
    assert len(written(tmp_path / "old")) == 40


def test_nothing_saves_a_model_under_the_catalog_of_another(made, shop):
    model, old = bundle.from_pretrained(shop), bundle.fingerprint(shop)
    with pytest.raises(CannotWrite, match="has a catalog"):
        bundle.save_pretrained(model, shop)
    assert bundle.fingerprint(shop) == old


def test_decisions_of_another_encoder_are_left_out(made, shop, tmp_path):
    """Of another dimension, and of the same one."""
    for number, (name, dimension) in enumerate([("tiny", 5), ("other", 5)]):
        source = store(tmp_path / str(number), ("cup", "pot", "jug"), name, dimension=dimension)
        fitted(source, shop)
        catalog, journal = Catalog.open(shop), Journal.open(shop)
        assert len(recalibrate.from_journal(journal, catalog)) == 0
        found = drift.run(journal, catalog)
        assert found.count == 40 + number * 3 and found.window == 0 and found.left_out == found.count
        assert discover.run(journal, catalog) == ()
        [id] = [row[1] for row in written(shop)][:1]
        with pytest.raises(MixturaError, match="another encoder"):
            discover.enroll(journal, catalog, [id], "kettle")
        x = rows(0, 3, 5, dimension)
        ids = journal.log(catalog.decide(["a", "b", "c"], x), x)
        for one in ids:
            journal.feedback(one, "cup")
        assert len(recalibrate.from_journal(journal, catalog)) == 3 and drift.run(journal, catalog).window == 3
        journal.close()
        catalog.close()


def test_a_journal_of_before_is_told_apart_by_its_model(made, shop, tmp_path):
    """A catalog that an earlier mixtura wrote, without a record of encoders: fit makes one before it writes."""
    db = sqlite3.connect(shop / FILE)
    db.execute("DROP TABLE encoder")
    db.commit()
    db.close()
    fitted(store(tmp_path / "b", ("cup", "pot", "jug"), "other"), shop)
    catalog, journal = Catalog.open(shop), Journal.open(shop)
    assert len(recalibrate.from_journal(journal, catalog)) == 0 and drift.run(journal, catalog).left_out == 40
    journal.close()
    catalog.close()


@pytest.mark.parametrize("head", ["prototype", "nearest-mean", "linear", "sdgm-d", "vmf", "random_projection"])
def test_a_head_with_fixed_classes_is_refused_before_any_work(made, shop, monkeypatch, head):
    before, old = written(shop), bundle.fingerprint(shop)
    monkeypatch.setattr(fit.training_set, "gather", None)  # calling it would be the work
    with pytest.raises(CannotWrite, match=rf"catalog\.sqlite .*{head}.* fixed set of classes") as error:
        fitted(made / "store", shop, head__name=head)
    assert "\n" not in str(error.value)
    assert written(shop) == before and bundle.fingerprint(shop) == old
    with pytest.raises(CannotWrite, match="fixed set of classes"):
        keys = {"data.kind": "features", "data.root": made / "store", "output": shop.parent / "sweep"}
        sweep.run(resolve(keys | {"sweep.heads": ["tied", head]}), save=shop)
    assert not (shop.parent / "sweep").exists()


def test_a_gaussian_head_of_part_of_the_vector_has_fixed_classes_too(made, shop):
    with pytest.raises(CannotWrite, match="fixed set of classes"):
        fitted(made / "store", shop, head__name="gmml", head__options={"projection": "pca", "width": 4})


def test_a_catalog_that_comes_while_a_fixed_head_is_fitted_stays(made, shop, tmp_path, monkeypatch):
    """It was opened by a service that began in the meantime."""
    learn, folder = fit.learn, tmp_path / "shop"
    fitted(made / "store", folder)

    def learn_while_it_is_opened(*given):
        Catalog.open(folder).close()
        return learn(*given)

    old = bundle.fingerprint(folder)
    monkeypatch.setattr(fit, "learn", learn_while_it_is_opened)
    with pytest.raises(CannotWrite, match="fixed set of classes"):
        fitted(made / "store", folder, head__name="prototype")
    assert bundle.fingerprint(folder) == old and len(Catalog.open(folder).products()) == 3


def test_a_fixed_head_beside_a_catalog_gives_way_to_a_mixture(made, shop, tmp_path):
    """What an earlier mixtura let happen: the model answers by itself, and the journal is there when it is replaced."""
    before = written(shop)
    fitted(made / "store", tmp_path / "fixed", head__name="prototype")
    shutil.copytree(tmp_path / "fixed", shop, dirs_exist_ok=True)
    assert predict.current(shop).head is not None
    fitted(made / "store", shop)
    assert written(shop) == before and len(Catalog.open(shop).products()) == 3


@pytest.mark.parametrize(
    ("identity", "said"),
    [({"name": "imported:net"}, "imported features"), ({"name": "logmel", "clips": "none"}, "sounds")],
)
def test_a_catalog_of_photos_stays_one(made, shop, tmp_path, identity, said):
    before, old = written(shop), bundle.fingerprint(shop)
    other = FeatureStore.create(tmp_path / "other", identity, D, "float32")
    other.append(replace(FeatureStore.open(made / "store").read(), identity=identity))
    with pytest.raises(CannotWrite, match=f"catalog of photos, and the new model reads {said}"):
        fitted(tmp_path / "other", shop)
    assert written(shop) == before and bundle.fingerprint(shop) == old
    fitted(tmp_path / "other", tmp_path / "new")
    Catalog.open(tmp_path / "new").close()
    fitted(made / "store", tmp_path / "new")  # the other way round nobody was served


@pytest.mark.parametrize("kind", ["damaged", "empty", "of a later layout"])
def test_a_catalog_that_cannot_be_read_is_not_deleted(made, shop, kind):
    path = shop / FILE
    if kind == "of a later layout":
        db = sqlite3.connect(path)
        db.execute("UPDATE meta SET value = '9' WHERE key = 'layout'")
        db.commit()
        db.close()
    else:
        path.write_bytes(b"" if kind == "empty" else b"\0 no database" * 1000)
    before, old = path.read_bytes(), bundle.fingerprint(shop)
    with pytest.raises(BundleError, match=r"catalog\.sqlite") as error:
        fitted(made / "store", shop)
    assert "\n" not in str(error.value)
    assert bundle.fingerprint(shop) == old
    assert path.read_bytes() == before or kind == "empty"  # SQLite gives an empty file its header


ENROLLING = """
import sys
import numpy as np
from pathlib import Path
from mixtura.catalog import Catalog, Shot
catalog = Catalog.open(Path(sys.argv[1]))
catalog.enroll(f"new {sys.argv[2]}", [Shot(np.full(8, float(sys.argv[2]), np.float32), f"9{sys.argv[2]:0>63}", "a")])
"""


def test_processes_that_open_it_at_once_after_a_kill_lose_no_edit(made, shop):
    before = written(shop)
    killed(made, shop, "when the files are moved")
    running = [subprocess.Popen([sys.executable, "-c", ENROLLING, str(shop), str(i)]) for i in range(4)]
    assert [process.wait() for process in running] == [0, 0, 0, 0]
    assert {product.name for product in Catalog.open(shop).products()} >= {f"new {i}" for i in range(4)}
    assert written(shop) == before


WRITER = """
import os, signal, sys
import numpy as np
from pathlib import Path
from mixtura.catalog.journal import Journal
from mixtura.records.decision import Decision
journal = Journal.open(Path(sys.argv[1]))
journal.log([Decision("a", "cup", 0.9, 0.4, "match", None, "Said.", 0)] * 7, np.ones((7, 8), np.float32))
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_service_left_in_its_log_is_kept(made, shop):
    """The last decisions may be in the log beside the file when fit comes."""
    subprocess.run([sys.executable, "-c", WRITER, str(shop)], check=False)
    assert (shop / f"{FILE}-wal").stat().st_size > 0
    fitted(made / "store", shop, head__family="full")
    assert len(written(shop)) == 47


def test_a_log_without_its_file_is_not_taken_for_that_of_a_new_one(made, shop):
    """It would be played into the new file and ruin it."""
    subprocess.run([sys.executable, "-c", WRITER, str(shop)], check=False)
    (shop / FILE).rename(shop / "moved.sqlite")
    with pytest.raises(CannotWrite, match=r"catalog\.sqlite-wal"):
        Catalog.open(shop)
    (shop / f"{FILE}-wal").rename(shop / "moved.sqlite-wal")
    assert len(Catalog.open(shop).products()) == 3


def test_an_open_catalog_follows_the_refit(made, shop, tmp_path):
    """As that of a running service; its journal goes on in the same file."""
    catalog, journal = Catalog.open(shop), Journal.open(shop)
    x = rows(0, 2, 9)
    fitted(store(tmp_path / "b", ("cup", "pot", "jug", "urn")), shop, head__family="full")
    assert catalog.refresh() and not catalog.refresh()
    assert len(catalog.products()) == 4 and catalog.model.facts["family"] == "full"
    journal.log(catalog.decide(["a", "b"], x), x)
    assert catalog.items("urn") and catalog.known().label.count("urn") == 24
    catalog.enroll("kettle", [Shot(rows(7, 1, 2)[0], "", "k")])
    assert len(catalog.products()) == 5 and len(written(shop)) == 42
    found = []
    thread = threading.Thread(target=lambda: found.append(len(catalog.items("cup"))))
    thread.start()
    thread.join()
    assert found == [30]
    journal.close()
    catalog.close()


def test_an_open_catalog_does_not_follow_to_another_encoder(made, shop, tmp_path):
    catalog = Catalog.open(shop)
    fitted(store(tmp_path / "b", ("cup", "pot", "jug"), "other"), shop)
    with pytest.raises(BundleError, match="another encoder"):
        catalog.refresh()
    catalog.close()


def test_an_edit_while_a_model_is_fitted_is_not_lost(made, shop, monkeypatch):
    learn = fitting.learn

    def learning(*given):
        Catalog.open(shop).rename("cup", "Cup")
        return learn(*given)

    monkeypatch.setattr(fit, "learn", learning)
    old = bundle.fingerprint(shop)
    with pytest.raises(CannotWrite, match="holds 1 edit"):
        fitted(made / "store", shop, head__family="full")
    assert bundle.fingerprint(shop) == old and Catalog.open(shop).product("cup").name == "Cup"


def test_a_folder_without_a_catalog_gets_none(made, tmp_path):
    fitted(made / "store", tmp_path / "new")
    fitted(made / "store", tmp_path / "new")
    assert not (tmp_path / "new" / FILE).exists() and not Path(tmp_path / "new" / f"{FILE}-wal").exists()
    assert os.access(tmp_path / "new" / bundle.CONFIG_FILE, os.R_OK)
