"""How close to bare matrix products does scoring come?  The rate of each family as a share of the rate of its products.

    python benchmarks/scoring.py            # about four minutes on 2 idle cores

1,000 components, 768 dimensions, float32. A family's rate is the floating-point operations of its matrix products over
the time of ``Mixture.component_log_prob``, which besides them subtracts the center, squares, sums and adds constants.
The bare rate is that of ``torch.mm`` on operands of the same shapes into memory that is there already. Each round runs
the products, the scoring and the products again, so that other work on the machine weighs on both; the share is the
median over rounds.
"""

import json
import os
import platform
import statistics
import time
from pathlib import Path

import torch

from mixtura.core.covariance import Diagonal, Full, LowRank, Spherical, Tied
from mixtura.core.mixture import Mixture

N_COMPONENTS, DIMENSION, RANK = 1000, 768, 16
ROWS = {"spherical": 4096, "diagonal": 4096, "tied": 4096, "lowrank": 2048, "full": 512}
ROUNDS = {"spherical": 15, "diagonal": 15, "tied": 15, "lowrank": 9, "full": 3}
AIMS = {"spherical": 0.8, "diagonal": 0.8, "tied": 0.8, "lowrank": 0.6, "full": 0.6}
RESULT = Path(__file__).parent / "results" / "scoring.json"


def main():
    rows = [measure(family) for family in AIMS]
    machine = {"cores": os.cpu_count(), "threads": torch.get_num_threads(), "torch": torch.__version__}
    machine |= {"python": platform.python_version(), "load": round(os.getloadavg()[0], 2)}
    shape = {"components": N_COMPONENTS, "dimension": DIMENSION, "rank": RANK, "dtype": "float32"}
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps({"machine": machine, "shape": shape, "scoring": rows}, indent=2) + "\n")


def measure(family):
    n = ROWS[family]
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, DIMENSION, generator=generator)
    mixture = random_mixture(family, generator)
    products = random_products(family, n, mixture, generator)
    mixture.component_log_prob(x[:16])  # prepares the operands
    run(products)
    shares, rates = [], []
    for _ in range(ROUNDS[family]):
        before, scoring, after = timed(run, products), timed(mixture.component_log_prob, x), timed(run, products)
        bare = (before + after) / 2
        shares.append(bare / scoring)
        rates.append(operations(products) / bare / 1e9)
    row = {
        "family": family,
        "rows": n,
        "share_of_products": round(statistics.median(shares), 3),
        "aim": AIMS[family],
        "share_range": [round(min(shares), 3), round(max(shares), 3)],
        "products_gflop_per_s": round(statistics.median(rates), 1),
        "rows_per_s": round(n * statistics.median(rates) * 1e9 / operations(products) * statistics.median(shares), 1),
    }
    print(row, flush=True)
    return row


def random_mixture(family, generator):
    def variance(*shape):
        return 0.5 + torch.rand(*shape, generator=generator)

    def tril(n):
        factors = torch.randn(n, DIMENSION, DIMENSION, generator=generator).mul_(0.01).tril_()
        factors.diagonal(dim1=1, dim2=2).add_(1.0)
        return factors

    k, d = N_COMPONENTS, DIMENSION
    make = {
        "spherical": lambda: Spherical(variance(k)),
        "diagonal": lambda: Diagonal(variance(k, d)),
        "tied": lambda: Tied(tril(1)),
        "lowrank": lambda: LowRank(0.1 * torch.randn(k, d, RANK, generator=generator), variance(k, d)),
        "full": lambda: Full(tril(k)),
    }
    return Mixture(torch.zeros(k).log_softmax(0), torch.randn(k, d, generator=generator), make[family]())


def random_products(family, n, mixture, generator):
    """Operands and results of the products that the family's formula needs; K of them for full."""
    k, d = N_COMPONENTS, DIMENSION
    shapes = {
        "spherical": [(d, k)],
        "diagonal": [(d, k), (d, k)],
        "tied": [(d, d), (d, k)],
        "lowrank": [(d, k), (d, k), (d, RANK * k)],
    }
    if family == "full":  # its own K matrices: random ones would take as much memory again
        rows, out = torch.randn(n, d, generator=generator), torch.empty(n, d)
        return [(rows, matrix, out) for matrix in mixture.operands(torch.float32)[2]]
    parts = []
    for inner, outer in shapes[family]:
        left, right = torch.randn(n, inner, generator=generator), torch.randn(inner, outer, generator=generator)
        parts.append((left, right, torch.empty(n, outer)))
    return parts


def run(products):
    for left, right, out in products:
        torch.mm(left, right, out=out)


def operations(products):
    return sum(2 * left.shape[0] * left.shape[1] * right.shape[1] for left, right, _ in products)


def timed(function, argument):
    start = time.perf_counter()
    function(argument)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
