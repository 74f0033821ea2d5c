"""How long does the CIFAR-100 sweep of the DGMMC paper take: 20 PCAs x 3 seeds x 30 epochs, one sphere a class?

Beside the seconds stand those of the two matrix products of every step alone (rows by means, rows by gradients), one
after the other on one thread, right after the sweep: a machine's speed changes from hour to hour.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch
from common import write

from mixtura.metrics.replicates import summarize
from mixtura.recipe import load_recipe, resolve
from mixtura.sweeps.grid import run

AIM = 300.0  # seconds on two cores


def products(widths: list[int], steps: int, rows: int, classes: int) -> float:
    """Seconds of both products of so many steps at each width, from twenty of them."""
    total, threads = 0.0, torch.get_num_threads()
    torch.set_num_threads(1)
    for width in widths:
        x, mean, gradient = torch.randn(rows, width), torch.randn(classes, width), torch.randn(rows, classes)
        times = []
        for _ in range(20):
            began = time.perf_counter()
            x @ mean.T
            gradient.T @ x
            times.append(time.perf_counter() - began)
        total += steps * statistics.median(times)
    torch.set_num_threads(threads)
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("store", type=Path, help="feature store of CIFAR-100 (mixtura extract)")
    parser.add_argument("--jobs", type=int)
    given = parser.parse_args()
    recipe = load_recipe(Path(__file__).parent.parent / "recipes" / "dgmmc-s-cifar100.yaml")
    with tempfile.TemporaryDirectory() as folder:
        flags = {"data.kind": "features", "data.root": given.store, "output": folder, "sweep.jobs": given.jobs}
        began = time.perf_counter()
        made = run(resolve({k: v for k, v in flags.items() if v is not None}, default=recipe))
        seconds = time.perf_counter() - began
    facts, size = made.facts, recipe.fit.batch_size
    steps = recipe.fit.epochs * -(-facts["rows_learned"] // size)
    widths = [one.dimension for one in made.runs]
    alone = products(widths, steps, size, facts["classes"])
    curve = [
        {"explained_variance": s.cell.explained_variance}
        | {name: s.mean[name] for name in ("dimension", "accuracy", "nll", "ece")}
        | {"accuracy_half_width": s.half_width["accuracy"]}
        for s in summarize(made.runs)
    ]
    for row in curve:
        print(row)
    print(f"{seconds:.0f} s, aim {AIM:.0f} s; the products alone take {alone:.0f} s on one thread")
    record = {"seconds": seconds, "aim_seconds": AIM, "products_seconds": alone, "share": alone / seconds}
    write("sweep_cifar100", record | {"facts": facts | {"data": "cifar100"}, "curve": curve})


if __name__ == "__main__":
    main()
