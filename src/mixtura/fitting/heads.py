"""From the name of a head to an initialized head and its training objective."""

import inspect
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mixtura.core import selection as choosing
from mixtura.core import temperature
from mixtura.core.classes import NO_WEIGHT, Plan, scale_share_of
from mixtura.core.covariance import family_name
from mixtura.core.cross_fitting import Folds
from mixtura.core.mixture import Mixture
from mixtura.errors import UsageError
from mixtura.heads import HEADS, VARIANTS
from mixtura.heads.base import GenerativeHead, Head, in_tiles, no_input_gradients
from mixtura.heads.gaussian import GaussianHead, input_matrix
from mixtura.heads.gaussian import Start as InputStart
from mixtura.heads.options import check_options
from mixtura.interfaces import Objective
from mixtura.model.prior import DATA_PRIOR_FACT, SCORE_PRIOR_FACT
from mixtura.names import find
from mixtura.objectives import HEAD_OBJECTIVES, OBJECTIVES
from mixtura.sections import GRADIENT, FitSection, HeadSection
from mixtura.training.head_stack import train
from mixtura.training.records import Hyperparameters, Trained, TrainingData
from mixtura.training.state import own_random_numbers

OBJECTIVE_KEYS = ("label_smoothing", "class_weight", "logit_adjustment", "generative_weight", "margin")
"""Keys of the ``fit`` section that are options of an objective."""

MAX_BYTES = 8 << 30
"""Limit on parameters, gradients and the optimizer's two moments; larger heads are rejected before they are built."""


@dataclass(frozen=True)
class HeadSpec:
    """A head to fit: its key in ``HEADS``, its options and its solver."""

    kind: str
    options: dict[str, Any]
    solver: str
    components: int | str = 1
    shrinkage: float | None = None
    seed: int = 0
    rank: int = 16
    floor: float = 1e-6
    feature_scale: str = "auto"

    @property
    def family(self) -> str:
        """Covariance family of a Gaussian head; ``auto`` if it is left open."""
        return self.options.get("family", "auto")

    @property
    def closed(self) -> bool:
        """Whether the fit needs only moments, which can then be computed once for all widths."""
        named = self.gaussian and self.family != "auto" and set(self.options) == {"family"}
        return named and self.solver != GRADIENT and self.components == 1

    @property
    def width(self) -> int | None:
        """Width after the input projection of a Gaussian head; ``None`` without a projection."""
        return self.options.get("width")

    @property
    def gaussian(self) -> bool:
        """Whether the head is a core Gaussian mixture."""
        return self.kind == "gaussian"


def resolve(name: str) -> tuple[str, dict[str, Any]]:
    """Key in ``HEADS`` and options for the name of a head or variant; a family means a Gaussian head of it.

    Raises:
        UnknownName: the name is not registered.
    """
    if name in VARIANTS:
        return VARIANTS[name]
    kind = find(HEADS | {variant: HEADS[kind] for variant, (kind, _) in VARIANTS.items()}, name)
    return ("gaussian", {"family": name}) if hasattr(kind, "unconstrained") else (name, {})


def spec_of(name: str, solver: str, components: int | str, section: HeadSection, seed: int) -> HeadSpec:
    """Spec of the head in a recipe; only a Gaussian mixture supports ``auto`` components.

    Raises:
        UnknownName: no such head.
        UsageError: a family or automatic components for a head without them, a family or an option that conflicts
            with the name, or an option that the head does not take.
    """
    kind, options = resolve(name)
    check_options(name, find(HEADS, kind), section.options)
    if kind == "gaussian" and "family" not in options:
        options = {"family": section.family}
    elif section.family not in ("auto", options.get("family")):
        raise UsageError(
            f"The head {name!r} is not of family {section.family!r}. Leave out --family, or take gaussian."
        )
    if kind != "gaussian" and components == "auto":
        raise UsageError(f"The head {name!r} cannot count its components itself. Give a number with --n-components.")
    shrinkage = None if section.shrinkage == "auto" else section.shrinkage
    clash = next((key for key, value in section.options.items() if options.get(key, value) != value), None)
    if clash is not None:
        raise UsageError(
            f"The head {name!r} has {clash} {options[clash]!r}. Leave head.options.{clash} out, or take {kind}."
        )
    options = options | section.options
    rank, floor = section.rank, section.variance_floor
    return HeadSpec(kind, options, solver, components, shrinkage, seed, rank, floor, section.feature_scale)


