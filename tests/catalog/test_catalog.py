"""The catalog in use: edits, undo, other processes, and what is refused."""

import os
import shutil
import sqlite3

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mixtura.catalog import Catalog, Shot
from mixtura.catalog.create import slugs
from mixtura.errors import BundleError, CannotWrite, DataError, NoInput, NonFinite, UsageError, WrongDimension
from mixtura.features import imports
from mixtura.recipe import resolve
from mixtura.tasks import fit

DIMENSION = 6


@pytest.fixture(scope="module")
def bundle(new_shop):
    """A model of four classes on the disk, with the store of its features."""
    return new_shop("catalog", n=400, classes=4, dimension=DIMENSION, seed=5)


@pytest.fixture
def shop(bundle, tmp_path):
    """A catalog of its own for each test."""
    return Catalog.open(shutil.copytree(bundle, tmp_path / "shop"))


def shots(count=3, seed=0, center=30.0):
    rng = np.random.default_rng(seed)
    rows = center + rng.standard_normal((count, DIMENSION))
    return [Shot(row.astype(np.float32), f"f{seed:07x}{i:056x}", f"{i}.jpg", b"jpeg") for i, row in enumerate(rows)]


def same_model(one, two):
    return one.classes == two.classes and all(
        torch.equal(one.mixture.state()[name], value) for name, value in two.mixture.state().items()
    )


def test_a_product_is_known_right_after_its_enrollment(shop):
    before = shop.decide(["q"], shots(1, seed=9)[0].embedding[None])[0]
    effect = shop.enroll("Red kettle", shots())
    after = shop.decide(["q"], shots(1, seed=9)[0].embedding[None])[0]
    assert (before.verdict, after.verdict, after.label) == ("unknown", "match", "Red kettle")
    assert effect.product is not None and effect.product.id == "red-kettle"
    assert effect.product.status == "provisional" and effect.product.items == 3
    assert effect.before == effect.after and effect.tested == 80
    assert [neighbor.label for neighbor in after.neighbors] == ["Red kettle"] * 3
    assert after.model.endswith("r1") and after.threshold == 0.05 and after.advice is None
    assert shop.thumbnail(int(after.neighbors[0].id)) == b"jpeg"


def test_further_shots_go_to_the_product_that_is_there(shop):
    shop.enroll("kettle", shots())
    effect = shop.enroll(" kettle ", shots(2, seed=1))
    assert effect.edit.summary == "Added 2 items to kettle."
    assert shop.product("kettle").items == 5
    shop.enroll("c0", shots(1, seed=2, center=0.0))
    assert shop.product("c0").items == 81


def test_every_edit_can_be_undone_to_the_last_bit(shop):
    start, products = shop.model, shop.products()
    shop.enroll("kettle", shots())
    shop.remove_item(3)
    shop.rename("kettle", "pot")
    shop.merge("c1", "c2")
    new = [item.id for item in shop.items("kettle")]
    shop.split("kettle", new[:1], "lid")
    shop.confirm("lid")
    shop.remove_product("c0")
    assert [edit.kind for edit in shop.history()][::-1] == [
        "enroll", "remove_item", "rename", "merge", "split", "confirm", "remove_product",
    ]  # fmt: skip
    for _ in range(7):
        shop.undo()
    assert same_model(shop.model, start) and shop.products() == products
    assert shop.model.lift is None
    with pytest.raises(UsageError, match="nothing to undo"):
        shop.undo()


