"""Classification by class-conditional Gaussian mixtures and Bayes' rule, with log p(x) as well."""

import math
from contextlib import suppress
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

from mixtura.core import selection
from mixtura.core.classes import FEATURE_SCALES, FLOOR_SHARE, Plan, closed_form, scale_share_of
from mixtura.core.covariance import Prior, family_of
from mixtura.core.far_rows import class_scores, posterior_of
from mixtura.core.mixture import Mixture
from mixtura.core.moments import feature_variance, labeled
from mixtura.core.scale import in_range
from mixtura.core.shrinkage import oas
from mixtura.errors import LabelError, UsageError
from mixtura.features.projection import Chain
from mixtura.features.selection import candidates, select
from mixtura.formats import rate_of
from mixtura.scores import false_discovery
from mixtura.scores.typicality import Typicality
from mixtura.sklearn.decisions import Decisions, Evidence, held_out, typicality_of
from mixtura.sklearn.gaussian import FLOAT_TYPES, generator_of, weights_of
from mixtura.sklearn.labels import check_labels
from mixtura.sklearn.layouts import Array, advised, check_spread, to_tensor
from mixtura.sklearn.projection import as_value_errors, steps_of
from mixtura.sklearn.weighted_rows import distinct, with_folds

AUTO_NAME = "auto"
COLLAPSE_ADVICE = "Use a larger variance_floor or shrinkage, fewer n_components, or another family, such as 'diagonal'."
NOT_ASKED = (
    "The classifier was fitted with false_reject_rate=None, which holds out no samples to set the limit for unknown. "
    "Set it, as in false_reject_rate=0.05, and fit again."
)
NOT_IN_BATCHES = (
    "partial_fit holds out no samples to set the limit for unknown. Call fit first, on part of the samples."
)
NOT_HELD_OUT = (
    "Fewer than two samples could be held out to set the limit for unknown. Fit with two or more different samples of "
    "at least one class."
)


def _adds_up(model: Any) -> bool:
    """Whether the fit uses only moments, so mini-batches can be added."""
    if model.n_components not in (1, AUTO_NAME):
        return False
    with suppress(UsageError):  # ``fit`` reports an unknown family
        return model.family == AUTO_NAME or not family_of(str(model.family)).sums_depend_on_parameters
    return True


