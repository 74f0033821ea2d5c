"""The edits of kinds: which photos of a product are of which kind, and what that does to the product."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from mixtura.catalog.create import embeddings
from mixtura.catalog.database import KIND_TABLE, CatalogDatabase, EditTransaction
from mixtura.catalog.database import kinds_in as given_kinds
from mixtura.catalog.edits import check_no_verdict, check_shots, checked, insert, new_part
from mixtura.catalog.queries import CURRENT_ITEMS, kinds_in
from mixtura.catalog.statistics import FittedStatistics
from mixtura.errors import NoInput, UsageError
from mixtura.formats import count
from mixtura.model.model import Model
from mixtura.names import Spellings, nearest, quoted, same_name_key
from mixtura.records.catalog import Kind, KindsEffect, Product, Shot

MAX_COMPARED = 2000  # photos of a product whose verdicts are compared


def kinds_of_product(found: CatalogDatabase, base: FittedStatistics, product: Product) -> tuple[Kind, ...]:
    """The kinds of a product, the largest first; the photos of no kind have the name of the product."""
    items: dict[str, list[int]] = {}
    for item, name in kinds_in(found, base, product.id).items():
        items.setdefault(name or product.name, []).append(item)
    largest = sorted(items.items(), key=lambda pair: -len(pair[1]))
    return tuple(Kind(name, tuple(numbers)) for name, numbers in largest)


def give(
    draft: EditTransaction,
    found: CatalogDatabase,
    base: FittedStatistics,
    products: Sequence[Product],
    wanted: Sequence[tuple[Product, Mapping[int, str]]],
) -> str:
    """Make photos of products the kinds that are named; an empty name, or that of the product, is none."""
    changed = [_give(draft, found, base, products, *one) for one in wanted]
    if not any(changed):
        raise UsageError("The photos are of these kinds already. Nothing was changed.")
    draft.summary = " ".join(_sentence(one) for one, is_new in zip(draft.kinds, changed, strict=True) if is_new)
    return wanted[0][0].id


def _give(
    draft: EditTransaction,
    found: CatalogDatabase,
    base: FittedStatistics,
    products: Sequence[Product],
    product: Product,
    wanted: Mapping[int, str],
) -> bool:
    """The same for one product; returns whether anything changed."""
    now = kinds_in(found, base, product.id)
    other = [item for item in wanted if item not in now]
    if other:
        raise NoInput(
            f"Item {other[0]} is no photo that {product.name} is learned from. Give numbers of such photos: "
            "mixtura products lists them."
        )
    fitted = "SELECT count(*) FROM part WHERE product = ? AND base IS NOT NULL"
    if not base.exact and draft.connection.execute(fitted, (product.id,)).fetchone()[0]:
        raise UsageError(
            f"The model was trained by gradients, so {product.name} cannot be divided without a fit. Accept its kinds "
            "as classes instead: mixtura subclasses --accept."
        )
    after = now | kind_names(product, products, now.values(), wanted)
    draft.kinds += (_effect(product, now, after),)
    store(draft, base, after, {item for item in now if after[item] != now[item]})
    return after != now


def store(draft: EditTransaction, base: FittedStatistics, kinds: Mapping[int, str], items: set[int]) -> None:
    """Write the kinds of some items; all of them are ``kinds`` of one product.

    A product without any kind is as it was fitted, so its items keep none, unless kinds were fitted.
    """
    draft.connection.execute(KIND_TABLE)
    none = not any(kinds.values()) and base.model.subclasses is None
    given = given_kinds(draft.connection).keys() & kinds.keys()
    for item in sorted(items | given if none else items):
        draft.set("kind", item, "name", None if none else kinds[item])


def enroll(
    draft: EditTransaction,
    found: CatalogDatabase,
    base: FittedStatistics,
    under: tuple[Product, Sequence[Product]],
    what: tuple[Sequence[Shot], str],
) -> str:
    """Add shots to a product as a kind of it; a new kind borrows its spread from others, as a new product does.

    Args:
        draft: the edit.
        found: the catalog.
        base: the model as it was fitted.
        under: the product, and all products.
        what: the shots, and the name of the kind.
    """
    (product, products), (shots, kind) = under, what
    check_shots(draft, base.model, shots)
    now = kinds_in(found, base, product.id)
    [name] = kind_names(product, products, now.values(), {0: kind}).values()
    known = _part_of(draft, base, product, [item for item, own in now.items() if own == name])
    items = insert(draft, shots, new_part(draft, product.id) if known is None else known)
    after = now | dict.fromkeys(items, name)
    draft.kinds += (_effect(product, now, after),)
    store(draft, base, after, set(items))
    draft.summary = f"Added {count(len(shots), 'item')} to {product.name}, as {name or 'no kind of it'}."
    return product.id


def _part_of(draft: EditTransaction, base: FittedStatistics, product: Product, items: Sequence[int]) -> int | None:
    """The part of a product that has most of some items and can take more; ``None`` if there is none."""
    parts = draft.connection.execute(
        "SELECT item.id, part.id AS part FROM item JOIN part ON part.id = item.part "
        "WHERE part.product = ? AND (part.base IS NULL OR ?)",
        (product.id, base.exact),
    ).fetchall()
    wanted = set(items)
    found = Counter(row["part"] for row in parts if row["id"] in wanted).most_common(1)
    return found[0][0] if found else None


def renamed(now: Sequence[Kind], names: Mapping[str, str]) -> dict[int, str]:
    """The kind of each photo after kinds got other names.

    Raises:
        NoInput: there is no such kind.
    """
    known = {kind.name: kind.items for kind in now}
    wanted: dict[int, str] = {}
    for name, new in names.items():
        spelled = Spellings(known).of(name)
        if not spelled:
            raise NoInput(f"There is no kind {quoted(name)}. {nearest(name, known)}")
        wanted |= {item: new for one in spelled for item in known[one]}
    return wanted


def kind_names(
    product: Product, products: Sequence[Product], known: Iterable[str], wanted: Mapping[int, str]
) -> dict[int, str]:
    """The names as they are stored: one spelling for one kind, and nothing for the product itself.

    Args:
        product: whose kinds they are.
        products: all products.
        known: kinds that it has.
        wanted: names by item number.

    Raises:
        UsageError: a name that nobody could tell from that of another product, or that cannot be one.
    """
    spelling = {same_name_key(name): name for name in known} | {same_name_key(product.name): "", "": ""}
    others = {same_name_key(one.name): one.name for one in products if one.id != product.id}
    found: dict[str, str] = {}
    for name in dict.fromkeys(wanted.values()):
        if not name.strip():
            found[name] = ""
            continue
        new = checked(name)
        check_no_verdict(new)
        key = same_name_key(new)
        if key in others:
            raise UsageError(
                f"{quoted(others[key])} is a product of its own, so no kind of {product.name} can have its name. "
                "Choose another name."
            )
        found[name] = spelling.setdefault(key, new)
    return {item: found[name] for item, name in wanted.items()}


def _effect(product: Product, now: Mapping[int, str], after: Mapping[int, str]) -> KindsEffect:
    return KindsEffect(product.id, product.name, *(_counts(product, kinds) for kinds in (now, after)))


def _counts(product: Product, kinds: Mapping[int, str]) -> dict[str, int]:
    return dict(Counter(name or product.name for name in kinds.values()).most_common())


def _sentence(effect: KindsEffect) -> str:
    kinds = {name: number for name, number in effect.after.items() if name != effect.product}
    if not kinds:
        return f"{effect.product} has no kinds any more."
    said = ", ".join(f"{name} ({number})" for name, number in kinds.items())
    rest = effect.after.get(effect.product, 0)
    return f"{effect.product} has {count(len(kinds), 'kind')}: {said}" + (f", and {rest} of no kind." if rest else ".")


def notes(found: CatalogDatabase, effects: Sequence[KindsEffect], before: Model, after: Model) -> tuple[str, ...]:
    """Sentences on what new kinds do to the answers about the photos of a product, and whether recalibration is due."""
    said: list[str] = []
    for effect in effects:
        rows = found.rows(f"SELECT embedding {CURRENT_ITEMS} product.id = ? ORDER BY item.id", (effect.id,))
        step = -(-len(rows) // MAX_COMPARED) or 1
        embedding = embeddings([row[0] for row in rows[::step]], after.dimension)
        was, now = (int(np.sum(model.answers(embedding).verdict == "unknown")) for model in (before, after))
        text = (
            f"The limits are those of before: {now} of {count(len(embedding), 'photo')} of {effect.product} would be "
            f"unknown now, {was} before."
        )
        due = now - was > after.decision.false_reject_rate * len(embedding)
        said.append(text + " They no longer fit: run mixtura recalibrate." * due)
    return tuple(said)
