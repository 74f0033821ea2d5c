"""Train an encoder's network on photos, then fit a model to its features; the frozen encoder stays if it is better."""

import math
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mixtura import files
from mixtura.catalog import create
from mixtura.coarse_sections import FINDS_SUBCLASSES, CoarseSection
from mixtura.datasets.items import Dataset
from mixtura.encoders.own import KIND, write_encoder
from mixtura.errors import CollapsedComponent, LabelError, NonFinite, UsageError
from mixtura.features.records import Unreadable
from mixtura.files import is_there
from mixtura.fitting import network_head
from mixtura.fitting.fit import check_names, check_parts, learn, too_few_to_validate
from mixtura.fitting.gradient import fixed_head, needs_head_training
from mixtura.fitting.network import TrainedPart
from mixtura.fitting.network_episodes import check_enough
from mixtura.fitting.network_material import Material
from mixtura.identity import NO_TAPS, UNTRAINED, is_partly_drawn
from mixtura.interfaces import TrainableEncoder
from mixtura.pipeline import factory, network_setup, training_photos, training_set
from mixtura.pipeline.training_photos import TrainingPhotos
from mixtura.recipe import Recipe, with_absolute_paths
from mixtura.records.training import TRAINED_FROM_FACT, TRAINED_PART_FACT, NetworkTraining
from mixtura.records.training_course import TrainingCourse
from mixtura.sections import EncoderSection
from mixtura.tasks import fit, train_together, trained_subclasses, training_search
from mixtura.tasks.fit import FitReport
from mixtura.tasks.trained_network import (
    ENCODER_FOLDER,
    check_start,
    remove_features,
    start_again,
)
from mixtura.tasks.training_course import Clock, CourseLog, Show
from mixtura.tasks.training_outcome import Fitted, alone, compared, gains_of
from mixtura.tasks.training_search import NetworkSearch, check_search
from mixtura.training.kept_embedder import embedder_in
from mixtura.training_sections import RECONSTRUCTION, TrainSection

Watch = Callable[[Any], None] | None
"""Called with records of progress: of reading, and of training."""

HEAD = "head"
"""The part of a classifier that is no part of the network, and the folder of its run."""

TRAINING_FOLDER = "training"
"""Folder of the run inside the output folder."""

LAST_SHARE = 1 / 3  # of the time, for the last block where the whole network follows
MARGIN = 1.3  # of what reading and fitting are measured to take, so that they end in time
UNMEASURED = 8.0  # seconds: Python's start, before the clock runs, and writing the model and its pages
FITS = 3  # that follow: of all photos, and of the training photos alone before and after
MEASURED_PHOTOS = 32
MIN_COMPARED = 50  # validation photos; the standard error of fewer differences says little
UNFIT = LabelError, NonFinite, CollapsedComponent  # of features, and so of the network that was trained


@dataclass(frozen=True)
class TrainReport:
    """The model's report, what training of the network has come to, and how it went."""

    fit: FitReport
    training: NetworkTraining
    course: TrainingCourse


