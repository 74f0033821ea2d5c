"""cleanlab#780 (slow), mattermost-like limits of scale: 1,000 classes of 5 rows, 32 dimensions. LDA of scikit-learn takes 0.2 s."""

import shutil
import time

import numpy as np
from common import TMP, check, end, features
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis as LDA

import mixtura


def go(C, n=5, D=32):
    r = np.random.default_rng(0)
    M = r.normal(size=(C, D))
    X = (np.repeat(M, n, 0) + 0.3 * r.normal(size=(C * n, D))).astype(np.float32)
    y = np.repeat([f"sku {i}" for i in range(C)], n)
    f = features("f", X, y)
    shutil.rmtree(TMP / "m", ignore_errors=True)
    t = time.process_time()
    mixtura.fit(mixtura.resolve({"data.kind": "features", "data.root": str(f), "output": str(TMP / "m")}))
    t = time.process_time() - t
    u = time.process_time()
    LDA(solver="lsqr").fit(X, y).score(X, y)
    return t, time.process_time() - u


a, b = go(250), go(1000)
print("  250 classes", [round(v, 2) for v in a], " 1000 classes", [round(v, 2) for v in b])
check(
    "four times the classes and rows take at most eight times as long",
    b[0] <= 8 * a[0] + 0.5,
    f"{b[0] / a[0]:.1f} times",
)
check("1,000 classes within 15 times LDA with prediction", b[0] <= 15 * b[1] + 1, f"{b[0]:.1f} s against {b[1]:.2f} s")
end()
