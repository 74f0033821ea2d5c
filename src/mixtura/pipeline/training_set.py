"""Labeled features with a train and test split, from photos or from a feature store."""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mixtura import files, names
from mixtura.datasets.duplicates import find_groups
from mixtura.datasets.items import Dataset, Item, Problem
from mixtura.datasets.split import read_split, settle_split
from mixtura.encoders.common import resolved
from mixtura.errors import LabelError, MixturaError, NoInput
from mixtura.features.records import Features, Unreadable
from mixtura.features.store import HEADER_FILE, FeatureStore
from mixtura.files import is_file_at, is_there
from mixtura.pipeline import factory, levels, stores
from mixtura.pipeline.data_source import FOR_PHOTOS
from mixtura.pipeline.extraction import ProgressCallback, fill
from mixtura.recipe import Recipe
from mixtura.sections import EncoderSection

SPLIT_FILE = "split.csv"
MIN_ROWS_FOR_FRACTION = 2000  # below, at least ``fit.min_val_fraction`` of the items is for validation


@dataclass(frozen=True)
class Gathered:
    """Features with a final ``split``, the items left out on the way, and sentences to show.

    ``distinct`` is the number of items that are no copies of each other, where none is left to test with.
    ``encoder_trained`` says that the encoder was trained on the training rows, so only validation rows are like later
    items.
    """

    features: Features
    encoder: EncoderSection
    problems: tuple[Problem | Unreadable, ...]
    unlabeled: int = 0
    notes: tuple[str, ...] = ()
    distinct: int | None = None
    encoder_trained: bool = False


def gather(recipe: Recipe, progress: ProgressCallback = None) -> Gathered:
    """Read or extract the features of a recipe and assign each row to training or testing.

    Raises:
        NoInput: there are no data, no photo could be read, or the split file that the recipe names does not exist.
        DataError: what is there cannot be used.
    """
    path = split_path(recipe)
    if recipe.split.file is not None and not is_file_at(path):
        raise NoInput(f"There is no split file {path}. Check split.file; without it, fit makes a split of its own.")
    if recipe.data.kind == factory.FEATURES_KIND:
        assert recipe.data.root is not None
        store = FeatureStore.open(recipe.data.root)
        encoder, features = stores.section_of_store(store, recipe.encoder), store.read()
        dataset, problems, said = _as_dataset(features), (), _without_effect(recipe)
        check_classes(recipe, dataset)
    else:
        photos = factory.dataset_of(recipe.data)
        check_classes(recipe, photos)  # fails before hours of extraction
        features, dataset, problems, said = read(recipe, photos, progress)
        encoder = resolved(recipe.encoder, features.identity)
    classed = levels.dataset_at(dataset, recipe.data.level)
    split = settle_split(path, classed, recipe.split.fractions, recipe.split.seed)
    known = labeled(levels.features_at(features.with_split(split), recipe.data.level, dataset.name))
    distinct = None if "test" in known.split else int(find_groups(dataset).max()) + 1
    return Gathered(known, encoder, problems, len(features) - len(known), said, distinct)


def _without_effect(recipe: Recipe) -> tuple[str, ...]:
    """A sentence on the settings of a recipe that features ignore, if there are any."""
    default, given = dict(_leaves(Recipe())), dict(_leaves(recipe))
    ignored = [key for key, value in given.items() if key.startswith(FOR_PHOTOS) and value != default[key]]
    ignored += ["encoder.runtime"] if recipe.encoder.runtime != EncoderSection().runtime else []
    if not ignored:
        return ()
    return (
        f"{recipe.data.root} holds features, and nothing is encoded now: {', '.join(ignored)} without effect here.",
    )


def _leaves(recipe: Recipe) -> Iterator[tuple[str, Any]]:
    for section in ("data", "extract"):
        yield from ((f"{section}.{name}", value) for name, value in getattr(recipe, section))


def validation_share(recipe: Recipe, count: int) -> float:
    """The share of ``count`` items that is drawn for validation, where the data have no such part."""
    fit = recipe.fit
    return max(fit.val_fraction, fit.min_val_fraction if count < MIN_ROWS_FOR_FRACTION else 0.0)


