"""Classification by class-conditional mixtures: a density for each class, Bayes' rule, and log p(x) besides."""

from dataclasses import replace
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import _check_partial_fit_first_call, check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from mixtura._sklearn_choice import Rows, automatic_prior, choose, counted, ordered, resolve
from mixtura._sklearn_gaussian import FLOATS, generator_of, weights_of
from mixtura._sklearn_shapes import Array, to_tensor
from mixtura.core import classes
from mixtura.core.covariance import FAMILIES, LowRank, Prior
from mixtura.core.mixture import Mixture
from mixtura.core.moments import Moments, feature_variance
from mixtura.errors import LabelError


def _adds_up(model: Any) -> bool:
    """Whether the fit is a sum over rows, so that batches can be added."""
    return model.components in (1, "auto") and model.family != "lowrank"


class MixtureClassifier(ClassifierMixin, BaseEstimator):
    """Each class is a mixture of Gaussians; the class posterior follows by Bayes' rule.

    One component a class is a closed form: "tied" is linear discriminant analysis, "full" quadratic,
    "diagonal" Gaussian naive Bayes, "spherical" nearest mean with spreads.

    Args:
        family: "auto", "spherical", "diagonal", "lowrank", "tied" or "full".
        components: components a class, or "auto".
        shrinkage: share of the scaled identity in every covariance, 0 to 1, or "auto".
        rank: directions a component, for "lowrank".
        floor: variance added to every dimension, as a share of the average variance of X.
        priors: class probabilities in the order of ``classes_``; default: the classes' shares of the rows.
        random_state: seed of the starts, of the validation split of "auto", and of ``sample``.

    Attributes:
        classes_: the labels.
        mixture_: the fitted ``mixtura.core.mixture.Mixture``.
        plan_: family, components and shrinkage in use.

    >>> import numpy as np
    >>> X = np.array([[-2.0, 0.0], [-1.0, 1.0], [-1.0, -1.0], [1.0, 0.0], [2.0, 1.0], [2.0, -1.0]])
    >>> model = MixtureClassifier(family="tied").fit(X, ["left", "left", "left", "right", "right", "right"])
    >>> model.predict([[-1.5, 0.0], [3.0, 0.5]]).tolist()
    ['left', 'right']
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "family": [StrOptions({"auto", *FAMILIES})],
        "components": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        "shrinkage": [Interval(Real, 0.0, 1.0, closed="both"), StrOptions({"auto"})],
        "rank": [Interval(Integral, 1, None, closed="left")],
        "floor": [Interval(Real, 0.0, None, closed="left")],
        "priors": ["array-like", None],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        family: Any = "auto",
        components: Any = 1,
        shrinkage: Any = "auto",
        rank: Any = 16,
        floor: Any = classes.FLOOR_SHARE,
        priors: Any = None,
        random_state: Any = None,
    ) -> None:
        self.family = family
        self.components = components
        self.shrinkage = shrinkage
        self.rank = rank
        self.floor = floor
        self.priors = priors
        self.random_state = random_state

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> "MixtureClassifier":
        """Fit one mixture a class.

        Args:
            X: rows.
            y: a label a row.
            sample_weight: how often each row counts.

        Raises:
            LabelError: one class only (a ValueError as well).
            ValueError: input or parameters that cannot be used.
        """
        self._validate_params()
        X, y = validate_data(self, X, y, dtype=FLOATS)
        check_classification_targets(y)
        self.classes_, labels = np.unique(y, return_inverse=True)
        self._check_classes()
        index, weight = torch.from_numpy(labels), weights_of(X, sample_weight)
        rows = counted(Rows(to_tensor(X), index, len(self.classes_), weight))
        self._sums, self._dtype = None, X.dtype
        open_family, open_count = self.family == "auto", self.components == "auto"
        plan = choose(self._plan(), rows, self._shrinkage(), open_family, open_count)
        if plan.components == 1 and FAMILIES[plan.family] is not LowRank:
            return self._learn(plan, rows)
        self.plan_, rows = resolve(plan, rows, self._shrinkage()), ordered(rows, plan.seed)
        return self._keep(classes.fit(self.plan_, rows.x, rows.index, rows.n_classes, rows.weight))

    @available_if(_adds_up)
    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> "MixtureClassifier":
        """Add the sums of one more batch: batches give exactly what all rows at once would.

        Args:
            X: rows.
            y: a label a row.
            classes: all labels that may ever come; needed by the first call.
            sample_weight: how often each row counts.

        Raises:
            LabelError: a label that is not in ``classes`` (a ValueError as well).
            ValueError: input or parameters that cannot be used.

        There is no ``partial_fit`` for several components a class or the low-rank family: their fits are not sums.
        """
        self._validate_params()
        first = _check_partial_fit_first_call(self, classes)
        X, y = validate_data(self, X, y, dtype=FLOATS, reset=first)
        self._check_classes()
        index = np.searchsorted(self.classes_, y).clip(max=len(self.classes_) - 1)
        if (self.classes_[index] != y).any():
            raise LabelError(f"Label {y[self.classes_[index] != y][0]} is not in classes. Name all labels at first.")
        if first:
            self._sums, self._dtype, self.plan_ = None, X.dtype, self._plan()
        if self._sums is None and not first:
            raise ValueError(
                f"The fit chose {self.plan_.family!r}, which partial_fit cannot add to. Name another family."
            )
        rows = Rows(to_tensor(X), torch.from_numpy(index), len(self.classes_), weights_of(X, sample_weight))
        return self._learn(self.plan_, rows)

    def _learn(self, plan: classes.Plan, rows: Rows) -> "MixtureClassifier":
        """Add the sums of some rows and solve for the mixture."""
        sums = rows.sums(plan.family)
        self._sums = sums if self._sums is None else self._sums + sums
        shrinkage = self._shrinkage()
        prior = automatic_prior(self._sums) if shrinkage is None else Prior(identity=shrinkage)
        self.plan_ = replace(plan, prior=prior)
        return self._keep(closed_form(self.plan_, self._sums))

    def _plan(self) -> classes.Plan:
        """What the arguments say; where they leave it open, the tied family and one component."""
        return classes.Plan(
            "tied" if self.family == "auto" else self.family,
            1 if self.components == "auto" else int(self.components),
            floor=float(self.floor),
            rank=int(self.rank),
            seed=int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max)),
        )

    def _shrinkage(self) -> float | None:
        return None if self.shrinkage == "auto" else float(self.shrinkage)

    def _keep(self, mixture: Mixture) -> "MixtureClassifier":
        """Take a fitted mixture, with the class priors that were asked for."""
        if self.priors is not None:
            prior = np.asarray(self.priors, dtype=np.float64)
            if prior.shape != self.classes_.shape or (prior < 0).any() or abs(prior.sum() - 1) > 1e-6:
                raise ValueError(f"priors must be {len(self.classes_)} probabilities that sum to 1, got {prior}.")
            mixture = mixture.with_prior(torch.from_numpy(prior).log())
        self.mixture_ = mixture
        return self

    def _check_classes(self) -> None:
        if len(self.classes_) < 2:
            raise LabelError(f"A classifier needs two classes at least, got 1 class: {self.classes_[0]}.")

    def _scores(self, X: Any) -> Tensor:
        """Log-density of each row together with each class, in nats."""
        check_is_fitted(self, "mixture_")
        X = validate_data(self, X, dtype=FLOATS, reset=False)
        return self.mixture_.class_joint(to_tensor(X))

    def predict(self, X: Any) -> Array:
        """The most probable label of each row."""
        chosen = self._scores(X).argmax(1).numpy()
        return self.classes_[chosen]

    def predict_proba(self, X: Any) -> Array:
        """Probability of each class for each row, if the row is of one of the classes."""
        return self._scores(X).softmax(1).numpy()

    def predict_log_proba(self, X: Any) -> Array:
        """Log-probability of each class for each row, in nats."""
        return self._scores(X).log_softmax(1).numpy()

    def score_samples(self, X: Any) -> Array:
        """Log-density of each row under all classes together, in nats: how well known a row is."""
        return self._scores(X).logsumexp(1).numpy()

    def sample(self, n_samples: int = 1) -> tuple[Array, Array]:
        """Random rows and their labels."""
        check_is_fitted(self, "mixture_")
        if n_samples < 1:
            raise ValueError(f"n_samples must be 1 or more, got {n_samples}.")
        x, component = self.mixture_.sample(n_samples, generator_of(self.random_state))
        assert self.mixture_.owner is not None
        return x.numpy().astype(self._dtype), self.classes_[self.mixture_.owner[component].numpy()]


def closed_form(plan: classes.Plan, sums: Moments) -> Mixture:
    """One component a class, straight from the sums."""
    return classes.closed_form(plan, sums, feature_variance(sums))
