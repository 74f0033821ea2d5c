"""koaning/scikit-lego#506, simple-crypto/SCALib#176, scikit-learn/scikit-learn#17978: predict_proba is never NaN."""

import warnings

import numpy as np
from common import caught, check, end

from mixtura import MixtureClassifier

warnings.simplefilter("ignore")
r = np.random.RandomState(0)
y = np.repeat([0, 1, 2], 30)
X = r.randn(90, 4) + 3 * y[:, None]
for fam in ("tied", "full", "diagonal", "spherical", "lowrank"):
    m = MixtureClassifier(fam).fit(X.astype(np.float32), y)
    for v in (1e6, 1e19, 1e30):
        p = m.predict_proba(np.full((1, 4), v, np.float32))
        check(f"{fam}: float32 row of {v:g} has probabilities", bool(np.isfinite(p).all()), p.round(3).tolist())
for s in (1e-30, 1e-20, 1e20, 1e30):
    for fam in ("diagonal", "spherical", "tied"):
        p = caught(
            lambda: MixtureClassifier(fam).fit((X * s).astype(np.float32), y).predict_proba((X * s).astype(np.float32))
        )
        ok = (isinstance(p, ValueError) and "scale" in str(p).lower()) or (
            not isinstance(p, Exception) and np.isfinite(p).all() and (p.argmax(1) == y).mean() > 0.9
        )
        check(
            f"{fam}: float32 data times {s:g} is learned or refused for its scale",
            ok,
            p if isinstance(p, Exception) else f"finite {np.isfinite(p).all()}, right {(p.argmax(1) == y).mean():.2f}",
        )
e = caught(lambda: MixtureClassifier("tied").fit(X * 1e150, y).score(X * 1e150, y))
check("float64 times 1e150: no bare OverflowError", not isinstance(e, OverflowError), repr(e))
end()