def known_classes(labels: Sequence[str], unknown: Sequence[str], problems: Sequence[Problem] = ()) -> tuple[str, ...]:
    """The classes of the catalog: all labels except those kept out of it.

    Args:
        labels: all that occur.
        unknown: those to leave out, in any spelling that looks the same, or patterns as in ``Korean/*``.
        problems: what was left out on the way, for the message.

    Raises:
        LabelError: fewer than two classes are left, or a class to leave out does not occur.
    """
    found = _found(labels, unknown)
    absent = sorted(name for name, own in found.items() if not own)
    if absent:
        raise LabelError(f"No item has the label {absent[0]!r}. {names.nearest(absent[0], labels)}")
    left_out = {label for own in found.values() for label in own}
    classes = tuple(label for label in labels if label not in left_out)
    if len(classes) < 2:
        rest = f"only one class, {classes[0]!r}," if classes else "no class"
        first = f" Left out: {problems[0].message}" if problems else ""
        if len(labels) >= 2:
            raise LabelError(
                f"Found {rest} to learn beside the {len(left_out)} that --unknown (data.unknown) keeps out; two or "
                "more are needed. Keep fewer out."
            )
        raise LabelError(
            f"Found {rest} to learn; two or more are needed. Put the photos of each class into a folder of its own."
            f"{first}"
        )
    return classes


def check_classes(recipe: Recipe, dataset: Dataset) -> None:
    """Check the classes of data that no encoder has read yet: there are two or more, and the test part has some.

    Raises:
        LabelError: see :func:`known_classes`; or no item that the data give for testing is of a class to learn.
    """
    dataset = levels.dataset_at(dataset, recipe.data.level)
    classes = {*known_classes(dataset.classes, recipe.data.unknown, dataset.problems)}
    part = _given_parts(recipe, dataset)
    learned = {item.label for item in dataset.items if part[item.id] != "test"}
    tested = [item.label for item in dataset.items if part[item.id] == "test" and item.label in classes]
    drawn = any(part[item.id] is None and item.label in classes for item in dataset.items)  # some of them for testing
    if tested and not drawn and learned.isdisjoint(tested):
        raise other_classes(len(tested))


def learnable(recipe: Recipe, dataset: Dataset) -> list[str]:
    """The class of each item that may be learned from; some are for testing, where the data give no such part.

    Neither items of weight 0 nor those to leave out are among them. No photo is read.
    """
    dataset = levels.dataset_at(dataset, recipe.data.level)
    left_out, part = labels_of(dataset.classes, recipe.data.unknown), _given_parts(recipe, dataset)
    return [
        item.label
        for item in dataset.items
        if item.label is not None and item.label not in left_out and item.weight > 0 and part[item.id] != "test"
    ]


def other_classes(count: int) -> LabelError:
    """The error for a test part whose photos, so many, are all of classes that are not learned."""
    photos = (
        f"All {count:,} test photos are of classes that are" if count > 1 else "The test photo is of a class that is"
    )
    return LabelError(
        f"{photos} not trained on. Give the train part alone, as in omniglot/images_background/, and measure with "
        "mixtura fewshot."
    )


def _given_parts(recipe: Recipe, dataset: Dataset) -> dict[str, str | None]:
    """The part of each item by id, as far as an earlier run or the data give it."""
    path = split_path(recipe)
    known = read_split(path) if is_there(path) else {}
    return {item.id: known.get(item.id, item.split) for item in dataset.items}


def labels_of(labels: Sequence[str], given: Sequence[str]) -> set[str]:
    """The labels that people have named: those spelled so, or else that look the same, or fit a pattern with ``*``."""
    return {label for own in _found(labels, given).values() for label in own}


def _found(labels: Sequence[str], given: Sequence[str]) -> dict[str, list[str]]:
    """The labels that each of the given names stands for."""
    spellings = names.Spellings(labels)
    return {name: spellings.of(name) or _fitting(name, labels) for name in given}


def _fitting(pattern: str, labels: Sequence[str]) -> list[str]:
    """The labels that fit a pattern, in which ``*`` stands for anything; none where it has no ``*``."""
    if "*" not in pattern:
        return []
    fits = re.compile(".*".join(map(re.escape, pattern.split("*"))), re.DOTALL)
    return [label for label in labels if fits.fullmatch(label)]


