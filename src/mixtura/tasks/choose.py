"""Which projection and which mixture: what the recipe leaves open is settled by held-out rows."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mixtura.core import choose as choosing
from mixtura.core.choose import Trial
from mixtura.core.classes import Plan
from mixtura.core.cross import Folds, OutOfFold, assign_folds
from mixtura.errors import LabelError
from mixtura.features.nonlinear import Power, RandomFeatures
from mixtura.features.projection import Chain
from mixtura.recipe import Recipe
from mixtura.scores.typicality import LEAST
from mixtura.tasks import build
from mixtura.tasks.fitted import Fitted
from mixtura.tasks.spaces import Steps, space_of

FOLDS = 5
FINE = {500: 20, 2000: 10}  # folds to calibrate with, up to so many rows: a model of most rows is as good as the final
ENOUGH_TO_JUDGE = 100  # given validation rows; with fewer, training rows judge too
MANY = 20_000  # rows from which random features are tried
MOST_BYTES = 1 << 31  # for the random features of all rows


@dataclass(frozen=True)
class Rows:
    """Features of the classes of a catalog: ``given`` marks the rows of a validation split that came with the data."""

    x: Float[Tensor, "N D"]
    labels: Int[Tensor, " N"]
    groups: Int[Tensor, " N"]
    given: Tensor
    weight: Float[Tensor, " N"] | None
    n_classes: int


@dataclass(frozen=True)
class Choice:
    """The projections, fitted, the folds in their space, and the plan with its held-out rows."""

    steps: Steps
    projection: Chain
    folds: Folds
    trial: Trial


def choose(recipe: Recipe, rows: Rows) -> Choice:
    """Try what the recipe leaves open; nothing here sees a test row.

    Raises:
        LabelError: too few rows can be held out.
    """
    head = recipe.head
    steps = 0 if recipe.fit.solver == "closed" else 30
    plan = Plan(head.family, floor=head.variance_floor, rank=head.rank, steps=steps, seed=recipe.seed)
    start = folds_of(rows, recipe.seed)
    options = candidates(recipe, rows)
    spaces = [space_of(steps, rows.x, start) for steps in options]
    best = 0
    if len(spaces) > 1:
        quick = replace(plan, family="tied", prior=replace(plan.prior, identity=0.1))
        trials = [choosing.attempt(folds, quick) for _, folds in spaces]
        winner = choosing.most_accurate(trials)
        best = next(i for i, trial in enumerate(trials) if trial is winner)
    projection, folds = spaces[best]
    shrinkage = None if head.shrinkage == "auto" else head.shrinkage
    trial = choosing.choose(folds, plan, head.family, shrinkage, head.n_components)
    choice = Choice(options[best], projection, folds, trial)
    return _with_random_features(choice, recipe, rows) if head.family == "auto" and not recipe.projection else choice


def closed(choice: Choice, rows: Rows, seed: int) -> Fitted:
    """The chosen mixture over all rows, in closed form or by EM, with rows scored without them."""
    plan = choice.trial.plan
    facts: dict[str, object] = {
        "family": plan.family,
        "n_components": plan.components if isinstance(plan.components, int) else list(plan.components),
        "prior_strength": plan.prior.strength,
        "shrinkage": plan.prior.identity,
        "feature_scale": plan.feature_scale,
        "from_sums": True,
        "training_items": len(choice.folds.labels),
    }
    mixture = choice.folds.mixture(plan).to(torch.float32)
    return Fitted(choice.projection, mixture, None, calibration(choice, rows, seed), facts)


def calibration(choice: Choice, rows: Rows, seed: int) -> OutOfFold:
    """The rows that thresholds come from, judged as new rows will be: by a mixture that has not seen them.

    Where rows are few, a mixture without a fifth of them would judge more harshly than the final one does.
    """
    folds = choice.folds
    finer = next((count for most, count in FINE.items() if len(rows.x) <= most), FOLDS)
    if finer > FOLDS and int(rows.given.sum()) < ENOUGH_TO_JUDGE:
        _, folds = space_of(choice.steps, rows.x, folds_of(rows, seed, finer))
    return folds.cross_val_predict(choice.trial.plan, background=True)


def folds_of(rows: Rows, seed: int, n_folds: int = FOLDS) -> Folds:
    """The rows as they are, with the folds that are held out in turn.

    A validation split that came with the data says what later items look like: where it has enough rows, only they
    are held out (and in turn, so that the model may learn from them as well).

    Raises:
        LabelError: too few rows can be held out.
    """
    if int(rows.given.sum()) < ENOUGH_TO_JUDGE:
        fold = assign_folds(rows.labels, rows.groups, n_folds, seed)
    else:
        fold = torch.full_like(rows.labels, n_folds)
        fold[rows.given] = assign_folds(rows.labels[rows.given], rows.groups[rows.given], n_folds, seed)
    _check(fold, rows, n_folds)
    return Folds(rows.x, rows.labels, rows.n_classes, fold, n_folds, rows.weight)


def _check(fold: Int[Tensor, " N"], rows: Rows, n_folds: int) -> None:
    """See that there are rows to judge by: those whose class has rows in another fold as well."""
    filled = torch.zeros(rows.n_classes, n_folds + 1, dtype=torch.bool)
    filled[rows.labels, fold] = True
    count = int(((filled.sum(1) > 1)[rows.labels] & (fold < n_folds)).sum())
    if count < LEAST:
        raise LabelError(
            f"Only {count} of {len(fold)} items to learn from can be held out to tell known from unknown. "
            "Give at least one class two photos that are not copies of each other."
        )


def candidates(recipe: Recipe, rows: Rows) -> list[Steps]:
    """The projections to try: those of the recipe, or the features as they are and their signed square root."""
    if recipe.projection:
        return [build.steps_of(recipe.projection)]
    rectified = bool((rows.x >= 0).all())
    return [[], [(Power, {})]] if rectified else [[]]


def _with_random_features(choice: Choice, recipe: Recipe, rows: Rows) -> Choice:
    """Random features on top, where there are enough rows and they gain more than a standard error."""
    width = 5000
    if len(rows.x) < MANY or 4 * len(rows.x) * width > MOST_BYTES:
        return choice
    choice.folds.clear_cache()
    further = [*choice.steps, (RandomFeatures, {"dimension": width, "seed": recipe.seed})]
    projection, folds = space_of(further, rows.x, choice.folds)
    plan = replace(choice.trial.plan, family="tied", components=1)
    shrinkage = None if recipe.head.shrinkage == "auto" else recipe.head.shrinkage
    trial = choosing.with_shrinkage(folds, plan, shrinkage)
    return Choice(further, projection, folds, trial) if trial.beats(choice.trial) else choice
