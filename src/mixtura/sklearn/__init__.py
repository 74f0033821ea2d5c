"""scikit-learn estimators: ``fit`` and ``predict`` on arrays, for pipelines and grid searches."""

from mixtura.sklearn.classifier import MixtureClassifier
from mixtura.sklearn.gaussian import GaussianMixture

__all__ = ["GaussianMixture", "MixtureClassifier"]