def objective_of(
    spec: HeadSpec,
    section: FitSection,
    labels: Int[Tensor, " N"],
    n_classes: int,
    weight: Float[Tensor, " N"] | None = None,
) -> Objective:
    """Training objective named by ``fit.objective``, built with the options that it takes.

    Args:
        spec: the head to train.
        section: the objective and its options.
        labels: labels of the training samples, for balanced class weights and log-priors.
        n_classes: C.
        weight: sample weights of the training samples.

    Raises:
        UnknownName: no such objective.
        UsageError: an objective with other inputs than a head's or that the head does not support, an ``l2`` for a
            head without input gradients, or an invalid option.
    """
    head, kind = find(HEADS, spec.kind), objective_by_name(section.objective)
    if spec.solver == GRADIENT and section.l2 and head.input_gradients is Head.input_gradients:
        raise no_input_gradients(spec.kind)
    if spec.solver == GRADIENT and kind.needs_density and not issubclass(head, GenerativeHead):
        raise UsageError(
            f"The head {spec.kind!r} has no density, which the objective {section.objective!r} lowers. "
            "Use the objective 'conditional', or a Gaussian head."
        )
    given = {name: value for name in OBJECTIVE_KEYS if (value := getattr(section, name)) is not None}
    counts = torch.bincount(labels, weight, minlength=n_classes).double()
    given["class_weight"] = _class_weight(section, counts)
    given["log_prior"] = tuple((counts / counts.sum()).log().tolist())
    taken = inspect.signature(kind.from_options).parameters
    return kind.from_options(**{name: value for name, value in given.items() if name in taken})


def priors_of(spec: HeadSpec, section: FitSection, trained: bool, counts: Float[Tensor, " C"]) -> dict[str, object]:
    r"""Facts on the prior that the scores of a head stand under, and on that of the data; none where both are one.

    .. math:: \pi_c \propto N_c^{1 - \tau}\, a_c

    with :math:`\tau` the logit adjustment and :math:`a_c` the class weights of its training. A head without trained
    scores that knows no class shares, such as a prototype, stands under equal ones.

    Args:
        spec: the head.
        section: the objective and its options.
        trained: whether gradients have changed the head.
        counts: total weight of the training samples of each class.
    """
    if not trained and find(HEADS, spec.kind).knows_shares:
        return {}
    taken = inspect.signature(objective_by_name(section.objective).from_options).parameters if trained else {}
    adjusted = section.logit_adjustment if "logit_adjustment" in taken else float(not trained)
    share = counts.clamp_min(NO_WEIGHT).pow(1 - adjusted)
    weights = _class_weight(section, counts) if "class_weight" in taken else None
    share = share if weights is None else share * torch.tensor(weights, dtype=torch.float64).clamp_min(NO_WEIGHT)
    return {
        SCORE_PRIOR_FACT: (share / share.sum()).tolist(),
        DATA_PRIOR_FACT: (counts / counts.sum()).tolist(),
    }


def objective_by_name(name: str) -> Any:
    """Objective class for training a head, looked up by name.

    Raises:
        UnknownName: no such objective.
        UsageError: the class is not an objective, or takes other inputs than a head's.
    """
    kind = find(OBJECTIVES if name in OBJECTIVES else HEAD_OBJECTIVES, name)
    reads = getattr(kind, "reads", None)
    if reads != "head":
        known = ", ".join(HEAD_OBJECTIVES)
        what = f"reads {reads}" if reads else "is no objective: it does not say what it reads"
        raise UsageError(f"{name!r} {what}, so no head can be trained by it. Use one of: {known}.")
    return kind


def _class_weight(section: FitSection, counts: Float[Tensor, " C"]) -> tuple[float, ...] | None:
    r"""Weight of each class; balanced: :math:`N / (C N_c)`, as in scikit-learn."""
    if section.class_weight == "none":
        return None
    if section.class_weight == "balanced":
        return tuple((counts.sum() / (len(counts) * counts)).tolist())
    if len(section.class_weight) != len(counts):
        raise UsageError(
            f"fit.class_weight has {len(section.class_weight)} numbers for {len(counts)} classes. Give one for each."
        )
    return tuple(map(float, section.class_weight))


def hyperparameters_of(section: FitSection, solver: str) -> Hyperparameters:
    """Hyperparameters of a ``fit`` section; zero epochs for a solver without gradients."""
    epochs = section.epochs if solver == GRADIENT else 0
    return Hyperparameters(
        epochs,
        section.batch_size,
        section.learning_rate,
        section.patience,
        section.kl_weight,
        section.l2,
        section.optimizer,
        final_learning_rate=section.final_learning_rate,
    )


