"""Does every head, from every start, learn in a small network as well as nn.Linear at the same setting?

Each head and variant ends a small convolutional network on scikit-learn's digits, fresh or fitted to the features of
the untrained network, and both are trained for 12 epochs with each optimizer, rate and precision.
"""

import time

import torch
from common import arguments, write

from mixtura.testing.joint_training import SETTINGS, STARTS, accuracy, keeps_up, kinds


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--epochs", type=int, default=12)
    given = parser.parse_args()
    torch.set_num_threads(1)
    began = time.perf_counter()
    linear = {name: accuracy("nn.Linear", "fresh", setting, given.epochs) for name, setting in SETTINGS.items()}
    print("nn.Linear", linear, flush=True)
    found: dict[str, dict[str, float]] = {}
    for head in kinds():
        for start in STARTS:
            row = {name: accuracy(head, start, setting, given.epochs) for name, setting in SETTINGS.items()}
            found[f"{head}, {start}"] = row
            print(f"{head}, {start}", {name: round(value, 1) for name, value in row.items()}, flush=True)
    below = [f"{head}: {name}" for head, row in found.items() for name in row if not keeps_up(row[name], linear[name])]
    print("below nn.Linear:", below)
    record = {"epochs": given.epochs, "minutes": (time.perf_counter() - began) / 60}
    write("training_heads", record | {"accuracy": {"nn.Linear": linear} | found, "below_linear": below})


if __name__ == "__main__":
    main()
