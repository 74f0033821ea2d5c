"""Augmented copies of the support photos of few-shot episodes, from which classifiers learn in place of the photos."""

import zlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from PIL import Image, ImageOps

from mixtura.datasets.episodes import Episode, EpisodeList
from mixtura.datasets.items import Dataset
from mixtura.errors import NoInput, UsageError
from mixtura.features.inputs import encoded, stacked
from mixtura.features.records import RECORD_COLUMNS, Features
from mixtura.interfaces import Encoder
from mixtura.pipeline import factory
from mixtura.tasks.few_shot_classifiers import Material

PADDED = 8  # a border of one eighth of the photo's shorter side; 4 pixels at 32
BATCH, PHOTOS = 64, 16  # copies encoded at once, and photos held at once


def with_copies(material: Material, located: EpisodeList, copies: int) -> tuple[Material, EpisodeList]:
    """Return the material with rows for the copies, and the episodes with these as their support.

    A copy depends on the seed of the episodes, on its number and on the id of the photo, not on the episode.

    Args:
        material: whose ``photos`` say where the novel items lie.
        located: episodes of its novel items.
        copies: of each support photo, at least 1.

    Raises:
        UsageError: there are no photos, but features or sounds.
        NoInput: a photo of an episode is gone.
        BadImage: it cannot be read.
    """
    if material.photos is None:
        raise UsageError("--copies needs the photos, and these are features. Give the photos, or leave it out.")
    encoder = factory.encoder_of(material.encoder)
    if not isinstance(encoder, Encoder):
        raise UsageError("--copies crops and mirrors photos, and these are sounds. Leave it out.")
    rows = np.unique(np.concatenate([episode.support.ravel() for episode in located.episodes]))
    ids = [material.novel.id[row] for row in rows.tolist()]
    made = _encoded(encoder, factory.dataset_of(material.photos), ids, (copies, located.design.seed))
    place = np.zeros(len(material.novel), dtype=np.int64)
    place[rows] = len(material.novel) + copies * np.arange(len(rows))
    episodes = tuple(_of_copies(episode, place, copies) for episode in located.episodes)
    novel = _extended(material.novel, np.repeat(rows, copies), made)
    return replace(material, novel=novel), replace(located, ids=tuple(novel.id), episodes=episodes)


def copy_of(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Return a photo of the same size, cut at random from the photo with a black border, and mirrored half the time.

    The border makes the cut one of many, however small the photo is.
    """
    border = max(1, min(image.size) // PADDED)
    left, top = rng.integers(2 * border + 1, size=2).tolist()
    cut = ImageOps.expand(image, border).crop((left, top, left + image.width, top + image.height))
    return ImageOps.mirror(cut) if rng.random() < 0.5 else cut


def _encoded(encoder: Encoder, dataset: Dataset, ids: Sequence[str], drawn: tuple[int, int]) -> np.ndarray:
    """Vectors of the copies, those of one photo after another; ``drawn`` is their number and the seed."""
    copies, seed = drawn
    known = {item.id: place for place, item in enumerate(dataset.items)}
    absent = next((id for id in ids if id not in known), None)
    if absent is not None:
        raise NoInput(f"{dataset.name}: the photo {absent!r} is gone, and --copies needs it. Put it back.")
    parts: list[np.ndarray] = []
    for start in range(0, len(ids), PHOTOS):
        photos = [(id, dataset.image(known[id], draft=encoder.draft)) for id in ids[start : start + PHOTOS]]
        cut = [copy_of(image, _drawing(seed, number, id)) for id, image in photos for number in range(copies)]
        for first in range(0, len(cut), BATCH):
            batch = [encoder.prepare(image) for image in cut[first : first + BATCH]]
            parts.append(encoded(encoder, stacked(batch)))
    return np.concatenate(parts)


def _drawing(seed: int, number: int, id: str) -> np.random.Generator:
    return np.random.default_rng([seed, number, zlib.crc32(id.encode())])


def _extended(novel: Features, rows: np.ndarray, embedding: np.ndarray) -> Features:
    """Features with further rows that are copies of some of them, with ids of their own."""
    chosen = np.concatenate([np.arange(len(novel)), rows])
    lists = {name: [getattr(novel, name)[row] for row in chosen.tolist()] for name in RECORD_COLUMNS}
    lists["id"] = [*novel.id, *(f"copy {place} of {novel.id[row]}" for place, row in enumerate(rows.tolist()))]
    whole = np.concatenate([novel.embedding, embedding])
    return replace(novel, **lists | {"embedding": whole, "weight": novel.weight[chosen], "sublabel": None})


def _of_copies(episode: Episode, place: np.ndarray, copies: int) -> Episode:
    support = (place[episode.support][..., None] + np.arange(copies)).reshape(len(episode.support), -1)
    return replace(episode, support=support)
