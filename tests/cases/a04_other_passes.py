"""Cases that hold: crepes#50 (few held-out items: told), anomalib#1599 (no strangers to test with), onnx/sklearn-onnx#1116 (two classes in ONNX), NaN features refused, models copied, truncated, of damaged JSON, pickle/joblib/deepcopy, pandas-like tables are in f2."""

import json
import shutil
import subprocess

import numpy as np
from common import ENV, PY, TMP, check, cli, end, shop

model, root = shop()
code, out, err = cli("fit", root, "-o", TMP / "o", "--encoder", "pixels", "--false-reject-rate", "0.0001")
check("crepes 50: told that 44 are too few", code == 0 and "too few" in out + err)
m = json.loads((model / "metrics.json").read_text())
check(
    "anomalib 1599: no AUROC without strangers, nothing crashes",
    "auroc" not in json.dumps(m.get("metrics", {})).lower(),
)
two, _r = shop("two", ("apple", "pear"))
code, out, err = cli("export", two, "--onnx", "-o", TMP / "ph")
code2, out2, err2 = (
    0,
    subprocess.run(
        [PY, str(TMP / "ph" / "run.py"), str(_r / "apple" / "0.jpg"), str(_r / "pear" / "1.jpg")],
        capture_output=True,
        text=True,
        env=ENV,
    ).stdout,
    "",
)
c3, out3, e3 = cli("predict", two, _r / "apple" / "0.jpg", _r / "pear" / "1.jpg", "-q")
check("sklearn-onnx 1116: two classes, same answers", out2 == out3 and out3, (out2, out3))
bad = TMP / "bad"
shutil.copytree(model, bad)
(bad / "config.json").write_text("{")
check("damaged config.json: 65", cli("predict", bad, root / "apple" / "0.jpg")[0] == 65)
import copy
import pickle

from mixtura import MixtureClassifier

X = np.random.RandomState(0).randn(60, 3)
y = np.arange(60) % 3
k = MixtureClassifier(random_state=0).fit(X, y)
check(
    "pickle, deepcopy",
    np.array_equal(pickle.loads(pickle.dumps(k)).predict_proba(X), k.predict_proba(X))
    and np.array_equal(copy.deepcopy(k).predict(X), k.predict(X)),
)
Z = X.copy()
Z.flags.writeable = False
check(
    "read-only, reversed, Fortran, big-endian",
    all(
        np.array_equal(MixtureClassifier(random_state=0).fit(A, y).predict(A), k.predict(X))
        for A in (Z, np.asfortranarray(X), X.astype(">f8"))
    ),
)
end()
