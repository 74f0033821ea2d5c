"""Gradient training of several heads of one shape as one batch; each keeps its best epoch, initialization included."""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, stack_module_state, vmap
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

from mixtura.errors import NonFinite, UsageError
from mixtura.heads.base import TILE_ROWS, Head, in_tiles
from mixtura.interfaces import Objective
from mixtura.training.optimizers import check_optimizer
from mixtura.training.optimizers import optimizer as optimizer_of
from mixtura.training.records import Epoch, Hyperparameters, Trained, TrainingData
from mixtura.training.state import own_random_numbers

NOISE_SEED = 0  # seed of the random noise in heads during training


class _Loss(nn.Module):
    """A head and its objective as one module, so ``functional_call`` replaces the parameters for all head methods."""

    def __init__(self, head: Head, objective: Objective, l2: float) -> None:
        super().__init__()
        self.head, self.objective, self.l2 = head, objective, l2

    def forward(self, x: Tensor, labels: Tensor, penalty: Tensor, weight: Tensor | None = None) -> Tensor:
        loss = self.objective(self.head, x, labels, weight)
        if weight is not None:  # the mean weight is one, so a low-weight mini-batch takes a smaller step
            loss = loss * weight.mean()
        if self.l2:
            loss = loss + 0.5 * self.l2 * self.head.input_gradients().square().sum()
        return loss if type(self.head).penalty is Head.penalty else loss + penalty * self.head.penalty()


class _Judge(nn.Module):
    """The head's log-posteriors, with the same parameter names as :class:`_Loss`."""

    def __init__(self, head: Head) -> None:
        super().__init__()
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x)


def train(
    heads: Sequence[Head], rows: Sequence[TrainingData], objective: Objective, settings: Hyperparameters
) -> list[Trained]:
    """Train each head on its own samples; heads of one shape share every step.

    The initialization is epoch 0, so no head ends with a higher validation loss than it started with, unless
    ``Hyperparameters.stop`` fixes the epoch. A head that prunes keeps its sparsest epoch within one standard error of
    the lowest loss. A non-finite loss stops only its own head, which keeps its best epoch so far.

    Args:
        heads: initialized heads; they are not modified.
        rows: the training data of each head.
        objective: the loss to minimize.
        settings: how to train.

    Raises:
        UsageError: samples that do not match the width or classes of their head, no training or validation samples,
            or an empty batch size.
        NonFinite: NaN or infinity in validation samples, which would make epochs incomparable.
    """
    for head, own in zip(heads, rows, strict=True):
        _check(head, own, settings)
    done: list[Trained | None] = [None] * len(heads)
    for group in _alike(heads, rows):
        run = _Run([heads[i] for i in group], [rows[i] for i in group], objective, settings)
        for i, trained in zip(group, run.all(), strict=True):
            done[i] = trained
    return [trained for trained in done if trained is not None]


def _check(head: Head, rows: TrainingData, settings: Hyperparameters) -> None:
    if not len(rows.x) or not len(rows.val_x):
        raise UsageError(
            f"A head cannot be trained on {len(rows.x)} rows that {len(rows.val_x)} rows judge. Give one or more of "
            "each, with a weight above zero."
        )
    labels = torch.cat([rows.labels, rows.val_labels])
    widths = {rows.x.shape[1], rows.val_x.shape[1]}
    if widths != {head.dimension} or int(labels.min()) < 0 or int(labels.max()) >= head.n_classes:
        raise UsageError(
            f"Rows of width {', '.join(map(str, sorted(widths)))} with labels {int(labels.min())} to "
            f"{int(labels.max())} do not fit a head for {head.dimension} features and {head.n_classes} classes. "
            "Give it rows of its own width, and labels from 0."
        )
    check_optimizer(settings.optimizer)
    if settings.batch_size < 1:
        raise UsageError(f"A batch of {settings.batch_size} rows teaches nothing. Give a batch size of 1 or more.")
    bad = int((~rows.val_x.isfinite().all(1)).sum())
    if bad:
        raise NonFinite(f"{bad} of {len(rows.val_x)} rows that judge hold NaN or infinity. Remove them.")


