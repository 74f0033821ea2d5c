"""The training loop: a step for each batch, validation after each epoch, checkpoints from which it goes on exactly.

It knows no method. What a step does follows from the state, the batch and the number of the step alone, also what
dropout draws. So a run is its state, which is named tensors, the number of steps done, and the record of its epochs.
"""

import math
import signal
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from hashlib import blake2b
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from mixtura import files
from mixtura.errors import CheckpointError, NonFinite, UsageError
from mixtura.records.training import TrainingEpoch, TrainingLog, TrainingProgress
from mixtura.signals import stoppable
from mixtura.training import distributed
from mixtura.training.checkpoint import Checkpoint, Checkpoints, Facts, check_same_run
from mixtura.training.course import Course, without_best
from mixtura.training.records import TrainedNetwork, Weights
from mixtura.training.setup import RAW, Batch, Settings, Setup, check, count
from mixtura.training.state import (
    State,
    copied,
    evaluating,
    of_module,
    own_random_numbers,
    replaced,
    seed_random_numbers,
)
from mixtura.training.steps import Steps

CHECKPOINT_FOLDER, METRICS_FILE = "checkpoints", "metrics.jsonl"


def train(
    setup: Setup,
    settings: Settings,
    folder: Path,
    progress: Callable[[TrainingProgress], None] | None = None,
    enough: Callable[[], bool] = lambda: False,
) -> TrainedNetwork:
    """Train a network, or go on where an earlier run in the same folder has stopped, and return its best weights.

    One process computes the same bits whether it was stopped or not. On an interrupt or a termination signal the step
    is finished and committed, then the signal takes its usual effect; a second signal takes effect at once.
    Several processes train together if :func:`mixtura.training.processes.connected` has connected them.

    Args:
        setup: what is trained.
        settings: how.
        folder: of the run: ``checkpoints/``, and ``metrics.jsonl`` with a line for each epoch.
        progress: called after each step, in this thread, in the first process.
        enough: asked before each step; training ends when it is true, as when time is up, and can go on later.

    Raises:
        NonFinite: the loss or the weights are NaN or infinite; the last commit is kept.
        CheckpointError: the folder has another run, or no whole checkpoint.
        NoInput: a checkpoint that is there cannot be read.
        CannotWrite: the folder is not writable, or another run is using it.
        OutOfSpace: the disk is full; the checkpoints before are whole.
        UsageError: a setting is out of range.
    """
    check(setup, settings)
    device = next(setup.module.parameters()).device
    with (
        stoppable() as stopped,
        _only_run(folder),
        own_random_numbers(device),
        closing(_Run(setup, settings, folder, progress)) as run,
    ):
        run.resume()
        run.all(stopped, enough)
    if run.stop:  # another process has had the signal
        raise KeyboardInterrupt(signal.SIGTERM)
    return run.result()


@contextmanager
def _only_run(folder: Path) -> Iterator[None]:
    """Lock the folder; the first process does, for all."""
    if distributed.rank():
        yield
    else:
        with files.new_folder(folder), files.only_writer(folder):
            yield


