"""Read a catalog's tables into the values that its model is made of."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from mixtura.catalog.create import embeddings
from mixtura.catalog.database import CatalogDatabase
from mixtura.catalog.newcomers import NewcomerCalibration
from mixtura.catalog.priors import PRIOR_SETTING, from_value
from mixtura.catalog.rebuild import CatalogState, ComponentGroup
from mixtura.catalog.statistics import FittedStatistics
from mixtura.catalog.subclasses import COMPONENTS_SETTING, ClassKinds, components_of, kinds_of, said_of_kind
from mixtura.core.moments import LabeledItems, Moments
from mixtura.errors import LabelError, NoInput, UsageError
from mixtura.features.records import Features
from mixtura.fitting.gradient import validation_mask
from mixtura.fitting.selection import TrainingSamples
from mixtura.model.model import Model
from mixtura.model.prior import AskedPrior
from mixtura.names import Spellings, nearest, quoted, same_name_key
from mixtura.recipe import Recipe
from mixtura.records.catalog import Product, StoredItem

CURRENT_ITEMS = (
    "FROM item JOIN part ON part.id = item.part JOIN product ON product.id = part.product WHERE product.gone = 0 AND "
)
"""SQL for the items of the current catalog; append further conditions."""

ALL_ITEMS = (
    "FROM item LEFT JOIN part ON part.id = item.part LEFT JOIN product ON product.id = part.product "
    "WHERE item.split != 'test' AND "
)
"""SQL for all items ever learned from; append further conditions."""

HOME_CLASS = "(CASE product.gone WHEN 0 THEN part.base END)"
"""SQL for the model's class whose components an item belongs to now."""


def items_of(found: CatalogDatabase, where: str, values: Sequence[Any]) -> tuple[StoredItem, ...]:
    """The items of the current catalog that meet a condition."""
    columns = "item.id, part.product, source, sha256, added, split"
    return tuple(
        StoredItem(*row) for row in found.rows(f"SELECT {columns} {CURRENT_ITEMS} {where} ORDER BY item.id", values)
    )


def products_of(found: CatalogDatabase) -> tuple[Product, ...]:
    """All products, in order of creation, with the number of items each is learned from."""
    text = (
        "SELECT product.id, name, count(item.id), status, created FROM product "
        "JOIN part ON part.product = product.id LEFT JOIN item ON item.part = part.id AND item.split != 'test' "
        "WHERE gone = 0 GROUP BY product.id ORDER BY min(part.id)"
    )
    return tuple(Product(*row) for row in found.rows(text))


def find_product(products: Sequence[Product], wanted: str | Product, model: Model) -> Product:
    """The product with an id or name; one that was found before is found by its id alone.

    Raises:
        NoInput: there is none; the product that has a kind of this name is named, or else the nearest.
        UsageError: several have this id or name; for each, one is named that belongs to it alone.
    """
    if isinstance(wanted, Product):
        found = [product for product in products if product.id == wanted.id]
        wanted = wanted.id
    else:
        spelled = Spellings(key for product in products for key in (product.id, product.name)).of(wanted)
        found = [product for product in products if product.id in spelled or product.name in spelled]
    if len(found) == 1:
        return found[0]
    if not found:
        if said := said_of_kind(model, wanted):
            raise NoInput(said)
        hint = nearest(wanted, {key for product in products for key in (product.id, product.name)})
        raise NoInput(f"There is no product {quoted(wanted)} in this catalog. {hint}")
    uses = Counter(same_name_key(key) for product in products for key in {product.id, product.name})
    alone = [next((key for key in (one.name, one.id) if uses[same_name_key(key)] == 1), "") for one in found]
    advice = f"Give {' or '.join(map(quoted, alone))}" if all(alone) else "Rename one of them"
    raise UsageError(
        f"{quoted(wanted)} is the id or name of several products: "
        f"{', '.join(f'{product.name} ({product.id})' for product in found)}. {advice}."
    )


def classes_of(found: CatalogDatabase, products: Sequence[Product]) -> Int[Tensor, " P"]:
    """The model's class of each product, the first if there are several; -1 for newcomers."""
    rows = found.rows("SELECT product, min(base) AS base FROM part WHERE base IS NOT NULL GROUP BY product")
    base = {row["product"]: row["base"] for row in rows}
    return torch.tensor([base.get(product.id, -1) for product in products])


def known_of(found: CatalogDatabase, model: Model) -> Features:
    """The items that products are learned from, as features of the model's encoder."""
    text = (
        f"SELECT item.id, source, name, sha256, weight, embedding {CURRENT_ITEMS} item.split != 'test' ORDER BY item.id"
    )
    rows = found.rows(text)
    none: list[str | None] = [None] * len(rows)
    return Features(
        embedding=embeddings([row["embedding"] for row in rows], model.dimension),
        id=[str(row["id"]) for row in rows],
        source=[row["source"] for row in rows],
        label=[row["name"] for row in rows],
        superlabel=none,
        group=none,
        split=none,
        weight=np.array([row["weight"] for row in rows]),
        sha256=[row["sha256"] for row in rows],
        identity=model.identity,
    )


def state_of(found: CatalogDatabase, base: FittedStatistics, products: Sequence[Product]) -> CatalogState:
    """The products' component groups, the items added to or removed from the model's classes, and divided classes."""
    place = {product.id: i for i, product in enumerate(products)}
    given = found.kinds()
    parts: list[ComponentGroup] = []
    for part in found.rows("SELECT id, product, base FROM part ORDER BY id"):
        above = place.get(part["product"])
        if above is not None and part["base"] is not None:
            parts.append(ComponentGroup(above, part["base"]))
        elif above is not None:
            parts += _enrolled(found, base, part["id"], above, given)
    return CatalogState(
        tuple(product.name for product in products),
        tuple(parts),
        _items(found, base, HOME_CLASS, f"{HOME_CLASS} IS NOT NULL AND {HOME_CLASS} IS NOT item.base"),
        _items(found, base, "item.base", f"item.base IS NOT NULL AND {HOME_CLASS} IS NOT item.base"),
        _divided(found, base, given),
    )


