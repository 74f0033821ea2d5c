"""The tree in which DGMMC keeps features: ``Features/SET/ENCODER/{Train,Test}/0.pt``.

A file holds a vector and no label. DGMMC takes the label of ``0.pt`` from the first item of the public set (MNIST,
CIFAR, ImageNet, whose published validation part is the test part), and those of ESC-50 from the lists of a fold,
``train_data.csv`` and ``test_data.csv`` with the columns Filename and Label, beside one folder with all vectors.

Source: github.com/CVMLmu/DGMMC, README and scripts for extraction.
"""

import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from mixtura.datasets import NAMED, NEED_PATH
from mixtura.datasets.items import SPLITS
from mixtura.errors import LabelError, NoInput, UsageError
from mixtura.features.imports import Half, LabelList, from_halves
from mixtura.features.records import Features
from mixtura.files import is_file_at, is_folder_at
from mixtura.formats import count, listing
from mixtura.names import Spellings, nearest
from mixtura.pipeline import factory
from mixtura.pipeline.data_source import data_keys
from mixtura.recipe import resolve

TRAIN, VAL, TEST = SPLITS
LIST_SUFFIXES = (".csv", ".txt")


@dataclass(frozen=True)
class Tree:
    """The folder of an encoder, and the folder of ``.pt`` files of each split."""

    place: Path
    folders: dict[str, Path]


def find_tree(source: Path) -> Tree | None:
    """The tree at a folder, or the only one below it; ``None`` if there is none.

    Raises:
        UsageError: there are several below it; the message names them.
        NoInput: one half is missing.
    """
    places = [place for place in (source, *_below(source, 2)) if _halves(place)]
    if not places:
        return None
    if places[0] != source and len(places) > 1:
        names = [place.relative_to(source).as_posix() for place in places]
        raise UsageError(
            f"{source} holds the features of several encoders or sets: {listing(names)}. "
            f"Name one of them, as in {places[0]}."
        )
    place, found = places[0], _halves(places[0])
    missing = [split for split in (TRAIN, TEST) if split not in found]
    if missing:
        (there, *_) = found.values()
        raise NoInput(
            f"{place} holds .pt files in {there.name} but none in {missing[0].title()}. Add them; or import {there} "
            "alone, with --layout dgmmc and its list of labels."
        )
    return Tree(place, found)


def other_halves(source: Path) -> list[Path]:
    """The folders with the other halves of a tree, if a folder is one half of it; none otherwise."""
    place = source.resolve()
    found = list(_halves(place.parent).values())
    return [folder for folder in found if folder != place] if place in found else []


def _below(folder: Path, depth: int) -> Iterable[Path]:
    for one in _folders(folder) if depth else ():
        yield one
        yield from _below(one, depth - 1)


def _folders(folder: Path) -> list[Path]:
    with os.scandir(folder) as entries:  # a folder may hold a million files, and no call for each is made here
        return sorted(Path(entry.path) for entry in entries if entry.is_dir())


def _halves(place: Path) -> dict[str, Path]:
    """The folder of each split; a validation part without a test part is the test part, as of ImageNet."""
    named = {folder.name.casefold(): folder for folder in _folders(place)}
    found = {split: named[split] for split in SPLITS if split in named and _vectors(named[split])}
    if VAL in found and TEST not in found:
        found[TEST] = found.pop(VAL)
    return found


def _vectors(folder: Path) -> int:
    """The number of ``.pt`` files."""
    with os.scandir(folder) as entries:
        return sum(entry.name.endswith(".pt") for entry in entries)


def read_tree(tree: Tree, labels: Path | None, encoder: str, note: Callable[[str], None]) -> Features:
    """Features of all splits of a tree.

    Args:
        tree: the folders.
        labels: a folder with one list per split, one list whose file names begin with the folder (``Train/0``), or a
            public set; ``None`` looks for lists in the tree, then for a public set by the name of its folder.
        encoder: name to record.
        note: called with each sentence that people should read.

    Raises:
        UsageError, LabelError: there are no labels, or they do not fit.
        NoInput, DataError, WrongDimension, NonFinite: see :func:`mixtura.features.imports.from_halves`.
    """
    lists = _lists_of(tree, labels)
    halves = [_half(split, folder, lists[split], note) for split, folder in tree.folders.items()]
    features = from_halves(halves, encoder=encoder)
    _check_classes(features, note)
    return features


def read_lists(folder: Path, labels: Path, encoder: str, note: Callable[[str], None]) -> Features:
    """Features of one folder with all vectors and a folder of lists, one per split, as of a fold of ESC-50.

    Raises:
        UsageError, LabelError, NoInput, DataError: see :func:`read_tree`.
    """
    lists = {split: LabelList.read(path) for split, path in _list_files(labels).items()}
    missing = [split for split in (TRAIN, TEST) if split not in lists]
    if missing:
        raise NoInput(f"{labels} holds no list for {missing[0]}. Add one, as in {missing[0]}_data.csv.")
    features = from_halves(
        [Half(folder, listed.names, listed.labels, split) for split, listed in lists.items()], encoder=encoder
    )
    _tell_left_out(folder, len(features), note)
    _check_classes(features, note)
    return features


def _half(split: str, folder: Path, listed: LabelList, note: Callable[[str], None]) -> Half:
    there = _vectors(folder)
    if listed.numbered and len(listed.names) != there:
        raise LabelError(
            f"{folder} holds {count(there, '.pt file')}, and the list for {split} has "
            f"{count(len(listed.names), 'label')}. Give the labels of these files, one for each, in their order."
        )
    _tell_left_out(folder, len(listed.names), note)
    return Half(folder, listed.names, listed.labels, split)


