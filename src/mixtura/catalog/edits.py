"""The edits: what each one changes, reports and refuses."""

import unicodedata
from collections.abc import Sequence

import numpy as np

from mixtura.catalog.create import blob, embeddings, slugs
from mixtura.catalog.database import CatalogDatabase, EditTransaction, kinds_in, now
from mixtura.catalog.database import undo as take_back
from mixtura.catalog.queries import CURRENT_ITEMS
from mixtura.catalog.subclasses import owners_of
from mixtura.errors import DataError, NoInput, UsageError
from mixtura.formats import count
from mixtura.model.model import Model
from mixtura.names import Spellings, printable, quoted, same_name_key
from mixtura.records.catalog import Product, Shot, StoredItem
from mixtura.records.decision import VERDICTS

MAX_NAME_LENGTH = 200  # characters of a name
MAX_SHOTS = 1000  # shots per edit
MAX_TEST_ITEMS = 2000  # test items used to count accuracy, at most
MIN_SHOTS = 3  # shots; with fewer, a note says so
MIN_FITTED_PRODUCTS = 5  # fitted products; with fewer, a note says so


def enroll(draft: EditTransaction, model: Model, name: str, shots: Sequence[Shot], exact: bool) -> str:
    """Add shots to the product with this name, which is created if it does not exist."""
    name = checked(name)
    if not _product_named(draft, name):
        check_no_verdict(name)
        _check_no_kind(model, name)
    check_shots(draft, model, shots)
    db = draft.connection
    found = _product_named(draft, name)
    id = found or _new_product(draft, name)
    part = db.execute("SELECT id, base FROM part WHERE product = ? ORDER BY id", (id,)).fetchall()
    usable = [row["id"] for row in part if row["base"] is None or exact]
    insert(draft, shots, usable[0] if usable else new_part(draft, id))
    if not found:
        draft.set("product", id, "gone", 0)
    what = f"{len(shots)} item{'s' * (len(shots) > 1)}"
    there = db.execute("SELECT name FROM product WHERE id = ?", (id,)).fetchone()[0]
    draft.summary = f"Added {what} to {there}." if found else f"Enrolled {name} from {what}."
    return id


def check_shots(draft: EditTransaction, model: Model, shots: Sequence[Shot]) -> None:
    """Check that shots can be enrolled: their number, their features, and that the catalog has none of them."""
    if not 1 <= len(shots) <= MAX_SHOTS:
        raise UsageError(f"{len(shots)} photos cannot be enrolled at once. Give 1 to {MAX_SHOTS}.")
    model.project(np.stack([shot.embedding for shot in shots]))
    _check_new(draft, shots)


def insert(draft: EditTransaction, shots: Sequence[Shot], part: int) -> list[int]:
    """Add shots to a part; returns their item numbers."""
    made: list[int] = []
    for shot in shots:
        row = draft.connection.execute(
            "INSERT INTO item (split, source, sha256, weight, added, embedding, thumbnail) "
            "VALUES ('train', ?, ?, 1.0, ?, ?, ?)",
            (shot.source, shot.sha256, now(), blob(shot.embedding), shot.thumbnail),
        ).lastrowid
        assert row is not None
        draft.set("item", row, "part", part)
        made.append(row)
    return made


def remove_product(draft: EditTransaction, product: Product) -> str:
    """Hide a product; its items stay stored for undo."""
    _check_left(draft, product)
    draft.set("product", product.id, "gone", 1)
    draft.summary = f"Removed {product.name} with {product.items} item{'s' * (product.items != 1)}."
    return product.id


def remove_item(draft: EditTransaction, item: StoredItem, exact: bool) -> str:
    """Detach an item from its product; it stays stored for undo."""
    check_movable(draft, [item.id], exact)
    text = "SELECT count(*) FROM item JOIN part ON part.id = item.part WHERE part.product = ? AND item.split != 'test'"
    if item.split != "test" and draft.connection.execute(text, (item.product,)).fetchone()[0] < 2:
        raise UsageError(f"Item {item.id} is the last one of {item.product!r}. Remove the product instead.")
    draft.set("item", item.id, "part", None)
    draft.summary = f"Removed item {item.id} ({item.source}) of {item.product}."
    return item.product


