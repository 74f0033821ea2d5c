"""Inspect data for wrong labels, duplicate photos and outliers.

Items are scored out-of-fold by a mixture, in two rounds: items whose label is not the most probable class are disputed
and left out of the second round's training. Confident learning then evaluates the labels: an item belongs confidently
to the classes whose probability reaches the usual level of undisputed items with that label; if the most probable of
them is not the item's label, the label is suspected.

Source: Northcutt, Jiang, Chuang, Confident Learning: Estimating Uncertainty in Dataset Labels, JAIR 2021 (the
off-diagonal of the confident joint, ranked by normalized margin).
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mixtura.core import temperature
from mixtura.core.cross_fitting import OutOfFold
from mixtura.features.blocks import Blocks
from mixtura.features.nonlinear import Power
from mixtura.features.records import Features
from mixtura.features.store import HEADER_FILE
from mixtura.files import is_file_at
from mixtura.fitting.selection import TrainingSamples, calibration, choose
from mixtura.model import bundle
from mixtura.pipeline import training_set
from mixtura.recipe import Recipe
from mixtura.records.inspection import Inspection, Outlier, Suspect
from mixtura.records.strangers import StrangerEstimate
from mixtura.scores.typicality import Typicality
from mixtura.sections import StepSection
from mixtura.tasks import duplicates
from mixtura.tasks.collection import Collection, open_collection

OUTLIER_SPREADS = -6.0  # spreads from the median, below which an item is an outlier


@dataclass(frozen=True)
class OutOfFoldScores:
    """Rows with out-of-fold scores: ``posterior`` of every class, ``label`` as its index.

    ``trusted`` rows had an undisputed label in the first round; ``sharp`` are the probabilities used to evaluate
    labels, at the temperature fitted on the trusted rows alone.
    """

    row: Int[np.ndarray, " M"]
    label: Int[np.ndarray, " M"]
    trusted: Bool[np.ndarray, " M"]
    posterior: Float[np.ndarray, "M C"]
    sharp: Float[np.ndarray, "M C"]
    typicality: Float[np.ndarray, " M"]
    score: Float[np.ndarray, " M"]
    family: str


def run(path: Path) -> tuple[Inspection, Collection]:
    """Inspect the items of a model, of a current catalog, or of a labeled feature store.

    Raises:
        NoInput: there is nothing to inspect.
        LabelError: there are no labels, or too few items to hold any out.
    """
    place = open_collection(path)
    recipe = Recipe() if is_file_at(path / HEADER_FILE) else _as_fitted(path)
    features = training_set.labeled(place.features)
    strangers = training_set.labels_of(features.classes, recipe.data.unknown)  # left out of the catalog on purpose
    known = [row for row, label in enumerate(features.label) if label not in strangers]
    found = inspect(features.select(known), recipe, str(path))
    return replace(found, strangers=_strangers(path)), place


def _strangers(path: Path) -> str:
    """How many strangers the model in a folder would notice, in a sentence; empty if the folder has no model."""
    if is_file_at(path / HEADER_FILE):
        return ""
    estimate = StrangerEstimate.of_facts(bundle.config_of(path).facts)
    return "" if estimate is None else estimate.sentence


def _as_fitted(path: Path) -> Recipe:
    """The recipe of a model with the values that ``fit`` has selected, to avoid selecting them again."""
    recipe, model = bundle.recipe_of(path), bundle.from_pretrained(path)
    chosen = {"family": str(model.facts.get("family", recipe.head.family))}
    if isinstance(model.facts.get("shrinkage"), float):
        chosen["shrinkage"] = model.facts["shrinkage"]
    steps = model.projection.steps
    power = tuple(StepSection(name=step.name) for step in steps if isinstance(step, Power))
    blocks = tuple(
        StepSection.model_validate({"name": step.name, "parts": step.parts})
        for step in steps
        if isinstance(step, Blocks)
    )
    head = recipe.head.model_copy(update=chosen)
    return recipe.model_copy(update={"head": head, "projection": (*blocks, *(recipe.projection or power))})


def inspect(features: Features, recipe: Recipe, name: str = "") -> Inspection:
    """Inspect labeled items.

    Args:
        features: to inspect; every row has a label.
        recipe: for the out-of-fold models.
        name: of the collection, for the result.

    Raises:
        LabelError: fewer than two classes, or too few items to hold any out.
    """
    classes = training_set.known_classes(features.classes, ())
    judged = judge(features, classes, recipe)
    found = duplicates.run(features)
    return Inspection(
        place=name,
        items=len(features),
        classes=len(classes),
        judged=len(judged.row),
        accuracy=float((judged.posterior.argmax(1) == judged.label).mean()),
        family=judged.family,
        suspects=_suspects(features, classes, judged),
        clashes=tuple(group for group in found.groups if len(group.labels) > 1),
        copies=tuple(group for group in found.groups if len(group.labels) == 1),
        limit=found.limit,
        why=found.why,
        outliers=_outliers(features, judged),
    )


def judge(features: Features, classes: tuple[str, ...], recipe: Recipe) -> OutOfFoldScores:
    """Out-of-fold scores of every item; family and shrinkage are selected as in ``fit``.

    Items without a training item of their class in another fold get no score.
    """
    label = torch.from_numpy(features.label_index(classes))
    groups = torch.from_numpy(training_set.groups_of(features))
    given = torch.zeros(len(label), dtype=torch.bool)
    rows = TrainingSamples(torch.from_numpy(features.embedding), label, groups, given, None, len(classes))
    choice = choose(recipe, rows)
    weight = _weight(calibration(choice, rows, recipe.seed), label, len(classes))
    without = replace(choice, folds=choice.folds.with_weight(weight))
    held = calibration(without, replace(rows, weight=weight), recipe.seed)
    return _judged(held, weight[held.row] > 0, choice.candidate.plan.family)


def _weight(held: OutOfFold, label: Int[Tensor, " N"], count: int) -> Float[Tensor, " N"]:
    """Weight 0 for disputed rows, else 1; all 1 in classes that would lose half of their rows or more."""
    disputed = torch.zeros(len(label), dtype=torch.bool)
    disputed[held.row] = held.predicted != held.label
    lost = torch.bincount(label[disputed], minlength=count) / torch.bincount(label, minlength=count).clamp_min(1)
    return 1.0 - (disputed & (lost < 0.5)[label]).double()


def _judged(held: OutOfFold, trusted: Bool[Tensor, " M"], family: str) -> OutOfFoldScores:
    typicality = Typicality.fit(held.log_prob, held.background, held.predicted)
    score = typicality.score(held.log_prob, held.background)
    return OutOfFoldScores(
        row=held.row.numpy(),
        label=held.label.numpy(),
        trusted=trusted.numpy(),
        posterior=_posterior(held, torch.ones_like(trusted)),
        sharp=_posterior(held, trusted),
        typicality=typicality(score, held.predicted).numpy(),
        score=score.numpy(),
        family=family,
    )


def _posterior(held: OutOfFold, settle: Bool[Tensor, " M"]) -> Float[np.ndarray, "M C"]:
    """Probabilities at the temperature fitted on the rows in ``settle``."""
    posterior = (
        held.class_log_prob.double() / temperature.fit(held.class_log_prob[settle], held.label[settle])
    ).softmax(1)
    return torch.where(posterior.isnan(), 1 / posterior.shape[1], posterior).numpy()


def suspected(
    posterior: Float[np.ndarray, "M C"], label: Int[np.ndarray, " M"], trusted: Bool[np.ndarray, " M"]
) -> tuple[Int[np.ndarray, " S"], Int[np.ndarray, " S"]]:
    r"""The rows with a suspected label, and the suggested class of each.

    With :math:`t_j` the mean of :math:`p_j(x)` over the trusted rows of label j and one row of doubt (0), a row is
    assigned to the most probable class with :math:`p_j(x) \ge t_j`; if that is not its label, it is suspected.
    Without the doubt, when all probabilities are nearly 1, half of the rows would be below the mean by almost nothing.
    """
    count = posterior.shape[1]
    own = posterior[np.arange(len(label)), label]
    total = np.bincount(label, weights=own * trusted, minlength=count)
    rows = np.bincount(label, weights=trusted, minlength=count)
    usual = np.where(rows > 0, total / (rows + 1), np.inf)
    confident = np.where(posterior >= usual, posterior, -1.0)
    best = confident.argmax(1)
    found = np.flatnonzero((confident.max(1) >= 0) & (best != label))
    return found, best[found]


def _suspects(features: Features, classes: tuple[str, ...], judged: OutOfFoldScores) -> tuple[Suspect, ...]:
    """Suspected labels, largest difference of the probabilities first."""
    found = []
    for row, best in zip(
        *(part.tolist() for part in suspected(judged.sharp, judged.label, judged.trusted)), strict=True
    ):
        item, given = int(judged.row[row]), int(judged.label[row])
        pair = float(judged.posterior[row, given]), float(judged.posterior[row, best])
        found.append(Suspect(features.id[item], features.source[item], classes[given], classes[best], *pair))
    return tuple(sorted(found, key=lambda one: one.given_probability - one.suggested_probability))


def _outliers(features: Features, judged: OutOfFoldScores) -> tuple[Outlier, ...]:
    """Items with a score far below that of the others, farthest first."""
    far = np.flatnonzero(judged.score < OUTLIER_SPREADS)
    far = far[np.argsort(judged.score[far], kind="stable")]
    return tuple(
        Outlier(
            features.id[item], features.source[item], str(features.label[item]),
            float(judged.typicality[row]), float(judged.score[row]),
        )
        for row, item in zip(far.tolist(), judged.row[far].tolist(), strict=True)
    )  # fmt: skip
