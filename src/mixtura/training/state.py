"""Everything that training changes, as named tensors: parameters, buffers, the optimizer's state, and that of hooks."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from mixtura.errors import CheckpointError, UsageError
from mixtura.training.hooks import Hook

_MODULE, _OPTIMIZER, _HOOK = "module", "optimizer", "hook"


class State:
    """The live state of a run; the names of its tensors begin with whose they are.

    Raises:
        UsageError: the optimizer holds parameters that the network lacks.
    """

    def __init__(self, module: nn.Module, optimizer: torch.optim.Optimizer, hooks: Mapping[str, Hook]) -> None:
        self._module, self._optimizer, self._hooks = module, optimizer, hooks
        names = {parameter: name for name, parameter in module.named_parameters()}
        held = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        if any(parameter not in names for parameter in held):
            raise UsageError("The optimizer holds a parameter that the network lacks. Make it a part of the network.")
        self._parameters = {names[parameter]: parameter for parameter in held}

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor of the state, by name; not copies."""
        found = {f"{_MODULE}.{name}": tensor for name, tensor in of_module(self._module).items()}
        for name, parameter in self._parameters.items():
            for key, value in self._optimizer.state.get(parameter, {}).items():
                if value is not None:  # SGD without momentum
                    found[f"{_OPTIMIZER}.{key}.{name}"] = value
        for hook, held in self._hooks.items():
            found |= {f"{_HOOK}.{hook}.{name}": tensor for name, tensor in held.tensors().items()}
        return found

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Set the state to that of :meth:`tensors` at another time.

        Raises:
            CheckpointError: the tensors are those of another network, optimizer or hook.
        """
        optimizer = {name: tensor for name, tensor in tensors.items() if name.startswith(f"{_OPTIMIZER}.")}
        live = {name: tensor for name, tensor in self.tensors().items() if not name.startswith(f"{_OPTIMIZER}.")}
        _overwrite(live, {name: tensor for name, tensor in tensors.items() if name not in optimizer})
        with evaluating(self._module):  # modules settle what follows from their tensors when their mode is set
            pass
        places = {name: place for place, name in enumerate(self._parameters)}
        state: dict[int, dict[str, Tensor]] = {}
        for full, tensor in optimizer.items():
            _, key, name = full.split(".", 2)
            if name not in places:
                raise CheckpointError(
                    f"The checkpoint has a state of the optimizer for {name!r}, which is not trained."
                )
            state.setdefault(places[name], {})[key] = _laid_out_as(self._parameters[name], tensor)
        groups = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({"state": state, "param_groups": groups})


def _laid_out_as(parameter: Tensor, tensor: Tensor) -> Tensor:
    """The tensor in the memory order of its parameter, which fused optimizers take for granted."""
    if tensor.shape != parameter.shape:
        return tensor
    return torch.empty_like(parameter, dtype=tensor.dtype, device=tensor.device, requires_grad=False).copy_(tensor)


def of_module(module: nn.Module) -> dict[str, Tensor]:
    """The parameters and buffers of a network by name, also buffers that its ``state_dict`` leaves out; not copies."""
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def copied(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies on the CPU."""
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}


@contextmanager
def own_random_numbers(device: torch.device, seed: int | None = None) -> Iterator[None]:
    """Leave the caller's random numbers as they are, on the CPU and on this device; no other device is touched.

    Args:
        device: where numbers are drawn, besides the CPU.
        seed: what those of the block follow from; they go on from the caller's unless given.
    """
    kept = torch.mps.get_rng_state() if device.type == "mps" else None
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        try:
            if seed is not None:
                seed_random_numbers(device, seed)
            yield
        finally:
            if kept is not None:
                torch.mps.set_rng_state(kept)


def seed_random_numbers(device: torch.device, seed: int) -> None:
    """Make random numbers follow from a seed, on the CPU and on this device; no other device is touched."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)
    if device.type == "mps":
        torch.mps.manual_seed(seed)


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put a network into evaluation mode for the block; afterwards each part is in the mode it was in."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, training in modes.items():
            part.training = training


@contextmanager
def replaced(module: nn.Module, tensors: Mapping[str, Tensor]) -> Iterator[None]:
    """Give some of a network's tensors other values for the block; afterwards they are bit for bit what they were."""
    live = of_module(module)
    kept = {name: live[name].detach().clone() for name in tensors}
    with torch.no_grad():
        for name, tensor in tensors.items():
            live[name].copy_(tensor)
    try:
        yield
    finally:
        with torch.no_grad():
            for name, tensor in kept.items():
                live[name].copy_(tensor)


@torch.no_grad()
def _overwrite(live: Mapping[str, Tensor], stored: Mapping[str, Tensor]) -> None:
    """Copy stored tensors into live ones of equal names, shapes and number formats."""
    for name in sorted({*live, *stored}):
        if name not in stored or name not in live:
            where = "lacks" if name in live else "has"
            raise CheckpointError(
                f"The checkpoint {where} {name!r}: it is of another network. Start again with --fresh."
            )
        ours, theirs = live[name], stored[name]
        if ours.shape != theirs.shape or ours.dtype != theirs.dtype:
            raise CheckpointError(
                f"{name!r} is {tuple(theirs.shape)} {theirs.dtype} in the checkpoint and {tuple(ours.shape)} "
                f"{ours.dtype} in the network. Train the network that it began with, or start again with --fresh."
            )
    for name, tensor in live.items():
        tensor.copy_(stored[name])