def _enrolled(
    found: CatalogDatabase, base: FittedStatistics, part: int, product: int, given: Mapping[int, str]
) -> list[ComponentGroup]:
    """The items of a part that the model was not fitted with, one group for each kind."""
    rows = found.rows(
        f"SELECT item.id, embedding {CURRENT_ITEMS} item.split != 'test' AND item.part = ? ORDER BY item.id", (part,)
    )
    x = base.model.project(embeddings([row["embedding"] for row in rows], base.model.dimension)).double()
    kind = [given.get(row["id"], "") for row in rows]
    return [
        ComponentGroup(product, None, x[own], name, len(own) / len(rows))
        for name in sorted(set(kind))
        for own in [[n for n, other in enumerate(kind) if other == name]]
    ]


def _divided(found: CatalogDatabase, base: FittedStatistics, given: Mapping[int, str]) -> tuple[ClassKinds, ...]:
    """The classes whose items have kinds by an edit."""
    homes = found.rows(f"SELECT item.id, {HOME_CLASS} {ALL_ITEMS} {HOME_CLASS} IS NOT NULL") if given else []
    made: list[ClassKinds] = []
    for c in sorted({home for id, home in homes if id in given}):
        ids, items = _numbered(found, base, HOME_CLASS, f"{HOME_CLASS} = ?", (c,))
        made.append(ClassKinds.of(c, items, kinds_of(base.model, items, ids, given)))
    return tuple(one for one in made if one.names)


def kinds_in(found: CatalogDatabase, base: FittedStatistics, product: str) -> dict[int, str]:
    """The kind of each item that a product (its id) is learned from, by item number; empty for none."""
    given = found.kinds()
    rows = found.rows(
        f"SELECT item.id {CURRENT_ITEMS} item.split != 'test' AND product.id = ? ORDER BY item.id", (product,)
    )
    kinds = {id: given.get(id, "") for (id,) in rows}
    if base.model.subclasses is not None:
        ids, items = _numbered(found, base, HOME_CLASS, f"{HOME_CLASS} IS NOT NULL AND product.id = ?", (product,))
        kinds |= zip(ids, kinds_of(base.model, items, ids, given), strict=True)
    return kinds


def _items(found: CatalogDatabase, base: FittedStatistics, label: str, where: str) -> LabeledItems:
    """Items that meet a condition, in the space of the mixture."""
    return _numbered(found, base, label, where)[1]


def _numbered(
    found: CatalogDatabase, base: FittedStatistics, label: str, where: str, values: Sequence[Any] = ()
) -> tuple[list[int], LabeledItems]:
    """The numbers of items that meet a condition, and the items in the space of the mixture."""
    text = f"SELECT item.id, embedding, {label} AS label, weight {ALL_ITEMS} {where} ORDER BY item.id"
    rows = found.rows(text, values)
    ids, labels = [row["id"] for row in rows], torch.tensor([row["label"] for row in rows], dtype=torch.int64)
    return ids, LabeledItems(
        base.model.project(embeddings([row["embedding"] for row in rows], base.model.dimension)),
        labels,
        torch.tensor([row["weight"] for row in rows], dtype=torch.float64),
        _components(found, base, ids, labels),
    )


def _components(
    found: CatalogDatabase, base: FittedStatistics, ids: Sequence[int], labels: Int[Tensor, " N"]
) -> Int[Tensor, " N"] | None:
    stored = found.rows("SELECT value FROM setting WHERE key = ?", (COMPONENTS_SETTING,))
    return components_of(stored[0]["value"], base.model, ids, labels) if stored else None


def gauge_of(
    found: CatalogDatabase, base: FittedStatistics, sums: Moments, asked: AskedPrior
) -> NewcomerCalibration | None:
    """Calibration items of the model's classes, split as in gradient training; ``None`` if too few can be held out."""
    where = f"{HOME_CLASS} IS NOT NULL"
    items = _items(found, base, HOME_CLASS, where)
    rows = found.rows(f"SELECT item.sha256, item.split, item.id {ALL_ITEMS} {where} ORDER BY item.id")
    numbers: dict[str, int] = {}
    groups = torch.tensor([numbers.setdefault(row["sha256"] or str(row["id"]), len(numbers)) for row in rows])
    given = torch.tensor([row["split"] == "val" for row in rows])
    try:
        rows = TrainingSamples(items.x, items.labels, groups, given, items.weight, len(base.model.classes))
        judge = validation_mask(rows, Recipe())
    except LabelError:
        return None
    return NewcomerCalibration(base, sums, items, judge, asked) if bool(judge.any()) else None


def setting_of(found: CatalogDatabase, key: str) -> bytes | None:
    """A setting; ``None`` where there is none, or an undone edit has taken it back."""
    rows = found.rows("SELECT value FROM setting WHERE key = ?", (key,))
    return rows[0]["value"] if rows else None


def asked_of(found: CatalogDatabase, base: FittedStatistics) -> AskedPrior:
    """The class prior of a catalog: that of an edit, or else of the bundle."""
    stored = setting_of(found, PRIOR_SETTING)
    return base.asked if stored is None else from_value(stored)
