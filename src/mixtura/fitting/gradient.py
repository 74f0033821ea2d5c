"""Fits heads that are trained by gradient descent or are not Gaussian mixtures."""

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
from mixtura.fitting.selection import TrainingSamples
from mixtura.heads.base import Head, in_tiles
from mixtura.heads.gaussian import GaussianHead
from mixtura.heads.sdgm import SDGMHead
from mixtura.pipeline import training_set
from mixtura.recipe import Recipe
from mixtura.sections import GRADIENT
from mixtura.training.head_stack import train
from mixtura.training.records import Trained
from mixtura.training.state import own_random_numbers


def resolve_variant(recipe: Recipe) -> Recipe:
    """Recipe with a Gaussian head variant, such as ``dgmmc-s``, replaced by its full options."""
    kind, options = heads.resolve(recipe.head.name)
    if kind != "gaussian":
        return recipe
    return recipe.model_copy(update={"head": recipe.head.model_copy(update={"name": kind} | options)})


def fixed_head(recipe: Recipe) -> str | None:
    """Name of the head of a recipe if the model will have a fixed set of classes; ``None`` for a Gaussian mixture."""
    return recipe.head.name if _needs_separate_density(resolve_variant(recipe)) else None


def needs_head_training(recipe: Recipe) -> bool:
    """Whether a recipe trains a head, or needs one other than a Gaussian mixture of the whole feature vector."""
    return _needs_separate_density(recipe) or recipe.fit.solver == GRADIENT or bool(recipe.head.options)


def _needs_separate_density(recipe: Recipe) -> bool:
    """Whether the head needs a separate density, because it has none over the whole feature vector."""
    return recipe.head.name != "gaussian" or recipe.head.options.get("width") is not None


def density_recipe(recipe: Recipe) -> Recipe:
    """Recipe of the density: the head itself, or a separate tied mixture if the head has none."""
    if not _needs_separate_density(recipe):
        return recipe
    head = recipe.head.model_copy(update={"name": "gaussian", "family": "tied", "n_components": 1, "options": {}})
    return recipe.model_copy(update={"head": head})


def fit(recipe: Recipe, rows: TrainingSamples, choice: Selected, start: Fitted) -> Fitted:
    """Train a head from its closed-form or EM solution, with the same projection.

    Validation samples select the epoch; then the head is trained on all samples up to that epoch. Temperature and
    thresholds come from the validation scores of the first head, which did not learn from these samples. If no epoch
    improves on the initialization, a Gaussian mixture is returned unchanged. Densities of validation samples are raised
    as those of the initialization are by the validation samples themselves.

    Args:
        recipe: head and solver.
        rows: training samples.
        choice: projection and plan.
        start: the closed-form or EM solution.

    Raises:
        UsageError: an invalid head or option.
        DataError: samples that the head cannot be fitted to.
    """
    solver = "em" if recipe.fit.solver == "auto" else recipe.fit.solver
    spec = heads.spec_of(recipe.head.name, solver, recipe.head.n_components, recipe.head, recipe.seed)
    val = validation_mask(rows, recipe)
    raw = heads.holdout_split(rows.x, rows.labels, val, rows.n_classes, rows.weight)
    folds = without_fold(choice.steps, rows.x, raw, 0)
    heads.check_components(recipe.head.n_components, folds)
    with own_random_numbers(rows.x.device, spec.seed):  # a new head is random before initialization
        head_is_density = not _needs_separate_density(recipe)
        first = heads.initialize(spec, folds, choice.candidate.plan if head_is_density else None)
        trained = heads.train_from([first.head], [spec], [folds], recipe.fit)[0]
        facts = start.facts | _facts(recipe, trained, len(rows.x))
        if head_is_density and trained.best == 0:
            return replace(start, facts=facts)
        facts["from_sums"] = not head_is_density
        counts = torch.bincount(rows.labels, rows.weight, minlength=rows.n_classes).double()
        facts |= heads.priors_of(spec, recipe.fit, trained.best > 0, counts)
        whole = _refitted(recipe, spec, first, trained, start.projection(rows.x), rows, folds)
    return _fitted(choice, start, trained.head, whole, folds, facts, head_is_density)


