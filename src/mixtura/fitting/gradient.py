"""Heads that are trained by gradients, or are others than a mixture of Gaussians."""

from dataclasses import replace

import torch
from torch import Tensor

from mixtura.core.cross_fitting import Folds, OutOfFold, validation_rows
from mixtura.core.mixture import Mixture
from mixtura.features.projected_folds import without_fold
from mixtura.features.selection import Selected
from mixtura.fitting import heads
from mixtura.fitting.fitted import Fitted
from mixtura.fitting.heads import HeadSpec, InitialHead
from mixtura.fitting.selection import MIN_VALIDATION, TrainingSamples
from mixtura.heads.base import Head, in_tiles
from mixtura.heads.gaussian import GaussianHead
from mixtura.heads.sdgm import SDGMHead
from mixtura.recipe import Recipe
from mixtura.sections import GRADIENT
from mixtura.training.head_stack import train
from mixtura.training.records import Trained

MIN_SAMPLES_FOR_FRACTION = 2000  # below, a fifth of the rows or more is for validation


def resolve_variant(recipe: Recipe) -> Recipe:
    """The recipe with the variant of a head, such as ``dgmmc-s``, spelled out where a Gaussian one is meant."""
    kind, options = heads.resolve(recipe.head.name)
    if kind != "gaussian":
        return recipe
    return recipe.model_copy(update={"head": recipe.head.model_copy(update={"name": kind} | options)})


def needs_gradients(recipe: Recipe) -> bool:
    """Whether a recipe asks for gradients, or for another head than a mixture of Gaussians on the rows as they are."""
    return _beside(recipe) or recipe.fit.solver == GRADIENT or bool(recipe.head.options)


def _beside(recipe: Recipe) -> bool:
    """Whether the head needs a density beside it: it has none of the rows as they are."""
    return recipe.head.name != "gaussian" or recipe.head.options.get("width") is not None


def density(recipe: Recipe) -> Recipe:
    """The recipe of the density: of the head itself, or of a tied mixture beside a head that has none."""
    if not _beside(recipe):
        return recipe
    head = recipe.head.model_copy(update={"name": "gaussian", "family": "tied", "n_components": 1, "options": {}})
    return recipe.model_copy(update={"head": head})


def fit(recipe: Recipe, rows: TrainingSamples, choice: Selected, start: Fitted) -> Fitted:
    """Train a head from where closed form or EM has ended, in the projection that was chosen for these.

    Rows for validation pick the epoch; then the head is trained on all rows up to that epoch. Temperature and
    thresholds come from the validation rows as the head saw them that did not learn from them. Where no epoch is better
    than the start, a mixture of Gaussians stays what it was.

    Args:
        recipe: head and solver.
        rows: to learn from.
        choice: projection and plan.
        start: what closed form or EM has made of them.

    Raises:
        UsageError: a head or option that does not fit.
        DataError: rows that do not do for it.
    """
    solver = "em" if recipe.fit.solver == "auto" else recipe.fit.solver
    spec = heads.spec_of(recipe.head.name, solver, recipe.head.n_components, recipe.head, recipe.seed)
    val = validation_mask(rows, recipe)
    raw = heads.folds_of(rows.x, rows.labels, val, rows.n_classes, rows.weight)
    folds = without_fold(choice.steps, rows.x, raw, 0)
    heads.check_components(recipe.head.n_components, folds)
    with torch.random.fork_rng():  # a head is random before it has its start
        torch.manual_seed(spec.seed)
        own = not _beside(recipe)
        first = heads.initialize(spec, folds, choice.trial.plan if own else None)
        trained = heads.train_from([first.head], [spec], [folds], recipe.fit)[0]
        facts = start.facts | _facts(recipe, trained, len(rows.x))
        if own and trained.best == 0:
            return replace(start, facts=facts)
        facts["from_sums"] = not own
        whole = _refitted(recipe, spec, first, trained, start.projection(rows.x), rows, folds)
    return _fitted(choice, start, trained.head, whole, folds, facts, own)


