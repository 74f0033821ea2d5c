"""autogluon#2873 #2541 #2671 (predict with a str or a list of them): text as a path, one path, a folder; and a feature store as data."""

import numpy as np
from common import TMP, caught, check, cli, end, features, shop

import mixtura
from mixtura.errors import MixturaError

model, root = shop()
one = root / "apple" / "0.jpg"
for n, f in (
    ("model as text", lambda: mixtura.predict(str(model), [one])),
    ("photo as text", lambda: mixtura.predict(model, [str(one)])),
    ("from_pretrained of text", lambda: mixtura.from_pretrained(str(model))),
):
    s = caught(f)
    check(
        f"{n}: works, or a MixturaError with a sentence",
        not isinstance(s, Exception) or isinstance(s, MixturaError),
        f"{type(s).__name__}: {s}" if isinstance(s, Exception) else "",
    )
for n, f in (
    ("one Path, no list", lambda: mixtura.predict(model, one)),
    ("one text, no list", lambda: mixtura.predict(model, str(one))),
):
    s = caught(f)
    check(
        f"{n}: works, or a MixturaError/TypeError that says 'list'",
        not isinstance(s, Exception) or isinstance(s, MixturaError) or "list" in str(s) or "sequence" in str(s),
        f"{type(s).__name__}: {s}" if isinstance(s, Exception) else "",
    )
r = np.random.RandomState(0)
f = features(
    "feat", r.randn(60, 4).astype(np.float32) + np.repeat([[0], [4], [8]], 20, 0), np.repeat(["a", "b", "c"], 20)
)
code, out, err = cli("fit", f, "-o", TMP / "o1", "-q")
check("fit FEATURES on the command line", code == 0, err)
s = caught(
    lambda: mixtura.fit(mixtura.resolve({"data.root": str(f), "output": str(TMP / "o2")})).evaluation.metrics["top1"]
)
check("the same in Python without data.kind", not isinstance(s, Exception), s)
end()