def _alike(heads: Sequence[Head], rows: Sequence[TrainingData]) -> list[list[int]]:
    """Indices of heads grouped by kind and shape; a head without ``supports_vmap`` is a group of its own."""
    groups: dict[Any, list[int]] = {}
    for i, (head, own) in enumerate(zip(heads, rows, strict=True)):
        shapes = tuple((name, tensor.dtype, tensor.shape) for name, tensor in head.state_dict().items())
        free = tuple(parameter.requires_grad for parameter in head.parameters())
        sizes = (own.x.shape, own.val_x.shape, own.weight is None, own.total)
        key = (type(head), str(head.config()), shapes, free, sizes) if head.supports_vmap else i
        groups.setdefault(key, []).append(i)
    return list(groups.values())


@dataclass
class _Best:
    """Best epoch of one head so far, with its state."""

    epoch: Epoch
    state: dict[str, Tensor]

    def loses_to(self, new: Epoch, epochs: Sequence[Epoch]) -> bool:
        """Whether the ``new`` epoch replaces this one; ``epochs`` are all epochs so far, including ``new``."""
        lowest = min(epochs, key=lambda epoch: epoch.val_nll)
        limit = min(lowest.val_nll + lowest.error, epochs[0].val_nll)
        if not new.val_nll <= limit:
            return False
        old = self.epoch
        return old.val_nll > limit or (-new.sparsity, new.val_nll) < (-old.sparsity, old.val_nll)


