"""Optimizers by name, and the parameters of a network in groups with a learning rate and a weight decay each."""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from mixtura.errors import UsageError
from mixtura.names import nearest

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adadelta": torch.optim.Adadelta,
    "adam": partial(torch.optim.Adam, fused=True),
    "adamw": partial(torch.optim.AdamW, fused=True),
    "nesterov": partial(torch.optim.SGD, momentum=0.9, nesterov=True, fused=True),
    "sgd": partial(torch.optim.SGD, momentum=0.9, fused=True),
}
"""Optimizers by name, with the options of their PyTorch classes; the momentum of ``sgd`` and ``nesterov`` is 0.9."""


def is_weight(name: str, parameter: Tensor) -> bool:
    """Whether a parameter is a weight, which decays; biases and the scales of norms have one dimension, and do not."""
    return parameter.ndim > 1


def parameter_groups(
    module: nn.Module,
    learning_rate: float,
    weight_decay: float = 0.0,
    factor: Callable[[str], float] = lambda name: 1.0,
    decays: Callable[[str, Tensor], bool] = is_weight,
) -> list[dict[str, Any]]:
    """The trainable parameters of a network in groups, for :func:`optimizer`.

    Args:
        module: the network; parameters without a gradient are left out.
        learning_rate: of a factor of 1, before the schedule.
        weight_decay: of the parameters that decay.
        factor: the share of the learning rate that a parameter has, by its name; for layer decay.
        decays: whether a parameter decays, by its name and tensor.

    Raises:
        UsageError: the network has no trainable parameters.
    """
    groups: dict[tuple[float, bool], list[Tensor]] = {}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            groups.setdefault((factor(name), decays(name, parameter)), []).append(parameter)
    if not groups:
        raise UsageError("The network has no parameter that can be trained. Choose other layers in train.trainable.")
    return [
        {"params": members, "lr": share * learning_rate, "weight_decay": weight_decay if decaying else 0.0}
        for (share, decaying), members in groups.items()
    ]


def check_optimizer(name: str) -> None:
    """Check that there is an optimizer of this name.

    Raises:
        UsageError: there is none.
    """
    if name not in OPTIMIZERS:
        raise UsageError(f"There is no optimizer {name!r}. {nearest(name, OPTIMIZERS)}")


def optimizer(name: str, groups: list[dict[str, Any]], **options: Any) -> torch.optim.Optimizer:
    """The optimizer of this name for some groups of parameters.

    Raises:
        UsageError: there is none of this name, or it has no such option.
    """
    check_optimizer(name)
    made = OPTIMIZERS[name]
    known = inspect.signature(made).parameters
    for option in options:
        if option not in known:
            raise UsageError(f"The optimizer {name} has no {option}. Leave it out, or choose another optimizer.")
    return made(groups, **options)