class MixtureClassifier(ClassifierMixin, BaseEstimator):
    """Classifier with a Gaussian mixture per class; the class posterior follows from Bayes' rule.

    One component per class has a closed form: "tied" is linear discriminant analysis, "full" is quadratic,
    "diagonal" is Gaussian naive Bayes, and "spherical" is nearest mean with variances.

    "auto" options are selected as in ``mixtura fit``, by five-fold cross-validation. The fold of a sample follows from
    its values, so a sample of weight two equals two copies of it, and the sample order does not matter; nor does the
    unit of a feature with feature_scale="unit".

    Args:
        family: "auto", "spherical", "diagonal", "lowrank", "tied", "full", or package.module:Class.
        n_components: components per class, or "auto".
        shrinkage: share of the scaled identity in every covariance, 0 to 1; "auto" by cross-validation, or "oas" from
            the moments alone.
        rank: directions per component, for "lowrank".
        variance_floor: variance added to each feature, as a share of its variance within classes.
        priors: class probabilities in the order of ``classes_``; by default the class frequencies.
        random_state: seed of the initializations, of the folds, and of ``sample``.
        feature_scale: the units in which covariances are shrunk: "none" (unscaled features), "unit" (within-class
            standard deviations), "half" (their square roots), or "auto", where the median feature's variance counts in
            each unit as that of ten samples.
        temperature: divisor of log-densities before the softmax; "auto" by cross-validation, 1 for uncalibrated
            densities.
        projection: ``None``, "auto" (raw features, their square roots, or random features if there are many samples),
            or a list of steps, each a name or a dict with options, such as ``["power", {"name": "pca",
            "explained_variance": 0.9}]``. Fitted steps count each distinct sample once.
        false_reject_rate: share of genuine samples that ``decide`` may call unknown, above 0 and below 1. The limit
            comes from out-of-fold samples, which take time; with ``None``, ``fit`` saves it, and there is no
            typicality.
        min_probability: ``decide`` calls a less probable label unsure.

    Attributes:
        classes_: the labels.
        mixture_: the fitted ``mixtura.core.mixture.Mixture``, in the space of the projection.
        projection_: the fitted projection; a chain without steps for ``None``.
        temperature_: the temperature in use.
        plan_: the family, components, shrinkage and feature scale in use.
        typicality_: the ``mixtura.scores.typicality.Typicality`` of the out-of-fold samples, ``None`` without them.

    >>> import numpy as np
    >>> X = np.array([[-2.0, 0.0], [-1.0, 1.0], [-1.0, -1.0], [1.0, 0.0], [2.0, 1.0], [2.0, -1.0]])
    >>> model = MixtureClassifier(family="tied").fit(X, ["left", "left", "left", "right", "right", "right"])
    >>> model.predict([[-1.5, 0.0], [3.0, 0.5]]).tolist()
    ['left', 'right']
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "family": [str],
        "n_components": [Interval(Integral, 1, None, closed="left"), StrOptions({AUTO_NAME})],
        "shrinkage": [Interval(Real, 0.0, 1.0, closed="both"), StrOptions({AUTO_NAME, selection.OAS})],
        "rank": [Interval(Integral, 1, None, closed="left")],
        "variance_floor": [Interval(Real, 0.0, 1e6, closed="both")],
        "priors": ["array-like", None],
        "random_state": ["random_state"],
        "feature_scale": [StrOptions({AUTO_NAME, *FEATURE_SCALES})],
        "temperature": [Interval(Real, 0.0, None, closed="neither"), StrOptions({AUTO_NAME})],
        "projection": [StrOptions({AUTO_NAME}), list, tuple, None],
        "false_reject_rate": [Interval(Real, 0.0, 1.0, closed="neither"), None],
        "min_probability": [Interval(Real, 0.0, 1.0, closed="both")],
    }

    def __init__(
        self,
        family: Any = AUTO_NAME,
        n_components: Any = 1,
        shrinkage: Any = AUTO_NAME,
        rank: Any = 16,
        variance_floor: Any = FLOOR_SHARE,
        priors: Any = None,
        random_state: Any = None,
        feature_scale: Any = AUTO_NAME,
        temperature: Any = AUTO_NAME,
        projection: Any = None,
        false_reject_rate: Any = 0.05,
        min_probability: Any = 0.5,
    ) -> None:
        self.family = family
        self.n_components = n_components
        self.shrinkage = shrinkage
        self.rank = rank
        self.variance_floor = variance_floor
        self.priors = priors
        self.random_state = random_state
        self.feature_scale = feature_scale
        self.temperature = temperature
        self.projection = projection
        self.false_reject_rate = false_reject_rate
        self.min_probability = min_probability

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> "MixtureClassifier":
        """Fit one mixture per class.

        Args:
            X: training samples.
            y: labels.
            sample_weight: sample weights, as counts. Weights that sum to one count as a single sample, which is too few
                for model selection; multiply them by the number of samples.

        Raises:
            LabelError: only one class (also a ValueError).
            ValueError: invalid input or parameters.
        """
        self._check_params()
        check_labels(y, "y")
        X, y = validate_data(self, X, y, dtype=FLOAT_TYPES)
        check_classification_targets(y)
        vars(self).pop("mixture_", None)  # if this fit fails, nothing answers with other classes
        self.classes_, labels = np.unique(y, return_inverse=True)
        self._check_classes()
        x, weight = in_range(to_tensor(X)), weights_of(X, sample_weight)
        plan, self._dtype = self._plan(scale_share_of(len(x), weight)), x.numpy().dtype
        rows = distinct(x, torch.from_numpy(labels), weight, len(self.classes_), plan.seed)
        if self._open():
            rows = with_folds(rows, plan.seed)
        with as_value_errors(), advised(COLLAPSE_ADVICE):
            found = select(
                rows,
                plan,
                candidates(rows.x) if self.projection == AUTO_NAME else [steps_of(self.projection or ())],
                random_features=self.projection == AUTO_NAME,
                family=self.family,
                shrinkage=self._rule(),
                components=self.n_components if isinstance(self.n_components, str) else int(self.n_components),
                feature_scale=self.feature_scale,
            )
        self.projection_, self.plan_ = found.projection, found.candidate.plan
        judged = self.false_reject_rate is not None
        held = held_out(found, rows, plan.seed) if judged else found.candidate.held
        tempered = self.temperature == AUTO_NAME
        self.temperature_ = selection.temperature_of(found.folds.x, held) if tempered else float(self.temperature)
        additive = self.plan_.components == 1 and not family_of(self.plan_.family).sums_depend_on_parameters
        self._sums = found.folds.total(self.plan_.family) if additive else None
        self._from_sums = self.shrinkage == selection.OAS
        self._keep(found.folds.mixture(self.plan_))
        self.typicality_ = typicality_of(held, self.temperature_, self._log_odds) if judged else None
        self._untold = NOT_HELD_OUT if judged else NOT_ASKED
        return self

    @available_if(_adds_up)
    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> "MixtureClassifier":
        """Update with one more mini-batch; the result equals a fit of all samples at once.

        After ``fit``, its choices are kept: family, shrinkage, feature scale, temperature, projection and typicality.
        Without ``fit`` there is no cross-validation, so "auto" means the tied family, shrinkage "oas" from the moments,
        feature scale "unit", temperature 1 and no projection, and there is no typicality.

        Args:
            X: samples.
            y: labels.
            classes: all labels that may ever occur; required in the first call.
            sample_weight: sample weights.

        Raises:
            LabelError: a label that is not in ``classes`` (also a ValueError).
            ValueError: invalid input or parameters.

        Not available for several components per class or the low-rank family, whose fits need more than moments.
        """
        self._check_params()
        check_labels(classes, "classes")
        check_labels(y, "y")
        if not hasattr(self, "mixture_"):
            vars(self).pop("classes_", None)  # of a fit that failed
        first = _check_partial_fit_first_call(self, classes)
        X, y = validate_data(self, X, y, dtype=FLOAT_TYPES, reset=first)
        self._check_classes()
        index = np.searchsorted(self.classes_, y).clip(max=len(self.classes_) - 1)
        if (self.classes_[index] != y).any():
            raise LabelError(f"Label {y[self.classes_[index] != y][0]} is not in classes. Name all labels at first.")
        if first:
            self._begin(X)
        elif self._sums is None:
            raise ValueError(
                f"The fit chose {self.plan_.family!r}, which partial_fit cannot add to. Name another family."
            )
        x, kind = self.projection_(in_range(to_tensor(X))), family_of(self.plan_.family)
        sums = labeled(kind, x, torch.from_numpy(index), len(self.classes_), weights_of(X, sample_weight))[0]
        self._sums = sums if self._sums is None else self._sums + sums
        variance = feature_variance(self._sums)
        if self._from_sums:
            self.plan_ = replace(self.plan_, prior=oas(self._sums, self.plan_.resolved(variance)[1].scale))
        with advised(COLLAPSE_ADVICE):
            return self._keep(closed_form(self.plan_, self._sums, variance))

    def _check_params(self) -> None:
        """See that the arguments are of the right kind, and that the family is there."""
        self._validate_params()
        with as_value_errors():
            if self.family != AUTO_NAME:
                family_of(self.family)

    def _begin(self, X: Array) -> None:
        """Set up an empty fit for the first mini-batch, with a plan that needs no cross-validation."""
        if self.projection not in (None, AUTO_NAME):
            raise ValueError("partial_fit cannot fit a projection to batches. Call fit first, or project X before.")
        plan, rule = self._plan(), self._rule()
        plan = replace(plan, feature_scale="unit" if self.feature_scale == AUTO_NAME else self.feature_scale)
        self._from_sums = not isinstance(rule, Prior)
        self.plan_ = replace(plan, prior=rule) if isinstance(rule, Prior) else plan
        self.temperature_ = 1.0 if self.temperature == AUTO_NAME else float(self.temperature)
        self.projection_, self._sums, self._dtype = Chain(), None, X.dtype
        self.typicality_, self._untold = None, NOT_IN_BATCHES

    def _open(self) -> bool:
        """Whether any option needs cross-validation."""
        given = (self.family, self.n_components, self.shrinkage, self.temperature, self.projection)
        scaled = self.feature_scale == AUTO_NAME and self.shrinkage != 0
        return scaled or any(isinstance(value, str) and value == AUTO_NAME for value in given)

    def _plan(self, share: float = 0.0) -> Plan:
        """Plan from the arguments; "auto" means the tied family, one component and this scale share."""
        given = self.random_state
        drawn = given if isinstance(given, Integral) else check_random_state(given).randint(np.iinfo(np.int32).max)
        return Plan(
            "tied" if self.family == AUTO_NAME else self.family,
            floor=float(self.variance_floor),
            rank=int(self.rank),
            seed=int(drawn),
            scale_share=share if self.feature_scale == AUTO_NAME else 0.0,
        )

    def _rule(self) -> selection.Rule:
        """Shrinkage rule; a number is only the share of the identity, as in scikit-learn."""
        if isinstance(self.shrinkage, str):
            return selection.HELD_OUT if self.shrinkage == AUTO_NAME else selection.OAS
        return Prior(identity=float(self.shrinkage))

    def _keep(self, mixture: Mixture) -> "MixtureClassifier":
        """Store a fitted mixture, with the requested class priors."""
        check_spread(mixture)
        self._fitted, self._log_odds = mixture, torch.zeros(len(self.classes_), dtype=torch.float64)
        if self.priors is not None:
            prior = np.asarray(self.priors, dtype=np.float64)
            if prior.shape != self.classes_.shape or not (prior >= 0).all() or not abs(prior.sum() - 1) <= 1e-6:
                raise ValueError(f"priors must be {len(self.classes_)} probabilities that sum to 1, got {prior}.")
            mixture = mixture.with_prior(torch.from_numpy(prior).log())
            shares = self._shares()
            self._log_odds = torch.where(shares > 0, torch.from_numpy(prior).log() - shares.log(), 0.0)
        self.mixture_ = mixture
        return self

    def _shares(self) -> Tensor:
        """Class frequencies of the training samples."""
        mixture = self._fitted
        assert mixture.component_class is not None
        shares = torch.zeros(len(self.classes_), dtype=torch.float64)
        return shares.index_add_(0, mixture.component_class, mixture.log_weight.exp().double())

    def _check_classes(self) -> None:
        if len(self.classes_) < 2:
            raise LabelError(f"A classifier needs two classes at least, got 1 class: {self.classes_[0]}.")

    def _projected(self, X: Any) -> Tensor:
        check_is_fitted(self, "mixture_")
        X = validate_data(self, X, dtype=FLOAT_TYPES, reset=False)
        return self.projection_(to_tensor(X))

    def _scores(self, X: Any) -> tuple[Tensor, torch.dtype]:
        """Class log-probabilities up to a constant per sample, in nats, and the precision of the samples.

        The temperature applies to scores with the training class frequencies; other priors are added unscaled.
        """
        x = self._projected(X)
        joint = class_scores(self._fitted, x, compared=True)
        return joint / self.temperature_ + self._log_odds.to(joint.dtype), x.dtype

    def predict(self, X: Any) -> Array:
        """Most probable label of each sample."""
        chosen = self._scores(X)[0].argmax(1).numpy()
        return self.classes_[chosen]

    def predict_proba(self, X: Any) -> Array:
        """Probability of each class for each sample, assuming the sample is from one of the classes."""
        return posterior_of(*self._scores(X)).numpy()

    def predict_log_proba(self, X: Any) -> Array:
        """Log-probability of each class for each sample, in nats."""
        scores, dtype = self._scores(X)
        return scores.log_softmax(1).to(dtype).nan_to_num(nan=-math.log(scores.shape[1]), neginf=-math.inf).numpy()

    def typicality(self, X: Any) -> Array:
        """Share, in [0, 1], of genuine samples that look at least as unusual as each sample: a conformal p-value.

        It says whether a sample is from any of the classes. Among genuine samples with the class frequencies of the
        training samples, at most a share a has a typicality below a.

        Raises:
            ValueError: no samples were held out; the message says why and what to do.
        """
        evidence, calibration = self._evidence(X)
        return evidence.typicality(calibration).numpy()

    def decide(self, X: Any, false_discovery_rate: Any = None) -> Decisions:
        """Label, probability, typicality, verdict and reason of each sample.

        Args:
            X: samples.
            false_discovery_rate: of the samples of X called unknown, the largest expected share of genuine ones, as in
                0.05. It sets the limit of the typicality for this call, in place of ``false_reject_rate``.

        Raises:
            ValueError: no samples were held out, or an invalid rate.
        """
        self._validate_params()
        evidence, calibration = self._evidence(X)
        typicality, limit = evidence.typicality(calibration).numpy(), self.false_reject_rate
        if false_discovery_rate is not None:
            with as_value_errors():
                limit = false_discovery.limit(typicality, rate_of(false_discovery_rate, "false_discovery_rate"))
        if limit is None:
            raise ValueError("false_reject_rate is None. Set it to decide what is unknown, as in 0.05.")
        return evidence.decisions(calibration, typicality, self.classes_, float(limit), float(self.min_probability))

    def _evidence(self, X: Any) -> tuple[Evidence, Typicality]:
        x = self._projected(X)
        if self.typicality_ is None:
            raise ValueError(self._untold)
        joint, behind = class_scores(self._fitted, x, compared=True), class_scores(self._fitted.background(), x)
        return Evidence.of(joint, behind[:, 0], self.temperature_, self._log_odds), self.typicality_

    def score_samples(self, X: Any) -> Array:
        """Log-density of each sample under all classes together, in nats; low for strangers.

        It is in the space of the projection and independent of the temperature.
        """
        x = self._projected(X)
        return class_scores(self.mixture_, x).logsumexp(1).to(x.dtype).numpy()

    def sample(self, n_samples: int = 1) -> tuple[Array, Array]:
        """Random samples, in the space of the projection, and their labels."""
        check_is_fitted(self, "mixture_")
        if n_samples < 1:
            raise ValueError(f"n_samples must be 1 or more, got {n_samples}.")
        x, component = self.mixture_.sample(n_samples, generator_of(self.random_state))
        assert self.mixture_.component_class is not None
        return x.numpy().astype(self._dtype), self.classes_[self.mixture_.component_class[component].numpy()]
