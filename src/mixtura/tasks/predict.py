"""Decide on photos or sounds with a model."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from mixtura.catalog import Catalog, create
from mixtura.datasets.items import Problem
from mixtura.errors import BadItem, FingerprintMismatch, MixturaError
from mixtura.features.records import Features
from mixtura.identity import differences
from mixtura.model import bundle
from mixtura.model.decide import Known, decide, with_flaw
from mixtura.model.model import Model
from mixtura.pipeline import factory, training_set
from mixtura.pipeline.queries import Prepared, embed, prepare
from mixtura.records.decision import Decision

BATCH_SIZE = 32
Decider = Callable[[list[str], np.ndarray], list[Decision]]


def run(model_path: Path, paths: Sequence[Path], neighbors: int = 3) -> list[Decision | Problem]:
    """One decision per photo or sound, in order; an unreadable one gives a problem in its place.

    If the model has a catalog, the decisions include its edits.

    Raises:
        NoInput: there is no model.
        FingerprintMismatch: the encoder at hand is not the one that the model was made with.
    """
    model, decider = _decider(model_path, neighbors)
    encoder = encoder_for(model)
    answers: list[Decision | Problem] = []
    for start in range(0, len(paths), BATCH_SIZE):
        answers += _batch(encoder, decider, paths[start : start + BATCH_SIZE])
    return answers


def current(model_path: Path) -> Model:
    """The model of a folder with all edits of its catalog, if any.

    Raises:
        NoInput, BundleError: there is no model, or it or its catalog is damaged.
    """
    catalog = _catalog(model_path)
    return bundle.from_pretrained(model_path) if catalog is None else catalog.model


def _catalog(model_path: Path) -> Catalog | None:
    return Catalog.open(model_path) if create.in_use(model_path) else None


def _decider(model_path: Path, neighbors: int) -> tuple[Model, Decider]:
    """The model, and the function that decides with it."""
    catalog = _catalog(model_path)
    if catalog is not None:
        return catalog.model, lambda ids, embedding: catalog.decide(ids, embedding, neighbors)
    model = bundle.from_pretrained(model_path)
    items = known_items(model_path, model) if neighbors else None
    known = None if items is None else Known(items)
    version = bundle.fingerprint(model_path)
    return model, lambda ids, embedding: [
        replace(decision, model=version) for decision in decide(model, ids, embedding, known, neighbors)
    ]


def encoder_for(model: Model) -> factory.Encoder:
    """The encoder of a model, checked to be the very same.

    Raises:
        FingerprintMismatch: its weights or its preprocessing have changed.
    """
    encoder = factory.encoder_of(model.encoder)
    how = differences(model.identity, encoder.identity)
    if how:
        raise FingerprintMismatch(
            f"The encoder {model.encoder.name!r} is not the one that the model was made with: {how}. "
            "Install the version of the model card, or fit again."
        )
    return encoder


def known_items(model_path: Path, model: Model) -> Features | None:
    """The items that the model was fitted on, if their features still exist."""
    try:
        recipe = bundle.recipe_of(model_path)
        features = training_set.stored(recipe)
    except MixturaError:
        return None  # neighbors are evidence beside the decision, not part of it
    return features.select(features.label_index(model.classes) >= 0)


def _batch(encoder: factory.Encoder, decider: Decider, paths: Sequence[Path]) -> list[Decision | Problem]:
    answers: dict[int, Decision | Problem] = {}
    prepared: dict[int, Prepared] = {}
    for place, path in enumerate(paths):
        try:
            prepared[place] = prepare(encoder, path)
        except BadItem as error:
            answers[place] = Problem(str(path), error.reason, str(error))
    if prepared:
        items = list(prepared.values())
        decided = decider([str(paths[place]) for place in prepared], embed(encoder, items))
        told = [with_flaw(decision, item.flaw) for decision, item in zip(decided, items, strict=True)]
        answers |= dict(zip(prepared, told, strict=True))
    return [answers[place] for place in range(len(paths))]