def _tell_left_out(folder: Path, listed: int, note: Callable[[str], None]) -> None:
    left_out = _vectors(folder) - listed
    if left_out > 0:
        note(f"{count(left_out, 'file')} of {folder} without a label in the list: left out.")


def _lists_of(tree: Tree, labels: Path | None) -> Mapping[str, LabelList]:
    """The list of labels of each split."""
    if labels is None:
        found = _found_in(tree)
        if found:
            return {split: LabelList.read(path) for split, path in found.items()}
        labels = _set_named_by(tree.place)
    if is_file_at(labels):
        return _parted(tree, labels, LabelList.read(labels))
    if is_folder_at(labels) and (found := _list_files(labels)):
        return _complete(tree, {split: LabelList.read(path) for split, path in found.items()}, labels)
    return _complete(tree, _of_public_set(labels), labels)


def _found_in(tree: Tree) -> dict[str, Path]:
    """The lists in the tree: one in each half, or one for each beside the halves or one folder up."""
    inside = {split: found for split, folder in tree.folders.items() for found in _lists_in(folder)}
    places = (inside, _list_files(tree.place), _list_files(tree.place.parent))
    return next((found for found in places if set(tree.folders) <= set(found)), {})


def _lists_in(folder: Path) -> list[Path]:
    return sorted(path for suffix in LIST_SUFFIXES for path in folder.glob(f"*{suffix}"))


def _list_files(folder: Path) -> dict[str, Path]:
    """The list of each split in a folder, by the words of their names: ``train_data.csv``, ``labels-test.txt``.

    Raises:
        UsageError: two lists are for one split.
    """
    found: dict[str, Path] = {}
    for path in _lists_in(folder):
        for split in set(re.split(r"[^a-z]+", path.stem.casefold())) & set(SPLITS):
            if split in found:
                raise UsageError(
                    f"{folder} holds two lists for {split}: {found[split].name} and {path.name}. Keep one."
                )
            found[split] = path
    return found


def _set_named_by(place: Path) -> Path:
    """The public set after which the folder of the encoders is named, as in ``CIFAR-100``.

    Raises:
        UsageError: there is none.
    """
    known = {re.sub(r"\W", "", name): name for name in NAMED}
    name = known.get(re.sub(r"[\W_]", "", place.resolve().parent.name.casefold()))
    if name is None:
        raise UsageError(
            f"{place} holds vectors without labels. Add --labels: a folder with a list for each half (train.csv, "
            "test.csv), one list with names as in Train/0, or a public set such as cifar100."
        )
    return Path(name)


def _parted(tree: Tree, path: Path, listed: LabelList) -> dict[str, LabelList]:
    """One list as one for each split, by the folders of its names."""
    split_of = {folder.name: split for split, folder in tree.folders.items()}
    strange = sorted(set(listed.folders) - set(split_of))
    if strange:
        raise LabelError(
            f"{path} does not say of each file whether it is in {listing(list(split_of))}. Write for example "
            f"{next(iter(split_of))}/0 as its Filename, or give a folder with a list for each."
        )
    rows = list(zip(listed.names, listed.labels, listed.folders, strict=True))
    parts = {split: [row for row in rows if row[2] == folder] for folder, split in split_of.items()}
    return _complete(tree, {split: _as_list(part) for split, part in parts.items() if part}, path)


def _as_list(rows: list[tuple[str, str, str]], numbered: bool = False) -> LabelList:
    names, labels, folders = map(list, zip(*rows, strict=True))
    return LabelList(names, labels, folders, numbered)


def _complete(tree: Tree, lists: dict[str, LabelList], labels: Path) -> dict[str, LabelList]:
    missing = [split for split in tree.folders if split not in lists]
    if missing:
        raise NoInput(f"{labels} has no labels for {tree.folders[missing[0]]}. Add them.")
    return lists


def _of_public_set(labels: Path) -> dict[str, LabelList]:
    """The labels of a public set, item by item in its order."""
    keys = data_keys(str(labels))
    if keys["data.kind"] in NEED_PATH:
        raise NoInput(f"{labels} is neither a list of labels, nor a folder of lists, nor a public set. Check the path.")
    items = factory.dataset_of(resolve(keys).data).items
    parts = {split: [item.label or "" for item in items if item.split == split] for split in SPLITS}
    return {
        split: _as_list([(str(row), label, "") for row, label in enumerate(part)], numbered=True)
        for split, part in parts.items()
        if part
    }


def _check_classes(features: Features, note: Callable[[str], None]) -> None:
    """Check that what is tested can be learned; classes that are not tested are told.

    Raises:
        LabelError: a class is in the test part and not in the training part.
    """
    learned, tested = (features.select_split(split).classes for split in (TRAIN, TEST))
    strange = [name for name in tested if name not in learned]
    if strange:
        alike = Spellings(learned).of(strange[0])
        hint = f"Spell it as there: {alike[0]!r}." if alike else nearest(strange[0], learned)
        raise LabelError(f"The class {strange[0]!r} is in the test part and not in the training part. {hint}")
    untested = [name for name in learned if name not in tested]
    if untested:
        note(f"{count(len(untested), 'class', 'classes')} without a test item, the first is {untested[0]!r}.")
