"""augerai/a2ml#484, open-mmlab/mmdetection#4152, ldeecke/gmm-torch#31: what the message of a collapsed component advises must exist."""

import numpy as np
from common import caught, check, end

from mixtura import GaussianMixture

r = np.random.RandomState(0)
x = r.randn(40)
e = caught(lambda: GaussianMixture(2, reg_covar=0, random_state=0).fit(np.c_[x, x]))
check(
    "singular data: names reg_covar or covariance_type, not floor/prior/family",
    isinstance(e, ValueError) and "reg_covar" in str(e),
    e,
)
e = caught(lambda: GaussianMixture(2, random_state=0).fit(np.c_[x, r.randn(40)] * 1e200))
check(
    "overflow: says that numbers are too large",
    isinstance(e, ValueError) and any(w in str(e).lower() for w in ("too large", "overflow", "rescale", "infin")),
    e,
)
e = caught(lambda: GaussianMixture(2, precisions_init=[np.zeros((2, 2))] * 2).fit(np.c_[x, r.randn(40)]))
check("precisions_init of zeros: names precisions_init", isinstance(e, ValueError) and "precision" in str(e), e)
end()
