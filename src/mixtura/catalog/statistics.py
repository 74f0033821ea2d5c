"""The additive sums behind the model's classes; items can be added and subtracted."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from jaxtyping import Float, Int
from safetensors.torch import load, save
from torch import Tensor

from mixtura.catalog.subclasses import ClassKinds
from mixtura.core import classes, ownership
from mixtura.core.covariance import Diagonal, Floor, Prior
from mixtura.core.mixture import Mixture
from mixtura.core.moments import LabeledItems, Moments, feature_variance, hard, labeled, side_by_side, soft
from mixtura.errors import UsageError
from mixtura.model.model import Model
from mixtura.model.prior import AskedPrior, without_prior
from mixtura.sections import GRADIENT

TILE_ROWS = 4096
AVERAGE_FLOOR = "average"  # floor rule of layout 1 models
DEFAULT_SHRINKAGE = 0.1  # shrinkage of newcomers if the model has none of its own


@dataclass(frozen=True)
class FittedStatistics:
    """A model and the sums over its training items; the catalog never changes it.

    ``floor`` is the variance added to the dimensions, in squared units of x. ``exact`` means that the mixture is a
    function of the sums, so that removing an item leaves no trace of it. ``asked`` is the class prior of the bundle;
    the model itself stands under that of its fit.
    """

    model: Model
    sums: Moments
    floor: Floor
    prior: Prior
    exact: bool
    asked: AskedPrior = field(default_factory=AskedPrior)

    @cached_property
    def mixture(self) -> Mixture:
        """The mixture of the model in float64."""
        return self.model.mixture.to(torch.float64)

    def rebuilt(self, sums: Moments, index: Int[Tensor, " J"]) -> Mixture:
        """Rebuild some components from other sums, as a float64 mixture."""
        assert self.model.mixture.component_class is not None
        return self._of(sums.select(index), self.model.mixture.component_class[index])

    def divided(self, sums: Moments, index: Int[Tensor, " J"], kinds: Sequence[ClassKinds]) -> tuple[Mixture, Moments]:
        """Some components, then one for each kind of the divided classes, as a fit to both levels estimates them.

        Args:
            sums: of all components.
            index: the components of the other classes.
            kinds: of the divided classes.
        """
        assert self.model.mixture.component_class is not None
        owner, shared = [self.model.mixture.component_class[index]], self.model.mixture.covariance.shared
        if shared:  # their part of the one covariance is about the class means
            for one in kinds:
                sums = sums - sums_of(self.model.mixture, one.of_class)
        kept = sums.select(index)
        for one in kinds:
            kept = side_by_side(kept, self._sums_of_kinds(one), shared)
            owner.append(torch.full((len(one.names),), one.base))
        return self._of(kept, torch.cat(owner)), kept

    def _of(self, sums: Moments, component_class: Int[Tensor, " J"]) -> Mixture:
        return Mixture.from_moments(sums, self.floor, self.prior, component_class, len(self.model.classes))

    def _sums_of_kinds(self, kinds: ClassKinds) -> Moments:
        """The sums of each kind, about the heaviest component of the class."""
        assert self.mixture.component_class is not None
        share = self.mixture.log_weight.masked_fill(self.mixture.component_class != kinds.base, -torch.inf)
        near = self.mixture.select(share.argmax().expand(len(kinds.names)))
        items, factors = kinds.items, near.covariance.factor_posterior()
        return hard(type(near.covariance), items.x.double(), items.labels, near.mean, items.weight.double(), factors)


def check(model: Model) -> None:
    """Check that products can be added to a model.

    Raises:
        UsageError: its head has a fixed set of classes.
    """
    if model.head is not None:
        raise UsageError(
            f"The head {model.head.name!r} has a fixed set of classes, so nothing can be enrolled. "
            "Fit a mixture of Gaussians: mixtura fit without --head."
        )


def exact(model: Model) -> bool:
    """Whether a model's mixture is a function of sums over its items, with no gradient step after them."""
    return bool(model.facts.get("from_sums", model.facts.get("solver") != GRADIENT))