class _Run:
    """One run, in this process."""

    def __init__(
        self, setup: Setup, settings: Settings, folder: Path, progress: Callable[[TrainingProgress], None] | None
    ) -> None:
        self.setup, self.settings, self.folder = setup, settings, folder
        self.module, self.optimizer = setup.module, setup.optimizer
        self.device = next(self.module.parameters()).device
        self.progress = progress if distributed.rank() == 0 else None
        self.state, self.course = State(self.module, self.optimizer, setup.hooks), Course()
        self.checkpoints = Checkpoints(folder / CHECKPOINT_FOLDER)
        self.steps = Steps(setup, settings)
        self.own_statistics = distributed.own_statistics(self.module) if distributed.processes() > 1 else []
        self.notes: list[str] = []
        self.stop, self.ended = False, ""
        self.committed_step, self.first_step = -1, 0
        self.start = self.epoch_start = self.committed = time.perf_counter()

    def all(self, stopped: Callable[[], bool], enough: Callable[[], bool]) -> None:
        """Train until something ends it."""
        if self.settings.incumbent and not (self.course.step or self.course.epochs):
            self._validate()
        self._commit()
        while not self._over():
            self._epoch(stopped, enough)
            if not self.ended:
                self._validate()
            self._commit()
        distributed.total([0.0])  # no process leaves before the first has written

    def _over(self) -> bool:
        """Whether training has ended: it was told to, all epochs are done, or patience has run out."""
        number, best, patience = self.course.step // self.setup.steps, self.course.best_epoch, self.settings.patience
        if not self.ended and number >= self.settings.epochs:
            self.ended = f"all {self.settings.epochs} epochs are done"
        if not self.ended and patience is not None and number - best >= patience:
            self.ended = f"no epoch after {best} has had a better validation loss"
        return bool(self.ended)

    def _epoch(self, stopped: Callable[[], bool], enough: Callable[[], bool]) -> None:
        """Train to the end of the epoch, or to where a process wants to stop."""
        epoch, first = divmod(self.course.step, self.setup.steps)
        batches = self.setup.batches(epoch, first)
        try:
            for batch in islice(batches, self.setup.steps - first):
                late = time.perf_counter() - self.committed >= 60 * self.settings.commit_minutes
                asked = (count(batch), stopped(), enough(), late)
                rows, stop, end, commit = distributed.total([float(one) for one in asked])
                self.stop = stop > 0
                if stop or end:
                    self.ended = "training was stopped" if stop else "the time is up"
                    return
                if commit:
                    self._commit()
                self._step(batch, rows)
                self._report()
        finally:
            if isinstance(batches, Generator):
                batches.close()
        if self.course.step != (epoch + 1) * self.setup.steps:
            raise UsageError(f"Epoch {epoch + 1} gave fewer than its {self.setup.steps} batches. Check `steps`.")

    def _step(self, batch: Batch, rows: float) -> None:
        """One step of the optimizer, on a batch that has so many rows over all processes."""
        step = self.course.step
        _seed(self.settings.seed, step, self.device)
        self.steps.set_rate(self.setup.rate(step, self.course.losses))
        made = self.steps.gradient(batch, rows)
        self._account(made, rows)
        if made:
            self.steps.move()
        self.course.step += 1
        for hook in self.setup.hooks.values():
            hook.after_step(self.course.step)

    def _account(self, made: Sequence[Mapping[str, float]], rows: float) -> None:
        """Add a step to the sums of the epoch, over all processes."""
        logged = (name for part in made for name in part)
        names = sorted({*self.course.sums, *self.setup.logged, *logged} - {"rows"})
        sums = distributed.total([sum((part.get(name, 0.0) for part in made), 0.0) for name in names])
        self.course.add(dict(zip(names, sums, strict=True)), rows)
        if not math.isfinite(self.course.sums["loss"]):
            epoch, place = divmod(self.course.step, self.setup.steps)
            raise NonFinite(
                f"The loss is not finite in step {self.course.step + 1}, batch {place + 1} of {self.setup.steps} of "
                f"epoch {epoch + 1}. The last commit is kept. Use a lower learning rate, clip the gradient, or look at "
                "the rows of this batch."
            )

    def _validate(self) -> None:
        """Validate each set of weights, keep the best, and record the epoch."""
        self._settle()
        number, step = self.course.step // self.setup.steps, self.course.step
        with evaluating(self.module):
            found = {name: self._results(name, number, tensors) for name, tensors in self._sets().items()}
        means, now = self.course.means(), time.perf_counter()
        loss, rate = means.pop("loss", None), max(float(group["lr"]) for group in self.optimizer.param_groups)
        self.course.epochs.append(TrainingEpoch(number, step, loss, rate, means, found, now - self.epoch_start))
        self.course.begin_epoch()
        self.epoch_start = now

    @torch.no_grad()
    def _results(self, name: str, number: int, tensors: Mapping[str, Tensor]) -> dict[str, float]:
        """The validation results of a set of weights, which are kept if they are its best."""
        with replaced(self.module, tensors):
            found = {key: float(value) for key, value in self.setup.validate(self.module).items()}
            if not math.isfinite(found["loss"]):
                raise NonFinite(
                    f"The validation loss of the {name} weights is {found['loss']} after epoch {number}. The last "
                    "commit is kept. Use a lower learning rate, or clip the gradient."
                )
            best = self.course.best
            if self.settings.last or name not in best or found["loss"] < best[name].loss:
                best[name] = Weights(copied(of_module(self.module)), number, found["loss"])
        return found

    def _sets(self) -> dict[str, Mapping[str, Tensor]]:
        """Each set of weights by name, as what differs from the raw ones."""
        averaged = {name: hook.averaged() for name, hook in self.setup.hooks.items()}
        return {RAW: {}} | {name: tensors for name, tensors in averaged.items() if tensors}

    def _settle(self) -> None:
        """Average the running statistics that each process has collected for itself."""
        for tensors in (of_module(self.module), *self._sets().values()) if self.own_statistics else ():
            distributed.average([tensors[name] for name in self.own_statistics if name in tensors])

    # Checkpoints

    def _facts(self) -> Facts:
        noted = {
            "torch": torch.__version__,
            "device": self.device.type,
            "processor": torch.backends.cpu.get_cpu_capability(),
            "threads": torch.get_num_threads(),
            "processes": distributed.processes(),
        }
        return Facts({"steps": self.setup.steps, **self.settings.same}, noted).joined(self.setup.facts)

    def _commit(self) -> None:
        """Write a checkpoint and the record of the epochs, unless this step has one."""
        step = self.course.step
        if step == self.committed_step:
            return
        self._settle()
        for name, tensor in self.module.named_parameters():
            if not tensor.isfinite().all():
                raise NonFinite(
                    f"The weights {name!r} are not finite after step {step}. The last commit is kept. Use a lower "
                    "learning rate, or clip the gradient."
                )
        if distributed.rank() == 0:
            # The log first: if it is ahead after a kill, the run goes on and writes it again.
            files.write(self.folder / METRICS_FILE, self.course.lines())
            tensors = self.state.tensors() | self.course.tensors()
            self.checkpoints.commit(Checkpoint(step, tensors, self.course.values(), self._facts()))
        self.committed_step, self.committed = step, time.perf_counter()

    def resume(self) -> None:
        """Take up the newest whole checkpoint, if the folder has one of the same run."""
        found, notes = self.checkpoints.newest()
        if found is not None:
            notes += check_same_run(found.facts, self._facts())
            self.course = Course.restored(found.values, found.tensors)
            self.state.restore(without_best(found.tensors))
            self.committed_step = self.first_step = self.course.step
            notes.append(f"Training goes on after step {self.course.step} of {self._total_steps}.")
        steps = distributed.total([float(self.course.step)])  # also waits until every process has read
        if steps[0] != distributed.processes() * self.course.step:
            raise CheckpointError(f"The processes see other checkpoints in {self.folder}. Use a disk that they share.")
        if distributed.rank() == 0:
            self.checkpoints.collect(None if found is None else found.step)
        if self.own_statistics:
            notes.append(
                "Each process trains batch norm on its own rows; running statistics are averaged over the processes "
                "before every evaluation and commit."
            )
        self.notes += notes
        for note in notes:
            self._report(note)

    def close(self) -> None:
        """Let the group of processes go, before it is left."""
        self.steps.close()

    # Words

    def result(self) -> TrainedNetwork:
        """What the run gave."""
        best = {name: weights.epoch for name, weights in self.course.best.items()}
        return TrainedNetwork(
            self.course.best, TrainingLog(tuple(self.course.epochs), best, self.ended, tuple(self.notes))
        )

    @property
    def _total_steps(self) -> int:
        return self.settings.epochs * self.setup.steps

    def _report(self, message: str = "") -> None:
        """Tell how far the run is."""
        if self.progress is None:
            return
        step, total, seconds = self.course.step, self._total_steps, time.perf_counter() - self.start
        rate = (step - self.first_step) / seconds
        left = (total - step) / rate if rate else math.inf
        epoch = min(step // self.setup.steps + 1, self.settings.epochs)
        loss = self.course.means().get("loss", math.nan)
        done = tuple(self.course.epochs)
        self.progress(TrainingProgress(step, total, seconds, rate, left, epoch, loss, message, done))


def _seed(seed: int, step: int, device: torch.device) -> None:
    """Make what a step draws follow from its number, and differ between processes."""
    digest = blake2b(f"{seed} {step} {distributed.rank()}".encode(), digest_size=7).digest()
    seed_random_numbers(device, int.from_bytes(digest, "little"))
