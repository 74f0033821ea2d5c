"""Episodes to train and to validate a network on; the two share no class, and neither uses the test part."""

import hashlib
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Int

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
    held_out = max(MIN_HELD_OUT, round(given.held_out * len(photos.classes)))
    left = len(photos.classes) - held_out
    if given.way > left:
        raise UsageError(
            f"{held_out} of {len(photos.classes)} classes are held out for validation (train.episodes.held_out "
            f"{given.held_out:g}), which leaves {max(left, 0)} to train on, and an episode needs {given.way} "
            "(train.episodes.way). Lower the way, or add classes."
        )
    base = np.isin(photos.classes, split_classes(photos.classes, float(left), seed)[0])
    weighted = np.array([item.weight > 0 for item in photos.dataset.items], dtype=bool)
    kept = np.flatnonzero(weighted & ~(base[photos.labels] & photos.is_validation))
    labels = photos.labels[kept]
    own = replace(photos, dataset=photos.dataset.subset(kept), labels=labels, is_validation=~base[labels])
    design = Design(given.way, given.shot, given.query, given.count, seed)
    _check_sizes(own, base, design)
    train, ids = _pool(own, own.training)
    row = np.array([ids[id] for id in train.ids], dtype=np.int64)
    validation_pool, ids = _pool(own, own.validation)
    validation_design = replace(design, way=min(design.way, held_out), episodes=VALIDATION_EPISODES)
    drawn = draw("nway", validation_pool, validation_design)
    order = EpisodeOrder(train, design, row, len(own.training))
    return NetworkEpisodes(own, order, drawn.located([*ids], [photos.classes[c] for c in own.labels[own.validation]]))


def _pool(photos: TrainingPhotos, rows: Int[np.ndarray, " N"]) -> tuple[Pool, dict[str, int]]:
    """Some photos to draw from, and the place of each among them, by id."""
    ids = [photos.dataset.items[row].id for row in rows]
    pool = Pool.of(ids, [photos.classes[c] for c in photos.labels[rows]])
    return pool, {id: place for place, id in enumerate(ids)}


def _check_sizes(photos: TrainingPhotos, base: Bool[np.ndarray, " C"], design: Design) -> None:
    """Check that each class has the photos that an episode needs."""
    sizes = np.bincount(photos.labels, minlength=len(base))
    smallest = int(sizes.argmin())
    if sizes[smallest] < design.needed:
        use = "to train on" if base[smallest] else "to validate with"
        found = count(int(sizes[smallest]), "photo")
        raise UsageError(
            f"Class {photos.classes[smallest]!r} has {found} {use}, and an episode needs {design.shot} + "
            f"{design.query} (train.episodes.shot + query) of each class. Lower them, or leave such classes out "
            "(data.unknown)."
        )
