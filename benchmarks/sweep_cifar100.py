"""How long does the CIFAR-100 sweep of the DGMMC paper take: 20 shares x 3 seeds x 30 epochs, one sphere a class?"""

import argparse
import tempfile
import time
from pathlib import Path

from common import write

from mixtura.recipe import load_recipe, resolve
from mixtura.tasks.sweep import run
from mixtura.tasks.sweep_records import summarize

AIM = 300.0  # seconds on two cores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", type=Path, help="feature store of CIFAR-100 (mixtura extract)")
    parser.add_argument("--jobs", type=int)
    given = parser.parse_args()
    recipe = load_recipe(Path(__file__).parent.parent / "recipes" / "dgmmc-s-cifar100.yaml")
    with tempfile.TemporaryDirectory() as folder:
        flags = {"data.kind": "features", "data.root": given.store, "output": folder, "sweep.jobs": given.jobs}
        began = time.perf_counter()
        made = run(resolve({k: v for k, v in flags.items() if v is not None}, default=recipe))
        seconds = time.perf_counter() - began
    curve = [
        {"share": s.cell.share}
        | {name: s.mean[name] for name in ("dimension", "accuracy", "nll", "ece")}
        | {"accuracy_half_width": s.half_width["accuracy"]}
        for s in summarize(made.runs)
    ]
    for row in curve:
        print(row)
    print(f"{seconds:.0f} s, aim {AIM:.0f} s")
    write(
        "sweep_cifar100",
        {"seconds": seconds, "aim_seconds": AIM, "facts": made.facts | {"data": "cifar100"}, "curve": curve},
    )


if __name__ == "__main__":
    main()
