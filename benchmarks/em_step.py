"""How fast is one EM step of a diagonal mixture, and what memory does it take, beside scikit-learn's?

    python benchmarks/em_step.py [--threads 2] [--rounds 9]

N = 100,000 rows, D = 64, K = 64. Both sides start from the same mixture; rounds alternate in one process, and the
ratio is the median over rounds. Run it on an idle machine: the load average before the run is kept with the results.
Memory is the growth of the process's peak in a fresh process, with rows made batch by batch, at two N.
Writes benchmarks/results/em_step.json.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

N, D, K = 100_000, 64, 64
ROWS = 4096
SIZES = (100_000, 400_000)
RESULTS = Path(__file__).parent / "results" / "em_step.json"


def centers():
    import numpy as np

    return 2 * np.random.default_rng(0).normal(size=(K, D))


def rows(n: int, dtype: str) -> Iterator:
    """``n`` rows in batches, the same at every walk."""
    import numpy as np

    mean = centers()
    for start in range(0, n, ROWS):
        rng = np.random.default_rng([1, start])
        size = min(ROWS, n - start)
        yield (mean[rng.integers(0, K, size)] + rng.normal(size=(size, D))).astype(dtype)


class Stream:
    """Batches for EM that exist one at a time."""

    def __init__(self, n: int, dtype: str) -> None:
        self.n, self.dtype = n, dtype

    def __iter__(self) -> Iterator:
        import torch

        from mixtura.core.em import Batch

        return (Batch(torch.from_numpy(x)) for x in rows(self.n, self.dtype))


def theirs(X):
    """scikit-learn's mixture after one step from the true centers."""
    import numpy as np
    from sklearn.mixture import GaussianMixture

    given = {"weights_init": np.full(K, 1 / K), "means_init": centers() + 0.5, "precisions_init": np.ones((K, D))}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return GaussianMixture(K, covariance_type="diag", max_iter=1, **given).fit(X)


def same(model):
    """The same mixture in mixtura."""
    import torch

    from mixtura.core.covariance import Diagonal
    from mixtura.core.mixture import Mixture

    weight, mean, variance = (torch.from_numpy(a).double() for a in (model.weights_, model.means_, model.covariances_))
    return Mixture(weight.log(), mean, Diagonal(variance))


def clock(work):
    """Result, seconds on the wall and seconds of the processor."""
    wall, processor = time.perf_counter(), time.process_time()
    result = work()
    return result, time.perf_counter() - wall, time.process_time() - processor


def compare(dtype: str, rounds: int) -> dict[str, object]:
    import numpy as np
    import torch

    from mixtura.core import em

    X = np.concatenate(list(rows(N, dtype)))
    model = theirs(X)
    mixture, batches = same(model), em.Chunks(torch.from_numpy(X))

    def step():
        likelihood, log_resp = model._e_step(X)
        model._m_step(X, log_resp)
        return float(likelihood)

    seconds: dict[str, list[tuple[float, float]]] = {"scikit-learn": [], "mixtura": []}
    difference = 0.0
    for _ in range(rounds):
        other, *taken = clock(step)
        seconds["scikit-learn"].append(tuple(taken))
        (mixture, own), *taken = clock(lambda start=mixture: em.step(start, batches, floor=1e-6))
        seconds["mixtura"].append(tuple(taken))
        difference = max(difference, abs(own - other) / abs(other))
    pairs = list(zip(seconds["scikit-learn"], seconds["mixtura"], strict=True))
    return {
        "seconds": {name: round(statistics.median(t[0] for t in times), 4) for name, times in seconds.items()},
        "ratio": round(statistics.median(a[0] / b[0] for a, b in pairs), 2),
        "ratio of processor time": round(statistics.median(a[1] / b[1] for a, b in pairs), 2),
        "largest relative difference of the log-likelihood": difference,
        "log-likelihood": own,
    }


def memory(field: str) -> float:
    """Memory of this process, MiB: VmHWM is the peak, VmRSS the present (Linux)."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) / 1024


def grow(side: str, n: int) -> float:
    """Growth of the peak by three steps, MiB."""
    import numpy as np

    from mixtura.core import em

    small = np.concatenate(list(rows(ROWS, "float32")))
    model = theirs(small)
    mixture = same(model)
    em.step(mixture, Stream(8 * ROWS, "float32"))  # what the libraries load and the allocator keeps
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew from here
    before = memory("VmRSS")
    if side == "mixtura":
        for _ in range(3):
            mixture, _ = em.step(mixture, Stream(n, "float32"), floor=1e-6)
    else:
        X = np.concatenate(list(rows(n, "float32")))
        for _ in range(3):
            _, log_resp = model._e_step(X)
            model._m_step(X, log_resp)
    return memory("VmHWM") - before


def in_fresh_process(side: str, n: int) -> float:
    command = [sys.executable, __file__, "--grow", side, "--rows", str(n)]
    return round(float(subprocess.run(command, check=True, capture_output=True, text=True).stdout), 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--grow", choices=["mixtura", "scikit-learn"], help="internal: measure memory and print it")
    parser.add_argument("--rows", type=int)
    given = parser.parse_args()
    if given.grow:
        print(grow(given.grow, given.rows))
        return
    load = os.getloadavg()[0]
    import torch
    from threadpoolctl import threadpool_limits

    torch.set_num_threads(given.threads)
    with threadpool_limits(given.threads):
        speed = {dtype: compare(dtype, given.rounds) for dtype in ("float32", "float64")}
    peaks = {s: {str(n): in_fresh_process(s, n) for n in SIZES} for s in ("mixtura", "scikit-learn")}
    report = {
        "question": "one EM step, diagonal family, N = 100000, D = 64, K = 64",
        "threads": given.threads,
        "load average before": round(load, 2),
        "speed": speed,
        "peak memory beyond the libraries, MiB, by N (float32)": peaks,
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
