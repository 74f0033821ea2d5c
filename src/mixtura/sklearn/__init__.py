"""Estimators for scikit-learn: ``fit`` and ``predict`` on arrays, in pipelines and grid searches."""

from mixtura.sklearn.classifier import MixtureClassifier
from mixtura.sklearn.gaussian import GaussianMixture

__all__ = ["GaussianMixture", "MixtureClassifier"]
