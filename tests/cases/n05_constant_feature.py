"""mlr-org/mlr3extralearners#151 (variable constant within groups), mitmedialab/sherlock-project#56 (NaN on constant data)."""

import numpy as np
from common import caught, check, end

from mixtura import MixtureClassifier

r = np.random.RandomState(0)
X = np.c_[r.randn(40, 2), np.ones(40)]
y = np.arange(40) % 2
for fam in ("tied", "full", "diagonal", "spherical", "lowrank"):
    p = MixtureClassifier(fam).fit(X, y).predict_proba(X)
    check(f"{fam}, defaults", bool(np.isfinite(p).all()))
    p = caught(lambda: MixtureClassifier(fam, variance_floor=0.0, shrinkage=0.0).fit(X, y).predict_proba(X))
    check(
        f"{fam}, floor=0: an error or probabilities, no NaN",
        isinstance(p, ValueError) or bool(np.isfinite(p).all()),
        p if isinstance(p, Exception) else p[:1].tolist(),
    )
end()
