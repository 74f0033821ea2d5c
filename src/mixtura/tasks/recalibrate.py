"""Recalibrate the limits for client photos, using some confirmed ones.

The limit for "unknown" comes from the catalog's own photos. If clients' photos differ, more of them than stated are
unknown. Some confirmed photos, not hand-picked, reset the limit: their scores replace the catalog's in the
typicality. Means and covariances stay, so the predicted classes stay too.

Photos that the catalog has learned from look more typical than any new photo. A limit based on them would reject
most genuine photos, so they are left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.stats import beta

from mixtura.catalog import Catalog
from mixtura.catalog.journal import Journal
from mixtura.catalog.shots import shot_of
from mixtura.catalog.subclasses import said_of_kind
from mixtura.core import temperature
from mixtura.datasets import NAMED
from mixtura.datasets.decode import read_bytes
from mixtura.datasets.items import Item, Problem
from mixtura.errors import BadItem, LabelError, NoInput, UsageError
from mixtura.features.store import HEADER_FILE, FeatureStore
from mixtura.files import is_file_at
from mixtura.formats import short_percent
from mixtura.metrics.calibration import nll
from mixtura.model import bundle
from mixtura.model.model import Model
from mixtura.names import nearest
from mixtura.pipeline import factory, levels
from mixtura.pipeline.data_source import data_keys
from mixtura.records.catalog import EditResult, Shot
from mixtura.records.decision import Interval
from mixtura.records.journal import left_out_note
from mixtura.scores.typicality import Typicality
from mixtura.sections import LABEL, SUPERLABEL, DataSection
from mixtura.tasks.evaluate import MIN_PROBABILITY, share
from mixtura.tasks.learned_photos import learned
from mixtura.tasks.predict import encoder_for

MIN_PHOTOS, ENOUGH_PHOTOS = 20, 50  # confirmed photos: an error below the first, a warning below the second
N_FOLDS = 10


@dataclass(frozen=True)
class ConfirmedPhotos:
    """Photos with confirmed product names.

    ``sha256`` are hashes (hex) of their bytes, "" where unknown, or empty; ``notes`` are sentences on what was left
    out on the way.
    """

    embedding: Float[np.ndarray, "N D"]
    label: tuple[str, ...]
    problems: tuple[Problem, ...] = ()
    sha256: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.label)


@dataclass(frozen=True)
class Figures:
    """Rates on genuine photos, as shares in [0, 1]; ``nll`` in nats.

    ``false_reject``: the verdict is unknown; ``right``: the right product is the most probable; ``found``: it is, and
    the verdict is not unknown.
    """

    false_reject: Interval
    right: Interval
    found: Interval
    nll: float


@dataclass(frozen=True)
class Recalibration:
    """New limits, and their effect in cross-validation, on photos that did not set them.

    ``count`` photos set them; ``learned`` more were confirmed, but the catalog had learned from them.
    ``stated`` is the target false-reject rate. ``expected`` is the rate of the new limit on new photos: its mean, and
    the interval that holds it 95 times in 100; ``error`` is its standard error. ``objections`` are sentences that say
    why the new limits should not be kept. ``bundle`` is the hash of the model.
    """

    count: int
    learned: int
    products: int
    stated: float
    before: Figures
    after: Figures
    expected: Interval
    error: float
    old_temperature: float
    temperature: float
    typicality: Typicality
    classes: tuple[str, ...]
    notes: tuple[str, ...] = ()
    objections: tuple[str, ...] = ()
    bundle: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The figures as JSON-ready values."""
        names = ("count", "learned", "products", "stated", "error", "old_temperature", "temperature")
        names += ("notes", "objections")
        record: dict[str, Any] = {name: getattr(self, name) for name in names}
        record["expected"] = vars(self.expected)
        for name, figures in (("before", self.before), ("after", self.after)):
            record[name] = {key: vars(v) if isinstance(v, Interval) else v for key, v in vars(figures).items()}
        return record


def recalibrate(catalog: Catalog, confirmed: ConfirmedPhotos) -> Recalibration:
    """New limits from confirmed photos, without changing the catalog.

    Photos that the catalog has learned from are excluded (:mod:`mixtura.tasks.learned_photos`); test items are not.

    Raises:
        LabelError: fewer than 20 photos that count, or a label that is no product.
    """
    view = catalog.view()
    model = view.model
    place = {name: index for index, name in enumerate(model.classes)}
    strange = next((name for name in confirmed.label if name not in place), None)
    if strange is not None:
        said = said_of_kind(model, strange)
        raise LabelError(said or f"The catalog has no product {strange!r}. {nearest(strange, model.classes)}")
    model.project(confirmed.embedding)  # checks width and finiteness
    new = ~learned(catalog.known(), confirmed.embedding, confirmed.sha256)
    _check_enough(len(confirmed), int(new.sum()))
    label = np.array([place[name] for name in confirmed.label], dtype=np.int64)
    made = _recalibrated(model, confirmed.embedding[new], label[new])
    said = (*confirmed.notes, *_learned_note(len(confirmed), made.count))
    return replace(made, learned=len(confirmed) - made.count, notes=(*said, *made.notes), bundle=view.bundle)


