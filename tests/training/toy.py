"""A small training run, in this process or as a program: ``python toy.py FOLDER [KEY=VALUE ...]``."""

import json
import os
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import torch
from torch import nn

from mixtura.objectives.contrast import info_nce, log_sum
from mixtura.training import distributed, processes
from mixtura.training.checkpoint import Facts
from mixtura.training.contrast import SlowKeys
from mixtura.training.hooks import WeightAverage
from mixtura.training.optimizers import optimizer, parameter_groups
from mixtura.training.queues import Queues
from mixtura.training.setup import Settings, Setup, constant
from mixtura.training.trainer import train

ROWS, WIDTH, CLASSES, BATCH, EPOCHS = 30, 6, 3, 8, 3
STEPS = -(-ROWS // BATCH)
X = torch.randn(ROWS, WIDTH, generator=torch.Generator().manual_seed(1))
LABEL = (X[:, 0] > 0).long() + (X[:, 1] > 0.3).long()

OPTIMIZERS = {
    "sgd": {"name": "sgd", "learning_rate": 0.05, "momentum": 0.9},
    "adamw": {"name": "adamw", "learning_rate": 0.01, "weight_decay": 0.1},
    "adadelta": {"name": "adadelta", "learning_rate": 1.0},
}


def network(norm="batch", dropout=0.3):
    torch.manual_seed(0)
    norms = {"batch": nn.BatchNorm1d(8), "group": nn.GroupNorm(2, 8), "none": nn.Identity()}
    return nn.Sequential(nn.Linear(WIDTH, 8), norms[norm], nn.ReLU(), nn.Dropout(dropout), nn.Linear(8, CLASSES))


def batches(size=BATCH):
    def of_epoch(epoch, first):
        rows = torch.randperm(ROWS, generator=torch.Generator().manual_seed(100 + epoch))
        for index in rows.split(size)[first:]:
            own = index.tensor_split(distributed.processes())[distributed.rank()]
            yield {"x": X[own], "label": LABEL[own], "row": own}

    return of_epoch


def objective(module, batch):
    scores = module(batch["x"])
    right = (scores.argmax(1) == batch["label"]).double().mean()
    return nn.functional.cross_entropy(scores, batch["label"]), {"accuracy": right}


def validate(module):
    rows = list(distributed.own_rows(ROWS))
    scores = module(X[rows])
    sums = {
        "loss": float(nn.functional.cross_entropy(scores, LABEL[rows], reduction="sum")),
        "right": float((scores.argmax(1) == LABEL[rows]).sum()),
        "rows": float(len(rows)),
    }
    sums = distributed.totals(sums)
    return {"loss": sums["loss"] / sums["rows"], "accuracy": sums["right"] / sums["rows"], "rows": sums["rows"]}


def falling(step, losses):
    return constant(step, losses) / (1 + 0.1 * step)


def setup(kind="sgd", average=False, norm="batch", dropout=0.3, size=BATCH, **other):
    module = network(norm, dropout)
    options = dict(OPTIMIZERS[kind])
    name, rate = options.pop("name"), options.pop("learning_rate")
    groups = parameter_groups(module, rate, options.pop("weight_decay", 0.0))
    hooks = {"average": WeightAverage(module, 0.9)} if average else {}
    given = {
        "module": module,
        "objective": objective,
        "optimizer": optimizer(name, groups, **options),
        "batches": batches(size),
        "steps": -(-ROWS // size),
        "validate": validate,
        "rate": falling,
        "hooks": hooks,
        "facts": Facts({"recipe": kind}),
    }
    return Setup(**(given | other))


class Photos(nn.Module):
    """A network that takes batches."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, batch):
        return self.network(batch["x"])


def contrastive(sizes=(9, 4, 12), norm="group"):
    """A run with a slow copy of the network and queues of its vectors."""
    module = network(norm, dropout=0.0)
    slow = SlowKeys.of(Photos(module), 0.8, Queues(sizes, CLASSES))

    def loss(module, batch):
        pairs = slow.pairs(module(batch["x"]), batch | {"weight": torch.ones(len(batch["x"]))})
        others = log_sum(pairs.v, pairs.own.row, pairs.bank, 0.2, of=pairs.own.label)
        return info_nce(pairs.v, pairs.own.key, others, 0.2).mean()

    groups = parameter_groups(module, 0.02)
    made = optimizer("sgd", groups, momentum=0.9)
    return Setup(module, loss, made, batches(), STEPS, validate, hooks=slow.hooks)


def digest(folder):
    """The hash of every tensor of the newest checkpoint: network, optimizer, hooks and best weights."""
    newest = max((Path(folder) / "checkpoints").iterdir(), key=lambda path: path.name)
    return json.loads((newest / "state.json").read_text())["sha256"]


def main(folder, *pairs):
    given = {key: json.loads(value) for key, value in (pair.split("=") for pair in pairs)}
    make = contrastive if given.pop("contrastive", False) else setup
    die, rank, number = given.pop("die", None), given.pop("rank", 0), given.pop("signal", 9)
    pause, once = given.pop("pause", 0), given.pop("once", None)
    of_settings = {
        key: given.pop(key) for key in ("epochs", "accumulate", "precision", "commit_minutes") if key in given
    }
    settings = Settings(**({"epochs": EPOCHS, "commit_minutes": 0} | of_settings))
    asked = iter(range(1, 10**6))

    def before_step():
        """Asked before each step, in every process."""
        step = next(asked)
        time.sleep(pause)
        if step == die and int(os.environ.get("RANK", "0")) == rank and not (once and Path(once).exists()):
            if once:
                Path(once).touch()
            os.kill(os.getpid(), number)
        return False

    with processes.connected(torch.device("cpu")) if "WORLD_SIZE" in os.environ else nullcontext():
        made = make(**given)
        trained = train(made, settings, Path(folder), enough=before_step)
    if int(os.environ.get("RANK", "0")) == 0:
        record = {"loss": trained.weights.loss, "notes": trained.log.notes, "ended": trained.log.ended}
        record["validation"] = [dict(epoch.validation["raw"]) for epoch in trained.log.epochs]
        record["trained"] = [epoch.loss for epoch in trained.log.epochs]
        print(json.dumps(record))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(*sys.argv[1:])
