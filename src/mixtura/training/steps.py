"""One step of training: the gradient of a batch, of whose rows each process may have a share, and the move."""

import gc
from collections.abc import Mapping
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from mixtura.training import distributed
from mixtura.training.setup import Batch, Settings, Setup, count, parts


class Steps:
    """Takes the steps of a run, or of a trial before it; close it before the group of processes is left.

    Args:
        setup: what is trained.
        settings: the parts of a batch, clipping and precision.
    """

    def __init__(self, setup: Setup, settings: Settings) -> None:
        self.module, self.optimizer, self.settings = setup.module, setup.optimizer, settings
        self.device = next(self.module.parameters()).device
        for group in self.optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])
        loss = _Loss(setup)
        self.parallel = distributed.parallel(loss)
        self._loss = loss if self.parallel is None else self.parallel

    def set_rate(self, rate: float) -> None:
        """Set the learning rates: the factor on those that the optimizer began with."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["initial_lr"]

    def gradient(self, batch: Batch, rows: float) -> list[dict[str, float]]:
        """Set the gradient to that of the mean loss over all rows of a step; every process must call it.

        The batch is taken in parts, and a part counts by its rows.

        Args:
            batch: this process's share of the rows, which may be none.
            rows: of the step, over all processes; for 0, there is no gradient.

        Returns:
            For each part, the sums over its rows of the loss and of what is logged.
        """
        self.optimizer.zero_grad(set_to_none=True)
        moved = {name: tensor.to(self.device, non_blocking=True) for name, tensor in batch.items()}
        split = parts(moved, self.settings.accumulate) if rows else []
        if split and self.parallel is not None:
            # Heads exchange sums in each pass, so all processes make as many, whatever rows they have.
            empty = {name: tensor[:0] for name, tensor in moved.items()}
            split += [empty] * (self.settings.accumulate - len(split))
        return [self._backward(part, rows, place == len(split)) for place, part in enumerate(split, 1)]

    def move(self) -> None:
        """Clip the gradient, and take the optimizer's step."""
        if self.settings.clip is not None:
            nn.utils.clip_grad_norm_(self.module.parameters(), self.settings.clip)
        self.optimizer.step()

    def close(self) -> None:
        """Let the group of processes go, before it is left.

        What exchanges the gradients holds the group. If it were the last to do so, gloo's thread would be joined with
        Python's lock held, and that thread may be waiting for this lock.
        """
        parallel = self.parallel is not None
        del self.parallel, self._loss
        if parallel:
            gc.collect()

    def _backward(self, part: Batch, rows: float, last: bool) -> dict[str, float]:
        """Add the gradient of a part; returns the sums over its rows of the loss and of what is logged."""
        bf16 = self.settings.precision == "bf16"
        with nullcontext() if last or self.parallel is None else self.parallel.no_sync():
            with torch.autocast(self.device.type, torch.bfloat16) if bf16 else nullcontext():
                loss, logged = self._loss(part)
            # DistributedDataParallel takes the mean over the processes, whatever rows they have.
            share = count(part) * distributed.processes() / rows
            (loss if share == 1 else loss * share).backward()
        return {name: count(part) * torch.as_tensor(value).item() for name, value in {"loss": loss, **logged}.items()}


class _Loss(nn.Module):
    """The objective as a module: DistributedDataParallel exchanges the gradients of what its ``forward`` gives."""

    def __init__(self, setup: Setup) -> None:
        super().__init__()
        self.module, objective, self._without_rows = setup.module, setup.objective, setup.without_rows
        self._objective = (objective,)  # in a tuple: an objective that is a module is no part of this one

    def forward(self, batch: Batch) -> tuple[Tensor, Mapping[str, Tensor]]:
        if not count(batch):  # this process has no rows, but the others wait for its gradients
            trained = [parameter.sum() for parameter in self.module.parameters() if parameter.requires_grad]
            rest = 0.0 if self._without_rows is None else self._without_rows(self.module, batch)
            return torch.stack(trained).sum() * 0.0 + rest, {}
        made = self._objective[0](self.module, batch)
        return made if isinstance(made, tuple) else (made, {})