def _check_enough(count: int, new: int) -> None:
    if new >= MIN_PHOTOS:
        return
    if new == count:
        raise LabelError(
            f"{count} confirmed photos are too few to set a limit. "
            f"Confirm at least {MIN_PHOTOS}, better {ENOUGH_PHOTOS}."
        )
    raise LabelError(
        f"{count - new} of {count} confirmed photos were learned from and do not count, and the {new} others are too "
        f"few to set a limit by. Confirm at least {MIN_PHOTOS} new photos, better {ENOUGH_PHOTOS}: "
        "none of the fit, none enrolled."
    )


def _learned_note(count: int, new: int) -> tuple[str, ...]:
    if new == count:
        return ()
    return (f"{count - new} of {count} confirmed photos were learned from and do not count.",)


def write(catalog: Catalog, made: Recalibration, force: bool = False) -> EditResult:
    """Store the new limits in the catalog, as one edit that can be undone.

    Raises:
        UsageError: there are objections and no ``force``, or products have come or gone since the limits were made.
    """
    if made.objections and not force:
        raise UsageError(f"{made.objections[0]} Nothing was written. Set force to write the new limits all the same.")
    return catalog.calibrate(made.typicality, made.temperature, made.classes, made.bundle)


def from_folder(catalog: Catalog, folder: Path) -> ConfirmedPhotos:
    """Confirmed photos from a folder with one sub-folder per product, read as for fit, or a labeled feature store.

    The superlabels of a store are the products, where the model has learned those.

    Raises:
        NoInput: there is no such folder, or no photo in it.
        LabelError: a sub-folder has the name of no product.
        FingerprintMismatch: the features are of another encoder than the catalog's.
    """
    if is_file_at(folder / HEADER_FILE):
        store = FeatureStore.open(folder)
        store.check(catalog.model.identity)
        features = store.read()
        if bundle.recipe_of(catalog.folder).data.level != LABEL and features.superclasses:
            features = levels.features_at(features, SUPERLABEL, str(folder))
        kept = features.select([row for row, label in enumerate(features.label) if label is not None])
        return ConfirmedPhotos(kept.embedding, tuple(map(str, kept.label)), sha256=tuple(kept.sha256))
    kind = data_keys(str(folder))["data.kind"]
    section = DataSection(root=folder)  # nobody confirms a public set
    dataset = factory.read_data(section if kind in NAMED else section.model_copy(update={"kind": kind}))
    product = {label: _product_name(catalog, label) for label in dataset.classes}
    if not product:
        raise NoInput(f"{folder}: no photo lies in a sub-folder. Put them into one for each product.")
    encoder = encoder_for(catalog.model)
    made: list[tuple[Shot, str]] = []
    problems = list(dataset.problems)
    for item in dataset.items:
        try:
            made.append((_shot(encoder, item), product[str(item.label)]))
        except BadItem as error:
            problems.append(Problem(item.source, error.reason, str(error)))
    rows = _stacked([shot.embedding for shot, _ in made], catalog.model)
    digests = tuple(shot.sha256 for shot, _ in made)
    return ConfirmedPhotos(rows, tuple(label for _, label in made), tuple(problems), digests)


def _shot(encoder: factory.Encoder, item: Item) -> Shot:
    """A confirmed photo with its features.

    Raises:
        BadItem: it cannot be read, or nobody says what it shows.
    """
    if isinstance(item.payload, np.ndarray):
        raise BadItem(f"{item.source}: is no file but an array of pixels. Save it as PNG.", "not_a_file")
    if item.label is None:
        raise BadItem(f"{item.source}: lies in no folder of a product. Move it into one.", "no_class")
    return shot_of(encoder, read_bytes(item.payload, name=item.source), item.source)


def _product_name(catalog: Catalog, label: str) -> str:
    """The name of the product that a folder is named like, by id or name."""
    try:
        return catalog.product(label).name
    except NoInput as error:
        raise LabelError(str(error)) from error


