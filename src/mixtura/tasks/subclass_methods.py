"""Methods that find kinds within classes: our own mixture and scikit-learn's; each answers for several classes."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.cluster.hierarchy import fcluster, linkage
from sklearn.cluster import HDBSCAN, KMeans
from torch import Tensor

from mixtura.core.subclasses import search, stability
from mixtura.core.subclasses.search import ASKED, FEW_ROWS, SPLIT, KindsOfClass, Rules, most_kinds
from mixtura.core.subclasses.spaces import ClassRows
from mixtura.errors import UsageError
from mixtura.metrics.clustering import silhouette
from mixtura.tasks.cluster import by_size
from mixtura.tasks.cluster_methods import COPY_OPTION, N_INIT_OPTION

NONE_FOUND = "none_found"
"""Why a class stays whole by a method that finds its number of kinds itself."""

NO_KIND = -1

KINDS_FACTOR = 1.5
"""Subclasses in training for each kind that is found before it."""


@dataclass(frozen=True)
class LabeledRows:
    """Rows with their class: features of unit length, class numbers, and each class's rows on its own axes."""

    unit: Float[Tensor, "N D"]
    label: Int[Tensor, " N"]
    classes: tuple[ClassRows, ...]


@dataclass(frozen=True)
class Training:
    """How a method that is trained is trained; ``None`` for its defaults."""

    epochs: int | None = None
    embedder: str | None = None


@dataclass(frozen=True)
class Asked:
    """The classes to look into, the number of kinds (``None``: to be found), when to split, and how to train."""

    classes: tuple[int, ...]
    count: int | None
    rules: Rules
    training: Training = Training()


Method = Callable[[LabeledRows, Asked], list[KindsOfClass]]
"""Called with all rows; returns the kinds of each class that is asked for, in that order, -1 for rows of none."""

Split = Callable[[Float[np.ndarray, "N R"], int | None, int], Int[np.ndarray, " N"]]
"""Kinds of the rows of one class, given their number or ``None``, and the rows that each holds at least."""


def mixture(rows: LabeledRows, asked: Asked) -> list[KindsOfClass]:
    """Gaussians with a shared covariance; their number is checked on held-out rows, on halves, and against one."""
    return [search.kinds_of(rows.classes[c], asked.rules, asked.count) for c in asked.classes]


def kmeans(rows: LabeledRows, asked: Asked) -> list[KindsOfClass]:
    """scikit-learn's KMeans; unless given, the number of kinds has the highest silhouette, and is two or more."""
    seed = asked.rules.seed

    def of(own: ClassRows) -> Split:
        limit = most_kinds(own, asked.rules)
        return lambda x, count, _: _kmeans(x, count or _best_silhouette(x, limit, seed), seed)

    return [_checked(rows.classes[c], asked, of(rows.classes[c])) for c in asked.classes]


def _kmeans(x: Float[np.ndarray, "N R"], count: int, seed: int) -> Int[np.ndarray, " N"]:
    return KMeans(count, random_state=seed, **N_INIT_OPTION).fit_predict(x).astype(np.int64)


def _best_silhouette(x: Float[np.ndarray, "N R"], limit: int, seed: int) -> int:
    return max(range(2, limit + 1), key=lambda count: silhouette(x, _kmeans(x, count, seed), seed))


def hdbscan(rows: LabeledRows, asked: Asked) -> list[KindsOfClass]:
    """scikit-learn's HDBSCAN, which finds the number of kinds; photos between them belong to none.

    Raises:
        UsageError: a number of kinds was asked for.
    """
    if asked.count is not None:
        raise UsageError(f"hdbscan finds the number of kinds itself. Leave out --count {asked.count}.")

    def split(x: Float[np.ndarray, "N R"], count: int | None, least: int) -> Int[np.ndarray, " N"]:
        return HDBSCAN(min_cluster_size=least, **COPY_OPTION).fit(x).labels_.astype(np.int64)

    return [_checked(rows.classes[c], asked, split) for c in asked.classes]


def dendrogram(rows: LabeledRows, asked: Asked) -> list[KindsOfClass]:
    """A tree from the bottom up (SciPy's Ward linkage), cut where the next merge is farthest above the last.

    Branches with fewer photos than a kind needs belong to none.
    """

    def of(own: ClassRows) -> Split:
        limit = most_kinds(own, asked.rules)

        def split(x: Float[np.ndarray, "N R"], count: int | None, least: int) -> Int[np.ndarray, " N"]:
            tree = linkage(x.astype(np.float64), "ward")
            branch = fcluster(tree, count or _widest_gap(tree[:, 2], limit), "maxclust").astype(np.int64)
            small = np.bincount(branch)[branch] < (1 if count else least)
            return np.where(small, NO_KIND, branch - 1)

        return split

    return [_checked(rows.classes[c], asked, of(rows.classes[c])) for c in asked.classes]


def _widest_gap(height: Float[np.ndarray, " M"], limit: int) -> int:
    """The number of branches, from 2 on, that lasts longest while the tree is cut ever higher."""
    top = height[::-1][: limit + 1]
    return 2 + int(np.argmax(top[:-1][: limit - 1] - top[1:][: limit - 1])) if len(top) > 2 else 2


def _checked(rows: ClassRows, asked: Asked, split: Split) -> KindsOfClass:
    """A split of one class, with the stability of its kinds over half-samples."""
    limit = most_kinds(rows, asked.rules)
    if limit < 2 or (asked.count or 0) > limit:
        return search.whole(len(rows.row), FEW_ROWS)
    if asked.count == 1:
        return search.whole(len(rows.row), ASKED)
    x = rows.x.numpy()
    kind = by_size(split(x, asked.count, asked.rules.min_rows))
    count = int(kind.max()) + 1
    if count < 2:
        return search.whole(len(rows.row), NONE_FOUND)
    generator = torch.Generator().manual_seed(asked.rules.seed)
    weight = stability.half_samples(rows.unit, asked.rules.halves, generator)
    halves = np.full(weight.shape, NO_KIND)
    for place, own in enumerate(weight.numpy() > 0):
        halves[place, own] = split(x[own], count if asked.count else None, max(2, asked.rules.min_rows // 2))
    stable = stability.jaccard(torch.from_numpy(kind), torch.from_numpy(halves), weight, count)
    unknown = torch.full((len(kind),), float("nan"))
    reason = ASKED if asked.count else SPLIT
    return KindsOfClass(torch.from_numpy(kind), unknown, count, count, (), tuple(stable.tolist()), None, reason)
