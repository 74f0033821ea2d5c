"""scikit-learn's attributes of a mixture: read from the fitted one, or set to make one by hand."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, overload

import numpy as np
import torch
from torch import Tensor

from mixtura.core.covariance import Covariance
from mixtura.core.mixture import Mixture
from mixtura.errors import CollapsedComponent
from mixtura.sklearn.layouts import LAYOUTS, Array, Layout

SPREADS = ("covariances_", "precisions_", "precisions_cholesky_")
WEIGHTS, MEANS, COVARIANCE, FITTED = "weights_", "means_", "covariance", "mixture_"
Parts = dict[str, tuple[str, Any]]
"""What was set for weights, means and covariance: name and array of an attribute, or the mixture to keep it from."""


class Attribute:
    """An array of :class:`MixtureAttributes` that is read from the mixture, or set."""

    def __init__(self, about: str) -> None:
        self.__doc__ = about

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, estimator: None, owner: type) -> "Attribute": ...

    @overload
    def __get__(self, estimator: "MixtureAttributes", owner: type) -> Array: ...

    def __get__(self, estimator: "MixtureAttributes | None", owner: type) -> "Attribute | Array":
        return self if estimator is None else estimator._read(self._name)

    def __set__(self, estimator: "MixtureAttributes", value: Any) -> None:
        estimator._set(self._name, value)


class MixtureAttributes:
    """Weights, means and covariances in scikit-learn's layout and in the dtype of the training samples.

    Arrays that are read are copies, and read-only. Set an attribute to change it: once weights, means and one of
    ``covariances_``, ``precisions_`` and ``precisions_cholesky_`` fit each other, they make the mixture, without a fit.
    The three follow each other from the next use of the mixture on; until then each can be set from its own last value,
    as in putting components in order.
    """

    covariance_type: Any
    mixture_: Mixture
    _dtype: Any
    _sums: Any
    _by_hand: Parts
    _earlier: dict[str, Mixture]

    weights_ = Attribute("Weight of each component.")
    means_ = Attribute("Mean of each component.")
    covariances_ = Attribute("Covariances; the axes depend on ``covariance_type``.")
    precisions_cholesky_ = Attribute("Upper triangular Cholesky factors U of the precisions, U U'.")
    precisions_ = Attribute("Inverse covariances.")

    def check_made(self) -> None:
        """See that attributes that were set by hand make a mixture.

        Raises:
            ValueError: they do not; the message says what is missing or does not fit.
        """
        self._earlier = {}
        parts: Parts = vars(self).get("_by_hand", {})
        if not parts:
            return
        said = [f"{name} has shape {np.shape(value)}" for name, value in parts.values() if name != FITTED]
        raise ValueError(
            f"{', '.join(said)}. Set weights_, means_ and covariances_ (or precisions_cholesky_) of equally many "
            f"components for covariance_type={self.covariance_type!r}."
        )

    def _read(self, name: str) -> Array:
        parts: Parts = vars(self).get("_by_hand", {})
        own = [value for given, value in parts.values() if given == name]
        if own:
            return own[0]
        mixture: Mixture = vars(self).get("_earlier", {}).get(name) or self.mixture_
        layout = layout_of(mixture)
        values = READERS[name](layout, mixture).numpy().astype(self._dtype)
        values.flags.writeable = False  # an edit of a copy would be lost
        return values

    def _set(self, name: str, value: Any) -> None:
        array = np.array(value, dtype=np.float64)
        array.flags.writeable = False
        parts: Parts = dict(vars(self).get("_by_hand", {}))
        mixture: Mixture | None = vars(self).get(FITTED)
        if mixture is not None:
            parts = dict.fromkeys((WEIGHTS, MEANS, COVARIANCE), (FITTED, mixture))
        parts[name if name in (WEIGHTS, MEANS) else COVARIANCE] = (name, array)
        made = mixture_of(LAYOUTS[self.covariance_type], parts)
        if made is None:
            self._by_hand = parts
            vars(self).pop(FITTED, None)
            return
        if name in SPREADS and mixture is not None:
            earlier = dict.fromkeys(SPREADS, mixture) | vars(self).get("_earlier", {})
            self._earlier = {other: last for other, last in earlier.items() if other != name}
        self._by_hand, self._sums, self._dtype = {}, None, np.dtype(np.float64)
        self.mixture_, self.n_features_in_ = made, made.dimension


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


def mixture_of(layout: Layout, parts: Parts) -> Mixture | None:
    """The mixture of weights, means and covariances; ``None`` if one is missing or their shapes do not fit.

    Raises:
        ValueError: values that no mixture can have.
    """
    if len(parts) < 3:
        return None
    weight, mean = (_tensor(parts[part], part) for part in (WEIGHTS, MEANS))
    name, given = parts[COVARIANCE]
    if weight.ndim != 1 or mean.ndim != 2 or len(weight) != len(mean):
        return None
    if name == FITTED:
        fits = given.mean.shape == mean.shape
        covariance = given.covariance if fits else None
    else:
        fits = given.shape == layout.shape(*mean.shape)
        covariance = _covariance(layout, name, given) if fits else None
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


def _tensor(part: tuple[str, Any], kind: str) -> Tensor:
    name, value = part
    if name == FITTED:
        return (value.log_weight.exp() if kind == WEIGHTS else value.mean).double()
    return torch.tensor(value)


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