def run(recipe: Recipe, fresh: bool = False, progress: Watch = None, show: Show | None = None) -> TrainReport:
    """Train the network of a recipe's encoder, fit a model to its features, and save both in the output folder.

    A run that was stopped goes on. A trained network takes the place of one with pretrained weights only if the model
    is better by more than a standard error on validation photos; trained on episodes, it does if its loss on validation
    episodes is lower by any amount; trained so that kinds come apart, it always does. The report says which of them is
    in the folder.

    Args:
        recipe: with the section ``train``, or its defaults.
        fresh: move an earlier run aside and start again.
        progress: called after each batch that is read, and after each step.
        show: called with the course of the training after each epoch, and at the end.

    Raises:
        UsageError: a name or a value in the recipe does not fit, the encoder has no network of photos, or there is no
            output folder.
        NoInput, DataError: the data cannot be used, the loss is not finite, or the earlier run is another one.
        CannotWrite, OutOfSpace: see :func:`mixtura.tasks.fit.run`.
    """
    section = recipe.train or TrainSection()
    clock, recipe = Clock(section.minutes), factory.settled(recipe.model_copy(update={"train": section}))
    if recipe.data.kind == factory.FEATURES_KIND:
        raise UsageError(f"{recipe.data.root} holds features, and a network is trained on photos. Give the photos.")
    check_names(recipe)
    check_search(recipe)
    device = factory.device_of(recipe.encoder.device)
    for one in training_search.sections(recipe):
        network_setup.check_train(one)
        network_setup.check_norm(one, device)
    output = factory.output_of(recipe, "the model", "model")
    results = output / TRAINING_FOLDER
    check_start(recipe, results)
    log = CourseLog(recipe, results, show, progress)
    recipe, seed, encoder = _weights(recipe, section)
    network_setup.check_coarse(recipe.coarse, section, recipe.data.level, UNTRAINED in encoder.identity)
    for one in training_search.sections(recipe):
        _check_drawn(one, recipe.encoder, encoder)
        network_head.head_spec(recipe.model_copy(update={"train": one}), encoder.dimension)
    if section.objective == RECONSTRUCTION:
        factory.decoder_of(encoder)  # there is one
    with files.new_folder(output), files.only_writer(output), training_set.undone(recipe, results):
        files.collect_staged(output)
        create.check_renewable(output, fixed_head(recipe))
        if fresh:
            start_again(output, results)
        return _Run(recipe, seed, encoder, clock, log, progress).run()


def _check_drawn(section: TrainSection, given: EncoderSection, encoder: TrainableEncoder) -> None:
    """Check that layers of an encoder that are drawn are trained.

    Raises:
        UsageError: they would stay as they are.
    """
    if is_partly_drawn(encoder.identity) and section.trainable not in (None, "auto", "all"):
        raise UsageError(
            f"The first layers of {given.name!r} are drawn (encoder.stem: {given.stem}), and "
            f"train.trainable {section.trainable!r} would leave them so. Use all."
        )


def _weights(recipe: Recipe, section: TrainSection) -> tuple[Recipe, int | None, TrainableEncoder]:
    """The recipe with the weights to start with, the seed to draw them from, if all are drawn, and the encoder.

    Raises:
        UsageError: the weights are named twice, or there are none; see also :func:`factory.trainable_of`.
    """
    given = recipe.encoder
    if isinstance(section.start, Path):
        if given.weights is not None:
            raise UsageError("train.start and encoder.weights both name weights. Leave one of them out.")
        given = given.model_copy(update={"weights": section.start.absolute()})
        return recipe.model_copy(update={"encoder": given}), None, factory.trainable_of(given)
    if section.start == "scratch":
        return recipe, recipe.seed, factory.trainable_of(given, recipe.seed)
    encoder = factory.trainable_of(given)
    untrained = UNTRAINED in encoder.identity and not is_partly_drawn(encoder.identity)
    if untrained and section.start == "pretrained":
        raise UsageError(
            f"The encoder {given.name!r} has no weights of its own. Leave train.start out, or name a file."
        )
    if untrained:
        return recipe, recipe.seed, factory.trainable_of(given, recipe.seed)
    return recipe, None, encoder


