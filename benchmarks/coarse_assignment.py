"""Assignment of 50,000 embeddings to 500 subclasses, regularization 1/25: memory, and time at equal marginal error.

Against the same Sinkhorn iterations over the whole matrix in float64: in logarithms with SciPy's ``logsumexp``, and in
the plain scaling form of NumPy (which holds here, because the scores span fewer than 700 nats). A job begins with the
embeddings and ends with labels; its error is that of the component that is furthest from its own target. Times are the
least of some rounds in turn in one process; read the ratios, since the machine does other things too. Memory is the
growth of the resident peak in a process of its own.

    python benchmarks/coarse_assignment.py
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from common import arguments, write
from scipy.special import logsumexp
from torch.nn.functional import normalize

from mixtura.core.balanced import Balance, assign
from mixtura.core.two_levels import SubclassScores, superclass_table

SAMPLES, SUBCLASSES, SUPERCLASSES, DIMENSION = 50_000, 500, 17, 128
REGULARIZATION, ROUNDS = 0.04, 3
COARSE, FINE = 0.1, 0.01  # marginal errors at which the jobs stop; the form with logsumexp takes minutes for the finer


def problem() -> SubclassScores:
    """Embeddings around subclasses of unequal sizes, and means that are near their directions."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    class_mean = draw(SUPERCLASSES, DIMENSION)
    owner = torch.arange(SUBCLASSES) % SUPERCLASSES
    center = normalize(class_mean[owner] + draw(SUBCLASSES, DIMENSION), dim=1)
    kind = torch.multinomial(torch.rand(SUBCLASSES, generator=generator) + 0.2, SAMPLES, True, generator=generator)
    embedding = normalize(center[kind] + 3 * draw(SAMPLES, DIMENSION) / DIMENSION**0.5, dim=1)
    mean = normalize(center + 0.5 * draw(SUBCLASSES, DIMENSION) / DIMENSION**0.5, dim=1)
    return SubclassScores(embedding, owner[kind], mean, superclass_table(mean, class_mean))


def ours(kernel_bytes: int) -> Callable[[SubclassScores, float], tuple[np.ndarray, int]]:
    def job(scores: SubclassScores, tolerance: float) -> tuple[np.ndarray, int]:
        found = assign(scores, None, Balance(REGULARIZATION, tolerance=tolerance, kernel_bytes=kernel_bytes))
        return found.potential.numpy(), found.steps

    return job


def whole(scores: SubclassScores, dtype: type) -> np.ndarray:
    return scores.chunk(0, len(scores)).numpy().astype(dtype) / dtype(REGULARIZATION)


def in_logarithms(scores: SubclassScores, tolerance: float) -> tuple[np.ndarray, int]:
    score = whole(scores, np.float64)
    v, step = np.zeros(score.shape[1]), 0
    while True:
        u = -np.log(len(score)) - logsumexp(score + v, axis=1)
        reached = logsumexp(score + u[:, None], axis=0) + v
        if np.abs(np.exp(reached) * len(v) - 1).max() <= tolerance:
            (score + v).argmax(1)
            return v, step
        v, step = v - np.log(len(v)) - reached, step + 1


def scaling(dtype: type) -> Callable[[SubclassScores, float], tuple[np.ndarray, int]]:
    def job(scores: SubclassScores, tolerance: float) -> tuple[np.ndarray, int]:
        score = whole(scores, dtype)
        kernel = np.exp(score - score.max(1, keepdims=True))
        v, step = np.ones(kernel.shape[1], dtype), 0
        while True:
            u = (1 / len(kernel)) / (kernel @ v)
            reached = u @ kernel
            if np.abs(reached * v * len(v) - 1).max() <= tolerance:
                (kernel * v).argmax(1)
                return np.log(v), step
            v, step = ((1 / len(v)) / reached).astype(dtype), step + 1

    return job


JOBS = {
    "ours, scores recomputed": ours(0),
    "ours, kernel": ours(1 << 30),
    "float64, logarithms, SciPy logsumexp": in_logarithms,
    "float64, NumPy scaling": scaling(np.float64),
    "float32, NumPy scaling": scaling(np.float32),
}
LOGARITHMS = "float64, logarithms, SciPy logsumexp"
PAIRS = (("ours, scores recomputed", LOGARITHMS, COARSE), ("ours, kernel", "float64, NumPy scaling", FINE))
PAIRS += (("ours, kernel", "float32, NumPy scaling", FINE),)


def error(scores: SubclassScores, potential: np.ndarray) -> float:
    """The marginal error of potentials, in float64."""
    plan = np.zeros(SUBCLASSES)
    for start in range(0, SAMPLES, 2000):
        chunk = scores.chunk(start, start + 2000).double()
        plan += (chunk / REGULARIZATION + torch.from_numpy(potential).double()).softmax(1).sum(0).numpy()
    return float(np.abs(plan * SUBCLASSES / SAMPLES - 1).max())


def in_turn(scores: SubclassScores, first: str, second: str, tolerance: float) -> dict:
    least, steps, off = {}, {}, {}
    for _ in range(ROUNDS):
        for name in (first, second):
            started = time.perf_counter()
            potential, steps[name] = JOBS[name](scores, tolerance)
            least[name] = min(least.get(name, np.inf), time.perf_counter() - started)
            off[name] = error(scores, potential)
    ratio = least[first] / least[second]
    return {"stops at": tolerance, "seconds": least, "steps": steps, "marginal error": off, "time ratio": ratio}


def resident(key: str) -> float:
    """Resident memory of this process, now (``VmRSS``) or at its peak (``VmHWM``), in MB."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) * 1024 / 1e6


def grown(name: str) -> float:
    """Growth of the peak by one job, in MB; the job stops early, since every step needs the same memory."""
    scores = problem()
    few = SubclassScores(scores.embedding[:2000], scores.superclass[:2000], scores.mean, scores.table)
    JOBS[name](few, 10.0)  # what libraries set up at their first call
    Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak starts anew
    before = resident("VmRSS")
    JOBS[name](scores, 0.5)
    return resident("VmHWM") - before


def memory(name: str) -> float:
    command = [sys.executable, __file__, "--memory-of", name]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--memory-of", choices=JOBS, help="only this job's memory, in this process")
    args = parser.parse_args()
    if args.memory_of:
        print(grown(args.memory_of))
        return
    whole_mb = SAMPLES * SUBCLASSES * 8 / 1e6
    megabytes = {name: memory(name) for name in JOBS}
    scores = problem()
    write(
        "coarse_assignment",
        {
            "problem": {"samples": SAMPLES, "subclasses": SUBCLASSES, "dimension": DIMENSION},
            "peak memory": {"N x r float64, MB": whole_mb, "MB": megabytes}
            | {"share of N x r float64": {name: value / whole_mb for name, value in megabytes.items()}},
            "time": {f"{a} / {b}": in_turn(scores, a, b, tolerance) for a, b, tolerance in PAIRS},
        },
    )


if __name__ == "__main__":
    main()
