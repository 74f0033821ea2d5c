"""Import features made by another program into a feature store."""

from pathlib import Path

from mixtura.errors import UsageError
from mixtura.features import imports
from mixtura.features.records import Features
from mixtura.features.store import FeatureStore
from mixtura.names import nearest

LAYOUTS = {"npy": ".npy", "npz": ".npz", "parquet": ".parquet"}
"""Layouts by file suffix; DGMMC's layout is a folder and must be given by name."""

PER_FILE = "dgmmc"
SPLIT_NAMES = ("train", "val", "test")


def run(
    source: Path,
    output: Path,
    layout: str | None = None,
    labels: Path | None = None,
    encoder: str = "imported",
    split: str | None = None,
) -> FeatureStore:
    """Read the features made by another program and store them.

    Args:
        source: a file, a folder of Parquet files, or a folder of ``.pt`` files.
        output: folder of the new store.
        layout: npy, npz, parquet or dgmmc; ``None`` goes by the suffix.
        labels: labels of a .npy file (another .npy), or the list of a DGMMC folder (CSV or text).
        encoder: encoder name to record.
        split: train, val or test, for all rows.

    Raises:
        UsageError: the layout or the part is not known, or the layout needs labels.
        NoInput, DataError: the source cannot be used.
        CannotWrite, OutOfSpace: the store cannot be written.
    """
    if split is not None and split not in SPLIT_NAMES:
        raise UsageError(f"Part {split!r} is not known. {nearest(split, SPLIT_NAMES)}")
    return imports.save(_read(source, layout or _layout(source), labels, encoder, split), output)


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
