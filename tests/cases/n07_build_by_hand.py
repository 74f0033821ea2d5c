"""scikit-learn/scikit-learn#9343: a mixture made of parameters from elsewhere, or its components put in order, without fit."""

import numpy as np
from common import caught, check, end

from mixtura import GaussianMixture

r = np.random.RandomState(0)
X = np.r_[r.randn(50, 2), r.randn(50, 2) + 5]


def hand():
    g = GaussianMixture(2)
    g.weights_ = np.array([0.5, 0.5])
    g.means_ = np.array([[0.0, 0], [5, 5]])
    g.covariances_ = np.array([np.eye(2)] * 2)
    g.precisions_cholesky_ = np.array([np.eye(2)] * 2)
    return g.predict(X[::99]).tolist()


s = caught(hand)
check("parameters can be set (or one documented way is named)", s == [0, 1], s)


def edit():
    g = GaussianMixture(2, random_state=0).fit(X)
    g.means_[0] = 99.0
    return float(g.means_[0, 0])


s = caught(edit)
check("g.means_[0] = 99 is kept or refused, not dropped in silence", isinstance(s, Exception) or s == 99, s)
end()
