"""Which share of a device's matrix rate do a training step of a head and a step of EM reach?

Products alone, of the same shapes and in turns with the steps, give the rate. The head steps at D = 1024, C = 1000 are
forward, cross-entropy, backward and SGD, once with float32 rows and once with bfloat16 rows under autocast, as behind
an encoder in half precision (a Gaussian head computes in float32 all the same); one step of EM is of N = 100,000 rows,
D = 64, K = 64. Shares count the products only: a share of 1 would leave no time for anything else.

    python benchmarks/on_device.py --device cuda

Writes benchmarks/results/on_DEVICE.json.
"""

import argparse
import contextlib
import functools
import statistics
import time
from collections.abc import Callable

import torch
from common import write
from torch import nn

from mixtura.core import em
from mixtura.core.covariance import FAMILIES
from mixtura.core.mixture import Mixture
from mixtura.heads.gaussian import GaussianHead

D, C = 1024, 1000
BATCHES = (64, 4096)
N, WIDTH, K = 100_000, 64, 64
PRODUCTS = {"linear": 2, "spherical": 2, "diagonal": 4}
"""Products of B x D by D x C in a step: forward, and the gradient of each matrix; rows need none."""


def median(work: dict[str, Callable[[], object]], device: str, rounds: int) -> dict[str, float]:
    """Seconds of each piece of work; they take turns."""
    taken: dict[str, list[float]] = {name: [] for name in work}
    wait = torch.cuda.synchronize if device.startswith("cuda") else lambda: None
    for turn in range(rounds + 3):
        for name, piece in work.items():
            wait()
            began = time.perf_counter()
            piece()
            wait()
            if turn >= 3:
                taken[name].append(time.perf_counter() - began)
    return {name: statistics.median(times) for name, times in taken.items()}


def training(model: nn.Module, x: torch.Tensor, y: torch.Tensor, half: bool) -> Callable[[], None]:
    sgd = torch.optim.SGD(model.parameters(), 1e-3)

    def step() -> None:
        sgd.zero_grad(set_to_none=True)
        with torch.autocast(x.device.type, torch.bfloat16) if half else contextlib.nullcontext():
            scores = model(x)
        nn.functional.cross_entropy(scores.float(), y).backward()
        sgd.step()

    return step


def heads(device: str, batch: int, half: bool, rounds: int) -> dict[str, object]:
    """Milliseconds of a step, beside nn.Linear's, and its share of the rate of the products in float32."""
    torch.manual_seed(0)
    x, y = torch.randn(batch, D, device=device), torch.randint(C, (batch,), device=device)
    matrix = torch.randn(C, D, device=device)
    models: dict[str, nn.Module] = {"linear": nn.Linear(D, C)}
    models |= {family: GaussianHead(D, C, family=family) for family in ("spherical", "diagonal")}
    rows = x.bfloat16() if half else x
    work = {name: training(model.to(device), rows, y, half) for name, model in models.items()}
    seconds = median(work | {"product": lambda: x @ matrix.T}, device, rounds)
    return {
        name: {
            "milliseconds": 1e3 * seconds[name],
            "of nn.Linear": seconds[name] / seconds["linear"],
            "share": PRODUCTS[name] * seconds["product"] / seconds[name],
        }
        for name in models
    }


def steps_of_em(device: str, rounds: int) -> dict[str, object]:
    """Milliseconds of one step of EM, and its share of the rate of its products."""
    torch.manual_seed(0)
    center = 2 * torch.randn(K, WIDTH, device=device)
    x = center[torch.randint(K, (N,), device=device)] + torch.randn(N, WIDTH, device=device)
    weight = torch.full((K,), 1 / K, dtype=torch.float64, device=device).log()
    mean = (center + 0.5).double()
    variances = {
        "spherical": torch.ones(K, dtype=torch.float64, device=device),
        "diagonal": torch.ones(K, WIDTH, dtype=torch.float64, device=device),
    }
    starts = {name: Mixture(weight, mean, FAMILIES[name](variance)) for name, variance in variances.items()}
    products = {"spherical": 2, "diagonal": 4}  # of N x D by D x K: distances, and sums of rows (and of their squares)
    matrix, batches = center.T.contiguous(), em.Chunks(x, None, None)
    work = {name: functools.partial(em.step, start, batches, floor=1e-6) for name, start in starts.items()}
    seconds = median(work | {"product": lambda: x @ matrix}, device, rounds)
    return {
        name: {
            "milliseconds": 1e3 * seconds[name],
            "share": products[name] * seconds["product"] / seconds[name],
        }
        for name in work
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=30)
    given = parser.parse_args()
    record = {
        "device": torch.cuda.get_device_name(given.device) if given.device.startswith("cuda") else given.device,
        "heads": {
            f"{batch} rows of {'bfloat16' if half else 'float32'}": heads(given.device, batch, half, given.rounds)
            for batch in BATCHES
            for half in (False, True)
        },
        "one step of EM": steps_of_em(given.device, given.rounds),
    }
    print(record)
    write(f"on_{given.device.partition(':')[0]}", record)


if __name__ == "__main__":
    main()
