"""Episodes: few-shot tasks drawn from labeled items, as index lists that name items and load nothing.

An episode has some classes (its *way*) and of each a few support items to learn from (*shots*) and query items to
classify. A drawn list is a value with its seed. Episode i depends on i, on the ids and labels to draw from, and on the
protocol and its design, but not on the number of episodes: a list is a prefix of every longer one, and the order of the
items does not matter. Another version of NumPy may draw others; :mod:`mixtura.datasets.episode_files` keeps a list in a
file.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Int

from mixtura.datasets import PROTOCOLS
from mixtura.errors import DataError, LabelError, NoInput, UsageError
from mixtura.formats import count
from mixtura.names import find

MIN_WAY = 2


@dataclass(frozen=True)
class Design:
    """What to draw: ``way`` classes an episode (where the protocol leaves it open), and ``shot`` and ``query`` of each.

    Raises:
        UsageError: a number is too small.
    """

    way: int = 5
    shot: int = 1
    query: int = 15
    episodes: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        least = {"way": MIN_WAY, "shot": 1, "query": 1, "episodes": 1, "seed": 0}
        for name, smallest in least.items():
            if getattr(self, name) < smallest:
                raise UsageError(f"--{name} is {getattr(self, name)}. Give {smallest} or more.")

    @property
    def needed(self) -> int:
        """Items that each class of an episode needs."""
        return self.shot + self.query


@dataclass(frozen=True)
class Episode:
    """One task: its classes, and of each the support and the query items, all as indices into an :class:`EpisodeList`.

    No item occurs twice.
    """

    classes: Int[np.ndarray, " W"]
    support: Int[np.ndarray, "W S"]
    query: Int[np.ndarray, "W Q"]

    @property
    def way(self) -> int:
        """The number of classes."""
        return len(self.classes)

    def at(self, item: Int[np.ndarray, " M"]) -> "Episode":
        """The same items where item i is at ``item[i]``."""
        return replace(self, support=item[self.support], query=item[self.query])


@dataclass(frozen=True)
class EpisodeList:
    """Episodes as they were drawn; ``ids`` and ``classes`` are what their indices mean."""

    protocol: str
    design: Design
    ids: tuple[str, ...]
    classes: tuple[str, ...]
    episodes: tuple[Episode, ...]

    def __len__(self) -> int:
        return len(self.episodes)

    def located(self, ids: Sequence[str], labels: Sequence[str | None]) -> "EpisodeList":
        """The same episodes in the order of other items, which must include all of the list's with their labels.

        Args:
            ids: of the items.
            labels: their classes.

        Raises:
            NoInput: an item of the list is not among them.
            LabelError: an item has another class than in the list.
        """
        place = {id: row for row, id in enumerate(ids)}
        absent = [id for id in self.ids if id not in place]
        if absent:
            raise NoInput(
                f"The list of episodes names {count(len(absent), 'item')} that {'is' if len(absent) == 1 else 'are'} "
                f"not in the data, the first {absent[0]!r}. Give the data that it was drawn from, or draw another list."
            )
        row = np.array([place[id] for id in self.ids], dtype=np.int64)
        for episode in self.episodes:
            for c, items in zip(episode.classes, np.hstack([episode.support, episode.query]), strict=True):
                _check_class(self.classes[c], [self.ids[i] for i in items], [labels[int(row[i])] for i in items])
        return replace(self, ids=tuple(ids), episodes=tuple(one.at(row) for one in self.episodes))


def _check_class(name: str, ids: Sequence[str], labels: Sequence[str | None]) -> None:
    for id, label in zip(ids, labels, strict=True):
        if label != name:
            raise LabelError(
                f"The list of episodes has {id!r} as {name!r}, and in the data it is {label!r}. Draw another list."
            )


@dataclass(frozen=True)
class Pool:
    """The labeled items that episodes are drawn from, sorted by id; make one with :meth:`of`."""

    ids: tuple[str, ...]
    classes: tuple[str, ...]
    members: tuple[Int[np.ndarray, "_"], ...]
    superclass: tuple[str | None, ...]
    split: tuple[str | None, ...] = field(default=(), repr=False)

    @classmethod
    def of(
        cls,
        ids: Sequence[str],
        labels: Sequence[str | None],
        superlabels: Sequence[str | None] | None = None,
        splits: Sequence[str | None] | None = None,
    ) -> "Pool":
        """The labeled ones of some items.

        Raises:
            LabelError: none has a label, or a class has items of two superclasses.
        """
        order = sorted((row for row, label in enumerate(labels) if label is not None), key=lambda row: ids[row])
        if not order:
            raise LabelError("No item has a label, and episodes need classes. Give labeled data.")
        owners: dict[str, set[str | None]] = {}
        members: dict[str, list[int]] = {}
        for place, row in enumerate(order):
            label = str(labels[row])
            members.setdefault(label, []).append(place)
            owners.setdefault(label, set()).add(None if superlabels is None else superlabels[row])
        classes = tuple(sorted(members))
        torn = next((name for name in classes if len(owners[name]) > 1), None)
        if torn is not None:
            raise LabelError(f"Class {torn!r} has items of two superclasses, or some without one. Correct its labels.")
        return cls(
            tuple(ids[row] for row in order),
            classes,
            tuple(np.array(members[name], dtype=np.int64) for name in classes),
            tuple(next(iter(owners[name])) for name in classes),
            () if splits is None else tuple(splits[row] for row in order),
        )

    @property
    def sizes(self) -> dict[str, int]:
        """The number of items of each class."""
        return {name: len(rows) for name, rows in zip(self.classes, self.members, strict=True)}

    def select(self, index: Sequence[int]) -> "Pool":
        """The pool with some of its classes only."""
        return replace(
            self,
            classes=tuple(self.classes[c] for c in index),
            members=tuple(self.members[c] for c in index),
            superclass=tuple(self.superclass[c] for c in index),
        )

    def with_at_least(self, needed: int) -> "Pool":
        """The classes with ``needed`` items or more."""
        return self.select([c for c, rows in enumerate(self.members) if len(rows) >= needed])


def draw(protocol: str, pool: Pool, design: Design) -> EpisodeList:
    """Episodes of a protocol, a name in ``PROTOCOLS`` or ``package.module:function``; the same design, the same list.

    Raises:
        UnknownName: there is no such protocol.
        UsageError: the pool has fewer classes, or a class fewer items, than an episode needs.
        LabelError: the protocol needs superclasses or a split, which the items do not have.
    """
    return find(PROTOCOLS, protocol)(pool, design)


def nway(pool: Pool, design: Design) -> EpisodeList:
    """Each episode has ``way`` random classes.

    Source: Vinyals et al., Matching networks for one shot learning, NeurIPS 2016, section 4.1.
    """
    if design.way > len(pool.classes):
        raise UsageError(
            f"An episode needs {design.way} classes, and there {_are(len(pool.classes))} to draw from. Lower --way, or "
            "give more classes."
        )
    return _drawn("nway", pool, design, [np.arange(len(pool.classes))], design.way)


def nway_episode(pool: Pool, design: Design, number: int) -> Episode:
    """Episode ``number`` of :func:`nway`, for which none of the others is drawn; the pool must have what it needs."""
    return _episode(number, pool, design, [np.arange(len(pool.classes))], design.way)


def _are(number: int) -> str:
    return f"{'is' if number == 1 else 'are'} {number}"


def allway(pool: Pool, design: Design) -> EpisodeList:
    """Each episode has all classes."""
    if len(pool.classes) < MIN_WAY:
        raise UsageError(f"An episode needs {MIN_WAY} classes, and there {_are(len(pool.classes))}. Give more classes.")
    return _drawn("allway", pool, design, [np.arange(len(pool.classes))])


def intra(pool: Pool, design: Design) -> EpisodeList:
    """Each episode has all classes of one random superclass, of those with two classes or more.

    Source: Bukchin et al., Fine-grained angular contrastive learning with coarse labels, CVPR 2021, section 4.
    """
    if any(name is None for name in pool.superclass):
        raise LabelError(
            "Episodes within superclasses need a superclass for each class, and the data do not have them. Give a list "
            "with the column superclass, or use --protocol nway."
        )
    owner = np.array([str(name) for name in pool.superclass])
    groups = [np.flatnonzero(owner == name) for name in sorted({*owner.tolist()})]
    groups = [group for group in groups if len(group) >= MIN_WAY]
    if not groups:
        raise UsageError("No superclass has two classes to draw from. Use --protocol nway, or give more classes.")
    kept = np.sort(np.concatenate(groups))
    return _drawn("intra", pool.select(kept.tolist()), design, [np.searchsorted(kept, group) for group in groups])


def omniglot_runs(pool: Pool, design: Design) -> EpisodeList:
    """One episode for each superclass: its ``train`` items are the support and its ``test`` items the queries.

    These are the official runs of Omniglot as :mod:`mixtura.datasets.omniglot_runs` reads them; nothing is drawn.

    Source: Lake, Salakhutdinov and Tenenbaum, The Omniglot challenge: a 3-year progress report, 2019.
    """
    parts = np.array(pool.split or [None] * len(pool.ids), dtype=object)
    if any(name is None for name in pool.superclass) or not {"train", "test"} <= {*parts.tolist()}:
        raise LabelError("These are not the official runs of Omniglot. Give all_runs.zip, or the features made of it.")
    episodes = []
    for run in sorted({str(name) for name in pool.superclass}):
        classes = np.array([c for c, name in enumerate(pool.superclass) if name == run])
        columns = []
        for part in ("train", "test"):
            rows = [pool.members[c][parts[pool.members[c]] == part] for c in classes]
            if not rows[0].size or len({len(own) for own in rows}) > 1:
                raise DataError(f"The classes of {run!r} have unequal numbers of {part} items. Extract it anew.")
            columns.append(np.stack(rows))
        episodes.append(Episode(classes, *columns))
    shot, query = episodes[0].support.shape[1], episodes[0].query.shape[1]
    design = replace(design, way=episodes[0].way, shot=shot, query=query, episodes=len(episodes))
    return EpisodeList("omniglot-runs", design, pool.ids, pool.classes, tuple(episodes))


def _drawn(
    name: str, pool: Pool, design: Design, groups: Sequence[Int[np.ndarray, "_"]], way: int | None = None
) -> EpisodeList:
    """Draw a group of classes, ``way`` of them (or all), and their items; without replacement within an episode."""
    smallest = min(range(len(pool.classes)), key=lambda c: len(pool.members[c]))
    if len(pool.members[smallest]) < design.needed:
        raise UsageError(
            f"Class {pool.classes[smallest]!r} has {count(len(pool.members[smallest]), 'item')}, and an episode needs "
            f"{design.shot} + {design.query} (--shot + --query) of each class. Lower them, or leave out such classes "
            "with --skip-small."
        )
    episodes = tuple(_episode(number, pool, design, groups, way) for number in range(design.episodes))
    return EpisodeList(name, design, pool.ids, pool.classes, episodes)


def _episode(
    number: int, pool: Pool, design: Design, groups: Sequence[Int[np.ndarray, "_"]], way: int | None
) -> Episode:
    rng = np.random.default_rng([design.seed, number])
    group = groups[int(rng.integers(len(groups)))]
    classes = group if way is None else rng.permutation(group)[:way]
    items = np.stack([rng.permutation(pool.members[c])[: design.needed] for c in classes])
    return Episode(classes, items[:, : design.shot], items[:, design.shot :])


def split_classes(classes: Sequence[str], base: float, seed: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Base and novel classes, drawn at random; no class is in both.

    Args:
        classes: all of them.
        base: how many base classes, or below 1 their share.
        seed: the same seed, the same split, whatever the order of the classes.

    Raises:
        UsageError: no novel class would be left.
    """
    known = sorted({*classes})
    size = round(base * len(known)) if base < 1 else int(base)
    if size >= len(known):
        raise UsageError(f"--base {base:g} leaves none of the {len(known)} classes to draw episodes from. Lower it.")
    order = np.random.default_rng([seed, len(known)]).permutation(len(known))
    first = {known[place] for place in order[:size]}
    return tuple(name for name in known if name in first), tuple(name for name in known if name not in first)


def classes_of_split(
    labels: Sequence[str | None], splits: Sequence[str | None]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Base and novel classes as a split of the data has them: the classes of ``train`` and those of ``test``.

    Raises:
        LabelError: a part is missing, or a class is in both.
    """
    parts: Mapping[str, set[str]] = {
        part: {label for label, own in zip(labels, splits, strict=True) if label is not None and own == part}
        for part in ("train", "val", "test")
    }
    base, novel = parts["train"], parts["test"]
    require_disjoint(base | parts["val"], novel)
    if not base or not novel:
        raise LabelError("The data have no train and test part, and these are to give the classes. Use --base 0.5.")
    return tuple(sorted(base)), tuple(sorted(novel))


def require_disjoint(base: set[str], novel: set[str]) -> None:
    """Check that no class is in both sets.

    Raises:
        LabelError: one is; the message names it.
    """
    both = sorted(base & novel)
    if both:
        raise LabelError(
            f"{count(len(both), 'class is', 'classes are')} among those to learn from and among those to test on, the "
            f"first {both[0]!r}. Few-shot classes must be new: leave them out on one side."
        )