def stored(recipe: Recipe, identity: Mapping[str, str]) -> Features:
    """The features that a model was fitted and tested on, as kept by fit; reads no photo.

    Args:
        recipe: of the model.
        identity: of the model's encoder.

    Raises:
        NoInput: they are no longer there.
        DataError: they are damaged.
    """
    place = recipe.data.root if recipe.data.kind == factory.FEATURES_KIND else stores.store_path(recipe, identity)
    assert place is not None
    features, split = FeatureStore.open(place).read(), read_split(split_path(recipe))
    kept = np.array([id in split for id in features.id], dtype=bool)
    return labeled(levels.features_at(features.select(kept).with_split(split), recipe.data.level, str(place)))


def train_part(features: Features, classes: tuple[str, ...]) -> Features:
    """The catalog's rows that the model may learn from: all but the test part."""
    known = set(classes)
    kept = [s != "test" and label in known for s, label in zip(features.split, features.label, strict=True)]
    return features.select(np.array(kept, dtype=bool))


def read(
    recipe: Recipe, dataset: Dataset, progress: ProgressCallback = None
) -> tuple[Features, Dataset, tuple[Problem | Unreadable, ...], tuple[str, ...]]:
    """Features of a recipe's photos, extracted where missing, the data set of the readable items, and what to say.

    Raises:
        NoInput: no photo could be read.
    """
    report = fill(recipe, dataset, progress)
    features = FeatureStore.open(report.store).read()
    problems = (*dataset.problems, *report.problems)
    readable = _readable(dataset, features)
    return features.select_ids([item.id for item in readable.items]), readable, problems, report.notes


def _readable(dataset: Dataset, features: Features) -> Dataset:
    """The readable items: those that have features."""
    have = set(features.id)
    return dataset.subset([i for i, item in enumerate(dataset.items) if item.id in have])


def _as_dataset(features: Features) -> Dataset:
    """Rows as items without photos; duplicate photos form one group."""
    names = ("id", "source", "label", "superlabel", "group", "split", "sha256")
    items = [
        Item(id, source, b"", label, superlabel, group or digest or id, split)
        for id, source, label, superlabel, group, split, digest in zip(
            *(getattr(features, name) for name in names), strict=True
        )
    ]
    return Dataset("features", tuple(items))


def split_path(recipe: Recipe) -> Path:
    """The split file of a recipe: the one it names, or that of its output folder."""
    if recipe.split.file is not None:
        return recipe.split.file
    assert recipe.output is not None
    return recipe.output / SPLIT_FILE


@contextmanager
def undone(recipe: Recipe, results: Path | None = None) -> Iterator[None]:
    """Undo what a failed run has made in its output folder, but for features, which the error says are kept.

    The split file that was made goes, unless there are results on this split: the next run makes it anew.
    """
    assert recipe.output is not None
    before = {place.parent for place in recipe.output.glob(f"*/{HEADER_FILE}")}
    try:
        with files.kept_if_done(recipe.output / SPLIT_FILE, results):
            yield
    except MixturaError as error:
        kept = sorted({place.parent for place in recipe.output.glob(f"*/{HEADER_FILE}")} - before)
        if kept:
            error.args = (f"{error} The features in {kept[0]} are kept; the next run uses them.", *error.args[1:])
        raise


def labeled(features: Features) -> Features:
    """The labeled rows.

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
    """A group number per row; rows of one group or with equal photos share it."""
    keys: Sequence[str] = [
        group or digest or id for group, digest, id in zip(features.group, features.sha256, features.id, strict=True)
    ]
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)


def weight_of(features: Features) -> Float[Tensor, " N"] | None:
    """Weight of each row; ``None`` if every row counts once."""
    return None if (features.weight == 1).all() else torch.from_numpy(features.weight)


def digest_of(features: Features) -> str:
    """A hash of ids and labels, at both levels if both are learned, that identifies a model's training data."""
    labels = map(str, features.label)
    if features.sublabel is not None:
        labels = map("\t".join, zip(labels, features.sublabel, strict=True))
    text = "\n".join(f"{id}\t{label}" for id, label in sorted(zip(features.id, labels, strict=True)))
    return hashlib.sha256(text.encode()).hexdigest()
