"""scikit-learn/scikit-learn#5314, #24732, #14054 (smoothing swamped by scale): one wide feature, and the wine data of scikit-learn."""

import warnings

import numpy as np
from common import check, end
from sklearn.datasets import load_wine
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis as LDA
from sklearn.discriminant_analysis import QuadraticDiscriminantAnalysis as QDA
from sklearn.model_selection import cross_val_score

from mixtura import MixtureClassifier

warnings.simplefilter("ignore")
r = np.random.RandomState(0)
y = np.repeat([0, 1, 2], 50)
X = r.randn(150, 4) * 0.3 + y[:, None]
X[:, 3] = r.randn(150) * 100
for fam in ("tied", "full", "auto"):
    a = MixtureClassifier(fam, random_state=0).fit(X, y).score(X, y)
    check(
        f"{fam}: a noise feature of std 100 does not hurt (LDA {LDA().fit(X, y).score(X, y):.3f})", a > 0.97, f"{a:.3f}"
    )
Xw, yw = load_wine(return_X_y=True)
for fam, peer in (("tied", LDA()), ("full", QDA())):
    a, b = cross_val_score(MixtureClassifier(fam, random_state=0), Xw, yw).mean(), cross_val_score(peer, Xw, yw).mean()
    check(f"wine, {fam}: within 2 points of {type(peer).__name__} ({b:.3f})", a >= b - 0.02, f"{a:.3f}")
a = MixtureClassifier("tied").partial_fit(X, y, classes=[0, 1, 2]).score(X, y)
check("tied, partial_fit", a > 0.97, f"{a:.3f}")
y2 = np.repeat([0, 1, 2], 50)
X2 = r.randn(150, 4) * 0.1 + np.array([0, 1, 1e4])[y2][:, None]
p = MixtureClassifier("diagonal").fit(X2, y2).predict_proba(X2[:50])[:, 0].mean()
check(
    "float64, a far class: p(right) of the others stays near 1 (the floor counts the spread between classes)",
    p > 0.95,
    f"{p:.3f}",
)
end()
