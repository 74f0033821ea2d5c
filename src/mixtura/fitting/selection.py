"""Selects the projection and the mixture: out-of-fold samples decide what the recipe leaves open."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mixtura.core.classes import Plan, scale_share_of
from mixtura.core.cross_fitting import DEFAULT_FOLDS, Folds, OutOfFold, content_folds, content_units
from mixtura.core.leave_one_out import calibration_scores, has_exact_form
from mixtura.core.selection import HELD_OUT
from mixtura.errors import LabelError
from mixtura.features.blocks import Blocks
from mixtura.features.learning_curve import extrapolated
from mixtura.features.projected_folds import Steps, cross_fit_projection
from mixtura.features.selection import Selected, candidates, select
from mixtura.fitting import subclasses
from mixtura.fitting.fitted import Fitted
from mixtura.identity import Block
from mixtura.pipeline import factory
from mixtura.recipe import Recipe
from mixtura.scores.typicality import MIN_HELD_OUT

CALIBRATION_FOLDS = {
    500: 20,
    5000: 10,
}  # sample count -> calibration folds where none can be left out one by one; few samples need many
MIN_VALIDATION = 100  # validation samples that came with the data; with fewer, training samples are held out too


@dataclass(frozen=True)
class TrainingSamples:
    """Labeled features of the known classes; ``is_validation`` marks a validation split that came with the data, and
    ``blocks`` are the layers that the columns come from, if there are several. ``encoder_trained`` says that the
    encoder was trained on all samples but those of the validation split, so only these are like later ones.
    ``class_parent`` and ``subclasses`` say that the labels are subclasses, of which class each is, and their names.
    """

    x: Float[Tensor, "N D"]
    labels: Int[Tensor, " N"]
    groups: Int[Tensor, " N"]
    is_validation: Tensor
    weight: Float[Tensor, " N"] | None
    n_classes: int
    blocks: tuple[Block, ...] = ()
    encoder_trained: bool = False
    class_parent: Int[Tensor, " C"] | None = None
    subclasses: tuple[str, ...] = ()

    @property
    def min_validation(self) -> int:
        """The least number of validation samples that are the only ones held out."""
        return 1 if self.encoder_trained else MIN_VALIDATION

    @property
    def only_validation(self) -> bool:
        """Whether only validation samples are held out."""
        return int(self.is_validation.sum()) >= self.min_validation


def choose(recipe: Recipe, rows: TrainingSamples) -> Selected:
    """Select what the recipe leaves open; never sees test samples.

    Raises:
        LabelError: too few samples can be held out.
    """
    head = recipe.head
    steps = 0 if recipe.fit.solver == "closed" else 30  # of EM; with 0, several components stay at k-means
    plan = Plan(
        head.family,
        floor=head.variance_floor,
        rank=head.rank,
        steps=steps,
        seed=recipe.seed,
        scale_share=scale_share_of(len(rows.x), rows.weight),
    )
    return select(
        folds_of(rows, recipe.seed),
        plan,
        options_of(recipe, rows),
        random_features=head.family == "auto" and not recipe.projection,
        blocks=() if _chooses_columns(recipe) else rows.blocks,
        family=head.family,
        shrinkage=HELD_OUT if head.shrinkage == "auto" else head.shrinkage,
        components=1 if rows.subclasses and head.n_components == "auto" else head.n_components,
        feature_scale=head.feature_scale,
    )


def fit_without_gradients(choice: Selected, rows: TrainingSamples, seed: int) -> Fitted:
    """The selected mixture fitted to all samples, in closed form or by EM, with out-of-fold scores.

    Where the labels are subclasses, each has components of its own, and the scores are those of the classes.
    """
    plan = choice.candidate.plan
    facts: dict[str, object] = {
        "family": plan.family,
        "n_components": plan.components if isinstance(plan.components, int) else list(plan.components),
        "prior_strength": plan.prior.strength,
        "shrinkage": plan.prior.identity,
        "feature_scale": plan.feature_scale,
        "from_sums": True,
        "training_items": len(choice.folds.labels),
        "calibrated_by": calibrated_by(choice),
    }
    mixture = choice.folds.mixture(plan).to(torch.float32)
    fitted = Fitted(choice.projection, mixture, None, calibration(choice, rows, seed), facts)
    if rows.class_parent is None:
        return fitted
    return subclasses.owned_by_classes(fitted, rows.subclasses, rows.class_parent, rows.x)


def calibration(choice: Selected, rows: TrainingSamples, seed: int) -> OutOfFold:
    """Out-of-fold scores that set the thresholds; each sample is scored, like a new one, by a mixture not fitted to it.

    That mixture is fitted to all other samples where this has an exact form, and to those of other folds elsewhere.
    In the first case, only the mean of the sample's class rests on fewer samples than later; distances account for it.
    Small data sets use more folds, and densities are extrapolated to a mixture of all samples.
    """
    folds, plan = choice.folds, choice.candidate.plan
    if has_exact_form(folds, plan):
        return calibration_scores(folds, plan)
    count = next((count for most, count in CALIBRATION_FOLDS.items() if len(rows.x) <= most), DEFAULT_FOLDS)
    count = DEFAULT_FOLDS if rows.only_validation else count
    plain = folds_of(rows, seed, count)
    space = folds if count == DEFAULT_FOLDS else cross_fit_projection(choice.steps, rows.x, plain)[1]
    return extrapolated(choice.steps, rows.x, plain, space, plan)


def calibrated_by(choice: Selected) -> str:
    """How :func:`calibration` scores samples: ``leave-one-out`` or ``cross-validation``."""
    return "leave-one-out" if has_exact_form(choice.folds, choice.candidate.plan) else "cross-validation"


def folds_of(rows: TrainingSamples, seed: int, n_folds: int = DEFAULT_FOLDS) -> Folds:
    """Samples without a projection, assigned to cross-validation folds.

    A validation split that came with the data represents later items. If it is large enough, or the encoder was trained
    on the other samples, only its samples are held out, fold by fold, so the model can learn from them too.

    Raises:
        LabelError: too few samples can be held out.
    """
    if not rows.only_validation:
        fold = content_folds(rows.x, rows.labels, n_folds, seed, rows.groups)
    else:
        fold = torch.full_like(rows.labels, n_folds)
        given = (rows.x[rows.is_validation], rows.labels[rows.is_validation])
        fold[rows.is_validation] = content_folds(*given, n_folds, seed, rows.groups[rows.is_validation])
    _check(fold, rows, n_folds)
    unit = content_units(rows.x, rows.groups)
    parent = rows.class_parent
    return Folds(rows.x, rows.labels, rows.n_classes, fold, n_folds, rows.weight, unit, class_parent=parent)


def _check(fold: Int[Tensor, " N"], rows: TrainingSamples, n_folds: int) -> None:
    """Check that enough samples can be held out: their class must also have samples in another fold."""
    filled = torch.zeros(rows.n_classes, n_folds + 1, dtype=torch.bool)
    filled[rows.labels, fold] = True
    count = int(((filled.sum(1) > 1)[rows.labels] & (fold < n_folds)).sum())
    if count < MIN_HELD_OUT:
        raise LabelError(
            f"Only {count} of {len(fold)} items to learn from can be held out to set the limit for unknown. "
            "Give at least one class two photos that are not copies of each other."
        )


def options_of(recipe: Recipe, rows: TrainingSamples) -> list[Steps]:
    """Projections to try: the one in the recipe, or the candidates of ``auto``."""
    if recipe.projection:
        return [factory.steps_of(recipe.projection)]
    return [[]] if rows.blocks else candidates(rows.x)


def _chooses_columns(recipe: Recipe) -> bool:
    """Whether the recipe itself says which columns to read."""
    return bool(recipe.projection) and recipe.projection[0].name == Blocks.name
