"""Find the stored items most similar to a photo, and measure how often such a search finds the right class."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from mixtura.datasets.items import Problem
from mixtura.errors import BadItem, LabelError, NoInput
from mixtura.features import INDEXES
from mixtura.features.neighbors import Index, unit_rows, without_self
from mixtura.features.records import Features
from mixtura.files import is_there
from mixtura.metrics.retrieval import average_precision, precision_at, precision_ceiling
from mixtura.names import find
from mixtura.pipeline.queries import Prepared, embed, name_of, prepare
from mixtura.records.decision import Neighbor
from mixtura.tasks.collection import Collection, filtered
from mixtura.tasks.predict import BATCH_SIZE

PRECISION_AT = (1, 5, 10)
MAX_QUERIES = 10_000  # queries to a larger store: the standard error of a share is then at most half a point
_BLOCK_QUERIES = 256  # queries ranked at once


@dataclass(frozen=True)
class QueryResult:
    """The items most similar to one query, nearest first; ``query`` is a file, or the id of a stored item."""

    query: str
    neighbors: tuple[Neighbor, ...]


@dataclass(frozen=True)
class SearchResult:
    """The results of all queries and what was searched; ``recall`` is that of an approximate index."""

    results: tuple[QueryResult | Problem, ...]
    items: int
    index: str
    recall: float | None = None


@dataclass(frozen=True)
class Retrieval:
    """How often a search finds the query's own class; shares in [0, 1].

    ``alone`` counts items that cannot be queries, since no other item has their label; ``ceiling`` is the
    precision of a perfect search; ``by_class`` is the mean average precision of each class.
    """

    items: int
    queries: int
    alone: int
    precision: dict[int, float]
    ceiling: dict[int, float]
    mean_average_precision: float
    by_class: dict[str, float] = field(default_factory=dict)
    index: str = "exact"
    recall: float | None = None


def run(
    place: Collection,
    queries: Sequence[Path | str | bytes],
    k: int = 10,
    index: str = "exact",
    where: Sequence[tuple[str, str]] = (),
) -> SearchResult:
    """The ``k`` items of a collection that are most similar to each query.

    Args:
        place: collection to search.
        queries: photos or sounds, or the bytes of such; a name that is not a file but the id of an item means that
            item, which is then excluded from its own results.
        k: number of items.
        index: a name in :data:`mixtura.features.INDEXES`.
        where: pairs of column and value that the results must match.

    Raises:
        NoInput: no item is left to search.
        UnknownName: there is no such index.
        MissingExtra: the index needs a library that is not installed.
        FingerprintMismatch: the encoder at hand is not the one of the items.
    """
    items = filtered(place.features, where)
    if not len(items):
        raise NoInput(f"{place.path} holds no items. Extract or enroll some first.")
    base = torch.from_numpy(items.embedding)
    built: Index = find(INDEXES, index).build(base)
    queries = [one if isinstance(one, bytes) else Path(one) for one in queries]
    vectors, problems = _vectors(place, queries)
    found: dict[int, QueryResult | Problem] = dict(problems)
    if vectors:
        rows = {id: row for row, id in enumerate(items.id)}
        near = built.search(torch.from_numpy(np.stack(list(vectors.values()))), k + 1)
        for spot, similarity, index_of in zip(vectors, near[0].tolist(), near[1].tolist(), strict=True):
            query = queries[spot]
            name = "" if isinstance(query, bytes) else str(query)
            others = [(i, s) for i, s in zip(index_of, similarity, strict=True) if i not in (-1, rows.get(name))]
            found[spot] = QueryResult(name_of(query), tuple(_neighbor(items, i, s) for i, s in others[:k]))
    return SearchResult(tuple(found[i] for i in range(len(queries))), len(items), index, _recall(index, built, base, k))


def _vectors(
    place: Collection, queries: Sequence[Path | bytes]
) -> tuple[dict[int, Float[np.ndarray, " D"]], dict[int, Problem]]:
    """The features of the queries by position, and the unreadable queries."""
    rows = {id: row for row, id in enumerate(place.features.id)}
    named = {i: query for i, query in enumerate(queries) if isinstance(query, Path)}
    stored = {i: rows[str(query)] for i, query in named.items() if str(query) in rows and not is_there(query)}
    vectors = {i: place.features.embedding[row] for i, row in stored.items()}
    files = [i for i in range(len(queries)) if i not in stored]
    problems: dict[int, Problem] = {}
    if not files:
        return vectors, problems
    encoder = place.build_encoder()
    for start in range(0, len(files), BATCH_SIZE):
        prepared: dict[int, Prepared] = {}
        for i in files[start : start + BATCH_SIZE]:
            try:
                prepared[i] = prepare(encoder, queries[i], name_of(queries[i]))
            except BadItem as error:
                problems[i] = Problem(name_of(queries[i]), error.reason, str(error))
        if prepared:
            vectors |= dict(zip(prepared, embed(encoder, list(prepared.values())), strict=True))
    return vectors, problems


def _neighbor(items: Features, row: int, similarity: float) -> Neighbor:
    return Neighbor(items.id[row], items.label[row] or "", items.source[row], similarity)


def _recall(name: str, built: Index, base: torch.Tensor, k: int) -> float | None:
    """The measured recall of an approximate index; ``None`` for an exact one."""
    if name == "exact":
        return None
    from mixtura.features.ann import recall

    return recall(built, base, k)


def evaluate(place: Collection, index: str = "exact", where: Sequence[tuple[str, str]] = ()) -> Retrieval:
    """Query with every labeled item, excluding it from its own results; of more than 10,000 items, a random sample.

    Raises:
        LabelError: no label occurs twice.
        NoInput, UnknownName, MissingExtra: see :func:`run`.
    """
    return measure(filtered(place.features, where), index=index)


def measure(items: Features, queries: Features | None = None, index: str = "exact", seed: int = 0) -> Retrieval:
    """Precision at 1, 5 and 10 and mean average precision; ranks every item, whatever the index.

    Args:
        items: to search; items without a label are never right.
        queries: other items as queries; ``None`` queries with the items themselves, each excluded from its own results.
        index: that finds the first ten.
        seed: for sampling among more than 10,000 queries.

    Raises:
        LabelError: no query has another item of its class.
    """
    asked = items if queries is None else queries
    own, label = items.label_index(items.classes), asked.label_index(items.classes)
    count = np.bincount(own[own >= 0], minlength=len(items.classes))
    others = np.where(label >= 0, count[label] if len(count) else 0, 0) - (queries is None)
    rows = np.flatnonzero((label >= 0) & (others > 0))
    if not len(rows):
        raise LabelError(f"No label occurs twice among {len(items)} items, so no search can be right. Label the items.")
    rows = np.sort(np.random.default_rng(seed).permutation(rows)[:MAX_QUERIES])
    base, wanted = torch.from_numpy(items.embedding), torch.from_numpy(asked.embedding[rows])
    built: Index = find(INDEXES, index).build(base)
    self_rows = None if queries is not None else torch.from_numpy(rows)
    relevant = _relevant(built, wanted, self_rows, own, label[rows])
    average = _average(base, wanted, self_rows, own, label[rows])
    total = np.bincount(label[rows], weights=average, minlength=len(count))
    asked_of = np.bincount(label[rows], minlength=len(count))
    return Retrieval(
        items=len(items),
        queries=len(rows),
        alone=int(((label >= 0) & (others == 0)).sum()),
        precision={k: precision_at(relevant, k) for k in PRECISION_AT},
        ceiling={k: precision_ceiling(others[rows], k) for k in PRECISION_AT},
        mean_average_precision=float(average.mean()),
        by_class={name: float(total[c] / asked_of[c]) for c, name in enumerate(items.classes) if asked_of[c]},
        index=index,
        recall=_recall(index, built, base, max(PRECISION_AT)),
    )


def _relevant(
    built: Index,
    wanted: Float[torch.Tensor, "N D"],
    self_rows: Int[torch.Tensor, " N"] | None,
    own: Int[np.ndarray, " M"],
    label: Int[np.ndarray, " N"],
) -> Bool[np.ndarray, "N K"]:
    """Whether each of the first ten results is of the query's class."""
    near = built.search(wanted, max(PRECISION_AT) + (self_rows is not None))
    place = near[1] if self_rows is None else without_self(*near, self_rows, max(PRECISION_AT))[1]
    found = place.numpy()
    return (found >= 0) & (own[found] == label[:, None])


def _average(
    base: Float[torch.Tensor, "M D"],
    wanted: Float[torch.Tensor, "N D"],
    self_rows: Int[torch.Tensor, " N"] | None,
    own: Int[np.ndarray, " M"],
    label: Int[np.ndarray, " N"],
) -> Float[np.ndarray, " N"]:
    """Average precision of each query over all items."""
    base, wanted = unit_rows(base), unit_rows(wanted)
    parts = []
    for start in range(0, len(wanted), _BLOCK_QUERIES):
        block = slice(start, start + _BLOCK_QUERIES)
        cosine = (wanted[block] @ base.T).double().numpy()
        relevant = own[None] == label[block, None]
        if self_rows is not None:
            place = np.arange(len(cosine)), self_rows[block].numpy()
            cosine[place], relevant[place] = -np.inf, False
        parts.append(average_precision(cosine, relevant))
    return np.concatenate(parts)
