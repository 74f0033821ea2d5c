"""scikit-learn's attributes of a mixture: read from the fitted one, or set to make one by hand."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mixtura.core.covariance import Covariance
from mixtura.core.mixture import Mixture
from mixtura.errors import CollapsedComponent
from mixtura.sklearn.layouts import LAYOUTS, Array, Layout

Given = dict[str, Array]
"""Arrays that were set, by attribute, the last at the end."""
SPREADS = ("covariances_", "precisions_", "precisions_cholesky_")
WEIGHTS, MEANS = "weights_", "means_"


def attribute(name: str, about: str) -> Any:
    """An array of :class:`MixtureAttributes` that is read from the mixture, or set."""
    return property(lambda self: self._read(name), lambda self, value: self._set(name, value), doc=about)


class MixtureAttributes:
    """Weights, means and covariances in scikit-learn's layout and in the dtype of the training samples.

    Arrays that are read are copies, and read-only. Set an attribute to change it: once weights, means and one of
    ``covariances_``, ``precisions_`` and ``precisions_cholesky_`` fit each other, they make the mixture, without a fit.
    The three follow each other from the next use of the mixture on; until then each can be set from its own last value,
    as in putting components in order. scikit-learn, which keeps them apart, never makes them agree.
    """

    covariance_type: Any
    n_features_in_: int
    _dtype: Any
    _sums: Any

    weights_ = attribute("weights_", "Weight of each component.")
    means_ = attribute("means_", "Mean of each component.")
    covariances_ = attribute("covariances_", "Covariances; the axes depend on ``covariance_type``.")
    precisions_cholesky_ = attribute("precisions_cholesky_", "Upper triangular factors U of the precisions, U U'.")
    precisions_ = attribute("precisions_", "Inverse covariances.")

    @property
    def mixture_(self) -> Mixture:
        """The fitted mixture, or the one that the attributes make since they were set."""
        own = vars(self)
        if own.get("_made") is not None:
            own.update(mixture_=own["_made"], _by_hand={}, _made=None, _sums=None, _dtype=np.dtype(np.float64))
        if "mixture_" not in own:
            raise AttributeError("There is no mixture_ before a fit.")
        return own["mixture_"]

    @mixture_.setter
    def mixture_(self, mixture: Mixture) -> None:
        vars(self).update(mixture_=mixture, _by_hand={}, _made=None)

    def check_made(self) -> None:
        """See that attributes that were set by hand make a mixture.

        Raises:
            ValueError: they do not; the message says what is missing or does not fit.
        """
        given: Given = vars(self).get("_by_hand", {})
        if given and vars(self).get("_made") is None:
            said = [f"{name} has shape {value.shape}" for name, value in given.items()]
            raise ValueError(
                f"{', '.join(said)}. Set weights_, means_ and covariances_ (or precisions_cholesky_) of equally many "
                f"components for covariance_type={self.covariance_type!r}."
            )

    def _read(self, name: str) -> Array:
        own = vars(self)
        if name in own.get("_by_hand", {}):
            return own["_by_hand"][name]
        mixture: Mixture = own.get("mixture_") or self.mixture_  # until the next use, the one before
        values = READERS[name](layout_of(mixture), mixture).numpy().astype(self._dtype)
        values.flags.writeable = False  # an edit of a copy would be lost
        return values

    def _set(self, name: str, value: Any) -> None:
        array, own = np.array(value, dtype=np.float64), vars(self)
        array.flags.writeable = False
        given: Given = {key: kept for key, kept in own.get("_by_hand", {}).items() if key != name} | {name: array}
        made = mixture_of(LAYOUTS[self.covariance_type], given, own.get("mixture_"))
        own.update(_by_hand=given, _made=made)
        if made is not None:
            self.n_features_in_ = made.dimension


def layout_of(mixture: Mixture) -> Layout:
    """The layout of a fitted mixture, whatever ``covariance_type`` is by now."""
    return next(layout for layout in LAYOUTS.values() if layout.family == mixture.covariance.name)


def _roots(layout: Layout, mixture: Mixture) -> Tensor:
    return layout.precisions_cholesky(mixture.covariance, mixture.n_components)


READERS = {
    WEIGHTS: lambda layout, mixture: mixture.log_weight.exp(),
    MEANS: lambda layout, mixture: mixture.mean,
    "covariances_": lambda layout, mixture: layout.covariances(mixture.covariance, mixture.n_components),
    "precisions_cholesky_": _roots,
    "precisions_": lambda layout, mixture: layout.square(_roots(layout, mixture)),
}
"""How each attribute is read from a mixture."""


def mixture_of(layout: Layout, given: Given, fitted: Mixture | None) -> Mixture | None:
    """The mixture of the given arrays, the last of the covariances and precisions, and of a fitted one for the rest;
    ``None`` if something is missing or the shapes do not fit.

    Raises:
        ValueError: values that no mixture can have.
    """
    parts = {} if fitted is None else {WEIGHTS: fitted.log_weight.exp().double(), MEANS: fitted.mean.double()}
    parts |= {name: torch.tensor(value) for name, value in given.items() if name not in SPREADS}
    if len(parts) < 2:
        return None
    weight, mean = parts[WEIGHTS], parts[MEANS]
    if weight.ndim != 1 or mean.ndim != 2 or len(weight) != len(mean):
        return None
    spread = next((name for name in reversed(given) if name in SPREADS), None)
    if spread is not None:
        fits = given[spread].shape == layout.shape(*mean.shape)
        covariance = _covariance(layout, spread, given[spread]) if fits else None
    else:
        covariance = fitted.covariance if fitted is not None and fitted.mean.shape == mean.shape else None
    if covariance is None:
        return None
    check_weights(weight, WEIGHTS)
    if not bool(mean.isfinite().all()):
        raise ValueError("means_ holds NaN or infinity. Give finite numbers.")
    return Mixture(weight.log(), mean, covariance)


def check_weights(weight: Tensor, name: str) -> None:
    """See that weights are shares of a whole.

    Raises:
        ValueError: they are not; the message names the parameter.
    """
    if not bool((weight >= 0).all()) or not abs(float(weight.sum()) - 1) <= 1e-6:
        raise ValueError(f"{name} must be non-negative and sum to 1, got a sum of {float(weight.sum())}.")


def covariance_from(layout: Layout, precision: Tensor, name: str) -> Covariance:
    """The covariance of given precisions, which ``name`` says in errors.

    Raises:
        CollapsedComponent: they are not positive definite.
    """
    assert layout.read is not None
    with _named(name):
        return layout.read(precision)


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Have a collapsed component name the array that was given."""
    try:
        yield
    except CollapsedComponent as error:
        raise CollapsedComponent(f"{name}: {error.problem}", "Give symmetric, positive definite ones.") from error


def _covariance(layout: Layout, name: str, value: Array) -> Covariance:
    if layout.read is None:
        raise ValueError(f"{name} of a low-rank mixture cannot be set. Set mixture_, a mixtura.core.mixture.Mixture.")
    given = torch.tensor(value)
    if name == "covariances_":
        with _named(name):
            given = layout.invert(given)
    elif name == "precisions_cholesky_":
        given = layout.square(given)
    return covariance_from(layout, given, name)
