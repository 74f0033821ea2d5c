"""Read the BREEDS subsets of ImageNet: superclasses with the same number of ImageNet classes each.

::

    root/train, root/val                   ImageNet, as :mod:`mixtura.datasets.imagenet` reads it
    metadata/class_hierarchy.txt           an edge of the tree a line, parent and child: n00001740 n00021939
    metadata/node_names.txt                a node and its name a line, with a tab between them
    metadata/dataset_class_info.json       [0, "n01440764", "tench, Tinca tinca"] for each class of ImageNet

The three files are those of the modified hierarchy that came with the paper. A subset takes the nodes at one depth of
the tree that lie below one node and have enough classes of ImageNet below them. These nodes are the superclasses. Of
each, in the order of the nodes' ids, the same number of its sorted classes is drawn with NumPy's legacy generator and
seed 2, without source and target domains, as in the authors' release. No class list stands here.

Source: Santurkar, Tsipras and Madry, BREEDS: benchmarks for subpopulation shift (ICLR 2021).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from mixtura.datasets import PUBLIC, imagenet
from mixtura.datasets.items import Dataset
from mixtura.datasets.paths import readable, to_label
from mixtura.datasets.published import require_count
from mixtura.errors import DataError, NoInput, UsageError
from mixtura.files import is_file_at
from mixtura.formats import count
from mixtura.names import nearest

TREE_FILE, NAME_FILE, CLASS_FILE = "class_hierarchy.txt", "node_names.txt", "dataset_class_info.json"
ROOT = "n00001740"
SEED = 2


@dataclass(frozen=True)
class Subset:
    """How a subset is made: the node its superclasses lie below, their depth in the tree (0 for its root), and how
    many classes each has; ``published`` is the number of superclasses."""

    ancestor: str
    depth: int
    classes: int
    published: int


SUBSETS = {
    "living17": Subset("n00004258", 5, 4, 17),
    "nonliving26": Subset("n00021939", 5, 4, 26),
    "entity13": Subset(ROOT, 3, 20, 13),
    "entity30": Subset(ROOT, 4, 8, 30),
}


def load(
    root: Path | None = None,
    *,
    label: str = "fine",
    subset: str | None = None,
    metadata: Path | None = None,
    follow_links: bool = False,
) -> Dataset:
    """BREEDS: parts of ImageNet, 17 to 30 superclasses of 4 to 20 of its classes each (data.subset names one).

    Args:
        root: the folder of ImageNet, with ``train`` and ``val``.
        label: ``fine`` for the classes of ImageNet, ``coarse`` for the superclasses.
        subset: a name in :data:`SUBSETS`.
        metadata: the folder of the three files; ``root`` by default.
        follow_links: also follow links that lead out of the folder of ImageNet.

    Raises:
        UsageError: no subset is named, or another one.
        NoInput: a file of the metadata, or ImageNet, is missing.
        DataError: a file of the metadata is damaged, or a class has no photo.
    """
    if subset not in SUBSETS:
        known = ", ".join(SUBSETS)
        if subset is None:
            raise UsageError(f"BREEDS has the subsets {known}. Name one in a recipe, as in data.subset: living17.")
        raise UsageError(f"BREEDS has no subset {subset!r}. {nearest(subset, SUBSETS)}")
    tree = Tree.read(_folder_of(root, metadata))
    members = tree.members(SUBSETS[subset])
    parent = {synset: node for node, synsets in members.items() for synset in synsets}
    whole = imagenet.load(root, follow_links=follow_links)
    items = tuple(
        replace(item, label=tree.title(synset), superlabel=tree.title(parent[synset]))
        for item in whole.items
        if (synset := str(item.label).partition(" ")[0]) in parent
    )
    found = {item.label for item in items}
    absent = [synset for synset in sorted(parent) if tree.title(synset) not in found]
    if absent:
        raise DataError(
            f"{readable(str(root))}: holds no photo of {count(len(absent), 'class', 'classes')} of {subset}, the first "
            f"{tree.title(absent[0])}. Give the whole of ILSVRC 2012."
        )
    return Dataset(f"breeds {subset}", items, whole.problems).at_level(label)


def _folder_of(root: Path | None, metadata: Path | None) -> Path:
    """Return the folder of the metadata, checked to have all files.

    Raises:
        NoInput: it has not.
    """
    folder = metadata or root or Path()
    for name in (TREE_FILE, NAME_FILE, CLASS_FILE):
        if not is_file_at(folder / name):
            raise NoInput(
                f"{readable(str(folder))}: holds no {name}. Set data.metadata to the folder of {TREE_FILE}, "
                f"{NAME_FILE} and {CLASS_FILE} ({PUBLIC['breeds'].get})."
            )
    return folder


@dataclass(frozen=True)
class Tree:
    """The class hierarchy: the parent of each node but the root, the name of each node, and the classes of ImageNet."""

    folder: Path
    parent: Mapping[str, str]
    names: Mapping[str, str]
    classes: frozenset[str]

    @classmethod
    def read(cls, folder: Path) -> "Tree":
        """Read the three files.

        Raises:
            DataError: one is damaged, or the nodes are no tree.
        """
        parent: dict[str, str] = {}
        for upper, lower in _pairs(folder / TREE_FILE, None):
            if lower == ROOT or parent.setdefault(lower, upper) != upper:
                raise _damaged(folder / TREE_FILE, f"{readable(lower)} has a parent too many")
        for node in parent:
            seen = {node}
            while (node := parent.get(node, ROOT)) != ROOT:
                if node in seen:
                    raise _damaged(folder / TREE_FILE, f"{readable(node)} lies below itself")
                seen.add(node)
        names = dict(_pairs(folder / NAME_FILE, "\t"))
        return cls(folder, parent, names | _classes(folder / CLASS_FILE), frozenset(_classes(folder / CLASS_FILE)))

    @cached_property
    def children(self) -> dict[str, list[str]]:
        """The nodes directly below each node that is no leaf."""
        found: dict[str, list[str]] = {}
        for lower, upper in self.parent.items():
            found.setdefault(upper, []).append(lower)
        return found

    def title(self, node: str) -> str:
        """Return the id with the node's first name, unique where names are not: ``n02121808 domestic cat``."""
        return to_label(f"{node} {self.names.get(node, '').partition(',')[0].strip()}")

    def members(self, subset: Subset) -> dict[str, list[str]]:
        """Return the superclasses of a subset, each with its classes, by id.

        Raises:
            DataError: the tree has another number of superclasses than was published.
        """
        rng = np.random.RandomState(SEED)  # of the release; NumPy has frozen its stream
        found: dict[str, list[str]] = {}
        for node in sorted(self._below(subset.ancestor, subset.depth)):
            own = sorted(self._classes_of(node))
            if len(own) >= subset.classes:
                found[node] = sorted(own[place] for place in rng.permutation(len(own))[: subset.classes].tolist())
        advice = "Give the files of the modified hierarchy."
        require_count(self.folder / TREE_FILE, "superclasses", len(found), subset.published, advice)
        return found

    def _below(self, ancestor: str, depth: int) -> list[str]:
        """The nodes at a depth of the tree that lie below a node."""
        node, nodes = ancestor, [ancestor]
        while node in self.parent:
            node, depth = self.parent[node], depth - 1
        for _ in range(depth):
            nodes = [lower for upper in nodes for lower in self.children.get(upper, ())]
        return nodes

    def _classes_of(self, node: str) -> list[str]:
        """The classes of ImageNet at a node or below it."""
        if node in self.classes:
            return [node]
        return [synset for lower in self.children.get(node, ()) for synset in self._classes_of(lower)]


def _pairs(path: Path, between: str | None) -> list[tuple[str, str]]:
    """Return the two fields of each line; ``between`` is ``None`` for blanks.

    Raises:
        DataError: a line has not two fields.
    """
    found: list[tuple[str, str]] = []
    for number, line in enumerate(_text(path).splitlines(), 1):
        fields = line.split(between)
        if len(fields) != 2:
            raise _damaged(path, f"line {number} has not two fields")
        found.append((fields[0].strip(), fields[1].strip()))
    return found


def _classes(path: Path) -> dict[str, str]:
    """Return the names of the classes of ImageNet by synset.

    Raises:
        DataError: the file is no such list.
    """
    try:
        return {str(synset): str(name) for _, synset, name in json.loads(_text(path))}
    except (ValueError, TypeError) as error:
        raise _damaged(path, "is no list of number, id and name") from error


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise NoInput(f"{readable(str(path))}: cannot be read ({error.strerror}). Check its permissions.") from error
    except UnicodeError as error:
        raise _damaged(path, "is no text") from error


def _damaged(path: Path, what: str) -> DataError:
    return DataError(f"{readable(str(path))}: {what}. Download it again ({PUBLIC['breeds'].get}).")
