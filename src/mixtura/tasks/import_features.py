"""Import features made by another program into a feature store."""

from collections.abc import Callable
from pathlib import Path

from mixtura.datasets.items import SPLITS
from mixtura.errors import UsageError
from mixtura.features import imports
from mixtura.features.records import Features
from mixtura.features.store import FeatureStore
from mixtura.files import is_folder_at
from mixtura.formats import listing
from mixtura.model.bundle import check_no_model
from mixtura.names import nearest
from mixtura.tasks.dgmmc_tree import find_tree, other_halves, read_lists, read_tree

LAYOUTS = {"npy": ".npy", "npz": ".npz", "parquet": ".parquet"}
"""Layouts by file suffix; DGMMC's layout is a folder, and one without Train and Test must be given by name."""

PER_FILE, UNNAMED = "dgmmc", "imported"


def run(
    source: Path,
    output: Path,
    layout: str | None = None,
    labels: Path | None = None,
    encoder: str | None = None,
    split: str | None = None,
    note: Callable[[str], None] = lambda said: None,
) -> FeatureStore:
    """Read the features made by another program and store them.

    Args:
        source: a file, a folder of Parquet files, a folder of ``.pt`` files, or DGMMC's ``Features/SET/ENCODER`` with
            the folders Train and Test, which become the splits train and test.
        output: folder of the new store.
        layout: npy, npz, parquet or dgmmc; ``None`` goes by the suffix, or by the folders Train and Test.
        labels: labels of a .npy file (another .npy), or the list of a DGMMC folder (CSV or text); of a tree, see
            :func:`mixtura.tasks.dgmmc_tree.read_tree`.
        encoder: encoder name to record; ``None`` for that of a tree's folder, else "imported".
        split: train, val or test, for all rows.
        note: called with each sentence that people should read.

    Raises:
        UsageError: the layout or the part is not known, or the layout needs labels.
        NoInput, DataError: the source cannot be used.
        CannotWrite, OutOfSpace: the store cannot be written; nothing of it stays.
    """
    check_no_model(output)
    if split is not None and split not in SPLITS:
        raise UsageError(f"Part {split!r} is not known. {nearest(split, SPLITS)}")
    if is_folder_at(source) and layout in (None, PER_FILE) and (found := _halves(source, labels, encoder, split, note)):
        return imports.save(found, output)
    if is_folder_at(source) and split is None and (others := other_halves(source)):
        note(
            f"{source} is one half; {listing([other.name for other in others])} beside it is left out. To import both, "
            f"with their splits: mixtura data import {source.parent}."
        )
    return imports.save(_read(source, layout or _layout(source), labels, encoder or UNNAMED, split), output)


def _halves(
    source: Path, labels: Path | None, encoder: str | None, split: str | None, note: Callable[[str], None]
) -> Features | None:
    """The features of a folder that holds training and test items apart; ``None`` if it does not."""
    tree = find_tree(source)
    lists = tree is None and labels is not None and is_folder_at(labels)
    if tree is None and not lists:
        return None
    if split is not None:
        raise UsageError(f"{source} has a training and a test part of its own. Leave out --split {split}.")
    if tree is None:
        assert labels is not None
        if others := other_halves(source):
            raise UsageError(
                f"{source} is one half, and {labels} has lists for both; the other is {others[0].name} beside it. Give "
                f"the folder of both, {source.parent}, or the list of this half alone."
            )
        return read_lists(source, labels, encoder or source.resolve().name, note)
    return read_tree(tree, labels, encoder or tree.place.resolve().name, note)


def _layout(source: Path) -> str:
    found = [layout for layout, ending in LAYOUTS.items() if source.suffix.lower() == ending]
    if not found:
        raise UsageError(
            f"Cannot tell the layout of {source} by its name. Add --layout: npy, npz, parquet, or {PER_FILE} for a "
            "folder with one .pt file an item."
        )
    return found[0]


def _read(source: Path, layout: str, labels: Path | None, encoder: str, split: str | None) -> Features:
    if layout == "npy":
        return imports.from_npy(source, labels, encoder=encoder, split=split)
    if layout == "npz":
        return imports.from_npz(source, encoder=encoder, split=split)
    if layout == "parquet":
        return imports.from_parquet(source, encoder=encoder, split=split)
    if layout != PER_FILE:
        raise UsageError(f"Layout {layout!r} is not known. {nearest(layout, [*LAYOUTS, PER_FILE])}")
    if labels is None:
        raise UsageError(f"The layout {PER_FILE} needs its list of labels. Add --labels train.csv.")
    return imports.from_dgmmc(source, labels, encoder=encoder, split=split)
