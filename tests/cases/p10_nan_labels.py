"""catboost#1073, WeikaiTan/Toronto-3D#1, yakew7/Fair-Code#488: a missing label must not become a class named nan."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from common import TMP, caught, check, end

from mixtura.features.imports import from_npy, from_npz, from_parquet

X = np.random.RandomState(0).randn(60, 4).astype(np.float32)
nan = np.array([np.nan] * 20 + [1.0] * 20 + [2.0] * 20)
np.save(TMP / "x.npy", X)
np.save(TMP / "y.npy", nan)
np.savez(TMP / "z.npz", embedding=X, label=nan)
for name, f in (
    ("npy", lambda: from_npy(TMP / "x.npy", TMP / "y.npy", encoder="n")),
    ("npz", lambda: from_npz(TMP / "z.npz", encoder="n")),
):
    s = caught(f)
    check(
        f"{name}, float labels with NaN",
        isinstance(s, Exception) or "nan" not in s.classes,
        s if isinstance(s, Exception) else s.classes,
    )
for name, lab in (
    ("null", pa.array([None] * 20 + ["a"] * 20 + ["b"] * 20)),
    ("float NaN (pandas)", pa.array([float("nan")] * 20 + [1.0] * 20 + [2.0] * 20)),
):
    pq.write_table(
        pa.table({"embedding": pa.array(X.tolist(), pa.list_(pa.float32())), "label": lab}), TMP / "p.parquet"
    )
    s = caught(lambda: from_parquet(TMP / "p.parquet", encoder="n"))
    check(
        f"parquet, {name}",
        isinstance(s, Exception) or len(s.classes) == 2,
        s if isinstance(s, Exception) else s.classes,
    )
np.savez(TMP / "z.npz", embedding=X, label=np.array([""] * 20 + ["a"] * 20 + ["b"] * 20))
s = caught(lambda: from_npz(TMP / "z.npz", encoder="n"))
check("npz, empty text", isinstance(s, Exception) or "" not in s.classes, s if isinstance(s, Exception) else s.classes)
end()
