"""Several processes that train one network: what each of them asks the others. One process needs no group.

``torchrun`` starts the processes and says in the environment who they are; gloo connects CPUs, NCCL GPUs.
"""

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from jaxtyping import Shaped
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from mixtura.errors import UsageError

Made = TypeVar("Made")


def rank() -> int:
    """The number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def processes() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def own_device(name: str) -> torch.device:
    """The device of one of several processes: for ``cuda`` the GPU that ``torchrun`` has numbered for it.

    Raises:
        UsageError: there is no such GPU, or the name has the number of one, which all processes would share.
    """
    device = torch.device(name)
    if device.type != "cuda":
        return device
    if device.index is not None:
        raise UsageError(f"All processes would share the GPU {name}. Use {device.type}: then each has its own.")
    number = int(os.environ.get("LOCAL_RANK", "0"))
    found = torch.cuda.device_count()
    if number >= found:
        raise UsageError(f"The device {name} needs GPU {number}, and there are {found}. Use cpu or fewer processes.")
    torch.cuda.set_device(number)
    return torch.device("cuda", number)


def own_rows(count: int) -> range:
    """Which of ``count`` rows this process takes in validation: every row is taken once, by one process."""
    return range(rank(), count, processes())


def total(values: Sequence[float]) -> list[float]:
    """The sum of each number over all processes, in float64; every process must call it."""
    if processes() == 1:
        return list(values)
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    sums = torch.tensor(values, dtype=torch.float64, device=device)
    dist.all_reduce(sums)
    return sums.tolist()


def totals(sums: Mapping[str, float]) -> dict[str, float]:
    """The sum of each named number over all processes, for counts and losses of validation rows.

    Every process must call it, with the same names.
    """
    names = sorted(sums)
    return dict(zip(names, total([sums[name] for name in names]), strict=True))


def of_first(make: Callable[[], Made]) -> Made:
    """What the first process makes, in every process; each must call it, and only the first one calls ``make``."""
    if processes() == 1:
        return make()
    found: list[Any] = [None if rank() else make()]
    dist.broadcast_object_list(found, src=0)
    return found[0]


def gathered_values(value: Any) -> list[Any]:
    """The value of each process, in the order of their ranks; every process must call it."""
    if processes() == 1:
        return [value]
    found: list[Any] = [None] * processes()
    dist.all_gather_object(found, value)
    return found


def gathered(rows: Shaped[Tensor, "B ..."]) -> Shaped[Tensor, "N ..."]:
    """The rows of all processes, in the order of their ranks, without a gradient; every process must call it."""
    rows = rows.detach().contiguous()
    if processes() == 1:
        return rows
    counts = [torch.zeros(1, dtype=torch.int64, device=rows.device) for _ in range(processes())]
    dist.all_gather(counts, torch.tensor([len(rows)], device=rows.device))
    longest = max(int(count) for count in counts)
    parts = [rows.new_empty(longest, *rows.shape[1:]) for _ in counts]
    dist.all_gather(parts, torch.cat([rows, rows.new_zeros(longest - len(rows), *rows.shape[1:])]))
    return torch.cat([part[: int(count)] for part, count in zip(parts, counts, strict=True)])


def synced(module: nn.Module) -> nn.Module:
    """A network whose batch norm uses the statistics of all processes' rows; call it before making the optimizer.

    Raises:
        UsageError: the network is not on a GPU; PyTorch synchronizes statistics there only.
    """
    if any(tensor.device.type != "cuda" for tensor in module.state_dict().values()):
        raise UsageError("Batch norm is synchronized on GPUs only. Leave train.norm out, or freeze the batch norm.")
    from timm.layers.norm_act import convert_sync_batchnorm  # also of layers that have an activation in them

    return convert_sync_batchnorm(module)


def parallel(module: nn.Module) -> DistributedDataParallel | None:
    """A module whose gradients are exchanged with the other processes; ``None`` if there is no other."""
    if processes() == 1:
        return None
    with warnings.catch_warnings():  # the new name of the option is not in every PyTorch that we support
        warnings.simplefilter("ignore", FutureWarning)
        return DistributedDataParallel(module, broadcast_buffers=False)


def own_statistics(module: nn.Module) -> list[str]:
    """The names of the running statistics that processes collect each for itself: of batch norm that is trained."""
    return [
        f"{name}.{kind}" if name else kind
        for name, norm in module.named_modules()
        if isinstance(norm, _BatchNorm) and not isinstance(norm, nn.SyncBatchNorm)
        if norm.training and norm.running_mean is not None
        for kind in ("running_mean", "running_var")
    ]


@torch.no_grad()
def average(tensors: Sequence[Tensor]) -> None:
    """Replace tensors by their mean over all processes; every process must call it."""
    if processes() == 1 or not tensors:
        return
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    dist.all_reduce(flat)
    flat /= processes()
    for tensor, mean in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(mean.view_as(tensor))
