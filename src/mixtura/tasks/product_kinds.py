"""The kinds of one product of a catalog: those that it has, and those that its photos suggest."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from mixtura.catalog import Catalog
from mixtura.core.subclasses.search import Rules
from mixtura.errors import UsageError
from mixtura.features.projection import L2
from mixtura.features.records import Features
from mixtura.records.catalog import Product
from mixtura.tasks import subclasses
from mixtura.tasks.cluster import margins
from mixtura.tasks.contact_sheets import MAX_BORDERLINE_MARGIN

TYPICAL, BORDERLINE = 6, 3
"""Photos that stand for a kind, at most."""

MAX_ITEMS = 1000
"""Photos of a product that are searched while somebody waits for the answer."""

RULES = Rules(draws=99)
"""As on the command line, with half the draws, which are enough for its level."""


@dataclass(frozen=True)
class ShownKind:
    """A kind with the numbers of its items, and of those that stand for it; ``stability`` is in [0, 1]."""

    name: str
    items: tuple[int, ...]
    typical: tuple[int, ...]
    borderline: tuple[int, ...]
    stability: float | None = None


@dataclass(frozen=True)
class FoundKinds:
    """What the photos of a product suggest; ``why`` says in a sentence why there are several kinds, or one.

    ``stability`` is the least of the kinds, ``p_value`` that against one Gaussian; ``None`` where it was not tested.
    """

    kinds: tuple[ShownKind, ...]
    why: str
    stability: float | None
    p_value: float | None


def shown(catalog: Catalog, product: Product) -> tuple[ShownKind, ...]:
    """The kinds that a product has, the largest first, each with its most typical and its borderline photos."""
    rows = _of_product(catalog, product)[1]
    kinds = catalog.kinds(product)
    place = {item: n for n, kind in enumerate(kinds) for item in kind.items}
    rows = rows.select(np.array([int(id) in place for id in rows.id], dtype=bool))
    label = np.array([place[int(id)] for id in rows.id], dtype=np.int64)
    if not len(label):
        return ()
    unit = L2()(torch.from_numpy(rows.embedding)).numpy()
    distance, margin = margins(unit, label)
    made: list[ShownKind] = []
    for n, kind in enumerate(kinds):
        own = np.flatnonzero(label == n)
        typical, borderline = (own[np.argsort(value[own], kind="stable")] for value in (distance, margin))
        made.append(_shown(kind.name, [int(id) for id in rows.id], (typical.tolist(), borderline.tolist()), margin))
    return tuple(made)


def find(catalog: Catalog, product: Product) -> FoundKinds:
    """The kinds that the photos of a product suggest; the answer may be one kind.

    Raises:
        UsageError: the product has more photos than can be searched while somebody waits.
    """
    features, rows = _of_product(catalog, product)
    if len(rows) > MAX_ITEMS:
        raise UsageError(
            f"{product.name} has {len(rows):,} photos, and the page looks through {MAX_ITEMS:,} at most. Use mixtura "
            "subclasses on the command line."
        )
    found = subclasses.run(features, classes=[product.name], rules=RULES)
    [one] = found.classes
    ids = [int(id) for id in features.id]
    kinds = tuple(
        _shown(str(kind.number), ids, (kind.typical, kind.borderline), found.margin, kind.stability)
        for kind in one.kinds
    )
    return FoundKinds(kinds, one.why, one.stability, one.p_value)


def _of_product(catalog: Catalog, product: Product) -> tuple[Features, Features]:
    """The items that the catalog is learned from, and those of a product."""
    known = catalog.known()
    return known, known.select(np.array([label == product.name for label in known.label], dtype=bool))


def _shown(
    name: str,
    ids: Sequence[int],
    rows: tuple[Sequence[int], Sequence[int]],
    margin: Float[np.ndarray, " N"],
    stability: float | None = None,
) -> ShownKind:
    """A kind of which both ``rows`` are all rows, by typicality and by margin."""
    typical, borderline = rows
    first = typical[:TYPICAL]
    last = [row for row in borderline[:BORDERLINE] if row not in first and margin[row] < MAX_BORDERLINE_MARGIN]
    items, shown_first, shown_last = (tuple(ids[row] for row in part) for part in (typical, first, last))
    return ShownKind(name, items, shown_first, shown_last, stability)