def rename(draft: EditTransaction, model: Model, product: Product, name: str) -> str:
    """Change a product's name; its id stays the same."""
    name = checked(name)
    _check_free(draft, name, product.id)
    _check_no_kind(model, name)
    draft.set("product", product.id, "name", name)
    draft.summary = f"Renamed {product.name} to {name}."
    return product.id


def merge(draft: EditTransaction, source: Product, into: Product) -> str:
    """Move all parts of one product to another."""
    if source.id == into.id:
        raise UsageError(f"Product {source.id!r} cannot be merged into itself. Give another one.")
    _check_left(draft, source)
    for (part,) in draft.connection.execute("SELECT id FROM part WHERE product = ?", (source.id,)).fetchall():
        draft.set("part", part, "product", into.id)
    draft.set("product", source.id, "gone", 1)
    draft.summary = f"Merged {source.name} into {into.name}."
    return into.id


def split(draft: EditTransaction, model: Model, product: Product, items: Sequence[int], name: str, exact: bool) -> str:
    """Move some items into a part of a new product."""
    name = checked(name)
    _check_free(draft, name)
    _check_no_kind(model, name)
    wanted = sorted(set(items))
    text = f"SELECT item.id, item.split {CURRENT_ITEMS} part.product = ?"
    own = {row["id"]: row["split"] for row in draft.connection.execute(text, (product.id,))}
    other = [item for item in wanted if item not in own]
    if other or not wanted:
        raise NoInput(
            f"Item {other[0]} does not belong to {product.id!r}. Give numbers of its items."
            if other
            else "No item was named. Give the numbers of the items that are to be a product of their own."
        )
    learned = {item for item, part in own.items() if part != "test"}
    if not learned & set(wanted) or not learned - set(wanted):
        raise UsageError(f"Both products need an item to learn from. {product.id!r} has {len(learned)}: name fewer.")
    check_movable(draft, wanted, exact)
    id = _new_product(draft, name)
    part = new_part(draft, id)
    kinds = kinds_in(draft.connection)
    for item in wanted:
        draft.set("item", item, "part", part)
        if item in kinds:
            draft.set("kind", item, "name", None)  # a kind of what it was split from
    draft.set("product", id, "gone", 0)
    draft.summary = f"Split {len(wanted)} items of {product.name} into {name}."
    return id


def confirm(draft: EditTransaction, product: Product) -> str:
    """Mark a provisional product as confirmed."""
    if product.status != "provisional":
        raise UsageError(f"Product {product.id!r} is {product.status} already. Only provisional ones are confirmed.")
    draft.set("product", product.id, "status", "confirmed")
    draft.summary = f"Confirmed {product.name}."
    return product.id


def undo(draft: EditTransaction) -> None:
    """Undo the latest edit in effect."""
    said = take_back(draft)
    if said is None:
        raise UsageError("There is nothing to undo: the catalog is as it was made.")
    draft.summary = f"Undone: {said}"


def checked(name: str) -> str:
    """A product name in Unicode normal form C, with surplus spaces removed.

    Raises:
        UsageError: nobody could see it, it is too long, or holds control characters.
    """
    name = unicodedata.normalize("NFC", " ".join(name.split()))
    if not 1 <= len(name) <= MAX_NAME_LENGTH or not same_name_key(name) or printable(name) != name:
        raise UsageError(f"The name {quoted(name[:40])} does not do. Give 1 to {MAX_NAME_LENGTH} printable characters.")
    return name


