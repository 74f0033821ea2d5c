"""scikit-learn/scikit-learn#30382 (float32 mixture of far points), facebookresearch/faiss#5327 (|x|^2+|y|^2-2xy cancels).
Two points 9999 and 0 in float32: the log-density must agree with float64."""

import numpy as np
from common import check, end

from mixtura import GaussianMixture

for t in ("spherical", "diag", "tied", "full"):
    X = np.array([[9999.0], [0.0]])
    a = GaussianMixture(2, covariance_type=t, reg_covar=0.1, random_state=0).fit(X).score_samples(X)
    b = (
        GaussianMixture(2, covariance_type=t, reg_covar=0.1, random_state=0)
        .fit(X.astype(np.float32))
        .score_samples(X.astype(np.float32))
    )
    check(
        f"{t}: log-density in float32 within 1e-3 of float64",
        np.abs(a - b).max() < 1e-3,
        f"{b.tolist()} against {a.round(4).tolist()}",
    )
end()