def check_size(spec: HeadSpec, dimension: int, n_classes: int) -> None:
    """Reject a Gaussian head that does not fit in memory; call it before building the head.

    Raises:
        UsageError: the head needs more than ``MAX_BYTES``; the message names the bytes.
    """
    if not spec.gaussian or not isinstance(spec.components, int) or spec.family == "auto":
        return  # automatic selection has its own limits
    with torch.device("meta"):
        head = GaussianHead(spec.width or dimension, n_classes, spec.components, spec.family, spec.rank)
    copies = 4 if spec.solver == GRADIENT else 2  # float32 with gradient and two moments, or a float64 copy
    needed = 4 * copies * sum(parameter.numel() for parameter in head.parameters())
    if needed > MAX_BYTES:
        raise UsageError(
            f"A {spec.family} head with {spec.components * n_classes} components in {dimension} dimensions takes about "
            f"{needed:,} bytes, more than {MAX_BYTES:,}. Keep less of the variance, or use tied or diagonal."
        )


def check_components(components: int | str, folds: Folds) -> None:
    """Reject more components than the smallest class supports, at two samples per component.

    Raises:
        UsageError: a class has fewer samples.
    """
    if components == 1 or isinstance(components, str):
        return
    counts = torch.bincount(folds.labels[folds.fold != 0], minlength=folds.n_classes)
    if int(counts.min()) < 2 * components:
        raise UsageError(
            f"{components} components a class need {2 * components} training rows in each, and class number "
            f"{int(counts.argmin())} has {int(counts.min())}. Use at most {max(1, int(counts.min()) // 2)}."
        )


@dataclass(frozen=True)
class InitialHead:
    """An initialized, untrained head; ``plan`` is the plan of its mixture, if it has one.

    The head is fitted to the samples outside fold 0; fold 0 sets ``degrees``, the temperature.
    """

    head: Head
    plan: Plan | None
    degrees: float


def initialize(spec: HeadSpec, folds: Folds, plan: Plan | None = None) -> InitialHead:
    """Head initialized without gradients, from the samples outside fold 0.

    Args:
        spec: the head.
        folds: the samples; fold 0 sets the temperature, and the plan if it is not given.
        plan: plan of the mixture of a Gaussian head.

    Raises:
        UsageError: the head is too large.
        DataError: the head cannot be fitted to these samples.
    """
    judge = folds.fold == 0
    check_size(spec, folds.x.shape[1], folds.n_classes)
    head, plan = _begun(spec, folds, plan, judge)
    with torch.no_grad():
        scores = in_tiles(head.class_scores, folds.x[judge])
        degrees = temperature.best(scores, folds.labels[judge], folds.counts[judge])
        head.set_temperature(degrees)
    return InitialHead(head, plan, degrees)


def reinitialize(spec: HeadSpec, folds: Folds, first: InitialHead) -> Head:
    """The same head initialized from all samples, with the plan and temperature of ``first``."""
    head, _ = _begun(spec, folds, first.plan, torch.zeros_like(folds.fold, dtype=torch.bool))
    with torch.no_grad():
        head.set_temperature(first.degrees)
    return head


def _begun(spec: HeadSpec, folds: Folds, plan: Plan | None, judge: Bool[Tensor, " N"]) -> tuple[Head, Plan | None]:
    """The head fitted without the validation samples, and the plan of its mixture."""
    if spec.gaussian:
        return _gaussian(spec, folds, plan, judge)
    kind: type[Head] = find(HEADS, spec.kind)
    learned = ~judge & (folds.counts > 0)
    if (spec.solver != GRADIENT or not kind.supports_vmap) and len(folds.counts[learned].unique()) > 1:
        raise UsageError(
            f"The head {spec.kind!r} heeds no weights of items "
            + ("without training. Add --solver gradient, take" if kind.supports_vmap else "at all. Take")
            + " the head gaussian, or give all items one weight."
        )
    given = {"components": spec.components, "seed": spec.seed, **spec.options}
    given |= {"shrinkage": spec.shrinkage} if kind.takes_shrinkage else {}
    return kind.from_rows(folds.x[learned], folds.labels[learned], folds.n_classes, **given).eval(), None