class _Run:
    """One run, in the output folder, which it holds."""

    def __init__(
        self, recipe: Recipe, seed: int | None, encoder: TrainableEncoder, clock: Clock, log: CourseLog,
        progress: Watch,
    ) -> None:  # fmt: skip
        self.recipe, self.seed, self.encoder, self.clock, self.log = recipe, seed, encoder, clock, log
        self.progress = progress
        self.material: Material | None = None
        self.origin: train_together.Origin = recipe.encoder, seed
        assert recipe.output is not None
        assert recipe.train is not None
        self.section = recipe.train
        self.output, self.folder = recipe.output, recipe.output / TRAINING_FOLDER

    def run(self) -> TrainReport:
        """The report, once the better model is in the folder."""
        dataset = factory.dataset_of(self.recipe.data)
        factory.check_modality(dataset, self.encoder)
        training_set.check_classes(self.recipe, dataset)  # before photos are read, which may take hours
        if self.section.episode_design is not None:
            check_enough(self.section.episode_design, training_set.learnable(self.recipe, dataset))
        if is_partly_drawn(self.encoder.identity):
            drawn = f"(encoder.stem: {self.recipe.encoder.stem}); all others begin with weights that exist"
            self.log.warn(f"The first layers of {self.recipe.encoder.name!r} are drawn {drawn}.")
        frozen = self._fitted(self.recipe) if self._has_rival else None
        material = self.material = self._material(dataset, frozen)
        trained, why = self._best_part(material, 0.0 if frozen is None else frozen.seconds)
        if trained is None:
            if frozen is None:
                raise UsageError(why)
            return self._kept(frozen, NetworkTraining(f"{why} The frozen encoder is kept.", False))
        if trained.part == HEAD:
            assert frozen is not None
            said = (
                f"On {len(material.photos.validation)} validation photos, the loss of the head went from "
                f"{trained.start_loss:.3f} to {trained.loss:.3f} nats. "
                "The network is as it was: the frozen encoder is kept."
            )
            return self._kept(frozen, NetworkTraining(said, False, HEAD, trained.share, trained.log.epochs[-1].number))
        figures = trained.part, trained.share, trained.log.epochs[-1].number
        start = self.recipe.encoder if frozen is None else frozen.gathered.encoder
        try:
            fitted = self._refitted(start, material, trained)
            outcome, better = alone(material, trained), True
            if frozen is not None and material.episodes is None and not material.section.keeps_kinds_apart:
                outcome, better = compared(frozen, fitted, material.photos)
        except UNFIT as error:
            if frozen is None:
                raise
            said = f"No model can be fitted to the trained network: {error} The frozen encoder is kept."
            return self._kept(frozen, NetworkTraining(said, False, *figures))
        record = NetworkTraining(outcome, better, *figures)
        record = replace(record, gains=gains_of(frozen, fitted))
        if frozen is not None and not better:
            return self._kept(frozen, record, fitted)
        return self._replaced(frozen, fitted, record)

    @property
    def _has_rival(self) -> bool:
        """Whether the encoder as it is gives a model to compare with, by classes, of which a decoder knows nothing."""
        return UNTRAINED not in self.encoder.identity and self.section.objective != RECONSTRUCTION

    def _fitted(
        self, recipe: Recipe, photos: TrainingPhotos | None = None, number: Mapping[str, int] | None = None
    ) -> Fitted:
        """A model on the features of a recipe's encoder, which was trained on ``photos``, if on any.

        Where training has found subclasses, each has Gaussians of its own, unless the head is trained by gradients.
        """
        gathered = training_set.gather(recipe, self.progress)
        create.check_same_items(self.output, gathered.features.identity)
        if photos is not None:
            features = gathered.features.with_split(photos.split)
            if number is not None and not needs_head_training(recipe):
                features = trained_subclasses.labeled_below(features, number)
            gathered = replace(gathered, features=features, encoder_trained=True)
        began = time.perf_counter()
        model = learn(recipe, gathered)
        return Fitted(recipe, gathered, model, time.perf_counter() - began)

    def _material(self, dataset: Dataset, frozen: Fitted | None) -> Material:
        """What the network is trained with."""
        if frozen is None:
            encoder, photos, start = self.encoder, training_photos.of_dataset(self.recipe, dataset), None
            check_parts(self.recipe, photos)
        else:
            plain = frozen.gathered.encoder.model_copy(update={"taps": NO_TAPS})
            encoder, features = factory.trainable_of(plain), frozen.gathered.features
            self.origin = plain, None
            photos = training_photos.of_features(self.recipe, dataset, features)
            ids = [photos.dataset.items[row].id for row in photos.training]
            vectors = features.select_ids(ids).embedding[:, : encoder.dimension]  # the last layer's come first
            start = torch.from_numpy(vectors.astype(np.float32))
        workers = factory.workers_of(self.recipe)
        head = network_head.head_spec(self.recipe, encoder.dimension)
        coarse = self.recipe.coarse or (CoarseSection() if self.section.keeps_kinds_apart else None)
        wanted = self.section.objective in FINDS_SUBCLASSES and coarse is not None and coarse.subclasses is None
        if wanted and coarse is not None and frozen is not None:
            coarse, said = trained_subclasses.with_number(coarse, frozen.gathered.features, photos)
            self.log.warn(said)
        return Material(self.section, encoder, photos, start, self.recipe.seed, workers, self.log.step, head, coarse)

    def _best_part(self, material: Material, fit_seconds: float) -> tuple[TrainedPart | None, str]:
        """The network with the lowest validation loss of those that were trained, or why there is none."""
        parts, why = _parts(self.section, material)
        if not parts:
            return None, why
        self.log.look_at(material)
        reserve = MARGIN * (FITS * fit_seconds + self._reading_seconds(material)) + UNMEASURED
        if self.recipe.search is None:
            made, why = self._trained(material, self.folder, self.clock.left() - reserve)
        else:

            def left() -> float:
                return self.clock.left() - reserve

            made, why = NetworkSearch(self.recipe, self.folder, left, self._trained, self.log.searched).run(material)
        if not made:
            return None, why
        best = min(made, key=lambda one: one.loss)
        if not best.share:
            return None, "No training had a lower validation loss than the encoder as it is."
        return best, ""

    def _trained(
        self, material: Material, place: Path, seconds: float, trial: int | None = None
    ) -> tuple[list[TrainedPart], str]:
        """The networks of the parts to train, in so many seconds together, or why there are none."""
        parts, why = _parts(material.section, material)
        made: list[TrainedPart] = []
        whole_end, head = time.perf_counter() + seconds, None
        if parts and material.section.unfreeze:
            alone = material.with_section(material.section.model_copy(update={"epochs": material.section.unfreeze}))
            found = self._train(alone, HEAD, place / HEAD, LAST_SHARE * seconds, trial)
            head = None if found is None else found.head
        for number, part in enumerate(parts):
            left = whole_end - time.perf_counter()
            left = left if number == len(parts) - 1 else LAST_SHARE * left
            found = self._train(material, part, place / part if len(parts) > 1 else place, left, trial, head)
            made += [] if found is None else [found]
        if parts and not made:
            short = f"{self.section.minutes or 0:g} minutes are too short for one epoch of training."
            why = short if material.section.epochs else "train.epochs is 0, so nothing was trained."
            why += "" if material.pretrained else " Give more: a network that starts from scratch has to be trained."
        return made, why

    def _train(
        self, material: Material, part: str, folder: Path, seconds: float, trial: int | None,
        head: Mapping[str, torch.Tensor] | None = None,
    ) -> TrainedPart | None:  # fmt: skip
        """A part of the network, trained in so many seconds, noted in the log."""
        end = time.perf_counter() + seconds
        self.log.begin(part, trial)
        task = train_together.Task(self.origin, material, part, folder, head)
        found = train_together.train(task, lambda: end - time.perf_counter())
        self.log.end(found)
        return found

    def _reading_seconds(self, material: Material) -> float:
        """How long it takes to read all photos with the trained encoder, measured on a few."""
        if self.clock.left() == math.inf:
            return 0.0
        loader, began = material.validation, time.perf_counter()
        rows = np.arange(min(MEASURED_PHOTOS, len(loader.dataset.items)))
        for batch in loader.read([rows]):
            material.encoder.encode(batch["x"])
        return (time.perf_counter() - began) * len(material.photos.dataset.items) / max(len(rows), 1)

    def _refitted(self, start: EncoderSection, material: Material, trained: TrainedPart) -> Fitted:
        """The usual fit on features of the trained encoder, with the taps of the encoder that it started from."""
        place = self.folder / ENCODER_FOLDER
        decoder = trained.head if self.section.objective == RECONSTRUCTION else None
        tensors = decoder, embedder_in(trained.head)
        write_encoder(place, factory.trainable_of(start, self.seed), trained.network, trained.blocks, *tensors)
        own = {"name": f"{KIND}:{place.absolute()}", "weights": None, "filters": None, "dropout": None, "stem": None}
        encoder = self.recipe.encoder.model_copy(update=own)
        extract = self.recipe.extract.model_copy(update={"store": None})
        recipe, number = self.recipe.model_copy(update={"encoder": encoder, "extract": extract}), None
        if trained.subclasses is not None:
            number = trained_subclasses.subclass_numbers(material.photos, trained.subclasses)
            trained_subclasses.write_subclasses(self.folder, material.photos, number)
        made = self._fitted(recipe, material.photos, number)
        facts = made.model.facts | {
            "encoder": KIND,
            TRAINED_FROM_FACT: self.recipe.encoder.name,
            TRAINED_PART_FACT: trained.part,
            "trained_share": trained.share,
            "trained_epochs": trained.log.epochs[-1].number,
        }
        return replace(made, model=replace(made.model, facts=facts))

    def _kept(self, frozen: Fitted, record: NetworkTraining, trained: Fitted | None = None) -> TrainReport:
        """The report of the frozen encoder's model, which is saved; the trained network stays in the run's folder."""
        kept = fit.as_run(self.recipe, frozen.gathered)
        report = fit.save(kept, self.output, frozen.gathered, (frozen.model, frozen.evaluation), self.clock.began)
        return self._report(report, record, frozen, trained)

    def _replaced(self, frozen: Fitted | None, fitted: Fitted, record: NetworkTraining) -> TrainReport:
        """The report of the trained encoder's model, which is saved with the encoder."""
        run = fit.as_run(self.recipe, fitted.gathered if frozen is None else frozen.gathered)
        encoder = with_absolute_paths(self.recipe.encoder) if frozen is None else run.encoder
        extract = self.recipe.extract.model_copy(update={"store": None})
        kept = run.model_copy(update={"encoder": encoder, "extract": extract})
        made = fitted.model, fitted.evaluation
        beside = trained_subclasses.beside(fitted.gathered.features)
        report = fit.save(kept, self.output, fitted.gathered, made, self.clock.began, beside)
        shutil.rmtree(self.folder / ENCODER_FOLDER, ignore_errors=True)  # the model has it now
        return self._report(report, record, frozen, fitted)

    def _report(self, report: FitReport, record: NetworkTraining, *used: Fitted | None) -> TrainReport:
        self.log.finish(record)
        known = {problem.id for problem in report.problems if isinstance(problem, Unreadable)}
        late = () if self.material is None else self.material.problems  # photos that broke since they were encoded
        report = replace(report, problems=(*report.problems, *(one for one in late if one.id not in known)))
        if all(used) or not is_there(self.folder / ENCODER_FOLDER):  # else an earlier call's features are its own
            said = remove_features(self.output, [one.store for one in used if one is not None])
            report = replace(report, notes=(*report.notes, *said))
        return TrainReport(report, record, self.log.course)


def _parts(section: TrainSection, material: Material) -> tuple[Sequence[str], str]:
    """The parts of the network to try, or why there are none."""
    asked = section.trainable or ("auto" if material.pretrained else "all")
    held = len(material.used.validation)
    if not material.pretrained and asked in ("frozen", "head"):
        return (), f"train.trainable is {asked!r}, and a network that starts from scratch has to be trained. Use all."
    if asked == "frozen" or (asked == HEAD and section.head != network_head.JOINT):
        return (), "Nothing of the network was to be trained."
    if short := too_few_to_validate(material.photos):
        return (), short
    if asked == "auto" and material.pretrained and not material.section.keeps_kinds_apart:
        few = f"{held} validation photos are too few to tell whether training helps; it takes {MIN_COMPARED}."
        return ((), few) if held < MIN_COMPARED else (("last", "all"), "")
    return (("all",) if asked == "auto" else (asked,)), ""
