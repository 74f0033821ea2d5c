"""Whether a product of a name is there already: names are text that people read, not bytes."""

import shutil
import sqlite3

import numpy as np
import pytest

from mixtura.catalog import Catalog, Shot
from mixtura.cli.output import one_line, shown
from mixtura.errors import NoInput, UsageError
from mixtura.features import imports
from mixtura.recipe import resolve
from mixtura.tasks import fit

NFC, NFD = "caf\u00e9", "cafe\u0301"
PERSIAN = "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"
SAME = [
    (NFC, NFD),
    (NFD, NFC),
    ("Apple", "aPPLE"),
    ("Stra\u00dfe", "STRASSE"),
    ("red  kettle", " Red\u00a0kettle"),
    (PERSIAN, PERSIAN.replace("\u200c", "")),
    ("\u2764\ufe0f", "\u2764"),
    ("\u0391\u03a3", "\u03b1\u03c2"),
]


@pytest.fixture(scope="module")
def bundle(new_shop):
    return new_shop("names", n=200, classes=4, dimension=6, seed=5)


@pytest.fixture
def shop(bundle, tmp_path):
    return Catalog.open(shutil.copytree(bundle, tmp_path / "shop"))


def shots(seed=0, count=2):
    rows = 30 + np.random.default_rng(seed).standard_normal((count, 6))
    return [Shot(row.astype(np.float32), f"f{seed:06x}{i:057x}", f"{i}.jpg") for i, row in enumerate(rows)]


@pytest.mark.parametrize(("one", "other"), SAME, ids=ascii)
def test_another_spelling_is_the_same_product_everywhere(shop, one, other):
    first = shop.enroll(one, shots(1)).product
    effect = shop.enroll(other, shots(2))
    assert effect.product == shop.product(first.id) and effect.product.items == 4
    assert effect.edit.summary == f"Added 2 items to {first.name}."
    assert len(shop.products()) == 5
    assert shop.product(other).id == shop.product(one).id == first.id
    with pytest.raises(UsageError, match="There is a product named"):
        shop.rename("c0", other)
    with pytest.raises(UsageError, match="There is a product named"):
        shop.split("c0", [shop.items("c0")[0].id], other)
    renamed = shop.rename(first.id, other).product  # its own name may be spelled in another way
    assert renamed.id == first.id and len(shop.products()) == 5
    shop.remove_product(shop.product(one).id)
    assert shop.enroll(other, shots(3)).product.id != first.id
    shop.undo()
    shop.undo()
    assert shop.product(one).id == first.id


def test_names_that_look_different_are_two_products(shop):
    for seed, name in enumerate(("resume", "r\u00e9sum\u00e9", "m2", "m\u00b2", "red kettle", "redkettle")):
        shop.enroll(name, shots(seed))
    assert len(shop.products()) == 10


def test_names_are_kept_in_one_form_and_joiners_are_kept(shop):
    assert shop.enroll(NFD, shots(1)).product.name == NFC
    for seed, name in enumerate((PERSIAN, "\U0001f469\u200d\U0001f373"), 2):
        effect = shop.enroll(name, shots(seed))
        assert effect.product.name == name and name in effect.edit.summary
        assert shown(name) == one_line(name) == name
        with pytest.raises(UsageError, match=name):
            shop.rename("c0", name)
        with pytest.raises(NoInput, match=f"Did you mean '{name}'"):
            shop.product(name + "x")
    assert shown("a\u202eb\u200b\n") == "a\\u202eb\\u200b\\n"


@pytest.mark.parametrize(
    "name", ["", " ", "\u200d", "\u200c\u200d", "\u3164", "\ufe0f", "a\u202eb", "a\u200bb", "a\nb\x00"]
)
def test_what_nobody_could_see_or_would_mislead_is_no_name(shop, name):
    with pytest.raises(UsageError, match="does not do"):
        shop.enroll(name, shots())
    with pytest.raises(UsageError, match="does not do"):
        shop.rename("c0", name)


@pytest.fixture
def older(bundle, tmp_path):
    """A catalog from before spellings were compared, with two products whose names look alike."""
    folder = shutil.copytree(bundle, tmp_path / "older")
    with sqlite3.connect(folder / "catalog.sqlite") as database:
        database.execute("UPDATE product SET name = ? WHERE id = 'c0'", (NFC,))
        database.execute("UPDATE product SET name = ? WHERE id = 'c1'", (NFD,))
    database.close()
    return Catalog.open(folder)


def test_a_catalog_with_names_that_look_alike_still_works(older):
    assert [older.product(name).id for name in (NFC, NFD)] == ["c0", "c1"]  # each in its own spelling
    with pytest.raises(UsageError, match=r"several products: .*\(c0\), .*\(c1\)"):
        older.product(NFC.upper())
    with pytest.raises(UsageError, match=r"Several products are named 'CAF\u00c9': c0, c1"):
        older.enroll(NFC.upper(), shots())
    assert older.enroll(NFC, shots()).product.id == "c0"
    assert len(older.decide(["a"], shots()[0].embedding[None])[0].candidates) > 1
    with pytest.raises(UsageError, match="already"):
        older.rename("c1", NFC.upper())
    older.rename("c1", "bar")
    assert older.product(NFC.upper()).id == "c0"
    older.undo()
    assert [older.product(name).id for name in (NFC, NFD)] == ["c0", "c1"]


def test_ids_stay_over_a_refit_whatever_the_spelling(cloud, tmp_path):
    """Confirmations in the journal hold on to the ids."""

    def fitted(labels, place):
        rows = cloud(n=200, classes=4, dimension=6, seed=5)
        changed = dict(zip(("c0", "c1", "c2", "c3"), labels, strict=True))
        rows = type(rows)(**vars(rows) | {"label": [changed[label] for label in rows.label]})
        imports.save(rows, tmp_path / place)
        keys = {"data.kind": "features", "data.root": tmp_path / place, "output": tmp_path / "shop"}
        fit.run(resolve(keys))
        return {product.name: product.id for product in Catalog.open(tmp_path / "shop").products()}

    before = fitted((NFD, "Apple", "\u8336", "pot"), "a")
    after = fitted((NFC, "apple", "\u8336", "\u58f7"), "b")
    assert after[NFC] == before[NFD] and after["apple"] == before["Apple"] and after["\u8336"] == before["\u8336"]
    assert len(set(after.values())) == 4 and after["\u58f7"] not in before.values()


@pytest.mark.parametrize("name", ["unknown", "Unknown", " unsure ", "MATCH"])
def test_no_product_is_given_the_name_of_a_verdict(shop, name):
    items = [item.id for item in shop.items("c0")][:2]
    for edit in (
        lambda: shop.enroll(name, shots()),
        lambda: shop.rename("c0", name),
        lambda: shop.split("c0", items, name),
    ):
        with pytest.raises(UsageError, match="could not be told from the verdict"):
            edit()
    assert shop.revision == 0
    shop.enroll("unknown brand", shots())