ACTIONS = st.lists(
    st.tuples(st.sampled_from(["enroll", "item", "merge", "remove", "undo"]), st.integers(0, 99)), max_size=6
)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(actions=ACTIONS)
def test_a_catalog_that_is_opened_again_is_the_same(bundle, tmp_path, actions):
    """The state is in the file alone: whatever was done, another process sees the very same model."""
    folder = tmp_path / "again"
    shutil.rmtree(folder, ignore_errors=True)
    shop = Catalog.open(shutil.copytree(bundle, folder))
    for place, (action, number) in enumerate(actions):
        products = shop.products()
        product = products[number % len(products)]
        try:
            if action == "enroll":
                shop.enroll(f"new {number % 3}", shots(1 + number % 3, seed=1000 + place, center=number - 50.0))
            elif action == "item":
                shop.remove_item(shop.items(product.id)[number % product.items].id)
            elif action == "merge":
                shop.merge(product.id, products[(number + 1) % len(products)].id)
            elif action == "remove":
                shop.remove_product(product.id)
            else:
                shop.undo()
        except UsageError:
            continue
    other = Catalog.open(folder)
    assert same_model(other.model, shop.model) and other.products() == shop.products()
    assert len(other.known()) == sum(product.items for product in other.products())
    shop.close()
    other.close()


def test_another_process_sees_an_edit_at_its_next_call(shop):
    other = Catalog.open(shop.folder)
    assert not other.refresh()
    shop.enroll("kettle", shots())
    assert other.refresh() and not other.refresh()
    shop.rename("kettle", "pot")
    assert other.products()[-1].name == "pot" and other.revision == 2
    assert "pot" in other.model.classes
    assert other.known().label[-1] == "pot"


