"""A model and photos or sounds in, one decision each out."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from mixtura.datasets import sound
from mixtura.datasets.decode import decode
from mixtura.datasets.items import Problem
from mixtura.encoders.sounds import SoundEncoder
from mixtura.errors import BadItem, FingerprintMismatch, MixturaError
from mixtura.features.inputs import encoded, stacked
from mixtura.features.records import Features
from mixtura.identity import differences
from mixtura.tasks import build, bundle, gather
from mixtura.tasks.decide import decide
from mixtura.tasks.model import Model
from mixtura.tasks.records import Decision

BATCH = 32


def run(model_path: Path, paths: Sequence[Path], neighbours: int = 3) -> list[Decision | Problem]:
    """Decide on photos or sounds, in their order; one that cannot be read gives a problem in its place.

    Raises:
        NoInput: there is no model.
        FingerprintMismatch: the encoder at hand is not the one that the model was made with.
    """
    model = bundle.from_pretrained(model_path)
    encoder = encoder_for(model)
    known = known_items(model_path, model) if neighbours else None
    answers: list[Decision | Problem] = []
    for start in range(0, len(paths), BATCH):
        answers += _batch(model, encoder, known, paths[start : start + BATCH], neighbours)
    return answers


def encoder_for(model: Model) -> build.Encoder:
    """The encoder of a model, checked to be the very same.

    Raises:
        FingerprintMismatch: its weights or its preprocessing have changed.
    """
    encoder = build.encoder_of(model.encoder)
    how = differences(model.identity, encoder.identity)
    if how:
        raise FingerprintMismatch(
            f"The encoder {model.encoder.name!r} is not the one that the model was made with: {how}. "
            "Install the version of the model card, or fit again."
        )
    return encoder


def known_items(model_path: Path, model: Model) -> Features | None:
    """The items that the model was made of, if their features are still there."""
    try:
        recipe = bundle.recipe_of(model_path)
        features = gather.stored(recipe)
    except MixturaError:
        return None  # neighbors are evidence beside the decision, not part of it
    return features.select(features.label_index(model.classes) >= 0)


def _batch(
    model: Model, encoder: build.Encoder, known: Features | None, paths: Sequence[Path], neighbours: int
) -> list[Decision | Problem]:
    answers: dict[int, Decision | Problem] = {}
    prepared: dict[int, torch.Tensor] = {}
    for place, path in enumerate(paths):
        try:
            prepared[place] = prepare(encoder, path)
        except BadItem as error:
            answers[place] = Problem(str(path), error.reason, str(error))
    if prepared:
        embedding = np.ascontiguousarray(encoded(encoder, stacked(list(prepared.values()))))
        names = [str(paths[place]) for place in prepared]
        decided = decide(model, names, embedding, known, neighbours)
        answers |= dict(zip(prepared, decided, strict=True))
    return [answers[place] for place in range(len(paths))]


def prepare(encoder: build.Encoder, path: Path) -> torch.Tensor:
    """A file as the encoder takes it.

    Raises:
        BadItem: it is not the photo or sound that the encoder takes.
    """
    if isinstance(encoder, SoundEncoder):
        return encoder.prepare(sound.decode(path, encoder.sample_rate))
    return encoder.prepare(decode(path, draft=encoder.draft))
