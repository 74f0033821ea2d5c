"""Items of an earlier run as they are now, and the features that its output folder keeps: nothing is encoded anew."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from mixtura.errors import BadItem, DataError, NoInput
from mixtura.features.records import RECORD_COLUMNS, Features, Rows
from mixtura.features.store import HEADER_FILE, FeatureStore
from mixtura.identity import fingerprint
from mixtura.pipeline import factory
from mixtura.pipeline.factory import FEATURES_KIND
from mixtura.recipe import Recipe


@dataclass(frozen=True)
class Origin:
    """How a run got its features: the identity of the encoder, the options that chose it, the files it left out."""

    identity: dict[str, str]
    options: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()

    def record(self) -> dict[str, Any]:
        """The origin, JSON-ready."""
        return asdict(self)


def origin_of(record: Mapping[str, Any]) -> Origin:
    """The origin of a record.

    Raises:
        KeyError, TypeError, ValueError: it is damaged.
    """
    return Origin(dict(record["identity"]), tuple(record["options"]), tuple(record["left_out"]))


def rows_now(recipe: Recipe, left_out: Sequence[str] = ()) -> Rows:
    """The photos or sounds of a recipe with the hashes of their bytes, and an embedding of no dimension.

    Those in ``left_out``, and files that cannot be opened, are missing.

    Raises:
        NoInput: there are none.
    """
    dataset, found = factory.dataset_of(factory.settled(recipe).data), []
    gone = set(left_out)
    for index, item in enumerate(dataset.items):
        if item.source in gone:
            continue
        try:
            found.append((item, dataset.digest(index)))
        except BadItem:
            continue
    items = [item for item, _ in found]
    own = {name: [getattr(item, name) for item in items] for name in RECORD_COLUMNS if name not in ("weight", "sha256")}
    weight = np.array([item.weight for item in items], dtype=np.float64)
    return Rows(np.zeros((len(items), 0), np.float32), weight=weight, sha256=[digest for _, digest in found], **own)


def kept(recipe: Recipe, identity: Mapping[str, str] | None, rows: Rows) -> Features:
    """The features of these items that the last run has left in the store or the output folder of its recipe.

    Args:
        recipe: says where the features lie.
        identity: of the encoder; unless it is known, there must be one store.
        rows: the items as they are now.

    Raises:
        NoInput: the features are gone, or it is not known which are those of the run.
        DataError: items have changed since.
    """
    assert recipe.output is not None
    given = recipe.extract.store
    places = [given] if given else [path.parent for path in recipe.output.glob(f"{FEATURES_KIND}*/{HEADER_FILE}")]
    stores = [FeatureStore.open(place) for place in places]
    if identity is not None:
        stores = [store for store in stores if store.fingerprint == fingerprint(identity)]
    if len(stores) != 1:
        raise NoInput(
            f"{given or recipe.output} does not hold the features of the last run, or others as well. Run the command "
            "again without --accept, then accept."
        )
    features = stores[0].read()
    known = dict(zip(features.id, features.sha256, strict=True))
    strange = [id for id, digest in zip(rows.id, rows.sha256, strict=True) if known.get(id) != digest]
    if strange:
        raise DataError(
            f"The items have changed since the last run (for example {strange[0]!r}). Run the command again without "
            "--accept, then accept."
        )
    facts = {name: getattr(rows, name) for name in RECORD_COLUMNS}
    return replace(features.select_ids(rows.id), **facts)