def _refitted(
    recipe: Recipe, spec: HeadSpec, first: InitialHead, trained: Trained, x: Tensor, rows: TrainingSamples, folds: Folds
) -> Head:
    """The head trained on all samples, up to the epoch selected on the validation samples."""
    everything = replace(folds, x=x, fold=torch.ones_like(folds.fold))
    head = heads.reinitialize(spec, everything, first)
    section = recipe.fit
    objective = heads.objective_of(spec, section, rows.labels, rows.n_classes, rows.weight)
    settings = replace(heads.hyperparameters_of(section, spec.solver), stop=trained.best)
    learn, judge = heads.split(everything, spec.seed), heads.split(replace(folds, x=x), spec.seed)
    # training includes the validation samples here, because ``stop`` fixes the epoch
    data = replace(judge, x=learn.x, labels=learn.labels, weight=learn.weight)
    whole = train([head], [data], objective, settings)[0].head
    return whole.compressed(x) if isinstance(whole, SDGMHead) else whole


@torch.no_grad()
def _fitted(
    choice: Selected,
    start: Fitted,
    first: Head,
    whole: Head,
    folds: Folds,
    facts: dict[str, object],
    head_is_density: bool,
) -> Fitted:
    """Combine both heads: ``first`` scores the validation samples, ``whole`` is returned."""
    val = folds.fold == 0
    x, labels = folds.x[val], folds.labels[val]
    if head_is_density:
        assert isinstance(first, GaussianHead)
        assert isinstance(whole, GaussianHead)
        seen, mixture = first.mixture(), replace(whole.mixture(), feature_scale=start.mixture.feature_scale)
    else:
        seen, mixture = _closed(choice, folds), start.mixture
    rise = _rise(start.out_of_fold, val.nonzero()[:, 0], _closed(choice, folds), x)
    held = OutOfFold(
        val.nonzero()[:, 0],
        labels,
        in_tiles(first.class_scores, x),
        seen.log_prob(x) + rise[:, 0],
        seen.background().log_prob(x) + rise[:, 1],
        folds.counts[val],
    )
    facts["calibrated_by"] = "validation items"
    return Fitted(start.projection, mixture, None if head_is_density else whole, held, facts)


def _closed(choice: Selected, folds: Folds) -> Mixture:
    """The selected mixture, which starts a head or is its separate density, fitted without the validation samples."""
    return folds.mixture(choice.candidate.plan, without=0).to(torch.float32)


def _rise(start: OutOfFold, row: Tensor, closed: Mixture, x: Tensor) -> Tensor:
    """By how much log-density and background of the validation samples rise from a mixture without all of them.

    Out-of-fold scores of the start stand for a mixture of all other samples; a trained head has moved little from its
    start. Samples without such a score get the mean of the others.
    """
    known = torch.isin(row, start.row)
    if not bool(known.any()):
        return x.new_zeros(len(row), 2)
    order = start.row.argsort()
    place = order[torch.searchsorted(start.row[order], row[known])]
    full = torch.stack([start.log_prob[place], start.background[place]], 1)
    some = x[known]
    rise = full - torch.stack([closed.log_prob(some), closed.background().log_prob(some)], 1).to(full)
    return rise.mean(0).repeat(len(row), 1).masked_scatter(known[:, None], rise)


def _facts(recipe: Recipe, trained: Trained, count: int) -> dict[str, object]:
    """Facts about the training, added to those of the initialization."""
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
    """Mask of the validation samples: the split that came with the data, else a random share.

    Samples with weight zero are never included.
    """
    has_weight = torch.ones_like(rows.is_validation) if rows.weight is None else rows.weight > 0
    val = rows.is_validation & has_weight
    if int(val.sum()) < rows.min_validation:
        fraction = training_set.validation_share(recipe, len(rows.x))
        val = torch.zeros_like(has_weight)
        val[has_weight] = validation_rows(rows.labels[has_weight], rows.groups[has_weight], fraction, recipe.seed)
    learned = torch.bincount(rows.labels[has_weight & ~val], minlength=rows.n_classes)
    return val & (learned[rows.labels] > 0)  # a class with only validation samples is trained on them instead
