"""scikit-learn users' warm_start with other options: clear refusal instead of an error of torch, or of the old count kept."""

import numpy as np
from common import caught, check, end

from mixtura import GaussianMixture

r = np.random.RandomState(0)
X = np.r_[r.randn(50, 3), r.randn(50, 3) + 5]


def go(**kw):
    g = GaussianMixture(2, warm_start=True, random_state=0).fit(X)
    g.set_params(**{k: v for k, v in kw.items() if k != "X"})
    g.fit(kw.get("X", X))
    g.covariances_
    return g.means_.shape


for name, kw in (
    ("n_features", dict(X=X[:, :2])),
    ("covariance_type", dict(covariance_type="diag")),
    ("n_components", dict(n_components=3)),
):
    s = caught(lambda: go(**kw))
    ok = isinstance(s, ValueError) or s == (kw.get("n_components", 2), kw.get("X", X).shape[1])
    check(f"other {name}: a ValueError with a sentence, or fitted anew", ok, repr(s)[:120])
end()