def tested_items(found: CatalogDatabase) -> dict[int, str]:
    """The product of each test item, or of an evenly chosen subset if there are many."""
    rows = found.rows(f"SELECT item.id, part.product {CURRENT_ITEMS} item.split = 'test' ORDER BY item.id")
    step = -(-len(rows) // MAX_TEST_ITEMS) or 1
    return {row[0]: row[1] for row in rows[::step]}


def accuracies(
    found: CatalogDatabase,
    before: tuple[Model, Sequence[Product]],
    after: tuple[Model, Sequence[Product]],
    was: dict[int, str],
) -> tuple[float | None, float | None, int]:
    """Accuracy before and after (shares) on test items that stayed in their product, and the number of these items."""
    now_of = tested_items(found)
    same = [item for item, product in was.items() if now_of.get(item) == product]
    if not same:
        return None, None, 0
    marks = ",".join("?" * len(same))
    rows = found.rows(f"SELECT embedding FROM item WHERE id IN ({marks}) ORDER BY id", same)  # noqa: S608
    embedding = embeddings([row[0] for row in rows], before[0].dimension)
    truth = [was[item] for item in sorted(same)]
    shares: list[float] = []
    for model, products in (before, after):
        predicted = model.predicted(embedding).tolist()
        shares.append(sum(products[p].id == t for p, t in zip(predicted, truth, strict=True)) / len(truth))
    return shares[0], shares[1], len(truth)


def notes(product: Product | None, model: Model, shots: Sequence[Shot], fitted: int) -> tuple[str, ...]:
    """Sentences to show after an edit: on the product it made or changed, and on what there is to compare with.

    Args:
        product: that the edit made or changed.
        model: after the edit.
        shots: that the edit added.
        fitted: number of classes of the fit, also those that are gone.
    """
    said: list[str] = []
    if product is not None and product.status == "provisional":
        items = "1 item says" if product.items == 1 else f"{product.items} items say"
        few = f" {items} little: add some more." if product.items < MIN_SHOTS else ""
        said.append(f"{product.name} is provisional until it is confirmed.{few}")
    if product is not None and shots:
        said += _recognition(product.name, model, shots)
    component_class = None if model.fitted is None else model.fitted.component_class
    left = MIN_FITTED_PRODUCTS if component_class is None else len(set(component_class.tolist()))
    if left < MIN_FITTED_PRODUCTS:
        whole = f"The fit had only {left} products" if left == fitted else f"Only {left} products of the fit are left"
        said.append(
            f"{whole}, and what was enrolled is measured by them: other things of its kind may match it. Fit again "
            "with the photos of all products."
        )
    return tuple(said)


def _recognition(name: str, model: Model, shots: Sequence[Shot]) -> list[str]:
    """Sentences on the shots of a product that the model does not recognize, although it has just learned them."""
    answers = model.answers(np.stack([shot.embedding for shot in shots]))
    named = np.array(model.classes)[answers.predicted]
    own = named == name
    if 2 * own.sum() < len(own):
        others, counts = np.unique(named[~own], return_counts=True)
        return [
            f"Of its {len(named)} photos, {own.sum()} are named {name}; most look like {others[counts.argmax()]}. "
            "Merge the two, or give photos that show what sets them apart."
        ]
    lost = {word: int((own & (answers.verdict == word)).sum()) for word in ("unknown", "unsure")}
    lost |= {f"named {other}": int((named == other).sum()) for other in np.unique(named[~own])}
    if not any(lost.values()):
        return []
    parts = " and ".join(f"{number} would be {how}" for how, number in lost.items() if number)
    return [
        f"Of its {count(len(own), 'photo')}, {parts}, although they have just been enrolled. Give more photos of it; "
        "if that does not help, fit again with the photos of all products."
    ]


def _new_product(draft: EditTransaction, name: str) -> str:
    """Create a hidden product: the edit makes it visible at its end, and undo hides it again."""
    taken = [row[0] for row in draft.connection.execute("SELECT id FROM product")]
    [id] = slugs([name], taken)
    draft.connection.execute("INSERT INTO product VALUES (?, ?, 'provisional', ?, 1)", (id, name, now()))
    return id


def new_part(draft: EditTransaction, product: str) -> int:
    """A part of a product for items that the model was not fitted with; returns its number."""
    number = draft.connection.execute("INSERT INTO part (product) VALUES (?)", (product,)).lastrowid
    assert number is not None
    return number


def _check_new(draft: EditTransaction, shots: Sequence[Shot]) -> None:
    hashes = [shot.sha256 for shot in shots if shot.sha256]
    twice = next((shot for shot in shots if shot.sha256 and hashes.count(shot.sha256) > 1), None)
    if twice is not None:
        raise DataError(f"{twice.source} was given twice. Give each photo once.")
    for shot in shots:
        text = f"SELECT item.id, product.name {CURRENT_ITEMS} item.sha256 = ? AND item.sha256 != ''"
        found = draft.connection.execute(text, (shot.sha256,)).fetchone()
        if found:
            raise DataError(f"{shot.source} is in the catalog already, as item {found[0]} of {found[1]}. Leave it out.")


def _product_named(draft: EditTransaction, name: str) -> str | None:
    """The id of the product with a name, in this spelling or else in another one.

    Raises:
        UsageError: there are several of other spellings, in a catalog from before spellings were compared.
    """
    rows = draft.connection.execute("SELECT id, name FROM product WHERE gone = 0 ORDER BY rowid").fetchall()
    spelled = Spellings(row["name"] for row in rows).of(name)
    alike = [row["id"] for row in rows if row["name"] in spelled]
    if len(alike) > 1:
        raise UsageError(f"Several products are named {quoted(name)}: {', '.join(alike)}. Merge them, or rename some.")
    return alike[0] if alike else None


def _check_free(draft: EditTransaction, name: str, but: str = "") -> None:
    check_no_verdict(name)
    key = same_name_key(name)
    for id, there in draft.connection.execute("SELECT id, name FROM product WHERE gone = 0").fetchall():
        if id != but and same_name_key(there) == key:
            raise UsageError(
                f"There is a product named {quoted(there)} already. Choose another name, or merge the two."
            )


def check_no_verdict(name: str) -> None:
    """Check that a name is not that of a verdict.

    Raises:
        UsageError: it is.
    """
    if same_name_key(name) in VERDICTS:
        raise UsageError(
            f"A product named {quoted(name)} could not be told from the verdict {same_name_key(name)} in answers. "
            "Choose another name."
        )


def _check_no_kind(model: Model, name: str) -> None:
    owners = " and ".join(owners_of(model, name))
    if owners:
        raise UsageError(
            f"{quoted(name)} is a kind of {owners}, and its photos belong there. Enroll them as {owners}, or choose "
            "another name."
        )


def _check_left(draft: EditTransaction, product: Product) -> None:
    """Check that at least two fitted products are left, because newcomers are compared with them."""
    text = (
        "SELECT count(DISTINCT product.id) FROM product JOIN part ON part.product = product.id "
        "WHERE gone = 0 AND part.base IS NOT NULL AND product.id != ?"
    )
    if draft.connection.execute(text, (product.id,)).fetchone()[0] < 2:
        raise UsageError(
            f"Without {product.name} too few products are left that mixtura fit has learned: two of them must stay, "
            "because enrolled ones are compared with them. Fit again in another folder, without its photos."
        )


def check_movable(draft: EditTransaction, items: Sequence[int], exact: bool) -> None:
    """Check that the model does not depend on where these items are.

    Raises:
        UsageError: it was trained by gradients on one of them.
    """
    if exact:
        return
    marks = ",".join("?" * len(items))
    text = f"SELECT id FROM item WHERE id IN ({marks}) AND base IS NOT NULL"  # noqa: S608
    found = draft.connection.execute(text, tuple(items)).fetchone()
    if found:
        raise UsageError(
            f"The model was trained by gradients on item {found[0]}, which cannot be taken out of it. "
            "Remove the whole product, or fit without the photo."
        )
