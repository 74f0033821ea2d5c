"""What does training lite0 on Grocery Store's photos gain over the same network frozen, at the same size and taps?

    python benchmarks/training_grocery.py --data DATA [--seeds 3] [--size 128] [--epochs 8] [--strangers]

Each seed runs ``mixtura train --trainable all`` with the settings that it has by default, but for size and epochs, and
compares both models on the official test photos. With --strangers, a fifth of the classes, another one for each seed,
is left out and met as strangers. Nothing sees a test photo before. Writes benchmarks/results/training_grocery.json, or
training_grocery_strangers.json.
"""

import shutil
import time
from pathlib import Path
from statistics import mean, stdev

import numpy as np
from common import arguments, write

from mixtura.recipe import resolve
from mixtura.tasks import train

UNKNOWN_SHARE = 0.2  # of the classes


def trained(pack: Path, work: Path, size: int, epochs: int, seed: int, strangers: bool) -> dict[str, object]:
    """The figures of both models, before and after training."""
    output = work / f"training-grocery-{seed}"
    shutil.rmtree(output, ignore_errors=True)
    keys = {
        "data.kind": "npz",
        "data.root": str(pack),
        "data.label": "fine",
        "encoder.size": size,
        "extract.store": str(work / f"grocery-{size}"),
        "train.trainable": "all",
        "train.epochs": epochs,
        "seed": seed,
        "output": str(output),
    }
    if strangers:
        names = np.load(pack)["classes"]
        drawn = np.random.default_rng(seed).choice(names, round(UNKNOWN_SHARE * len(names)), replace=False)
        keys["data.unknown"] = tuple(map(str, drawn))
    began = time.perf_counter()
    made = train.run(resolve(keys)).training
    gains = {gain.name: {"before": gain.before, "after": gain.after} for gain in made.gains}
    minutes = (time.perf_counter() - began) / 60
    return gains | {"replaced": made.replaced, "share": made.share, "minutes": minutes, "outcome": made.outcome}


def main() -> None:
    parser = arguments(__doc__.splitlines()[0], data=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--strangers", action="store_true")
    args = parser.parse_args()
    pack, runs = args.data / "grocery81_128px.npz", []
    for seed in range(args.seeds):
        runs.append(trained(pack, args.work, args.size, args.epochs, seed, args.strangers))
        print(seed, runs[-1], flush=True)
    gain = [100 * (run["accuracy"]["after"] - run["accuracy"]["before"]) for run in runs]
    record = {
        "size": args.size,
        "epochs": args.epochs,
        "gained points of accuracy": {"mean": mean(gain), "sd over seeds": stdev(gain) if len(gain) > 1 else None},
        "runs": runs,
    }
    write("training_grocery_strangers" if args.strangers else "training_grocery", record)


if __name__ == "__main__":
    main()
