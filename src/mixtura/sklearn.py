"""Estimators for scikit-learn: ``fit`` and ``predict`` on arrays, in pipelines and grid searches."""

from mixtura._sklearn_classifier import MixtureClassifier
from mixtura._sklearn_gaussian import GaussianMixture

__all__ = ["GaussianMixture", "MixtureClassifier"]