class _Run:
    """Training run of one stack of heads."""

    def __init__(
        self, heads: Sequence[Head], rows: Sequence[TrainingData], objective: Objective, settings: Hyperparameters
    ) -> None:
        self.settings, self.rows, self.size = settings, rows, len(heads)
        self.module = _Loss(copy.deepcopy(heads[0]), objective, settings.l2 / rows[0].total)
        self.module.head.preprocessed = True
        self.judge = _Judge(self.module.head)
        self.frozen = {f"head.{name}" for name, p in heads[0].named_parameters() if not p.requires_grad}
        self.single = self.size == 1
        if self.single:
            self.parameters: dict[str, Tensor] = dict(self.module.named_parameters())
            self.buffers: dict[str, Tensor] = dict(self.module.named_buffers())
        else:
            stacked = stack_module_state([_Judge(head) for head in heads])  # pyright: ignore[reportArgumentType]
            self.parameters = {
                name: p.detach().requires_grad_(name not in self.frozen) for name, p in stacked[0].items()
            }
            self.buffers = stacked[1]
        # views, which the optimizer updates together with the parameters
        self.free = {name: p.detach() for name, p in self.parameters.items() if name not in self.frozen}
        self.fixed = {name: p for name, p in self.parameters.items() if name in self.frozen} | self.buffers
        self.x = self._inner(heads, [own.x for own in rows])
        self.labels = torch.stack([own.labels for own in rows])
        weights = [_one_on_average(own.weight) for own in rows if own.weight is not None]
        self.weight = torch.stack(weights).to(self.x) if weights else None
        self.val_x = self._inner(heads, [own.val_x for own in rows])
        self.val_labels = torch.stack([own.val_labels for own in rows])
        self.prunes = settings.kl_weight > 0 and type(heads[0]).sparsity is not Head.sparsity
        self.steps: dict[int, GraphModule] = {}
        self.best: list[_Best] = []
        self.epochs: list[list[Epoch]] = [[] for _ in heads]
        self.stopped: list[str | None] = [None] * self.size

    @staticmethod
    @torch.no_grad()
    def _inner(heads: Sequence[Head], rows: Sequence[Tensor]) -> Float[Tensor, "S N W"]:
        return torch.stack([head.preprocess(own) for head, own in zip(heads, rows, strict=True)])

    def all(self) -> list[Trained]:
        """Run all epochs and return each head at its best.

        A head's noise, and so its result, does not depend on the other heads in the stack.
        """
        with own_random_numbers(self.x.device, NOISE_SEED), torch.enable_grad():
            return self._all()

    def _all(self) -> list[Trained]:
        self._judged(0, torch.full((self.size,), math.nan))
        free = [self.parameters[name] for name in self.free]
        settings, count = self.settings, self.x.shape[1]
        per_epoch = -(-count // settings.batch_size)
        if settings.epochs and (free or not self.module.head.supports_vmap):
            # a head without parameters learns only by update_memory, but an optimizer needs a parameter
            held = free or [torch.zeros(1, requires_grad=True)]
            optimizer = optimizer_of(settings.optimizer, [{"params": held, "lr": settings.learning_rate}])
            cosine = torch.optim.lr_scheduler.CosineAnnealingLR(
                optimizer, settings.epochs * per_epoch, settings.final_learning_rate
            )
            generators = [torch.Generator().manual_seed(own.seed) for own in self.rows]
            for number in range(1, 1 + (settings.epochs if settings.stop is None else settings.stop)):
                order = torch.stack([torch.randperm(count, generator=generator) for generator in generators])
                self._judged(number, self._epoch(number, order, optimizer, cosine))
                if all(map(self._over, range(self.size))):
                    break
        return [self._trained(i) for i in range(self.size)]

    def _epoch(self, number: int, order: Int[Tensor, "S N"], optimizer: Any, cosine: Any) -> Float[Tensor, " S"]:
        """Run one pass over all mini-batches; returns the mean loss of each head."""
        self.module.train()
        batches = order.split(self.settings.batch_size, dim=1)
        total = torch.zeros(self.size)
        penalty = self._penalty(number)
        for place, index in enumerate(batches):
            x, labels = self._rows(index), self.labels.gather(1, index.to(self.labels.device))
            weight = None if self.weight is None else self.weight.gather(1, index.to(self.weight.device))
            optimizer.zero_grad(set_to_none=True)
            loss = self._differentiated(x, labels, penalty, weight)
            finite = loss.isfinite()
            if not bool(finite.all()):
                self._note(finite, number, place + 1, len(batches))
                if all(said is not None for said in self.stopped):
                    break
            optimizer.step()
            cosine.step()
            total += loss.cpu() * index.shape[1]
            if self.single:
                self.module.head.update_memory(x[0], labels[0])
        return total / order.shape[1]

    def _rows(self, index: Int[Tensor, "S B"]) -> Float[Tensor, "S B D"]:
        """Gather the samples of each head at ``index``, in one copy."""
        size, count, dimension = self.x.shape
        flat = (index + count * torch.arange(size)[:, None]).reshape(-1).to(self.x.device)
        return self.x.view(size * count, dimension).index_select(0, flat).view(size, -1, dimension)

    def _differentiated(
        self,
        x: Float[Tensor, "S B D"],
        labels: Int[Tensor, "S B"],
        penalty: Float[Tensor, ""],
        weight: Float[Tensor, "S B"] | None,
    ) -> Float[Tensor, " S"]:
        """Loss of each head; also sets the gradients for the optimizer."""
        if self.single:
            loss = self.module(x[0], labels[0], penalty, None if weight is None else weight[0])
            if loss.requires_grad:
                loss.backward()
            return loss.detach()[None]
        given = (self.free, self.fixed, x, labels, penalty) + (() if weight is None else (weight,))
        count = x.shape[1]
        if count not in self.steps:
            self.steps[count] = self._traced(given)
        gradients, loss = self.steps[count](*given)
        for name, gradient in gradients.items():
            self.parameters[name].grad = gradient
        return loss

    def _traced(self, given: tuple[Any, ...]) -> GraphModule:
        """Trace gradients and losses of a stack into a graph, for one batch size.

        For small heads, the Python overhead of autograd and vmap takes longer than the arithmetic.
        """

        def loss_of(free: Any, fixed: Any, *batch: Tensor) -> Tensor:
            return functional_call(self.module, (free, fixed), batch)

        dims = (0, 0, 0, 0, None, 0)[: len(given)]
        step = vmap(grad_and_value(loss_of), in_dims=dims, randomness="same")
        with own_random_numbers(self.x.device):  # tracing runs the step once and consumes random numbers
            return make_fx(step)(*given)

    def _penalty(self, number: int) -> Float[Tensor, ""]:
        rise = min(1.0, 2 * number / self.settings.epochs)
        return torch.tensor(self.settings.kl_weight * rise / self.rows[0].total, device=self.x.device)

    def _note(self, finite: Tensor, epoch: int, batch: int, batches: int) -> None:
        for i in (~finite).nonzero()[:, 0].tolist():
            if self.stopped[i] is None:
                self.stopped[i] = (
                    f"The loss was not finite in batch {batch} of {batches} of epoch {epoch}: training stopped, "
                    f"and the state of epoch {self.best[i].epoch.number} was kept. Use a lower learning rate, or look "
                    "at these features."
                )

    @torch.no_grad()
    def _judged(self, number: int, loss: Float[Tensor, " S"]) -> None:
        """Evaluate on the validation samples and keep better epochs."""
        self.module.eval()
        for i, log_posterior in enumerate(self._log_posteriors()):
            if self._over(i):
                continue
            epoch = self._epoch_of(i, number, float(loss[i]), log_posterior)
            self.epochs[i].append(epoch)
            if number == 0:
                self.best.append(_Best(epoch, self._state(i)))
            elif self.settings.stop is not None or self.best[i].loses_to(epoch, self.epochs[i]):
                self.best[i] = _Best(epoch, self._state(i))

    def _epoch_of(self, i: int, number: int, loss: float, log_posterior: Float[Tensor, "M C"]) -> Epoch:
        labels, predicted, n_classes = self.val_labels[i], log_posterior.argmax(1), log_posterior.shape[1]
        losses = -log_posterior.gather(1, labels[:, None])[:, 0].double()
        given = self.rows[i].val_weight
        weight = torch.ones_like(losses) if given is None else _one_on_average(given.to(losses))
        present = torch.bincount(labels, minlength=n_classes) > 0
        answered = torch.bincount(predicted, minlength=n_classes) > 0
        return Epoch(
            number,
            loss,
            float((weight * losses).mean()),
            float((weight * (predicted == labels)).mean()),
            int((present & ~answered).sum()),
            _standard_error(losses, weight) if self.prunes and len(losses) > 1 else 0.0,
            self._head(self._state(i)).sparsity if self.prunes else 0.0,
        )

    def _log_posteriors(self) -> list[Float[Tensor, "M C"]]:
        if self.single:
            return [in_tiles(self.judge, self.val_x[0])]

        def one(parameters: Any, buffers: Any, x: Tensor) -> Tensor:
            return functional_call(self.judge, (parameters, buffers), (x,))

        parts = self.val_x.split(TILE_ROWS, dim=1)
        return list(torch.cat([vmap(one)(self.parameters, self.buffers, part) for part in parts], dim=1))

    def _state(self, i: int) -> dict[str, Tensor]:
        both = {**self.parameters, **self.buffers}
        own = both if self.single else {name: tensor[i] for name, tensor in both.items()}
        return {name.removeprefix("head."): tensor.detach().clone() for name, tensor in own.items()}

    def _over(self, i: int) -> bool:
        """Whether head i has stopped, because of a non-finite loss or early stopping."""
        if self.stopped[i] is not None:
            return True
        patience = self.settings.patience
        if self.settings.stop is not None or patience is None or not self.epochs[i]:
            return False
        lowest = min(self.epochs[i], key=lambda epoch: epoch.val_nll)
        return self.epochs[i][-1].number - lowest.number >= patience

    def _trained(self, i: int) -> Trained:
        best = self.best[i]
        return Trained(self._head(best.state), tuple(self.epochs[i]), best.epoch.number, self.stopped[i])

    def _head(self, state: dict[str, Tensor]) -> Head:
        """Standalone head with the given state, in eval mode."""
        head = copy.deepcopy(self.module.head)
        head.preprocessed = False
        head.load_state_dict({name: state[name] for name in head.state_dict()})
        return head.eval()


def _one_on_average(weight: Float[Tensor, " M"]) -> Float[Tensor, " M"]:
    return weight * (len(weight) / weight.sum())


def _standard_error(values: Float[Tensor, " M"], weight: Float[Tensor, " M"]) -> float:
    """Standard error of the weighted mean, for weights that average to one."""
    count = len(values)
    off = weight * (values - (weight * values).mean())
    return float((off.square().sum() / (count * (count - 1))).sqrt())
