"""Clustering and density estimation: scikit-learn's GaussianMixture on top of mixtura's EM."""

import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from numbers import Integral, Real
from time import perf_counter
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.base import BaseEstimator, DensityMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_array, check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data
from torch import Tensor

from mixtura.core import em
from mixtura.core.covariance import family_of
from mixtura.core.far_rows import class_scores, posterior_of
from mixtura.core.mixture import Mixture
from mixtura.core.moments import Moments
from mixtura.core.scale import in_range
from mixtura.sklearn.init import INIT_PARAMS, Initialization, full_sums, incremental_sums, maximize
from mixtura.sklearn.layouts import LAYOUTS, Array, Layout, advised, check_spread, to_tensor
from mixtura.sklearn.parameters import MixtureAttributes, check_weights, covariance_from

FLOAT_TYPES = [np.float64, np.float32]
COLLAPSE_ADVICE = "Use a larger reg_covar, fewer n_components, or another covariance_type, such as 'diag'."


class GaussianMixture(MixtureAttributes, DensityMixin, BaseEstimator):
    """Gaussian mixture fitted by expectation maximization, with scikit-learn's arguments and attributes.

    Additions to scikit-learn: ``sample_weight``, ``partial_fit``, ``covariance_type="lowrank"`` (a few directions and a
    diagonal per component), and memory that does not grow with the number of samples.

    Args:
        n_components: number of components.
        covariance_type: "full", "tied", "diag", "spherical" or "lowrank".
        tol: convergence threshold; EM stops when the mean log-likelihood rises by less, in nats per sample.
        reg_covar: variance added to every dimension, in squared units of X.
        max_iter: maximum number of EM steps.
        n_init: number of initializations; the best result is kept.
        init_params: "kmeans", "k-means++", "random" or "random_from_data".
        weights_init: initial weights.
        means_init: initial means.
        precisions_init: initial precisions, in the layout of ``precisions_``; not for "lowrank".
        random_state: seed of the initializations and of ``sample``.
        warm_start: initialize with the last solution, if it has as many components and features and is of the same
            covariance_type; otherwise fit anew.
        verbose: 1 prints steps, 2 also gains and seconds.
        verbose_interval: number of steps between prints.
        rank: directions per component, for "lowrank".

    Attributes:
        weights_, means_, covariances_, precisions_, precisions_cholesky_: as in scikit-learn, and read-only; low-rank
            matrices are computed on access. Set weights, means and covariances (or precisions) of another tool to
            predict without a fit, or set one of them to change it.
        converged_, n_iter_, lower_bound_, lower_bounds_: of the best initialization.
        mixture_: the fitted ``mixtura.core.mixture.Mixture``.

    >>> import numpy as np
    >>> X = np.array([[1, 2], [1, 4], [1, 0], [10, 2], [10, 4], [10, 0]])
    >>> gm = GaussianMixture(n_components=2, random_state=0).fit(X)
    >>> gm.means_.round(6)
    array([[10.,  2.],
           [ 1.,  2.]])
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "n_components": [Interval(Integral, 1, None, closed="left")],
        "covariance_type": [StrOptions(set(LAYOUTS))],
        "tol": [Interval(Real, 0.0, None, closed="left")],
        "reg_covar": [Interval(Real, 0.0, None, closed="left")],
        "max_iter": [Interval(Integral, 0, None, closed="left")],
        "n_init": [Interval(Integral, 1, None, closed="left")],
        "init_params": [StrOptions({"kmeans", "random", "random_from_data", "k-means++"})],
        "weights_init": ["array-like", None],
        "means_init": ["array-like", None],
        "precisions_init": ["array-like", None],
        "random_state": ["random_state"],
        "warm_start": ["boolean"],
        "verbose": ["verbose"],
        "verbose_interval": [Interval(Integral, 1, None, closed="left")],
        "rank": [Interval(Integral, 1, None, closed="left")],
    }

    def __init__(
        self,
        n_components: Any = 1,
        *,
        covariance_type: Any = "full",
        tol: Any = 1e-3,
        reg_covar: Any = 1e-6,
        max_iter: Any = 100,
        n_init: Any = 1,
        init_params: Any = "kmeans",
        weights_init: Any = None,
        means_init: Any = None,
        precisions_init: Any = None,
        random_state: Any = None,
        warm_start: Any = False,
        verbose: Any = 0,
        verbose_interval: Any = 10,
        rank: Any = 16,
    ) -> None:
        self.n_components = n_components
        self.covariance_type = covariance_type
        self.tol = tol
        self.reg_covar = reg_covar
        self.max_iter = max_iter
        self.n_init = n_init
        self.init_params = init_params
        self.weights_init = weights_init
        self.means_init = means_init
        self.precisions_init = precisions_init
        self.random_state = random_state
        self.warm_start = warm_start
        self.verbose = verbose
        self.verbose_interval = verbose_interval
        self.rank = rank

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> "GaussianMixture":
        """Fit by EM from ``n_init`` initializations and keep the best result.

        Args:
            X: training samples.
            y: ignored.
            sample_weight: sample weights.

        Raises:
            ValueError: invalid input or parameters.
            CollapsedComponent: a component without spread (also a ValueError).
        """
        x, weight = self._training_rows(X, sample_weight)
        random_state = check_random_state(self.random_state)
        warm = self.warm_start and self._serves(x.shape[1])
        runs = list[EMRun]()
        for number in range(1 if warm else self.n_init):
            self._say(f"Initialization {number}")
            with advised(COLLAPSE_ADVICE):
                begin = self.mixture_ if warm else self._start(x, weight, random_state)
                bound = getattr(self, "lower_bound_", -np.inf) if warm else -np.inf
                runs.append(self._climb(begin, x, weight, bound))
        best = max(runs, key=lambda run: run.bound)
        if not best.converged and self.max_iter > 0:
            warnings.warn(
                "The best start did not converge. Try other starts, more max_iter or a larger tol, or check the data.",
                ConvergenceWarning,
                stacklevel=2,
            )
        self.mixture_, self._sums, self._dtype = best.mixture, best.sums, x.numpy().dtype
        self.converged_, self.n_iter_ = best.converged, len(best.bounds)
        self.lower_bound_, self.lower_bounds_ = best.bound, best.bounds
        return self

    def fit_predict(self, X: Any, y: Any = None, sample_weight: Any = None) -> Array:
        """Fit and return the most probable component of each sample."""
        return self.fit(X, sample_weight=sample_weight).predict(X)

    def partial_fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> "GaussianMixture":
        """Update with one more mini-batch: its moments are added to those of all previous batches.

        The first call is the same as ``fit``. Each sample counts once, with its responsibilities under the mixture at
        that time. Memory does not grow; for "lowrank" it is a full matrix per component. Parameters that were set
        by hand assign the first batch to its components; they hold no samples of their own.

        Source: Neal and Hinton, A View of the EM Algorithm that Justifies Incremental and Other Variants (1998).
        """
        if not hasattr(self, "mixture_"):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                return self.fit(X, sample_weight=sample_weight)
        x, weight = self._rows(X, sample_weight)
        sums = incremental_sums(self.mixture_, in_range(x), weight)
        self._sums = sums if self._sums is None else full_sums(self._sums, self.mixture_) + sums
        with advised(COLLAPSE_ADVICE):
            self.mixture_ = maximize(self.mixture_, self._sums, float(self.reg_covar))
        self.lower_bound_ = self.score(X)
        return self

    def _serves(self, dimension: int) -> bool:
        """Whether the last solution can be the start of a fit with the present options."""
        if not hasattr(self, "mixture_"):
            return False
        family, last = family_of(LAYOUTS[self.covariance_type].family), self.mixture_
        if (last.n_components, last.dimension, type(last.covariance)) != (self.n_components, dimension, family):
            return False
        size = family.initial(1, dimension, self.rank).n_parameters  # a low-rank one has its own rank
        return last.covariance.select(torch.tensor([0])).n_parameters == size

    def _start(self, x: Tensor, weight: Tensor | None, random_state: np.random.RandomState) -> Mixture:
        """Initial mixture from ``init_params``, with the user's initial values in place of its own."""
        layout, dimension = LAYOUTS[self.covariance_type], x.shape[1]
        given = self._given(layout, dimension)
        if None not in given.values():
            return Mixture(given["log_weight"], given["mean"], given["covariance"])
        begin = Initialization(layout.family, self.n_components, float(self.reg_covar), self.rank, x, weight)
        mixture = INIT_PARAMS[self.init_params](begin, random_state)
        return replace(mixture, **{name: value for name, value in given.items() if value is not None})

    def _given(self, layout: Layout, dimension: int) -> dict[str, Any]:
        """Validated initial values from the user; ``None`` for the others."""
        k = self.n_components
        weight = _given_array(self.weights_init, (k,), "weights")
        mean = _given_array(self.means_init, (k, dimension), "means")
        precision = _given_array(self.precisions_init, layout.shape(k, dimension), "precisions")
        if weight is not None:
            check_weights(weight, "weights_init")
        if precision is not None and layout.read is None:
            raise ValueError(f"There is no precisions_init for covariance_type={self.covariance_type!r}. Leave it out.")
        return {
            "log_weight": None if weight is None else weight.log(),
            "mean": mean,
            "covariance": None if precision is None else covariance_from(layout, precision, "precisions_init"),
        }

    def _climb(self, mixture: Mixture, x: Tensor, weight: Tensor | None, bound: float) -> "EMRun":
        """Run EM from one initialization."""
        bounds: list[float] = []
        sums = None
        began = perf_counter()
        steps = em.iterate(mixture, em.Chunks(x, None, weight), float(self.reg_covar))
        for number, (mixture, sums, likelihood) in enumerate(islice(steps, self.max_iter), 1):
            check_spread(mixture)
            gain, bound = likelihood - bound, likelihood
            bounds.append(bound)
            if number % self.verbose_interval == 0:
                self._say(f"  Iteration {number}", f"\t gain {gain:.5f}\t {perf_counter() - began:.5f} s")
            if abs(gain) < self.tol:
                return EMRun(mixture, sums, bound, bounds, True)
        return EMRun(mixture, sums, bound if bounds else -np.inf, bounds, False)

    def _say(self, line: str, detail: str = "") -> None:
        """Print progress according to ``verbose``."""
        if self.verbose:
            sys.stdout.write(line + (detail if self.verbose > 1 else "") + "\n")

    def _training_rows(self, X: Any, sample_weight: Any) -> tuple[Tensor, Tensor | None]:
        """Validated training samples and weights; also validates the parameters."""
        self._validate_params()
        X = validate_data(self, X, dtype=FLOAT_TYPES, ensure_min_samples=2)
        if len(X) < self.n_components:
            raise ValueError(
                f"Expected n_samples >= n_components but got n_components = {self.n_components}, n_samples = {len(X)}"
            )
        return in_range(to_tensor(X)), weights_of(X, sample_weight)

    def _rows(self, X: Any, sample_weight: Any = None) -> tuple[Tensor, Tensor | None]:
        """Validated samples and weights for a fitted mixture."""
        self.check_made()
        check_is_fitted(self)
        X = validate_data(self, X, dtype=FLOAT_TYPES, reset=False)
        return to_tensor(X), weights_of(X, sample_weight)

    # Inference

    def predict(self, X: Any) -> Array:
        """Most probable component of each sample."""
        x, _ = self._rows(X)
        return torch.cat([scores.argmax(1) for scores in self._scores(x)]).numpy()

    def predict_proba(self, X: Any) -> Array:
        """Posterior probability of each component for each sample."""
        x, _ = self._rows(X)
        return torch.cat([posterior_of(scores, x.dtype) for scores in self._scores(x)]).numpy()

    def score_samples(self, X: Any) -> Array:
        """Log-density of each sample, in nats."""
        x, _ = self._rows(X)
        return torch.cat([scores.logsumexp(1) for scores in self._scores(x, False)]).to(x.dtype).numpy()

    def _scores(self, x: Tensor, compared: bool = True) -> Iterator[Tensor]:
        """Component log-probabilities of samples, in tiles; to compare components or as they are."""
        return (class_scores(self.mixture_, rows, compared) for rows in x.split(em.TILE_ROWS))

    def score(self, X: Any, y: Any = None) -> float:
        """Mean log-density, in nats per sample."""
        return float(self.score_samples(X).mean(dtype=np.float64))

    def sample(self, n_samples: int = 1) -> tuple[Array, Array]:
        """Random samples and their components, ordered by component."""
        check_is_fitted(self)
        if n_samples < 1:
            raise ValueError(f"n_samples must be 1 or more, got {n_samples}.")
        x, component = self.mixture_.sample(n_samples, generator_of(self.random_state))
        component, order = component.sort(stable=True)
        return x[order].numpy().astype(self._dtype), component.numpy()

    def bic(self, X: Any) -> float:
        """Bayesian information criterion on X, in nats; lower is better."""
        n = len(X)
        return -2 * self.score(X) * n + self.mixture_.n_parameters * float(np.log(n))

    def aic(self, X: Any) -> float:
        """Akaike information criterion on X, in nats; lower is better."""
        return -2 * self.score(X) * len(X) + 2 * self.mixture_.n_parameters


@dataclass(frozen=True)
class EMRun:
    """Result of EM from one initialization: the mixture, the last step's moments, and the bound before each step."""

    mixture: Mixture
    sums: Moments | None
    bound: float
    bounds: list[float]
    converged: bool


def generator_of(random_state: Any) -> torch.Generator:
    """Torch generator seeded by scikit-learn's ``random_state`` rules."""
    return torch.Generator().manual_seed(int(check_random_state(random_state).randint(np.iinfo(np.int32).max)))


def weights_of(X: Array, sample_weight: Any) -> Tensor | None:
    """Validated sample weights as a float64 tensor; ``None`` if there are none."""
    if sample_weight is None:
        return None
    return to_tensor(_check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True))


def _given_array(value: Any, shape: tuple[int, ...], name: str) -> Tensor | None:
    if value is None:
        return None
    array = np.asarray(check_array(value, ensure_2d=False, allow_nd=True, input_name=f"{name}_init"), dtype=np.float64)
    if array.shape != shape:
        raise ValueError(f"The parameter {name!r} should have the shape of {shape}, but got {array.shape}")
    return to_tensor(array)
