"""Decide on photos or sounds with a model."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np
from jaxtyping import Float

from mixtura.catalog import Catalog, create
from mixtura.datasets.items import Problem
from mixtura.datasets.quality import Flaw
from mixtura.errors import BadItem, FingerprintMismatch, MixturaError, UsageError
from mixtura.features import imports
from mixtura.features.records import Features
from mixtura.features.store import HEADER_FILE, FeatureStore
from mixtura.files import is_file_at
from mixtura.formats import rate_of
from mixtura.identity import differences
from mixtura.model import bundle
from mixtura.model.decide import Known, decide, with_flaw
from mixtura.model.model import Model
from mixtura.pipeline import factory, training_set
from mixtura.pipeline.queries import Prepared, embed, name_of, prepare
from mixtura.records.decision import Decision

T = TypeVar("T")

BATCH_SIZE = 32
BLOCK_ROWS = 4096  # rows decided at once
VECTOR_READERS = {".npy": imports.from_npy, ".npz": imports.from_npz, ".parquet": imports.from_parquet}
"""What reads a file of vectors, by its ending."""


@dataclass(frozen=True)
class _Encoded:
    """The features of a file, with its image flaw; or a row of features."""

    name: str
    embedding: Float[np.ndarray, " D"]
    flaw: Flaw | None = None


class Predictor:
    """A fitted model in its folder, ready to classify photos or sounds; made by :func:`load`.

    Where the folder has a catalog, every call answers with its latest edits.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._catalog = Catalog.open(folder) if create.in_use(folder) else None
        self._fitted = None if self._catalog is not None else bundle.from_pretrained(folder)
        self._version = bundle.fingerprint(folder)  # of the model in memory, also after another fit

    @property
    def model(self) -> Model:
        """The classes, the density and the thresholds behind the answers."""
        if self._catalog is not None:
            return self._catalog.model
        assert self._fitted is not None
        return self._fitted

    @property
    def classes(self) -> tuple[str, ...]:
        """The class labels."""
        return self.model.classes

    def predict(
        self,
        paths: Sequence[Path | str | bytes] | Path | str,
        neighbors: int = 3,
        false_discovery_rate: float | str | None = None,
    ) -> list[Decision | Problem]:
        """One decision per photo or sound, in order; a file that cannot be read gives a problem in its place.

        Args:
            paths: image or audio files; the bytes of such, which are answered under the id ``-``; a feature store or
                a file of vectors (.npy, or .npz or .parquet with ``embedding``), which gives one decision per row.
            neighbors: the number of similar stored items to name with each decision.
            false_discovery_rate: of the files called unknown, the largest expected share of genuine ones, as in 0.05
                or "5%". It sets the limit of this call, in place of the model's false-reject rate.

        Raises:
            UsageError: a single path in place of a list, or a rate that is not above 0 and below 1.
            FingerprintMismatch: the installed encoder is not the one that the model was fitted with.
        """
        if isinstance(paths, str | Path):
            raise UsageError(f"Give a list of paths, as in predict([{str(paths)!r}]).")
        given = false_discovery_rate
        stated = None if given is None else rate_of(given, "false_discovery_rate")
        queries = [one if isinstance(one, bytes) else Path(one) for one in paths]
        encoded = (self._encode(batch) for batch in _blocks(queries, BATCH_SIZE))
        if stated is not None:  # the limit depends on all files
            encoded = [[item for batch in encoded for item in batch]]
        blocks = (block for batch in encoded for block in _blocks(batch, BLOCK_ROWS if stated is None else len(batch)))
        return [answer for block in blocks for answer in self._answers(block, neighbors, stated)]

    def __repr__(self) -> str:
        return f"Predictor({str(self.folder)!r}, {self.model!r})"

    @cached_property
    def _encoder(self) -> factory.Encoder:
        return encoder_for(self.model)

    @cached_property
    def _known(self) -> Known | None:
        items = known_items(self.folder, self.model)
        return None if items is None else Known(items)

    def _encode(self, queries: Sequence[Path | bytes]) -> list[_Encoded | Problem]:
        found: dict[int, list[_Encoded | Problem]] = {}
        prepared: dict[int, Prepared] = {}
        names = [name_of(query) for query in queries]
        for place, query in enumerate(queries):
            rows = _stored_rows(query, self.model)
            if rows is not None:
                found[place] = list(map(_Encoded, rows.id, rows.embedding))
                continue
            try:
                prepared[place] = prepare(self._encoder, query, names[place])
            except BadItem as error:
                found[place] = [Problem(names[place], error.reason, str(error))]
        if prepared:
            encoded = embed(self._encoder, list(prepared.values()))
            for (place, item), row in zip(prepared.items(), encoded, strict=True):
                found[place] = [_Encoded(names[place], row, item.flaw)]
        return [one for place in range(len(queries)) for one in found[place]]

    def _answers(
        self, items: Sequence[_Encoded | Problem], neighbors: int, stated: float | None
    ) -> list[Decision | Problem]:
        read = [item for item in items if isinstance(item, _Encoded)]
        if not read:
            return [item for item in items if isinstance(item, Problem)]
        ids, rows = [item.name for item in read], np.stack([item.embedding for item in read])
        flawed = map(with_flaw, self._decide(ids, rows, neighbors, stated), [item.flaw for item in read])
        return [item if isinstance(item, Problem) else next(flawed) for item in items]

    def _decide(
        self, ids: list[str], embedding: Float[np.ndarray, "N D"], neighbors: int, stated: float | None
    ) -> list[Decision]:
        if self._catalog is not None:
            return self._catalog.decide(ids, embedding, neighbors, stated)
        known = self._known if neighbors else None
        decisions = decide(self.model, ids, embedding, known, neighbors, None, stated)
        return [replace(decision, model=self._version) for decision in decisions]