def _refitted(
    recipe: Recipe, spec: HeadSpec, first: InitialHead, trained: Trained, x: Tensor, rows: TrainingSamples, folds: Folds
) -> Head:
    """The head from all rows, trained up to the epoch that the rows for validation have picked."""
    everything = replace(folds, x=x, fold=torch.ones_like(folds.fold))
    head = heads.reinitialize(spec, everything, first)
    section = recipe.fit
    objective = heads.objective_of(spec, section, rows.labels, rows.n_classes, rows.weight)
    schedule = replace(heads.schedule_of(section, spec.solver), stop=trained.best)
    learn, judge = heads.split(everything, spec.seed), heads.split(replace(folds, x=x), spec.seed)
    # those that judge are among those that learn here: ``stop`` has settled the epoch
    own = replace(judge, x=learn.x, labels=learn.labels, weight=learn.weight)
    whole = train([head], [own], objective, schedule)[0].head
    return whole.compressed(x) if isinstance(whole, SDGMHead) else whole


@torch.no_grad()
def _fitted(
    choice: Selected, start: Fitted, first: Head, whole: Head, folds: Folds, facts: dict[str, object], own: bool
) -> Fitted:
    """Both heads as one result: ``first`` scores the rows for validation, ``whole`` is kept."""
    val = folds.fold == 0
    x, labels = folds.x[val], folds.labels[val]
    if own:
        assert isinstance(first, GaussianHead)
        assert isinstance(whole, GaussianHead)
        seen, mixture = first.mixture(), replace(whole.mixture(), feature_scale=start.mixture.feature_scale)
    else:
        seen, mixture = _tied(choice, folds), start.mixture
    held = OutOfFold(
        val.nonzero()[:, 0],
        labels,
        in_tiles(first.class_scores, x),
        seen.log_prob(x),
        seen.background().log_prob(x),
        folds.counts[val],
    )
    return Fitted(start.projection, mixture, None if own else whole, held, facts)


def _tied(choice: Selected, folds: Folds) -> Mixture:
    """The density beside a head, without the rows for validation."""
    return folds.mixture(choice.trial.plan, without=0).to(torch.float32)


def _facts(recipe: Recipe, trained: Trained, count: int) -> dict[str, object]:
    """What training adds to the facts of its start."""
    first, best = trained.epochs[0], trained.epochs[trained.best]
    gradient = recipe.fit.solver == GRADIENT
    return {
        "head": recipe.head.name,
        "solver": recipe.fit.solver,
        "objective": recipe.fit.objective if gradient else "",
        "epoch": best.number,
        "epochs": trained.epochs[-1].number,
        "held_out_nll_at_the_start": first.val_nll,
        "held_out_nll": best.val_nll,
        "stopped": trained.stopped or "",
        "sparsity": trained.head.sparsity,
        "training_items": count,
    }


def validation_mask(rows: TrainingSamples, recipe: Recipe) -> Tensor:
    """Which rows are for validation: a part that came with the data, else a share drawn by the seed.

    Rows of weight zero never are.
    """
    counts = torch.ones_like(rows.given) if rows.weight is None else rows.weight > 0
    val = rows.given & counts
    if int(val.sum()) < MIN_VALIDATION:
        fraction = (
            recipe.fit.val_fraction if len(rows.x) >= MIN_SAMPLES_FOR_FRACTION else max(0.2, recipe.fit.val_fraction)
        )
        val = torch.zeros_like(counts)
        val[counts] = validation_rows(rows.labels[counts], rows.groups[counts], fraction, recipe.seed)
    learned = torch.bincount(rows.labels[counts & ~val], minlength=rows.n_classes)
    return val & (learned[rows.labels] > 0)  # a class whose rows are all for validation learns from them instead
