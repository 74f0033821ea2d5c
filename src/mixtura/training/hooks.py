"""What a method keeps beside parameters and optimizer, as named tensors: averaged weights, slow encoders.

The trainer saves and restores the tensors of a hook with everything else, so training resumes exactly. All of them
follow from the steps alone.
"""

import copy
from collections.abc import Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn


@runtime_checkable
class Hook(Protocol):
    """State of a method."""

    def tensors(self) -> Mapping[str, Tensor]:
        """The state, by name: the tensors themselves, so that writing into them restores it."""
        ...

    def after_step(self, step: int) -> None:
        """Follow the parameters, after step ``step`` (from 1) of the optimizer."""
        ...

    def averaged(self) -> Mapping[str, Tensor]:
        """Tensors of the network, by name, to be validated in place of its own; empty where there are none."""
        ...


class WeightAverage:
    """An exponential moving average of a network's weights and running statistics, validated beside the raw ones.

    After step t::

        average <- average + (1 - d) (weights - average),    d = min(decay, (1 + t) / (10 + t))

    Args:
        module: the network.
        decay: in [0, 1); the average is over about 1 / (1 - decay) steps.

    Source: Polyak and Juditsky, Acceleration of stochastic approximation by averaging (1992); the rise of the decay
    is that of TensorFlow's ExponentialMovingAverage.
    """

    def __init__(self, module: nn.Module, decay: float = 0.999) -> None:
        self.decay = decay
        self._follows = _Following(module)

    def tensors(self) -> Mapping[str, Tensor]:
        """The averages, by the names that they have in the network."""
        return self._follows.slow

    def after_step(self, step: int) -> None:
        """Move the averages."""
        self._follows.move(1 - _risen(self.decay, step))

    def averaged(self) -> Mapping[str, Tensor]:
        """The averages."""
        return self._follows.slow


class MomentumEncoder(nn.Module):
    """A copy of a network that follows it slowly and has no gradient; call it as the network.

    After each step: ``copy <- momentum * copy + (1 - momentum) * weights``, running statistics included.

    Args:
        network: the network, or the part of it, to follow.
        momentum: in [0, 1].

    Source: He et al., Momentum contrast for unsupervised visual representation learning (CVPR 2020), eq. 2.
    """

    def __init__(self, network: nn.Module, momentum: float = 0.999) -> None:
        super().__init__()
        self.momentum = momentum
        self.network = copy.deepcopy(network).requires_grad_(False)
        self._follows = _Following(
            network, {name: getattr(owner, key).detach() for name, owner, key in _places(self.network)}
        )

    @torch.no_grad()
    def forward(self, *inputs: Any) -> Any:
        """What the slow network gives."""
        return self.network(*inputs)

    def tensors(self) -> Mapping[str, Tensor]:
        """The slow network's own tensors."""
        return {**dict(self.network.named_parameters()), **dict(self.network.named_buffers())}

    def after_step(self, step: int) -> None:
        """Follow the network."""
        self._follows.move(1 - self.momentum)

    def averaged(self) -> Mapping[str, Tensor]:
        """Nothing: this network is the method's own."""
        return {}


class _Following:
    """Copies of a network's floating-point tensors that move towards it."""

    def __init__(self, module: nn.Module, slow: Mapping[str, Tensor] | None = None) -> None:
        self._places = list(_places(module))
        self.slow = slow or {name: getattr(owner, key).detach().clone() for name, owner, key in self._places}

    @torch.no_grad()
    def move(self, share: float) -> None:
        """Go this share of the way."""
        fast = [getattr(owner, key).detach() for _, owner, key in self._places]
        torch._foreach_lerp_(list(self.slow.values()), fast, share)  # pyright: ignore[reportPrivateImportUsage]


def _risen(momentum: float, step: int) -> float:
    return min(momentum, (1 + step) / (10 + step))


def _places(module: nn.Module) -> Iterator[tuple[str, nn.Module, str]]:
    """Each floating-point parameter and buffer once: its name, its module and its attribute there.

    Modules may replace a buffer by a new tensor, so it is looked up at each step.
    """
    seen: set[int] = set()
    for prefix, owner in module.named_modules():
        for key, tensor in (*owner.named_parameters(recurse=False), *owner.named_buffers(recurse=False)):
            if tensor.is_floating_point() and id(tensor) not in seen:
                seen.add(id(tensor))
                yield f"{prefix}.{key}" if prefix else key, owner, key