def test_an_edit_that_fails_leaves_nothing(shop, monkeypatch):
    shop.rename("c0", "zero")
    monkeypatch.setattr("mixtura.catalog.catalog.model_of", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        shop.enroll("kettle", shots())
    monkeypatch.undo()
    assert shop.revision == 1 and [product.name for product in shop.products()] == ["zero", "c1", "c2", "c3"]
    assert same_model(Catalog.open(shop.folder).model, shop.model)


def test_a_new_calibration_follows_its_products(shop):
    """It is stored by what does not change: the numbers of the products do, when others come and go."""
    shop.enroll("kettle", shots())
    one = shop.model.typicality
    limits = type(one)(one.center, one.spread, one.scores - 5.0, one.predicted)
    temperature = shop.model.temperature
    effect = shop.calibrate(limits, 2.0, shop.model.classes)
    assert effect.edit.kind == "calibrate" and shop.model.temperature == 2.0
    assert torch.equal(shop.model.typicality.scores, limits.scores)
    shop.remove_product("c1")
    held = shop.model.typicality
    for old, name in ((0, "c0"), (2, "c2"), (3, "c3")):
        now = shop.model.classes.index(name)
        assert torch.equal(held.scores[held.predicted == now], limits.scores[limits.predicted == old])
    assert len(held.stand_in) and set(held.stand_for.tolist()) == {shop.model.classes.index("kettle")}
    shop.undo()
    shop.undo()
    assert shop.model.temperature == temperature
    assert torch.equal(shop.model.typicality.scores, one.scores)


def test_merged_products_keep_the_kinds_of_both(shop):
    shop.merge("c1", "c0")
    assert shop.model.mixture.component_class is not None
    assert shop.model.mixture.component_class.tolist() == [0, 0, 1, 2]
    assert shop.product("c0").items == 160
    rows = shop.known().embedding
    assert set(shop.model.answers(rows[1:2]).predicted.tolist()) == {0}


def test_removing_a_product_takes_its_density_away(shop):
    row = shop.known().embedding[:1]
    assert shop.decide(["q"], row)[0].label == "c0"
    effect = shop.remove_product("c0")
    assert shop.decide(["q"], row)[0].verdict == "unknown"
    assert effect.product is None and effect.tested == 60


def test_provisional_products_take_few_answers_from_the_others(bundle, tmp_path):
    """Ten products enrolled from three items each, among the fitted ones, cost them half a point each at most."""
    shop = Catalog.open(shutil.copytree(bundle, tmp_path / "near"))
    known = shop.known().embedding
    rng = np.random.default_rng(3)
    effects = []
    for number in range(10):
        center = known[rng.integers(len(known))] + 3.0 * rng.standard_normal(DIMENSION)
        rows = center + rng.standard_normal((3, DIMENSION))
        effects.append(shop.enroll(f"new {number}", [Shot(row.astype(np.float32), "", "") for row in rows]))
    assert effects[-1].after >= effects[0].before - 0.05


@pytest.mark.parametrize(
    ("act", "error", "said"),
    [
        (lambda shop: shop.enroll("kettle", []), UsageError, "0 photos"),
        (lambda shop: shop.enroll("  ", shots()), UsageError, "1 to 200"),
        (lambda shop: shop.enroll("a\x00b", shots()), UsageError, "printable"),
        (lambda shop: shop.enroll("x" * 201, shots()), UsageError, "1 to 200"),
        (lambda shop: shop.enroll("k", [Shot(np.zeros(3, np.float32), "", "")]), WrongDimension, "3 dimensions"),
        (lambda shop: shop.enroll("k", [Shot(np.full(6, np.nan, np.float32), "", "")]), NonFinite, "NaN"),
        (lambda shop: shop.enroll("k", [*shots(1), *shots(1)]), DataError, "given twice"),
        (lambda shop: shop.rename("c0", "c1"), UsageError, "already"),
        (lambda shop: shop.rename("c9", "x"), NoInput, "Did you mean"),
        (lambda shop: shop.merge("c0", "c0"), UsageError, "into itself"),
        (lambda shop: shop.split("c0", [], "x"), NoInput, "No item"),
        (lambda shop: shop.split("c0", [2], "x"), NoInput, "does not belong"),
        (lambda shop: shop.confirm("c0"), UsageError, "fitted already"),
        (lambda shop: shop.item(10**6), NoInput, "no item"),
        (lambda shop: [shop.remove_product(c) for c in ("c0", "c1", "c2")], UsageError, "too few products"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_sentence(shop, act, error, said):
    with pytest.raises(error, match=said):
        act(shop)


def test_a_photo_that_is_there_already_is_named(shop):
    shop.enroll("kettle", shots())
    with pytest.raises(DataError, match=r"0\.jpg is in the catalog already, as item \d+ of kettle"):
        shop.enroll("pot", shots(1))
    shop.remove_product("kettle")
    assert shop.enroll("pot", shots(1)).product is not None


def test_the_last_item_of_a_product_stays(shop):
    shop.enroll("kettle", shots(1))
    [item] = shop.items("kettle")
    with pytest.raises(UsageError, match="last one"):
        shop.remove_item(item.id)


def test_a_catalog_of_another_model_is_refused(bundle, tmp_path, cloud):
    imports.save(cloud(n=200, classes=3, dimension=DIMENSION, seed=6), tmp_path / "store")
    folder = tmp_path / "other"
    fit.run(resolve({"data.kind": "features", "data.root": tmp_path / "store", "output": folder}))
    shutil.copy(bundle / "catalog.sqlite", folder)
    assert len(Catalog.open(folder).products()) == 3  # nobody has edited it, so it is made again of the model
    edited = Catalog.open(shutil.copytree(bundle, tmp_path / "edited"))
    edited.rename("c0", "zero")
    edited.close()
    shutil.copy(edited.folder / "catalog.sqlite", folder)
    with pytest.raises(BundleError, match="another model"):
        Catalog.open(folder)


def test_fit_does_not_orphan_edits(shop, bundle):
    """A catalog that nobody has edited is made again of the new model; one with edits is in the way."""
    again = resolve({"data.kind": "features", "data.root": bundle.parent / "store", "output": shop.folder, "seed": 1})
    fit.run(again)
    renewed = Catalog.open(shop.folder)
    renewed.rename("c0", "zero")
    with pytest.raises(CannotWrite, match="holds 1 edit of the model"):
        fit.run(again)
    assert Catalog.open(shop.folder).product("zero").id == "c0"


def test_processes_that_open_a_catalog_first_at_once_lose_no_edit(bundle, tmp_path):
    folder = shutil.copytree(bundle, tmp_path / "first", ignore=shutil.ignore_patterns("catalog.sqlite*"))
    children = []
    for number in range(3):
        child = os.fork()
        if child == 0:
            try:
                Catalog.open(folder).enroll(f"new {number}", shots(seed=70 + number, center=30.0 * (number + 1)))
                os._exit(0)
            finally:
                os._exit(1)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
    shop = Catalog.open(folder)
    assert shop.revision == 3 and len(shop.products()) == 7
    assert not list(folder.glob(".tmp-*"))


def test_the_file_alone_holds_every_edit(shop, tmp_path):
    """So that copying it is a backup, and putting it back restores."""
    shop.enroll("kettle", shots())
    shop.close()
    copy = sqlite3.connect(shutil.copy(shop.folder / "catalog.sqlite", tmp_path / "copy.sqlite"))
    assert copy.execute("SELECT count(*) FROM edit").fetchone() == (1,)


def test_a_product_like_another_one_is_told_to_be_so(shop):
    rows = shop.known().embedding[:20:4]
    effect = shop.enroll("twin", [Shot(row, "", "") for row in rows])
    assert any("Of its 5 photos, 0 are named twin; most look like c0." in note for note in effect.notes)


def test_an_id_that_is_anothers_name_is_refused_as_ambiguous(shop):
    shop.enroll("a b", shots())
    shop.rename("c0", "a-b")
    with pytest.raises(UsageError, match="id or name of several products"):
        shop.remove_product("a-b")


def test_a_unique_name_finds_its_product_whose_id_is_anothers_name(shop):
    shop.rename("c0", "tmp")
    shop.rename("c1", "c0")
    assert shop.product("tmp").id == "c0"
    with pytest.raises(UsageError, match=r"Give 'tmp' or 'c1'\."):
        shop.product("c0")
    assert {item.product for item in shop.items(shop.product("tmp"))} == {"c0"}
    shop.remove_product(shop.product("tmp"))
    assert "tmp" not in {product.name for product in shop.products()}
    assert shop.product("c0").id == "c1"
    shop.undo()
    gone = shop.product("tmp")
    shop.remove_product(gone)
    with pytest.raises(NoInput, match="no product 'c0'"):  # and never the other one, which has its id as a name
        shop.rename(gone, "fig")


def test_limits_of_other_products_are_refused(shop):
    limits, classes = shop.model.typicality, shop.model.classes
    shop.remove_product("c0")
    with pytest.raises(UsageError, match="other products"):
        shop.calibrate(limits, 1.0, classes)


def test_names_may_hold_signs_of_several_parts(shop):
    for name in ("\U0001f468\u200d\U0001f469\u200d\U0001f467", "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"):
        shop.rename("c1", name)
        assert shop.product("c1").name == name


def test_a_damaged_file_is_refused(bundle, tmp_path):
    folder = shutil.copytree(bundle, tmp_path / "shop")
    (folder / "catalog.sqlite").write_bytes(b"no database" * 1000)
    with pytest.raises(BundleError, match="damaged"):
        Catalog.open(folder)
    shutil.copy(bundle / "catalog.sqlite", folder / "catalog.sqlite")
    with sqlite3.connect(folder / "catalog.sqlite") as database:
        database.execute("UPDATE setting SET value = x'00' WHERE key = 'sums'")
    with pytest.raises(BundleError, match="sums are missing or altered"):
        Catalog.open(folder)
    (folder / "catalog.sqlite").unlink()
    sqlite3.connect(folder / "catalog.sqlite").execute("CREATE TABLE x (y)").connection.close()
    with pytest.raises(BundleError, match="no catalog"):
        Catalog.open(folder)


def test_a_head_with_a_fixed_set_of_classes_is_refused(bundle, tmp_path):
    store = bundle.parent / "store"
    keys = {"data.kind": "features", "data.root": store, "output": tmp_path / "linear", "head.name": "linear"}
    fit.run(resolve(keys | {"fit.epochs": 1}))
    with pytest.raises(UsageError, match="fixed set of classes"):
        Catalog.open(tmp_path / "linear")


def test_a_trained_mixture_takes_products_but_gives_no_item_back(bundle, tmp_path):
    keys = {"data.kind": "features", "data.root": bundle.parent / "store", "output": tmp_path / "gradient"}
    fit.run(resolve(keys | {"fit.solver": "gradient", "fit.epochs": 1, "head.family": "diagonal"}))
    shop = Catalog.open(tmp_path / "gradient")
    mean = shop.model.mixture.mean
    assert shop.enroll("kettle", shots()).product is not None
    assert torch.equal(shop.model.mixture.mean[:4], mean)
    with pytest.raises(UsageError, match="trained by gradients"):
        shop.remove_item(shop.items("c0")[0].id)
    assert shop.remove_product("c0").product is None


def test_ids_are_plain_and_never_repeat():
    names = ["Red kettle", "red  kettle", "RED-KETTLE", "ähnlich", "茶", "茶碗", "x" * 100, ""]
    ids = slugs(names)
    assert ids == [
        "red-kettle",
        "red-kettle-2",
        "red-kettle-3",
        "ahnlich",
        "product",
        "product-2",
        "x" * 56,
        "product-3",
    ]
    assert slugs(["red kettle"], ids) == ["red-kettle-4"]


@pytest.fixture(scope="module")
def tiny(cloud, tmp_path_factory):
    """A model of four classes with five items each, of which no more than a fifth may be called unknown."""
    folder = tmp_path_factory.mktemp("tiny")
    imports.save(cloud(n=20, classes=4, dimension=DIMENSION, seed=5), folder / "store")
    keys = {"data.kind": "features", "data.root": folder / "store", "decision.false_reject_rate": 0.2}
    fit.run(resolve(keys | {"output": folder / "shop"}))
    return folder / "shop"


@pytest.mark.parametrize("spread", [0.1, 1.0, 3.0, 10.0, 30.0])
def test_shots_that_are_not_recognized_after_their_enrollment_are_counted(tiny, tmp_path, spread):
    shop = Catalog.open(shutil.copytree(tiny, tmp_path / "shop"))
    rows = 20 + spread * np.random.default_rng(1).standard_normal((5, DIMENSION)).astype(np.float32)
    effect = shop.enroll("kettle", [Shot(row, "", "") for row in rows])
    found = shop.decide(["q"] * 5, rows)
    unknown = sum(one.verdict == "unknown" for one in found if one.label == "kettle")
    said = [note for note in effect.notes if note.startswith("Of its 5 photos")]
    assert bool(said) == any((one.verdict, one.label) != ("match", "kettle") for one in found)
    assert not unknown or f"{unknown} would be unknown" in said[0]
    assert spread < 30 or said


def test_only_products_that_were_removed_are_said_to_be_gone(tiny, tmp_path):
    shop = Catalog.open(shutil.copytree(tiny, tmp_path / "shop"))
    said = [" ".join(shop.enroll(f"new {n}", shots(seed=n, center=30.0 + 20 * n)).notes) for n in (1, 2)]
    assert all("The fit had only 4 products" in one and "are left" not in one for one in said)
    assert "Only 3 products of the fit are left" in " ".join(shop.remove_product("c0").notes)


def test_what_was_enrolled_is_not_beyond_everything_and_features_in_another_unit_are(tiny, tmp_path):
    """Shots that vary far more than the few items of the fit."""
    shop = Catalog.open(shutil.copytree(tiny, tmp_path / "shop"))
    rows = 20 + 100 * np.random.default_rng(1).standard_normal((5, DIMENSION)).astype(np.float32)
    for name, into in (("kettle", rows[:4]), ("c0", rows[4:])):
        shop.enroll(name, [Shot(row, "", "") for row in into])
    for known in (shop, Catalog.open(shop.folder)):
        assert all(one.typicality > 0 for one in known.decide(["q"] * 5, rows))
        assert all(one.verdict == "unknown" for one in known.decide(["q"] * 5, 1e6 * rows))
