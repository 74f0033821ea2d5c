"""Labeled features with a split, from photos or from a feature store."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mixtura import files
from mixtura.datasets.items import Dataset, Item
from mixtura.datasets.split import settle_split
from mixtura.errors import LabelError, NoInput
from mixtura.features.records import Features
from mixtura.features.store import FeatureStore
from mixtura.recipe import EncoderSection, Recipe
from mixtura.tasks import build
from mixtura.tasks.extract import Watch, fill

SPLIT = "split.csv"


@dataclass(frozen=True)
class Gathered:
    """Features whose ``split`` is settled, and what was left out on the way."""

    features: Features
    encoder: EncoderSection
    problems: tuple[object, ...]


def gather(recipe: Recipe, progress: Watch = None) -> Gathered:
    """Read or extract the features of a recipe and settle which rows train and which test.

    Raises:
        NoInput: there are no data, or no photo could be read.
        DataError: what is there cannot be used.
    """
    if recipe.data.kind == build.FEATURES:
        assert recipe.data.root is not None
        features = FeatureStore.open(recipe.data.root).read()
        dataset, problems = _as_dataset(features), ()
        encoder = recipe.encoder.model_copy(update={"name": features.identity.get("name", recipe.encoder.name)})
    else:
        encoder = recipe.encoder
        features, dataset, problems = read(recipe, progress)
    split = settle_split(_split_path(recipe), dataset, recipe.split.shares, recipe.split.seed)
    return Gathered(_labeled(features.with_split(split)), encoder, problems)


def read(recipe: Recipe, progress: Watch = None) -> tuple[Features, Dataset, tuple[object, ...]]:
    """Features of the photos of a recipe, extracted where they are missing, with the items that could be read.

    Raises:
        NoInput: no photo could be read.
    """
    dataset = build.dataset_of(recipe.data)
    report = fill(recipe, dataset, build.encoder_of(recipe.encoder), progress)
    features = FeatureStore.open(build.store_path(recipe)).read()
    readable = _readable(dataset, features)
    found = features.select_ids([item.id for item in readable.items])
    return found, readable, (*dataset.problems, *report.problems)


def _readable(dataset: Dataset, features: Features) -> Dataset:
    """The items that have features: those that could be read."""
    have = set(features.id)
    kept = [i for i, item in enumerate(dataset.items) if item.id in have]
    if not kept:
        raise NoInput(f"None of the {len(dataset)} photos could be read. Run mixtura extract to see why.")
    return dataset.subset(kept)


def _as_dataset(features: Features) -> Dataset:
    """Rows as items without photos: equal photos count as one group."""
    columns = zip(features.id, features.source, features.label, features.group, features.split, features.sha256, strict=True)
    items = [
        Item(id, source, b"", label, group=group or digest or id, split=split)
        for id, source, label, group, split, digest in columns
    ]
    return Dataset("features", tuple(items))


def _split_path(recipe: Recipe) -> Path:
    if recipe.split.file is not None:
        return recipe.split.file
    assert recipe.output is not None
    files.make_folder(recipe.output)
    return recipe.output / SPLIT


def _labeled(features: Features) -> Features:
    """The rows that have a label.

    Raises:
        LabelError: no row has one.
    """
    labeled = np.array([label is not None for label in features.label], dtype=bool)
    if not labeled.any():
        raise LabelError(
            f"None of the {len(features)} items has a label. Put the photos into one folder a class, or give a list."
        )
    return features.select(labeled)


def groups_of(features: Features) -> np.ndarray:
    """A number for each row, the same for rows of one group or of equal photos."""
    keys: Sequence[str] = [
        group or digest or id for group, digest, id in zip(features.group, features.sha256, features.id, strict=True)
    ]
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)


def digest_of(features: Features) -> str:
    """A hash of ids and labels: which data a model was made of."""
    text = "\n".join(f"{id}\t{label}" for id, label in sorted(zip(features.id, map(str, features.label), strict=True)))
    return hashlib.sha256(text.encode()).hexdigest()
