"""The method ``scgm`` for kinds: all classes at once, by an embedder that is trained on the classes (SCGM-G)."""

import math
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from mixtura.core.subclasses import search, stability
from mixtura.core.subclasses.search import ASKED, FEW_ROWS, SPLIT, KindsOfClass, most_kinds
from mixtura.core.subclasses.spaces import ClassRows
from mixtura.fitting.vector_subclasses import VectorTraining, learned
from mixtura.tasks.cluster import by_size
from mixtura.tasks.subclass_methods import KINDS_FACTOR, NO_KIND, NONE_FOUND, Asked, LabeledRows

HALVES = 5
"""Half-samples that stability is measured on: each is a training."""

Kinds = list[Int[np.ndarray, " _"]]
"""The kind of each row of each class, in the order of its rows."""


def scgm(rows: LabeledRows, asked: Asked) -> list[KindsOfClass]:
    """Subclasses in embeddings that are trained to tell the classes, and the subclasses, apart.

    Every class takes part in training, and those asked for are answered. Without a number, a class gets 1.5 times the
    kinds that ``mixture`` finds in it, and stays whole where that finds one. The kinds do not depend on the order of
    the rows.
    """
    counts = [_count(own, asked) for own in rows.classes]
    if all(counts[c] < 2 for c in asked.classes):
        return [_whole(rows.classes[c], asked) for c in asked.classes]
    settings: dict[str, Any] = {key: value for key, value in vars(asked.training).items() if value is not None}
    training = VectorTraining(**settings)
    every = [torch.ones(len(own.row), dtype=torch.bool) for own in rows.classes]
    kinds = _kinds(rows, counts, every, training, asked.rules.seed)
    shown = [_shown(one, asked) for one in kinds]
    generator = torch.Generator().manual_seed(asked.rules.seed)
    weights = [stability.half_samples(own.unit, HALVES, generator) for own in rows.classes]
    halves = [
        _kinds(rows, counts, [weight[half] > 0 for weight in weights], training, asked.rules.seed)
        for half in range(HALVES)
    ]
    return [
        _answer(rows.classes[c], asked, shown[c], np.stack([half[c] for half in halves]), weights[c])
        for c in asked.classes
    ]


def _count(own: ClassRows, asked: Asked) -> int:
    """The subclasses of a class in training."""
    limit = most_kinds(own, asked.rules)
    if asked.count is not None:
        return asked.count if asked.count <= limit else 1
    found = search.kinds_of(own, asked.rules).count
    return math.ceil(KINDS_FACTOR * found) if found > 1 else 1


def _whole(own: ClassRows, asked: Asked) -> KindsOfClass:
    limit = most_kinds(own, asked.rules)
    few = limit < 2 or (asked.count or 0) > limit
    return search.whole(len(own.row), FEW_ROWS if few else ASKED if asked.count else NONE_FOUND)


def _kinds(
    rows: LabeledRows, counts: Sequence[int], kept: Sequence[Bool[Tensor, " _"]], training: VectorTraining, seed: int
) -> Kinds:
    """The kinds of each class by some of its rows; the others have none."""
    places = [own.row[mask] for own, mask in zip(rows.classes, kept, strict=True)]
    sizes = [len(place) for place in places]
    labels = torch.arange(len(places)).repeat_interleave(torch.tensor(sizes))
    able = [max(1, min(count, size)) for count, size in zip(counts, sizes, strict=True)]
    found = learned(rows.unit[torch.cat(places)], labels, able, training, seed).subclass
    made: Kinds = []
    for mask, own in zip(kept, np.split(found, np.cumsum(sizes)[:-1]), strict=True):
        kind = np.full(len(mask), NO_KIND)
        kind[mask.numpy()] = by_size(own)
        made.append(kind)
    return made


def _shown(kind: Int[np.ndarray, " N"], asked: Asked) -> Int[np.ndarray, " N"]:
    """The kinds without those that are too small, unless their number was given."""
    if asked.count is not None:
        return kind
    small = np.bincount(kind)[kind] < asked.rules.min_rows
    return by_size(np.where(small, NO_KIND, kind))


def _answer(
    own: ClassRows,
    asked: Asked,
    kind: Int[np.ndarray, " N"],
    halves: Int[np.ndarray, "P N"],
    weight: Tensor,
) -> KindsOfClass:
    count = int(kind.max()) + 1
    if count < 2:
        return _whole(own, asked)
    stable = stability.jaccard(torch.from_numpy(kind), torch.from_numpy(halves), weight, count)
    unknown = torch.full((len(kind),), float("nan"))
    figures = tuple(cast("list[float]", stable.tolist()))
    reason = ASKED if asked.count else SPLIT
    return KindsOfClass(torch.from_numpy(kind), unknown, count, count, (), figures, None, reason)
