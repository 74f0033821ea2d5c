"""What does a step of SCGM-A's contrast cost, with rows sorted by class and with every row against every queue?

    python benchmarks/coarse_contrast.py [--classes 17] [--queue 65536] [--width 128] [--batch 256]

``sorted`` is the loss of mixtura: the rows of a class share one matrix product with the queue of that class, and no
key is copied. ``every queue`` is the form that is written down most easily: the directions of all rows and all keys as
seen from each class, all products, and then those of a row's own class. Both give one loss (compared first, in small)
and are timed with their gradient, each in a process of its own. ``megabytes`` are those beyond what holds queues and
batch.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from statistics import median

import torch
from common import arguments, write
from torch import Tensor
from torch.nn.functional import normalize

from mixtura.objectives.contrast import Keys, Pairs, info_nce, log_sum
from mixtura.training.queues import Queues

TEMPERATURE, RUNS = 0.2, 5
FORMS = ("sorted", "every queue")


def made(classes: int, queue: int, width: int, batch: int) -> tuple[Pairs, Tensor]:
    """Full queues, a batch, and unit vectors of the classes."""
    generator = torch.Generator().manual_seed(0)
    queues = Queues([queue] * classes, width)
    for number in range(classes):
        part = slice(number * queue, (number + 1) * queue)
        queues.keys.key[part] = normalize(torch.randn(queue, width, generator=generator), dim=1)
        queues.keys.label[part] = number
    queues.keys.row.copy_(torch.arange(classes * queue) + batch)
    queues.filled.copy_(queues.sizes)
    label = torch.arange(batch) % classes
    own = Keys(normalize(torch.randn(batch, width, generator=generator), dim=1), label, torch.arange(batch))
    v = torch.randn(batch, width, generator=generator).requires_grad_()
    return Pairs(v, own, queues), normalize(torch.randn(classes, width, generator=generator), dim=1)


def by_class(pairs: Pairs, center: Tensor) -> Tensor:
    """The loss of mixtura."""
    label = pairs.own.label
    others = log_sum(pairs.v, pairs.own.row, pairs.bank, TEMPERATURE, of=label, centers=(center, label))
    return info_nce(pairs.v, pairs.own.key, others, TEMPERATURE, center[label]).mean()


def against_every_queue(pairs: Pairs, center: Tensor) -> Tensor:
    """The same, with the products of all rows and all queues."""
    label, products = pairs.own.label, []
    for number, seen in enumerate(center):
        keys = pairs.bank.of_class(number).key
        a, b = (normalize(normalize(x, dim=1) - seen, dim=1) for x in (pairs.v, keys))
        products.append(a @ b.T / TEMPERATURE)
    others = torch.stack(products, 1).logsumexp(2).gather(1, label[:, None])[:, 0]
    return info_nce(pairs.v, pairs.own.key, others, TEMPERATURE, center[label]).mean()


def measured(args: argparse.Namespace) -> dict[str, float]:
    """Seconds of a step, its median, and the memory beyond that of queues and batch."""
    pairs, center = made(args.classes, args.queue, args.width, args.batch)
    loss_of = {"sorted": by_class, "every queue": against_every_queue}[args.form]
    held, seconds = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, []
    for _ in range(RUNS):
        began = time.process_time()
        loss_of(pairs, center).backward()
        seconds.append(time.process_time() - began)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"processor seconds": median(seconds), "megabytes": (peak - held) / 1024}


def main() -> None:
    parser = arguments(__doc__.splitlines()[0])
    for name, default in {"classes": 17, "queue": 65536, "width": 128, "batch": 256}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--form", choices=FORMS, help="measure one form here, and print it")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.form:
        print(json.dumps(measured(args)))
        return
    pairs, center = made(3, 50, 8, 12)
    assert torch.allclose(by_class(pairs, center), against_every_queue(pairs, center), rtol=1e-5)
    found = {}
    for form in FORMS:
        words = [sys.executable, __file__, *sys.argv[1:], "--form", form]
        found[form] = json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)
        print(form, found[form], flush=True)
    ratio = {key: found["sorted"][key] / value for key, value in found["every queue"].items()}
    print("sorted over every queue", ratio)
    shape = {name: getattr(args, name) for name in ("classes", "queue", "width", "batch")}
    write("coarse_contrast", {"shape": shape, "figures": found, "sorted over every queue": ratio})


if __name__ == "__main__":
    main()
