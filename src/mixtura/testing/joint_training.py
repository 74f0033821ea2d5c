"""The law of joint training: a head in a small network learns as well as ``nn.Linear`` at the same setting.

``accuracy`` trains one network on scikit-learn's handwritten digits; the tests hold every head to a few settings, and
``benchmarks/training_heads.py`` to all.
"""

import inspect
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float, Int
from sklearn.datasets import load_digits
from torch import Tensor, nn

from mixtura.heads import HEADS, VARIANTS
from mixtura.heads.base import Head
from mixtura.names import find

STARTS = ("fresh", "from_rows")
N_CLASSES, WIDTH, BATCH_SIZE, TEST_ROWS = 10, 64, 64, 397
MARGIN = 2.0  # percentage points that a head may be below nn.Linear
SOUND = 90.0  # percent; where nn.Linear is below, a head may stop with an error
OPTION = 4 * WIDTH  # of an option that a head's constructor needs, such as a number of random features


@dataclass(frozen=True)
class Setting:
    """How a network is trained: its optimizer, and whether in bfloat16."""

    optimizer: Callable[[Iterable[Tensor]], torch.optim.Optimizer]
    bfloat16: bool = False


def _sgd(rate: float) -> Callable[[Iterable[Tensor]], torch.optim.Optimizer]:
    return partial(torch.optim.SGD, lr=rate, momentum=0.9)


SETTINGS = {
    "sgd 0.001": Setting(_sgd(0.001)),
    "sgd 0.01": Setting(_sgd(0.01)),
    "sgd 0.1": Setting(_sgd(0.1)),
    "adam": Setting(partial(torch.optim.Adam, lr=1e-3)),
    "adamw": Setting(partial(torch.optim.AdamW, lr=1e-3)),
    "sgd 0.01 bfloat16": Setting(_sgd(0.01), bfloat16=True),
}


def kinds() -> dict[str, tuple[str, dict[str, Any]]]:
    """Every head and variant, as name -> (name in ``HEADS``, options); of several names for one head, the last."""
    named = {name: (name, _needed(find(HEADS, name))) for name in HEADS} | VARIANTS
    unique: dict[str, str] = {}
    for name, (key, options) in named.items():
        unique[key + repr(find(HEADS, key)(WIDTH, N_CLASSES, **options).config())] = name
    return {name: named[name] for name in unique.values()}


def _needed(kind: type[Head]) -> dict[str, Any]:
    """Options that a head's constructor needs beside its width and its number of classes."""
    parameters = list(inspect.signature(kind).parameters.values())[2:]
    return {one.name: OPTION for one in parameters if one.default is one.empty and one.kind is not one.VAR_KEYWORD}


def digits(n_train: int) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Training and test pictures (1 x 8 x 8, standardized) with labels, in a fixed random order."""
    found = cast("Any", load_digits())
    pixels = np.asarray(found.images, dtype=np.float32)
    x = torch.from_numpy((pixels - pixels.mean()) / pixels.std())[:, None]
    labels = torch.from_numpy(np.asarray(found.target, dtype=np.int64))
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    test, train = order[:TEST_ROWS], order[TEST_ROWS : TEST_ROWS + n_train]
    return (x[train], labels[train]), (x[test], labels[test])


def network(seed: int) -> nn.Sequential:
    """Two convolutions and a hidden layer, untrained."""
    torch.default_generator.manual_seed(seed)
    return nn.Sequential(
        *(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU()),
        *(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(512, WIDTH), nn.ReLU()),
    )


def head_of(name: str, start: str, features: Float[Tensor, "N D"], labels: Int[Tensor, " N"]) -> nn.Module:
    """A head, fresh or initialized from features; ``nn.Linear`` by that name."""
    torch.default_generator.manual_seed(100)
    if name == "nn.Linear":
        return nn.Linear(WIDTH, N_CLASSES)
    key, options = VARIANTS[name] if name in VARIANTS else (name, _needed(find(HEADS, name)))
    kind = find(HEADS, key)
    if start == "fresh":
        return kind(WIDTH, N_CLASSES, **options)
    return kind.from_rows(features, labels, N_CLASSES, **options)


def accuracy(name: str, start: str, setting: Setting, epochs: int = 12, n_train: int = 1400, seed: int = 0) -> float:
    """Test accuracy in percent of a network trained jointly with a head; NaN if the loss was not finite.

    Args:
        name: a name in :func:`kinds`, or ``nn.Linear``.
        start: one of :data:`STARTS`.
        setting: the optimizer and precision.
        epochs: passes over the training pictures.
        n_train: training pictures, up to 1400.
        seed: of the network and the order of the pictures.
    """
    (x, labels), (test, truth) = digits(n_train)
    with torch.random.fork_rng(devices=[]):
        below = network(seed)
        with torch.no_grad():
            features = below(x)
        model = nn.Sequential(below, head_of(name, start, features, labels)).train()
        learned = _train(model, (x, labels), setting, epochs, seed)
    if not learned:
        return math.nan
    with torch.no_grad():
        return 100 * float((model.eval()(test).argmax(1) == truth).double().mean())


def _train(model: nn.Sequential, rows: tuple[Tensor, Tensor], setting: Setting, epochs: int, seed: int) -> bool:
    """Run the epochs; returns whether all losses were finite."""
    below, head = model
    optimizer = setting.optimizer([parameter for parameter in model.parameters() if parameter.requires_grad])
    generator = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        for index in torch.randperm(len(rows[0]), generator=generator).split(BATCH_SIZE):
            x, labels = (part[index] for part in rows)
            with torch.autocast("cpu", torch.bfloat16, enabled=setting.bfloat16):
                features = below(x)
                scores = head(features)
            loss = nn.functional.cross_entropy(scores.float(), labels)
            if not bool(loss.isfinite()):
                return False
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if isinstance(head, Head):
                head.update_memory(features.detach().float(), labels)
    return True


def keeps_up(found: float, linear: float) -> bool:
    """Whether a head's accuracy is within the margin of ``nn.Linear``, in percent; NaN for a stop with an error."""
    if math.isnan(found):
        return not linear >= SOUND
    return math.isnan(linear) or found >= linear - MARGIN
