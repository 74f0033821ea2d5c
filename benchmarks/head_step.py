"""What does a training step of a Gaussian head cost beside nn.Linear, at B = 64, D = 1024, C = 1000?

Both are stepped in turns in one process: forward, cross-entropy, backward, SGD. Memory is what one step takes beyond
what the model and its gradients hold, measured in a process of its own.
"""

import argparse
import statistics
import subprocess
import sys
import time

import torch
from common import write
from torch import nn

from mixtura.heads.gaussian import GaussianHead

B, D, C = 64, 1024, 1000
AIMS = {"spherical": 3.0, "diagonal": 5.0}
STEPS = 200

MEMORY = """
import resource, torch
from torch import nn
from mixtura.heads.gaussian import GaussianHead
torch.manual_seed(0)
head = {head}
sgd = torch.optim.SGD(head.parameters(), 1e-3)
nn.functional.cross_entropy(GaussianHead(8, 4, family="diagonal")(torch.randn(4, 8)), torch.arange(4)).backward()
for parameter in head.parameters():
    parameter.grad = torch.zeros_like(parameter)
x, y = torch.randn(64, 1024), torch.randint(1000, (64,))
open("/proc/self/clear_refs", "w").write("5")
status = lambda name: int(next(l for l in open("/proc/self/status") if l.startswith(name)).split()[1])
before = status("VmRSS")
nn.functional.cross_entropy(head(x), y).backward()
sgd.step()
print((status("VmHWM") - before) / 1024)
"""


def step(model: nn.Module, optimizer: torch.optim.Optimizer, x: torch.Tensor, y: torch.Tensor) -> None:
    optimizer.zero_grad(set_to_none=True)
    nn.functional.cross_entropy(model(x).float(), y).backward()
    optimizer.step()


def seconds(models: dict[str, nn.Module], steps: int) -> dict[str, list[float]]:
    torch.manual_seed(0)
    x, y = torch.randn(B, D), torch.randint(C, (B,))
    optimizers = {name: torch.optim.SGD(model.parameters(), 1e-3) for name, model in models.items()}
    taken: dict[str, list[float]] = {name: [] for name in models}
    for turn in range(steps + 10):
        for name, model in models.items():
            began = time.perf_counter()
            step(model, optimizers[name], x, y)
            if turn >= 10:
                taken[name].append(time.perf_counter() - began)
    return taken


def memory(head: str) -> float:
    """MiB of one step."""
    run = subprocess.run([sys.executable, "-c", MEMORY.format(head=head)], capture_output=True, text=True, check=True)
    return float(run.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=STEPS)
    given = parser.parse_args()
    models: dict[str, nn.Module] = {"linear": nn.Linear(D, C)}
    models |= {family: GaussianHead(D, C, family=family) for family in AIMS}
    taken = seconds(models, given.steps)
    median = {name: statistics.median(times) for name, times in taken.items()}
    heads = {"linear": "nn.Linear(1024, 1000)"} | {f: f"GaussianHead(1024, 1000, family={f!r})" for f in AIMS}
    record = {
        "batch": B,
        "dimension": D,
        "classes": C,
        "steps": given.steps,
        "milliseconds": {name: 1e3 * value for name, value in median.items()},
        "ratio": {name: median[name] / median["linear"] for name in AIMS},
        "aim": AIMS,
        "step_mib": {name: memory(head) for name, head in heads.items()},
    }
    print(record)
    write("head_step", record)


if __name__ == "__main__":
    main()
