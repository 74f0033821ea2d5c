"""scikit-learn/scikit-learn#6180 (checks of class priors): priors that are no probabilities are refused."""

import numpy as np
from common import caught, check, end

from mixtura import MixtureClassifier

r = np.random.RandomState(0)
X = r.randn(30, 2)
y = np.arange(30) % 3
for pr in ([0.5, 0.5], [0.3, 0.3, 0.3], [-0.1, 0.1, 1.0], [np.nan] * 3, [np.nan, 0.5, 0.5], [np.inf, 0, 0]):
    p = caught(lambda: MixtureClassifier("tied", priors=pr).fit(X, y).predict_proba(X[:1]))
    check(f"priors={pr} refused", isinstance(p, ValueError), p if isinstance(p, Exception) else p.tolist())
end()
