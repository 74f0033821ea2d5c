"""What training of a network has come to: both models on validation photos, and figures of the test part."""

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from mixtura.fitting.fit import validation_losses
from mixtura.fitting.network import TrainedPart
from mixtura.fitting.network_material import Material
from mixtura.formats import count, percent
from mixtura.identity import is_partly_drawn
from mixtura.model.model import Model
from mixtura.pipeline import stores
from mixtura.pipeline.training_photos import TrainingPhotos
from mixtura.pipeline.training_set import Gathered
from mixtura.recipe import Recipe
from mixtura.records.decision import Evaluation
from mixtura.records.strangers import StrangerEstimate
from mixtura.records.training import Gain
from mixtura.tasks.evaluate import with_second
from mixtura.training_sections import RECONSTRUCTION

MAX_LOSS = 700.0  # nats; a probability of zero
MIN_GAIN = 1e-3  # nats; less is shown as the same loss
PIXELS = {"mse": "mean squared error", "bce": "cross-entropy (nats)", "l1": "mean absolute error"}
"""What each measure of a reconstruction is called."""


@dataclass(frozen=True)
class Fitted:
    """A model, with the recipe and the features that it was fitted to, and the seconds that it took."""

    recipe: Recipe
    gathered: Gathered
    model: Model
    seconds: float

    @property
    def store(self) -> Path:
        """Where the features lie."""
        return stores.store_path(self.recipe, self.gathered.features.identity)

    @cached_property
    def evaluation(self) -> Evaluation:
        """The metrics on the test part, and on a second domain."""
        assert self.recipe.output is not None
        return with_second(self.model, self.recipe, self.recipe.output, self.gathered.features)


def alone(material: Material, trained: TrainedPart) -> str:
    """Return in a sentence what came of a training that has no earlier model to be compared with."""
    if material.section.objective == RECONSTRUCTION:
        return (
            f"The autoencoder was trained to reconstruct photos: on {len(material.photos.validation)} validation "
            f"photos, the {PIXELS[material.section.pixels or 'mse']} of a pixel in [0, 1] is {trained.loss:.4f}."
        )
    if material.section.episode_design is not None:
        return by_episodes(material, trained)
    if trained.subclasses is not None:
        return by_subclasses(material, trained, trained.subclasses)
    if material.section.keeps_kinds_apart:
        return "The network was trained so that kinds inside the classes come apart, which classes cannot measure."
    if is_partly_drawn(material.encoder.identity):
        return "The network was trained from its weights, but for the first layers, which were drawn."
    return "The network was trained from scratch."


def by_episodes(material: Material, trained: TrainedPart) -> str:
    """Return in a sentence what validation episodes say of a network that was trained on others.

    The loss is the mean over queries, in nats, at the temperature that suits it best.
    """
    assert material.episodes is not None
    drawn = material.episodes.validation
    design, way = drawn.design, count(len(drawn.classes), "class", "classes")
    before = "is" if math.isnan(trained.start_loss) else f"went from {trained.start_loss:.3f} to"
    return (
        f"The network was trained on episodes. On {len(drawn)} others, of {way} that it was not trained on, the loss "
        f"at its best temperature {before} {trained.loss:.3f} nats, and {percent(trained.accuracy)} of the queries are "
        f"right ({design.way}-way, {design.shot}-shot)."
    )


def by_subclasses(material: Material, trained: TrainedPart, assigned: Int[np.ndarray, " N"]) -> str:
    """Return in a sentence how many subclasses were found."""
    used, asked = len(np.unique(assigned[assigned >= 0])), len(trained.head["subclass_mean"])
    return (
        f"The network was trained to tell subclasses apart: of {asked}, {used} are in use in "
        f"{count(len(material.photos.classes), 'class', 'classes')}."
    )


def compared(frozen: Fitted, trained: Fitted, photos: TrainingPhotos) -> tuple[str, bool]:
    """Return what validation photos say of both models in a sentence, and whether the trained one is better."""
    losses = [validation_losses(one.recipe, one.gathered, photos.split) for one in (frozen, trained)]
    both = [id for id in losses[0] if id in losses[1]]
    before, after = (np.array([one[id] for id in both]).clip(max=MAX_LOSS) for one in losses)
    return judged(before, after)


def judged(before: Float[np.ndarray, " N"], after: Float[np.ndarray, " N"]) -> tuple[str, bool]:
    """Return in a sentence whether the losses of photos are lower after training, in nats, and whether they are.

    The mean has to be lower by more than the standard error of the differences, photo by photo, and by more than
    :data:`MIN_GAIN`: a network that has hardly moved differs by next to nothing, and by the same in every photo.
    """
    if len(before) < 2:
        return "Too few validation photos can tell whether training helps. The frozen encoder is kept.", False
    gain, error = float((before - after).mean()), float((before - after).std(ddof=1)) / len(before) ** 0.5
    said = f"On {len(before)} validation photos, the loss went from {before.mean():.3f} to {after.mean():.3f} nats"
    if gain > max(error, MIN_GAIN):
        return f"{said}, more than a standard error ({error:.3f}): the trained network is used.", True
    no_gain = f"no gain of more than a standard error ({error:.3f})" if gain <= error else "too little to count"
    return f"{said}, which is {no_gain}. The frozen encoder is kept.", False


def gains_of(frozen: Fitted | None, trained: Fitted) -> tuple[Gain, ...]:
    """Return figures before and after: of the test part, and of classes left out in turn."""
    before, after = (None if frozen is None else _figures(frozen)), _figures(trained)
    return tuple(Gain(name, None if before is None else before.get(name), value) for name, value in after.items())


def _figures(fitted: Fitted) -> dict[str, float]:
    metrics = fitted.evaluation.metrics
    names = {"accuracy": "top1", "nll": "nll", "auroc_unknown": "auroc_unknown"}
    found = {name: metrics[key] for name, key in names.items() if key in metrics}
    estimate = StrangerEstimate.of_facts(fitted.model.facts)
    return found | ({} if estimate is None or estimate.auroc is None else {"auroc_left_out": estimate.auroc})
