"""Subclasses that a training finds: how many it looks for, their numbers and their table, and labels by them."""

import csv
import io
import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Int

from mixtura import files
from mixtura.catalog.subclasses import SUBLABEL_FILE
from mixtura.coarse_sections import CoarseSection
from mixtura.features.records import Features
from mixtura.pipeline.training_photos import TrainingPhotos
from mixtura.tasks import subclasses
from mixtura.tasks.subclass_methods import KINDS_FACTOR

SUBCLASS_FILE = "trained_subclasses.csv"
"""Table of the subclasses that a training has found, in the folder of its run."""


def subclass_numbers(photos: TrainingPhotos, assigned: Int[np.ndarray, " N"]) -> dict[str, int]:
    """The subclass of each photo that has one, by id, numbered from 1 within each class, the largest first.

    Photos of weight 0 make no subclass: one that would be alone is of the largest.
    """
    pairs = list(zip(photos.labels.tolist(), assigned.tolist(), strict=True))
    items, number = photos.dataset.items, dict[tuple[int, int], int]()
    size = Counter(pair for pair, item in zip(pairs, items, strict=True) if pair[1] >= 0 and item.weight > 0)
    seen = Counter[int]()
    for pair in sorted(size, key=lambda pair: (-size[pair], pair)):
        seen[pair[0]] += 1
        number[pair] = seen[pair[0]]
    found = zip(items, pairs, strict=True)
    return {item.id: number.get(pair, 1) for item, pair in found if pair[1] >= 0 and seen[pair[0]]}


def write_subclasses(run: Path, photos: TrainingPhotos, number: Mapping[str, int]) -> None:
    """Write the class and the subclass of each photo that has one.

    Raises:
        CannotWrite, OutOfSpace: the table cannot be written.
    """
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("id", "source", "class", "subclass"))
    for item, label in zip(photos.dataset.items, photos.labels, strict=True):
        if item.id in number:
            table.writerow((item.id, item.source, photos.classes[label], number[item.id]))
    files.write(run / SUBCLASS_FILE, text.getvalue().encode("utf-8", "surrogateescape"))


def with_number(coarse: CoarseSection, features: Features, photos: TrainingPhotos) -> tuple[CoarseSection, str]:
    """The section with the number of subclasses, by the kinds in features of the training photos; and what to say.

    Args:
        coarse: the section, which leaves the number open.
        features: of the encoder as it is.
        photos: of which some are for training.
    """
    ids = [photos.dataset.items[row].id for row in photos.training]
    kinds = sum(one.count for one in subclasses.run(features.select_ids(ids)).classes)
    number = min(math.ceil(KINDS_FACTOR * kinds), len(ids))
    said = (
        f"{kinds} kinds were found in the features as they are, so the network is trained with {number} subclasses. "
        "Set coarse.subclasses for another number."
    )
    return coarse.model_copy(update={"subclasses": number}), said


def labeled_below(features: Features, number: Mapping[str, int]) -> Features:
    """The same rows with their subclasses below their classes, as in ``tomato/2``; a row without one has its class."""
    pairs = [(label or "", number.get(id)) for label, id in zip(features.label, features.id, strict=True)]
    return replace(features, sublabel=[f"{name}/{own}" if own else name for name, own in pairs])


def beside(features: Features) -> dict[str, bytes]:
    """The file of a bundle that says which subclass training has found for each item, if for any."""
    if features.sublabel is None:
        return {}
    rows = zip(features.id, features.sublabel, features.label, strict=True)
    return {SUBLABEL_FILE: json.dumps({id: own for id, own, label in rows if own != label}).encode()}