def from_journal(journal: Journal, catalog: Catalog) -> ConfirmedPhotos:
    """The photos with client feedback that names their product.

    Photos of removed products and features of another encoder than the catalog's are excluded.
    """
    present = {product.id: product.name for product in catalog.products()}
    comparable = journal.comparable(catalog.model)
    found = [note for note in journal.answered() if note.product in present]
    told = [note for note in found if note.id in comparable]
    rows = list(journal.embedding([note.id for note in told]))
    label = tuple(present[str(note.product)] for note in told)
    return ConfirmedPhotos(
        _stacked(rows, catalog.model), label, notes=left_out_note(len(found) - len(told), len(found))
    )


def _stacked(rows: Sequence[Float[np.ndarray, " D"]], model: Model) -> Float[np.ndarray, "N D"]:
    return np.stack(rows).astype(np.float32) if len(rows) else np.zeros((0, model.dimension), np.float32)


def _recalibrated(model: Model, embedding: Float[np.ndarray, "N D"], label: Int[np.ndarray, " N"]) -> Recalibration:
    count, stated = len(label), model.decision.false_reject_rate
    fold = np.random.default_rng(0).permutation(count) % N_FOLDS
    parts = [fold == i for i in range(N_FOLDS)]
    judged = [_fitted(model, embedding[~part], label[~part]) for part in parts]
    after = _figures([(new, embedding[part], label[part]) for new, part in zip(judged, parts, strict=True)])
    before = _figures([(model, embedding, label)])
    new = _fitted(model, embedding, label)
    lowest = int(np.ceil(stated * (count + 1))) - 1  # number of confirmed photos below the limit
    law = beta(lowest, count + 1 - lowest) if lowest else None
    mean, low, high = (
        (0.0, 0.0, 0.0) if law is None else (float(v) for v in (law.mean(), law.ppf(0.025), law.ppf(0.975)))
    )
    return Recalibration(
        count=count,
        learned=0,
        products=len(np.unique(label)),
        stated=stated,
        before=before,
        after=after,
        expected=Interval(mean, low, high, count),
        error=0.0 if law is None else float(law.std()),
        old_temperature=model.temperature,
        temperature=new.temperature,
        typicality=new.typicality,
        classes=model.classes,
        notes=_notes(count, stated, lowest),
        objections=_objections(model, label, before),
    )


def _fitted(model: Model, embedding: Float[np.ndarray, "N D"], label: Int[np.ndarray, " N"]) -> Model:
    """The model with limits from these photos; the temperature changes only if validation photos benefit."""
    x = model.project(embedding)
    with torch.inference_mode():
        seen = model.evidence(x)
    typicality = Typicality.fit(seen.log_prob, seen.background, seen.scores.argmax(1), seen.raw)
    factor = temperature.fit(seen.scores / model.temperature, torch.from_numpy(label))
    return replace(model, typicality=typicality, temperature=model.temperature * factor)


def _figures(judged: Sequence[tuple[Model, np.ndarray, np.ndarray]]) -> Figures:
    """Figures over the photos of all folds (features and labels), each evaluated with its own model."""
    answers = [model.answers(embedding) for model, embedding, _ in judged]
    label = np.concatenate([own for _, _, own in judged])
    rejected = np.concatenate([one.verdict == "unknown" for one in answers])
    right = np.concatenate([one.predicted for one in answers]) == label
    posterior = np.concatenate([one.posterior for one in answers])
    log_posterior = np.log(posterior.clip(MIN_PROBABILITY))
    return Figures(share(rejected), share(right), share(right & ~rejected), float(nll(label, log_posterior)))


def _notes(count: int, stated: float, lowest: int) -> tuple[str, ...]:
    said = []
    if count < ENOUGH_PHOTOS:
        said.append(f"{count} photos give a rough limit; confirm {ENOUGH_PHOTOS} or more.")
    if lowest < 1:
        said.append(
            f"With {count} photos nothing can be called unknown at {short_percent(stated)}: "
            f"at least {round(1 / stated)} are needed."
        )
    return tuple(said)


def _objections(model: Model, label: Int[np.ndarray, " N"], before: Figures) -> tuple[str, ...]:
    said = []
    if before.false_reject.low <= model.decision.false_reject_rate <= before.false_reject.high:
        said.append("The limits of the catalog fit these photos as they are; a change would be within chance.")
    few = len(model.classes) - len(np.unique(label))
    if few > len(model.classes) / 2:
        said.append(f"{few} of {len(model.classes)} products have no confirmed photo; the limit speaks for the others.")
    return tuple(said)