def _blocks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (items[start : start + size] for start in range(0, len(items), max(size, 1)))


def _stored_rows(query: Path | bytes, model: Model) -> Features | None:
    """The rows of a feature store or of a file of vectors; ``None`` for a photo or sound."""
    if isinstance(query, bytes):
        return None
    if is_file_at(query / HEADER_FILE):
        rows = FeatureStore.open(query).read()
        how = differences(model.identity, rows.identity)
        if how:
            raise FingerprintMismatch(
                f"{query} does not hold features of the encoder {model.encoder.name!r} of the model: {how}. "
                "Extract them again with the model's encoder."
            )
        return rows
    read = VECTOR_READERS.get(query.suffix.lower())
    return None if read is None else read(query, label=None, encoder=model.encoder.name).validate(model.dimension)


def load(folder: Path | str) -> Predictor:
    """The fitted model in a folder, with all edits of its catalog, ready for :meth:`Predictor.predict`.

    Raises:
        NoInput, BundleError: there is no model, or it or its catalog is damaged.
    """
    return Predictor(Path(folder))


def run(
    model_path: Path | str,
    paths: Sequence[Path | str | bytes],
    neighbors: int = 3,
    false_discovery_rate: float | str | None = None,
) -> list[Decision | Problem]:
    """The same in one call.

    Raises:
        NoInput, BundleError: see :func:`load`.
        UsageError, FingerprintMismatch: see :meth:`Predictor.predict`.
    """
    return load(model_path).predict(paths, neighbors, false_discovery_rate)


def current(model_path: Path) -> Model:
    """The model of a folder with all edits of its catalog, if any.

    Raises:
        NoInput, BundleError: there is no model, or it or its catalog is damaged.
    """
    return load(model_path).model


def encoder_for(model: Model) -> factory.Encoder:
    """The encoder of a model, checked to be the very same.

    Raises:
        FingerprintMismatch: its weights or its preprocessing have changed.
    """
    encoder = factory.encoder_of(model.encoder)
    how = differences(model.identity, encoder.identity)
    if how:
        raise FingerprintMismatch(
            f"The encoder {model.encoder.name!r} is not the one that the model was made with: {how}. "
            "Install the version of the model card, or fit again."
        )
    return encoder


def known_items(model_path: Path, model: Model) -> Features | None:
    """The items that the model was fitted on, if their features still exist."""
    try:
        recipe = bundle.recipe_of(model_path)
        features = training_set.stored(recipe, model.identity)
    except MixturaError:
        return None  # neighbors are evidence beside the decision, not part of it
    return features.select(features.label_index(model.classes) >= 0)
