"""Episodes to train and to validate a network on; the two share no class, and neither uses the test part."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Int

from mixtura.datasets.episodes import Design, EpisodeList, Pool, draw, split_classes
from mixtura.errors import UsageError
from mixtura.formats import count
from mixtura.pipeline.training_photos import TrainingPhotos
from mixtura.training.episodic import EpisodeOrder
from mixtura.training_sections import EpisodesSection

VALIDATION_EPISODES = 100
MIN_HELD_OUT = 2  # classes of an episode


@dataclass(frozen=True)
class NetworkEpisodes:
    """Episodes to train by, and those to validate by; no class is in both.

    Args:
        photos: the training photos of the classes to train on, and for validation all photos of the others.
        order: the rows of each step, of the training photos.
        validation: episodes whose indices are rows of the validation photos.
    """

    photos: TrainingPhotos
    order: EpisodeOrder
    validation: EpisodeList

    @property
    def digest(self) -> str:
        """A hash of what is drawn: the rows of the first epoch with their weights, and the validation episodes.

        It tells another NumPy apart, whose generator may draw other episodes of the same seed.
        """
        items = self.photos.dataset.items
        weight = np.array([items[row].weight for row in self.photos.training], dtype="<f8")
        rows = [part.ravel() for one in self.validation.episodes for part in (one.support, one.query)]
        found = hashlib.sha256(weight.tobytes())
        found.update(np.concatenate([self.order.rows(0), *rows]).astype("<i8").tobytes())
        return found.hexdigest()[:16]


def episodes_of(given: EpisodesSection, photos: TrainingPhotos, seed: int) -> NetworkEpisodes:
    """Return the episodes of a section.

    The classes of validation are drawn with the seed. Validation photos of the classes to train on are in no episode,
    because the fit that follows needs photos that the network does not know; nor are photos of weight 0.

    Raises:
        UsageError: there are fewer classes than an episode needs, or a class has fewer photos.
    """
    held_out = _held_out(given, len(photos.classes))
    left = len(photos.classes) - held_out
    base = np.isin(photos.classes, split_classes(photos.classes, float(left), seed)[0])
    weighted = np.array([item.weight > 0 for item in photos.dataset.items], dtype=bool)
    kept = np.flatnonzero(weighted & ~(base[photos.labels] & photos.is_validation))
    labels = photos.labels[kept]
    fine = tuple(photos.fine[row] for row in kept)
    dataset = photos.dataset.subset(kept)
    own = replace(photos, dataset=dataset, labels=labels, is_validation=~base[labels], fine=fine)
    design = Design(given.way, given.shot, given.query, given.count, seed)
    sizes = np.bincount(labels, minlength=len(base))
    smallest = int(sizes.argmin())
    use = "to train on" if base[smallest] else "to validate with"
    _check_size(given, photos.classes[smallest], int(sizes[smallest]), use)
    train, ids = _pool(own, own.training)
    row = np.array([ids[id] for id in train.ids], dtype=np.int64)
    validation_pool, ids = _pool(own, own.validation)
    validation_design = replace(design, way=min(design.way, held_out), episodes=VALIDATION_EPISODES)
    drawn = draw("nway", validation_pool, validation_design)
    order = EpisodeOrder(train, design, row, len(own.training))
    return NetworkEpisodes(own, order, drawn.located([*ids], [photos.classes[c] for c in own.labels[own.validation]]))


def check_enough(given: EpisodesSection, labels: Sequence[str]) -> None:
    """Check, before any photo is read, that there are enough classes and photos for the episodes of a section.

    Args:
        given: the section.
        labels: of the photos, some of which may be for testing.

    Raises:
        UsageError: see :func:`episodes_of`.
    """
    sizes = Counter(labels)
    _held_out(given, len(sizes))
    name = min(sizes, key=lambda label: (sizes[label], label))
    _check_size(given, name, sizes[name], "in all")


def _held_out(given: EpisodesSection, classes: int) -> int:
    """How many of so many classes are for validation."""
    held_out = max(MIN_HELD_OUT, round(given.held_out * classes))
    left = classes - held_out
    if given.way > left:
        raise UsageError(
            f"{held_out} of {classes} classes are held out for validation (train.episodes.held_out "
            f"{given.held_out:g}), which leaves {max(left, 0)} to train on, and an episode needs {given.way} "
            "(train.episodes.way). Lower the way, or add classes."
        )
    return held_out


def _pool(photos: TrainingPhotos, rows: Int[np.ndarray, " N"]) -> tuple[Pool, dict[str, int]]:
    """Some photos to draw from, and the place of each among them, by id."""
    ids = [photos.dataset.items[row].id for row in rows]
    pool = Pool.of(ids, [photos.classes[c] for c in photos.labels[rows]])
    return pool, {id: place for place, id in enumerate(ids)}


def _check_size(given: EpisodesSection, name: str, size: int, use: str) -> None:
    """Check that a class has the photos that an episode needs."""
    if size < given.shot + given.query:
        raise UsageError(
            f"Class {name!r} has {count(size, 'photo')} {use}, and an episode needs {given.shot} + {given.query} "
            "(train.episodes.shot + query) of each class. Lower them, or leave such classes out (data.unknown)."
        )