def _gaussian(spec: HeadSpec, folds: Folds, plan: Plan | None, judge: Bool[Tensor, " N"]) -> tuple[Head, Plan]:
    """Gaussian head with its input projection, both fitted without the validation samples."""
    begin = InputStart(projection=spec.options.get("projection", "identity"), width=spec.width)
    project = input_matrix(begin, folds.x[~judge & (folds.counts > 0)], spec.seed)
    if project is not None:
        folds = replace(folds, x=folds.x @ project)
    plan = plan_of(spec, folds) if plan is None else plan
    mixture = folds.mixture(plan, without=0 if bool(judge.any()) else None)
    return from_mixture(mixture, spec.rank, tuple(spec.options.get("freeze", ())), project).eval(), plan


def plan_of(spec: HeadSpec, folds: Folds) -> Plan:
    """Plan of the mixture of a Gaussian head, with the shrinkage that is best on fold 0."""
    steps = 0 if spec.solver == "closed" else 30
    share = scale_share_of(len(folds.labels), folds.weight)
    plan = Plan(spec.family, floor=spec.floor, rank=spec.rank, steps=steps, seed=spec.seed, scale_share=share)
    shrinkage = choosing.HELD_OUT if spec.shrinkage is None else spec.shrinkage
    if isinstance(spec.components, str):
        return choosing.choose(folds, plan, spec.family, shrinkage, spec.components, spec.feature_scale).plan
    chosen = choosing.choose(folds, plan, spec.family, shrinkage, feature_scale=spec.feature_scale)
    return replace(chosen.plan, components=spec.components)


def from_mixture(
    mixture: Mixture, rank: int, freeze: tuple[str, ...] = (), project: Float[Tensor, "D W"] | None = None
) -> GaussianHead:
    """Gaussian head with the density of a mixture, of ``x @ project`` if a projection matrix is given."""
    assert mixture.component_class is not None
    counts = torch.bincount(mixture.component_class, minlength=mixture.n_classes).tolist()
    dimension, width = (mixture.dimension, None) if project is None else project.shape
    family = family_name(type(mixture.covariance))
    head = GaussianHead(dimension, mixture.n_classes, counts, family, rank, width, freeze)
    head.to(mixture.mean.device)
    head.project = None if project is None else project.to(head.mean)
    head.assign(mixture.to(torch.float32))
    return head


def fit_all(specs: list[HeadSpec], folds: list[Folds], section: FitSection) -> list[Trained]:
    """Initialize and train heads of one kind, each on its own samples; fold 0 is for validation."""
    with own_random_numbers(folds[0].x.device, specs[0].seed):  # a new head is random before initialization
        heads = [initialize(spec, own).head for spec, own in zip(specs, folds, strict=True)]
        return train_from(heads, specs, folds, section)


def train_from(heads: list[Head], specs: list[HeadSpec], folds: list[Folds], section: FitSection) -> list[Trained]:
    """Train initialized heads of one kind.

    Heads with equal objectives are trained as one batch; balanced class weights and log-priors may differ.
    """
    rows = [split(own, spec.seed) for spec, own in zip(specs, folds, strict=True)]
    alike: dict[Objective, list[int]] = {}
    for i, (spec, own) in enumerate(zip(specs, rows, strict=True)):
        alike.setdefault(objective_of(spec, section, own.labels, folds[i].n_classes, own.weight), []).append(i)
    settings, done = hyperparameters_of(section, specs[0].solver), dict[int, Trained]()
    for objective, group in alike.items():
        trained = train([heads[i] for i in group], [rows[i] for i in group], objective, settings)
        done |= dict(zip(group, trained, strict=True))
    return [done[i] for i in range(len(specs))]


def split(folds: Folds, seed: int) -> TrainingData:
    """Fold 0 as validation samples, the others as training samples; samples with weight zero are dropped."""
    counts, given = folds.counts > 0, folds.weight
    learn, judge = counts & (folds.fold != 0), counts & (folds.fold == 0)
    weight, val_weight = (None, None) if given is None else (given[learn], given[judge])
    return TrainingData(
        folds.x[learn], folds.labels[learn], folds.x[judge], folds.labels[judge], seed, weight, val_weight
    )


def holdout_split(
    x: Float[Tensor, "N D"],
    labels: Int[Tensor, " N"],
    judge: Bool[Tensor, " N"],
    n_classes: int,
    weight: Float[Tensor, " N"] | None = None,
) -> Folds:
    """Folds in which the samples marked by ``judge`` are fold 0 (validation) and all others are fold 1."""
    return Folds(x, labels, n_classes, torch.where(judge, 0, 1), 1, weight)