def base_of(model: Model, sums: Moments, floor: Floor) -> FittedStatistics:
    """A model with the sums over its items.

    Args:
        model: as it was fitted.
        sums: over its training items.
        floor: least variance, in squared units of x.
    """
    strength = float(model.facts.get("prior_strength", 0.0))
    identity = float(model.facts.get("shrinkage", DEFAULT_SHRINKAGE))
    scale = model.mixture.feature_scale
    prior = Prior(strength, identity, None if scale is None else scale.double())
    return FittedStatistics(without_prior(model), sums, floor, prior, exact(model), AskedPrior.of(model))


def floor_of(model: Model, items: LabeledItems, share: float) -> Floor:
    """The variance floor of each dimension, as used in the fit, in squared units of x.

    It is a share of each feature's within-class variance; in older models, of the data's average variance.
    """
    if model.facts.get("floor") == AVERAGE_FLOOR:
        return share * classes.average_variance(items.x, items.weight)
    if items.component is None:
        owner, count = items.labels, len(model.classes)
    else:
        owner, count = items.component, model.mixture.n_components
    (sums,) = labeled(Diagonal, items.x.double(), owner, count, items.weight.double())
    return share * feature_variance(sums)


def sums_of(mixture: Mixture, items: LabeledItems) -> Moments:
    """Float64 sums of items per component of a mixture. An item counts fully for its class's only component, or for the
    component that it was learned by, if that is known; else by responsibility among the components of its class.
    """
    mixture = mixture.to(torch.float64)
    if items.component is not None:
        known = items.component >= 0
        there, rest = items.select(known), replace(items.select(~known), component=None)
        factors = mixture.covariance.factor_posterior()
        columns = there.x.double(), items.component[known], mixture.mean, there.weight.double()
        return hard(type(mixture.covariance), *columns, factors) + sums_of(mixture, rest)
    parts = zip(items.x.split(TILE_ROWS), items.labels.split(TILE_ROWS), items.weight.split(TILE_ROWS), strict=True)
    sums = [_sums(mixture, rows.double(), labels, weight.double()) for rows, labels, weight in parts]
    total = sums[0] if sums else _sums(mixture, items.x.double(), items.labels, items.weight.double())
    for part in sums[1:]:
        total = total + part
    return total


def _sums(mixture: Mixture, x: Float[Tensor, "N D"], labels: Int[Tensor, " N"], weight: Float[Tensor, " N"]) -> Moments:
    assert mixture.component_class is not None
    kind, factors = type(mixture.covariance), mixture.covariance.factor_posterior()
    if torch.equal(mixture.component_class, torch.arange(mixture.n_components)):
        return hard(kind, x, labels, mixture.mean, weight, factors)
    resp = (
        ownership.mask_others(mixture.component_log_prob(x), mixture.component_class, labels).softmax(1)
        * weight[:, None]
    )
    return soft(kind, x, resp, mixture.mean, factors)


def floor_to_value(floor: Floor) -> float | bytes:
    """A floor as it is stored: one number for all dimensions, or safetensors with one per dimension."""
    return save({"floor": floor.contiguous()}) if isinstance(floor, Tensor) else floor


def floor_from_value(value: float | bytes) -> Floor:
    """The inverse of :func:`floor_to_value`."""
    return load(value)["floor"] if isinstance(value, bytes) else float(value)


def to_bytes(sums: Moments) -> bytes:
    """Sums as safetensors, without the factors, which come from the mixture."""
    names = ("ref", "weight", "first", "second")
    return save({name: getattr(sums, name).contiguous() for name in names})


def from_bytes(data: bytes, mixture: Mixture) -> Moments:
    """The inverse of :func:`to_bytes`."""
    return Moments(
        type(mixture.covariance), **load(data), factors=mixture.to(torch.float64).covariance.factor_posterior()
    )
