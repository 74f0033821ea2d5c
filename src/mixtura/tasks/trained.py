"""A model whose head was trained by gradients, or is another than a mixture of Gaussians."""

from dataclasses import dataclass

import torch
from torch import Tensor

from mixtura.core import temperature
from mixtura.core.cross import Folds, assign_folds
from mixtura.core.mixture import Mixture
from mixtura.features.projection import Chain
from mixtura.heads import VARIANTS
from mixtura.heads.gaussian import GaussianHead
from mixtura.heads.protocol import Head
from mixtura.heads.sdgm import SDGMHead
from mixtura.recipe import Recipe
from mixtura.scores.typicality import Typicality
from mixtura.tasks import build, heads
from mixtura.tasks.choose import ENOUGH_TO_JUDGE, Rows
from mixtura.tasks.heads import HeadSpec
from mixtura.tasks.sweep_jobs import in_tiles
from mixtura.tasks.train import Trained

FEW = 2000  # rows; below, a fifth of them judges


@dataclass(frozen=True)
class Made:
    """The parts of a model: ``head`` is ``None`` where the mixture itself gives the class scores."""

    projection: Chain
    mixture: Mixture
    head: Head | None
    temperature: float
    typicality: Typicality
    trained: Trained
    held: int

    @property
    def components(self) -> int | list[int]:
        """Gaussians of each class in the mixture; one number where they are equal."""
        assert self.mixture.owner is not None
        counts = torch.bincount(self.mixture.owner).tolist()
        return counts[0] if len(set(counts)) == 1 else counts


def settled(recipe: Recipe) -> Recipe:
    """The recipe with the variant of a head, such as ``dgmmc-s``, spelled out where a Gaussian one is meant."""
    kind, options = heads.resolve(recipe.head.name)
    if kind != "gaussian":
        return recipe
    return recipe.model_copy(update={"head": recipe.head.model_copy(update={"name": kind} | options)})


def asked(recipe: Recipe) -> bool:
    """Whether a recipe asks for gradients, or for another head than a mixture of Gaussians on the rows as they are."""
    return recipe.head.name != "gaussian" or recipe.fit.solver == heads.GRADIENT or bool(recipe.head.options)


def make(recipe: Recipe, rows: Rows) -> Made:
    """Train a head on most of the rows; the others pick the epoch, the temperature and the thresholds.

    Where the head is no mixture of Gaussians, or one of projected rows, a tied one is fitted beside it in closed form,
    which says how typical an item is.

    Raises:
        UsageError: a head, fit or option that does not fit.
        DataError: rows that do not do for it.
    """
    solver = "em" if recipe.fit.solver == "auto" else recipe.fit.solver
    components = recipe.head.n_components
    spec = heads.spec_of(recipe.head.name, solver, components, recipe.head, recipe.seed)
    judge = judges(rows, recipe)
    projection = Chain.fit(rows.x[~judge], rows.labels[~judge], build.steps_of(recipe.projection))
    folds = heads.folds_of(projection(rows.x), rows.labels, judge, rows.n_classes)
    heads.check_components(components, folds)
    trained = heads.fit_all([spec], [folds], recipe.fit)[0]
    with torch.no_grad():
        return _calibrated(projection, spec, trained, folds)


def _calibrated(projection: Chain, spec: HeadSpec, trained: Trained, folds: Folds) -> Made:
    own = isinstance(trained.head, GaussianHead) and trained.head.project is None  # of the rows as they are
    mixture = trained.head.mixture() if isinstance(trained.head, GaussianHead) and own else _beside(spec, folds)
    judge = folds.fold == 0
    x, labels = folds.x[judge], folds.labels[judge]
    joint = in_tiles(trained.head.class_scores, x)
    typicality = Typicality.fit(mixture.evidence(x), mixture.background().evidence(x), joint.argmax(1))
    degrees = temperature.fit(joint, labels)
    head = trained.head.compressed(folds.x[~judge]) if isinstance(trained.head, SDGMHead) else trained.head
    return Made(projection, mixture, None if own else head, degrees, typicality, trained, len(labels))


def _beside(spec: HeadSpec, folds: Folds) -> Mixture:
    """The closed-form density beside a head that has none."""
    tied = HeadSpec(*VARIANTS["tied"], "closed", shrinkage=spec.shrinkage, floor=spec.floor)
    return heads.mixture_of(tied, folds).to(torch.float32)


def judges(rows: Rows, recipe: Recipe) -> Tensor:
    """Which rows judge: a validation part that came with the data, else a share drawn by the seed."""
    if int(rows.given.sum()) >= ENOUGH_TO_JUDGE:
        judge = rows.given.clone()
    else:
        parts = max(2, round(1 / recipe.fit.val_fraction))
        parts = min(parts, 5) if len(rows.x) < FEW else parts
        judge = assign_folds(rows.labels, rows.groups, parts, recipe.seed) == 0
    learned = torch.bincount(rows.labels[~judge], minlength=rows.n_classes)
    return judge & (learned[rows.labels] > 0)  # a class whose rows all judge learns from them instead
