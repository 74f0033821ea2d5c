"""The photos that a network is trained and validated on; never those of the test part."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Int

from mixtura.core.cross_fitting import validation_rows
from mixtura.datasets.duplicates import find_groups
from mixtura.datasets.items import Dataset
from mixtura.datasets.split import settle_split
from mixtura.features.records import Features
from mixtura.pipeline import levels, training_set
from mixtura.recipe import Recipe


@dataclass(frozen=True)
class TrainingPhotos:
    """Photos of the known classes outside the test part, with the class of each and who is for validation.

    ``test_count`` is the number of their test photos, ``distinct`` that of photos that are no copies, and
    ``stranger_count`` that of test photos of other classes than these and those to leave out. ``fine`` are the labels
    below the classes, for protocols and metrics; nothing learns from them, or chooses by them.
    """

    dataset: Dataset
    labels: Int[np.ndarray, " N"]
    is_validation: Bool[np.ndarray, " N"]
    classes: tuple[str, ...]
    test_count: int
    distinct: int
    stranger_count: int
    fine: tuple[str | None, ...]

    @property
    def training(self) -> Int[np.ndarray, " T"]:
        """Places of the training photos."""
        return np.flatnonzero(~self.is_validation)

    @property
    def validation(self) -> Int[np.ndarray, " V"]:
        """Places of the validation photos."""
        return np.flatnonzero(self.is_validation)

    @property
    def split(self) -> dict[str, str]:
        """The part of each photo, by id."""
        pairs = zip(self.dataset.items, self.is_validation.tolist(), strict=True)
        return {item.id: "val" if val else "train" for item, val in pairs}

    @property
    def digest(self) -> str:
        """The number of photos, and a hash of ids, labels and parts."""
        split = self.split
        text = "\n".join(f"{item.id}\t{item.label}\t{split[item.id]}" for item in self.dataset.items)
        return f"{len(split)} photos, {hashlib.sha256(text.encode()).hexdigest()[:16]}"


def of_features(recipe: Recipe, dataset: Dataset, features: Features) -> TrainingPhotos:
    """The training photos of data whose features were gathered, and so could be read.

    Args:
        recipe: the share of validation photos, the classes to leave out and the seed.
        dataset: the photos.
        features: their labeled rows, with the final split.
    """
    split = dict(zip(features.id, features.split, strict=True))
    groups = dict(zip(features.id, training_set.groups_of(features).tolist(), strict=True))
    return _chosen(recipe, dataset, split, groups)


def of_dataset(recipe: Recipe, dataset: Dataset) -> TrainingPhotos:
    """The training photos of data that no encoder has read yet; the split file is made if it is missing."""
    found, shares = find_groups(dataset), recipe.split.fractions
    classed = levels.dataset_at(dataset, recipe.data.level)
    split = settle_split(training_set.split_path(recipe), classed, shares, recipe.split.seed, groups=found)
    groups = {item.id: group for item, group in zip(dataset.items, found.tolist(), strict=True)}
    return _chosen(recipe, dataset, split, groups)


def _chosen(
    recipe: Recipe, dataset: Dataset, split: Mapping[str, str | None], groups: Mapping[str, int]
) -> TrainingPhotos:
    below = {item.id: item.label for item in dataset.items}
    dataset = levels.dataset_at(dataset, recipe.data.level)
    learned = [split.get(item.id, "test") != "test" and item.label is not None for item in dataset.items]
    labeled = dataset.subset(np.flatnonzero(learned))
    unknown = training_set.labels_of(labeled.classes, recipe.data.unknown)
    classes = training_set.known_classes(labeled.classes, tuple(unknown))
    place = {name: number for number, name in enumerate(classes)}
    photos = labeled.subset([i for i, item in enumerate(labeled.items) if item.label in place])
    labels = np.array([place[str(item.label)] for item in photos.items], dtype=np.int64)
    given = np.array([split[item.id] == "val" for item in photos.items], dtype=bool)
    val = given if given.any() else _drawn(recipe, labels, [groups[item.id] for item in photos.items])
    left = np.bincount(labels[~val], minlength=len(classes))
    tested = [item.label for item in dataset.items if split.get(item.id) == "test" and item.label is not None]
    left_out = training_set.labels_of(sorted({*tested}), recipe.data.unknown)
    test_count = sum(label in place for label in tested)
    strangers = sum(label not in place and label not in left_out for label in tested)
    distinct = len({groups[item.id] for item in photos.items})
    fine = tuple(below[item.id] for item in photos.items)
    return TrainingPhotos(photos, labels, val & (left[labels] > 0), classes, test_count, distinct, strangers, fine)


def _drawn(recipe: Recipe, labels: Int[np.ndarray, " N"], groups: Sequence[int]) -> Bool[np.ndarray, " N"]:
    """A random share of the photos, by class; photos of one group stay together."""
    share = training_set.validation_share(recipe, len(labels))
    return validation_rows(torch.from_numpy(labels), torch.tensor(groups), share, recipe.seed).numpy()
