"""From the name of a head to the head at its start, and to what its training lowers."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mixtura.core import choose as choosing
from mixtura.core import temperature
from mixtura.core.classes import Plan
from mixtura.core.cross import Folds
from mixtura.core.mixture import Mixture
from mixtura.errors import UsageError
from mixtura.heads import HEADS, VARIANTS
from mixtura.heads.gaussian import GaussianHead
from mixtura.heads.protocol import Head, no_slopes
from mixtura.names import find
from mixtura.objectives.classification import Conditional, Hybrid
from mixtura.sections import HeadSection, TrainSection
from mixtura.tasks.train import Objective, Rows, Schedule, Trained, train

GRADIENTS = ("sgd", "hybrid")
"""The fits that take gradient steps; they begin where the others end."""

MOST_BYTES = 8 << 30
"""Of parameters, gradients and the optimizer's two moments: a head beyond this is refused before it is built."""


@dataclass(frozen=True)
class HeadSpec:
    """A head with its options: which class, what it is built with, how it is fitted."""

    kind: str
    options: dict[str, Any]
    fit: str
    components: int | str = 1
    shrinkage: float | None = None
    seed: int = 0
    rank: int = 16
    floor: float = 1e-6

    @property
    def family(self) -> str:
        """The covariance family of a Gaussian head; ``auto`` where it is left open."""
        return self.options.get("family", "auto")

    @property
    def closed(self) -> bool:
        """Whether sums of the rows are all that a fit needs, so that they can be taken once for all shares."""
        named = self.gaussian and self.family != "auto"
        return named and self.fit not in GRADIENTS and self.components == 1

    @property
    def gaussian(self) -> bool:
        """Whether it is a mixture of the core."""
        return self.kind == "gaussian"


def resolve(name: str) -> tuple[str, dict[str, Any]]:
    """The key into ``HEADS`` and the options that a name means.

    Raises:
        UnknownName: it stands in no table.
    """
    if name in VARIANTS:
        return VARIANTS[name]
    find(HEADS | {variant: HEADS[kind] for variant, (kind, _) in VARIANTS.items()}, name)
    return name, {}


def spec_of(name: str, fit: str, components: int | str, section: HeadSection, seed: int) -> HeadSpec:
    """A head of a recipe; components that are ``auto`` are counted where the head is a mixture of Gaussians.

    Raises:
        UnknownName: no such head.
        UsageError: a family or automatic components for a head that has none, or a family other than the name's.
    """
    kind, options = resolve(name)
    if kind == "gaussian" and "family" not in options:
        options = {"family": section.family}
    elif section.family not in ("auto", options.get("family")):
        raise UsageError(
            f"The head {name!r} is not of family {section.family!r}. Leave out --family, or take gaussian."
        )
    if kind != "gaussian" and components == "auto":
        raise UsageError(f"The head {name!r} cannot count its components itself. Give a number with --components.")
    shrinkage = None if section.shrinkage == "auto" else section.shrinkage
    return HeadSpec(kind, options, fit, components, shrinkage, seed, section.rank, section.floor)


def objective_of(spec: HeadSpec, section: TrainSection) -> Objective:
    """What training lowers.

    Raises:
        UsageError: the hybrid objective for a head without a density, or a ridge for one without slopes.
    """
    if section.ridge and spec.fit in GRADIENTS and find(HEADS, spec.kind).slopes is Head.slopes:
        raise no_slopes(spec.kind)
    conditional = Conditional(label_smoothing=section.smoothing)
    if spec.fit != "hybrid":
        return conditional
    if spec.kind in ("linear", "prototype", "sdgm", "random_projection"):
        raise UsageError(f"The head {spec.kind!r} has no density, so it cannot be fitted by 'hybrid'. Use fit 'sgd'.")
    return Hybrid(conditional=conditional, weight=section.hybrid)


def schedule_of(section: TrainSection, fit: str) -> Schedule:
    """How long and how fast; no epochs for a fit without gradients."""
    epochs = section.epochs if fit in GRADIENTS else 0
    return Schedule(epochs, section.batch_size, section.rate, section.patience, section.penalty, section.ridge)


