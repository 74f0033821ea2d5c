"""The course of a training, kept while it runs, and shown once an epoch; and the time that it has."""

import math
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from mixtura.errors import BadItem
from mixtura.fitting.network import TrainedPart
from mixtura.fitting.network_material import Material
from mixtura.pipeline import factory
from mixtura.pipeline.pictures import shrink
from mixtura.recipe import Recipe, dump_dict
from mixtura.records.training import NetworkTraining, TrainingProgress
from mixtura.records.training_course import PhotoViews, Redrawn, SearchTrial, TrainingCourse, TriedPart
from mixtura.tasks.tracking import Tracking
from mixtura.training.state import evaluating
from mixtura.training_sections import RECONSTRUCTION

Show = Callable[[TrainingCourse], None]
"""Called with the course after each epoch, and at the end."""

MAX_PHOTOS, N_VIEWS = 4, 5
MAX_REDRAWN = 8
SETTINGS = ("encoder", "train", "search", "split", "seed")
"""The sections of a recipe that say how a network is trained."""


class Clock:
    """The time that is left of so many minutes, or of any number of them, from now on."""

    def __init__(self, minutes: float | None) -> None:
        self.began = time.perf_counter()
        self._end = math.inf if minutes is None else self.began + 60 * minutes

    def left(self) -> float:
        """Seconds that are left."""
        return self._end - time.perf_counter()


class CourseLog:
    """The course so far; ``show``, and what the recipe tracks, are called when an epoch has been added.

    Raises:
        MissingExtra: a package to track with is not installed.
    """

    def __init__(self, recipe: Recipe, folder: Path, show: Show | None, progress: Callable[[Any], None] | None) -> None:
        given = dump_dict(recipe)
        kept = {name: given[name] for name in SETTINGS if name in given}
        self.course = TrainingCourse(kept, metric=recipe.search.metric if recipe.search else "")
        self._show, self._progress = show, progress
        self._last: TrainingProgress | None = None
        self._parts: dict[int | None, tuple[TriedPart, ...]] = {}
        self._waiting: list[str] = []
        self._material: Material | None = None
        self._track = Tracking(recipe, folder, self.warn)

    def warn(self, message: str) -> None:
        """Tell the user something, at once if anything has been told yet."""
        if self._progress is None:
            warnings.warn(message, stacklevel=2)
        elif self._last is None:
            self._waiting.append(message)
        else:
            self._progress(replace(self._last, message=message))

    def look_at(self, material: Material) -> None:
        """Keep views of a few photos, if anyone wants to see them."""
        if self._show is not None:
            self.course, self._material = replace(self.course, photos=views_of(material)), material

    def begin(self, part: str, trial: int | None = None) -> None:
        """Expect the steps of a part."""
        kept = self.course.parts if trial == self.course.trial else ()
        self.course = replace(self.course, parts=(*kept, TriedPart(part)), trial=trial)

    def step(self, progress: TrainingProgress) -> None:
        """Pass a record of progress on; show the course if it has another epoch."""
        self._last = progress
        if self._progress is not None:
            self._progress(progress)
            while self._waiting:
                self._progress(replace(progress, message=self._waiting.pop(0)))
        now = self.course.parts[-1]
        if len(progress.epochs) > len(now.epochs):
            self._put(replace(now, epochs=progress.epochs))
            self._shown()

    def end(self, found: TrainedPart | None) -> None:
        """Note what a part has come to."""
        now = self.course.parts[-1]
        if found is not None:
            log, start = found.log, found.start_loss
            own = None if start != start else start
            redrawn = () if self._material is None else redrawn_of(self._material, found)
            now = TriedPart(now.part, log.epochs, log.ended, found.share, found.loss, own, redrawn)
        self._put(now if found is not None else replace(now, ended="the time was too short for one epoch"))
        if found is not None:  # else there is nothing to see yet
            self._shown()

    def searched(self, trials: tuple[SearchTrial, ...], best: int | None = None) -> None:
        """Note the trials of a search; at its end, go back to the course of the best, if it is known."""
        self.course = replace(self.course, trials=trials)
        if best in self._parts:
            self.course = replace(self.course, parts=self._parts[best], trial=best)

    def finish(self, result: NetworkTraining) -> None:
        """Note the result, and show it."""
        self.course = replace(self.course, result=result)
        self._shown()

    def _put(self, part: TriedPart) -> None:
        self.course = replace(self.course, parts=(*self.course.parts[:-1], part))
        self._parts[self.course.trial] = self.course.parts

    def _shown(self) -> None:
        self._track(self.course)
        if self._show is not None:
            self._show(self.course)


def views_of(material: Material) -> tuple[PhotoViews, ...]:
    """A photo each of the first classes, with the views of its first epochs; photos that cannot be read are left out.

    They are those that the network sees, but for the size.
    """
    loader, labels = material.training, material.used.labels[material.used.training]
    found: dict[int, PhotoViews] = {}
    for row, label in enumerate(labels.tolist()):
        if label in found:
            continue
        try:
            photo, *views = (shrink(loader.view(row, epoch)) for epoch in (None, *range(N_VIEWS)))
        except (BadItem, OSError):
            continue
        found[label] = PhotoViews(material.photos.classes[label], photo, tuple(views if loader.augmentation else ()))
        if len(found) == MAX_PHOTOS:
            break
    return tuple(found[label] for label in sorted(found))


@torch.no_grad()
def redrawn_of(material: Material, found: TrainedPart) -> tuple[Redrawn, ...]:
    """A validation photo each of the first classes beside its reconstruction; none where no decoder was trained.

    Photos that cannot be read are left out.
    """
    if material.section.objective != RECONSTRUCTION:
        return ()
    labels, made = material.photos.labels[material.photos.validation], list[Redrawn]()
    rows = np.unique(labels, return_index=True)[1][:MAX_REDRAWN]
    decoder = factory.decoder_of(material.encoder)
    decoder.load_state_dict(found.head)
    device = next(found.network.parameters()).device
    with evaluating(found.network):
        for batch in material.validation.read([rows]):
            drawn = decoder.pictures(found.network(batch["x"].to(device)).cpu()) if len(batch["row"]) else []
            photos = [Image.fromarray(x.permute(1, 2, 0).contiguous().numpy()) for x in batch["x"]]
            for label, photo, picture in zip(batch["label"].tolist(), photos, drawn, strict=True):
                made.append(Redrawn(material.photos.classes[label], shrink(photo), shrink(picture)))
    return tuple(made)
