"""Cases that hold: scikit-learn #14997 #17401 #23032 #26415 #3944, NVIDIA/cuml#8316, borchero/pycave#20 #56, jmschrei/pomegranate#151, ldeecke/gmm-torch#31, skolouri/swgmm#3."""

import warnings

import numpy as np
from common import caught, check, end

from mixtura import GaussianMixture, MixtureClassifier

warnings.simplefilter("ignore")
r = np.random.RandomState(0)
C = np.array([[0, -0.23], [0.83, 0.23]])
X = np.r_[np.c_[r.randn(300), np.zeros(300)] @ C, r.randn(300, 2) @ C + 1]
y = np.r_[np.zeros(300), np.ones(300)]
check("14997 class on a line", MixtureClassifier("full").fit(X, y).score(X, y) > 0.98)
e = caught(lambda: MixtureClassifier().fit(r.rand(10, 3), np.ones(10)))
check("17401 one class: one sentence", isinstance(e, ValueError) and "two classes" in str(e), e)
check(
    "23032 sample of one component from 10 rows",
    GaussianMixture(1).fit(r.rand(10, 3).astype(np.float32)).sample(3)[0].shape == (3, 3),
)
from sklearn.mixture import GaussianMixture as SG

Y = np.r_[r.randn(60, 2), r.randn(60, 2) + 4]
P = np.array([np.linalg.inv([[2, 0.7], [0.7, 1]])] * 2)
for C_ in ("full", "tied"):
    k = dict(
        precisions_init=P if C_ == "full" else P[0], means_init=[[0, 0], [4, 4]], covariance_type=C_, random_state=0
    )
    check(
        f"26415 precisions_init {C_} as in scikit-learn",
        np.allclose(GaussianMixture(2, **k).fit(Y).means_, SG(2, **k).fit(Y).means_, atol=1e-6),
    )
m = (
    MixtureClassifier("diagonal")
    .partial_fit(np.array([[0.0, 1], [1, 0], [0.1, 1], [1, 0.1]]), [0, 1, 0, 1], classes=[0, 1, 2])
    .partial_fit(np.array([[5.0, 5], [5.1, 5]]), [2, 2])
)
check("cuml 8316 a later batch with another class", m.predict([[5, 5], [0, 1.0]]).tolist() == [2, 0])
e = caught(lambda: MixtureClassifier("tied").partial_fit([[1.0, 2], [-2, 2]], [1, 2], classes=[0, 1]))
check("3944 label outside classes", isinstance(e, ValueError), e)
Z = np.maximum(r.randn(600, 120) - 1, 0).astype(np.float32)
s = caught(lambda: GaussianMixture(5, random_state=0).fit(Z).score(Z))
check("pycave 20 many zeros, full", isinstance(s, float) and np.isfinite(s), s)
s = caught(
    lambda: (
        GaussianMixture(3, covariance_type="diag", random_state=0)
        .fit(np.c_[Z[:, :6], np.ones(600)].astype(np.float32))
        .score_samples(np.c_[Z[:, :6], np.ones(600)].astype(np.float32))
    )
)
check("pycave 56 diag, no NaN", not isinstance(s, Exception) and np.isfinite(s).all())
e = caught(lambda: GaussianMixture(1).fit([[1.0, 2], [2, 2], [3, 4]], sample_weight=np.zeros(356)))
check("pomegranate 151 weights of another length", isinstance(e, ValueError), e)
flat = np.full((400, 3), 17, np.uint8)
flat[:5] = 200
s = caught(lambda: GaussianMixture(2, random_state=0).fit(flat).predict(flat))
check("gmm-torch 31 flat patch", not isinstance(s, Exception), type(s).__name__)
q = r.randn(400, 512).astype(np.float32)
s = caught(lambda: GaussianMixture(4, covariance_type="full", random_state=0).fit(q).score(q))
check("swgmm 3 density of 512 dimensions", isinstance(s, float) and np.isfinite(s), s)
end()