def check_size(spec: HeadSpec, dimension: int, n_classes: int) -> None:
    """Refuse a Gaussian head that would not fit into memory, before it is built.

    Raises:
        UsageError: it would take more than ``MOST_BYTES``; the message names the bytes.
    """
    if not spec.gaussian or not isinstance(spec.components, int) or spec.family == "auto":
        return  # what is chosen automatically is chosen within limits of its own
    with torch.device("meta"):
        head = GaussianHead(dimension, n_classes, spec.components, spec.family, spec.rank)
    copies = 4 if spec.fit in GRADIENTS else 2  # in float32 and its gradient and moments, or once more in float64
    needed = 4 * copies * sum(parameter.numel() for parameter in head.parameters())
    if needed > MOST_BYTES:
        raise UsageError(
            f"A {spec.family} head with {spec.components * n_classes} components in {dimension} dimensions takes about "
            f"{needed:,} bytes, more than {MOST_BYTES:,}. Keep less variance (--share), or use tied or diagonal."
        )


def check_components(components: int | str, folds: Folds) -> None:
    """Refuse more components than the smallest class can carry: two rows each.

    Raises:
        UsageError: a class has fewer rows.
    """
    if components == 1 or isinstance(components, str):
        return
    counts = torch.bincount(folds.labels[folds.fold != 0], minlength=folds.n_classes)
    if int(counts.min()) < 2 * components:
        raise UsageError(
            f"{components} components a class need {2 * components} training rows in each, and class number "
            f"{int(counts.argmin())} has {int(counts.min())}. Use at most {max(1, int(counts.min()) // 2)}."
        )


def start(spec: HeadSpec, folds: Folds) -> Head:
    """The head without gradients, from the rows outside fold 0; that fold settles shrinkage and temperature.

    Raises:
        UsageError: the head is too large.
        DataError: the rows do not do for it.
    """
    learn = folds.fold != 0
    check_size(spec, folds.x.shape[1], folds.n_classes)
    if spec.gaussian:
        head: Head = from_mixture(mixture_of(spec, folds), spec.rank)
    else:
        kind: type[Head] = find(HEADS, spec.kind)
        given = {"components": spec.components, "seed": spec.seed, **spec.options}
        given |= {"shrinkage": spec.shrinkage} if kind.shrinks else {}
        head = kind.from_rows(folds.x[learn], folds.labels[learn], folds.n_classes, **given)
    with torch.no_grad():
        head.eval().temper(temperature.best(head.class_scores(folds.x[~learn]), folds.labels[~learn]))
    return head


def mixture_of(spec: HeadSpec, folds: Folds) -> Mixture:
    """The mixture of a Gaussian head, from the rows outside fold 0, with the shrinkage that serves fold 0."""
    steps = 0 if spec.fit == "closed" else 30
    plan = Plan(spec.family, floor=spec.floor, rank=spec.rank, steps=steps, seed=spec.seed)
    if isinstance(spec.components, str):
        return folds.mixture(choosing.choose(folds, plan, spec.family, spec.shrinkage, spec.components).plan, without=0)
    trial = choosing.choose(folds, plan, spec.family, spec.shrinkage)
    return folds.mixture(replace(trial.plan, components=spec.components), without=0)


def from_mixture(mixture: Mixture, rank: int) -> GaussianHead:
    """A Gaussian head with the density of a mixture."""
    assert mixture.owner is not None
    counts = torch.bincount(mixture.owner, minlength=mixture.n_classes).tolist()
    head = GaussianHead(mixture.dimension, mixture.n_classes, counts, type(mixture.covariance).name, rank)
    head.to(mixture.mean.device)
    head.assign(mixture.to(torch.float32))
    return head


def fit_all(specs: list[HeadSpec], folds: list[Folds], section: TrainSection) -> list[Trained]:
    """Start and train heads of one kind, each on its own rows: fold 0 judges, the others are learned from."""
    with torch.random.fork_rng():  # a head is random before it has its start
        torch.manual_seed(specs[0].seed)
        heads = [start(spec, own) for spec, own in zip(specs, folds, strict=True)]
        rows = [split(own, spec.seed) for spec, own in zip(specs, folds, strict=True)]
        return train(heads, rows, objective_of(specs[0], section), schedule_of(section, specs[0].fit))


def split(folds: Folds, seed: int) -> Rows:
    """Fold 0 as the rows that judge."""
    judge = folds.fold == 0
    return Rows(folds.x[~judge], folds.labels[~judge], folds.x[judge], folds.labels[judge], seed)


def folds_of(x: Float[Tensor, "N D"], labels: Int[Tensor, " N"], judge: Tensor, n_classes: int) -> Folds:
    """Rows with one fold to judge by: number 0; all others are number 1."""
    return Folds(x, labels, n_classes, torch.where(judge, 0, 1), 1)
