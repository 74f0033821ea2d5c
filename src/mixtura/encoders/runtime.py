"""An encoder's network outside of PyTorch: the same vectors in less time on a CPU.

A runtime is compared with PyTorch before its first use. It may take over where the two differ by no more than float16
rounds, so a float16 feature store, a catalog and a model may be used with any of them.
"""

import importlib.util
import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Num
from PIL import Image
from torch import Tensor, nn

from mixtura.encoders import RUNTIMES
from mixtura.errors import MissingExtra, MixturaError, UsageError
from mixtura.identity import Block, blocks_of
from mixtura.interfaces import Encoder, ExportableEncoder, SoundEncoder, TrainableEncoder
from mixtura.names import find

TORCH = "torch"
FASTEST = "openvino"
"""What ``auto`` takes where it is installed."""

MIN_PARAMETERS = 1_000_000
"""Size of a network below which ``auto`` stays with PyTorch: little time can be saved, and compiling takes seconds."""

PHOTOS, COARSE, SIDE = 4, 8, 256
"""The photos that two runtimes are compared on: how many, squares a side of random color, pixels a side."""

MAX_DIFFERENCE = 1.0
"""Largest difference of two runtimes, in units of the rounding of a float16 store, at which features may be mixed."""

RUNTIME_KEY, DIFFERENCE_KEY = "runtime", "runtime difference"
"""Entries of ``versions``."""

log = logging.getLogger("mixtura.encoders")


@runtime_checkable
class Runtime(Protocol):
    """Something that computes what an encoder's ``graph`` does.

    ``packages`` are those that it needs; ``graph`` is made for batches of any size of what ``prepare`` gives.
    """

    packages: ClassVar[tuple[str, ...]]
    version: str

    def __init__(self, encoder: ExportableEncoder, example: Num[Tensor, "N 3 H W"], stored: bool) -> None:
        """Make it ready; ``stored`` allows what an earlier process has converted and kept."""

    def __call__(self, batch: Num[Tensor, "N 3 H W"]) -> Float[Tensor, "N D"]:
        """The vectors of a batch; called by one thread at a time."""
        ...


class Accelerated:
    """An encoder whose network runs outside of PyTorch; its photos, its identity and all else are the encoder's own.

    The network is converted at the first batch, with as many threads as PyTorch has then.

    Args:
        encoder: on the CPU.
        runtime: a name of :data:`mixtura.encoders.RUNTIMES`.
        required: whether it is an error if the runtime cannot be used; PyTorch stays otherwise.
    """

    def __init__(self, encoder: ExportableEncoder, runtime: str, required: bool) -> None:
        self.encoder, self.runtime, self.required = encoder, runtime, required
        self.name, self.dimension, self.draft = encoder.name, encoder.dimension, encoder.draft
        self.identity, self.fingerprint = encoder.identity, encoder.fingerprint
        self.prepare, self.graph, self.steps = encoder.prepare, encoder.graph, encoder.steps
        if isinstance(encoder, TrainableEncoder):
            self.network: Callable[[], nn.Module] = encoder.network
            self.stages = encoder.stages
        self._facts: dict[str, str] = {}
        self._run: Callable[[Tensor], Tensor] | None = None
        self._lock = threading.Lock()

    @property
    def versions(self) -> dict[str, str]:
        """Those of the encoder; once a batch was encoded, also the runtime and how far it is from PyTorch."""
        return self.encoder.versions | self._facts

    def encode(self, batch: Num[Tensor, "N 3 H W"]) -> Float[Tensor, "N D"]:
        """The vectors of a batch of prepared photos, float32, on the CPU.

        Raises:
            UsageError: the runtime is required and cannot be used.
        """
        with self._lock:
            return self._ready()(batch)

    def settle(self) -> str:
        """Convert and compare now, and return the name of the runtime that is used: this one or ``torch``.

        Raises:
            UsageError: the runtime is required and cannot be used.
        """
        with self._lock:
            self._ready()
        return self._facts[RUNTIME_KEY].partition(" ")[0]

    def _ready(self) -> Callable[[Tensor], Tensor]:
        if self._run is None:
            try:
                self._run, self._facts = self._compared()
            except UsageError as error:
                if self.required:
                    raise UsageError(f"{error} Use encoder.runtime torch.") from error
                log.warning("%s PyTorch computes instead.", error)
                self._run, self._facts = self.encoder.encode, {RUNTIME_KEY: TORCH}
        return self._run

    def _compared(self) -> tuple[Runtime, dict[str, str]]:
        """The runtime, and what is to be recorded of it.

        Raises:
            UsageError: it cannot compute this network, or not as PyTorch does.
        """
        photos = torch.stack([self.prepare(photo) for photo in fixed_photos()])
        expected = self.encoder.encode(photos)
        try:
            made, found = self._made(photos, expected, stored=True)
        except UsageError:
            made, found = self._made(photos, expected, stored=False)  # what was kept may be damaged
        recorded = f"{found:.2g} of the rounding of float16"
        return made, {RUNTIME_KEY: f"{self.runtime} {made.version}", DIFFERENCE_KEY: recorded}

    def _made(self, photos: Num[Tensor, "N 3 H W"], expected: Tensor, stored: bool) -> tuple[Runtime, float]:
        try:
            made: Runtime = find(RUNTIMES, self.runtime)(self.encoder, photos[:2], stored)
            # In two batches, the single photo last: what was converted for one size must serve any.
            ours = torch.cat([made(photos[:-1]), made(photos[-1:])])
            found = worst_difference(ours, expected, blocks_of(self.encoder.identity))
        except MixturaError:
            raise
        except Exception as error:  # converters raise anything on networks that they do not know
            said = " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__
            raise UsageError(f"{self.name!r} cannot run on {self.runtime}: {said}.") from error
        if found <= MAX_DIFFERENCE:
            return made, found
        raise UsageError(
            f"The vectors of {self.name!r} on {self.runtime} differ from PyTorch's by {found:.2g} times the rounding "
            "of float16, so the two must not be mixed."
        )


def fixed_photos() -> list[Image.Image]:
    """Smooth pseudo-random photos, the same at each call."""
    colors = np.random.default_rng(0).integers(0, 256, (PHOTOS, COARSE, COARSE, 3), dtype=np.uint8)
    return [Image.fromarray(color).resize((SIDE, SIDE), Image.Resampling.BICUBIC) for color in colors]


def difference(ours: Float[Tensor, "N D"], theirs: Float[Tensor, "N D"]) -> float:
    """Root mean square of ``ours - theirs``, over that of the error that float16 makes in ``theirs``.

    Give the columns of one layer: those of another may be a thousand times as large.
    """
    rounding = (theirs.half().float() - theirs).double().square().mean()
    off = (ours - theirs).double().square().mean()
    return 0.0 if off == 0 else float((off / rounding).sqrt())


def worst_difference(ours: Float[Tensor, "N D"], theirs: Float[Tensor, "N D"], blocks: Sequence[Block]) -> float:
    """The largest :func:`difference` of a layer; NaN if there is one."""
    parts = [slice(block.start, block.stop) for block in blocks] or [slice(None)]
    return float(torch.tensor([difference(ours[:, part], theirs[:, part]) for part in parts]).max())


def on_runtime(encoder: Encoder | SoundEncoder, name: str, device: str) -> Any:
    """The encoder on the runtime of a recipe: itself for ``torch``, and for ``auto`` where no other one pays.

    Args:
        encoder: as built, on ``device``.
        name: ``auto``, ``torch`` or a name of :data:`mixtura.encoders.RUNTIMES`.
        device: of the encoder.

    Raises:
        MissingExtra: the runtime is not installed.
        UsageError: the encoder or the device is none that it could run.
    """
    if name == TORCH or (name == "auto" and not _pays(encoder, device)):
        return encoder
    if name == "auto":
        return Accelerated(encoder, FASTEST, required=False)  # pyright: ignore[reportArgumentType]
    if not isinstance(encoder, ExportableEncoder):
        raise UsageError(f"Encoder {encoder.name!r} runs in PyTorch only. Leave out encoder.runtime {name}.")
    if device != "cpu":
        raise UsageError(f"encoder.runtime {name} computes on the CPU, not on {device}. Add --device cpu.")
    if not installed(name):
        packages = ", ".join(find(RUNTIMES, name).packages)
        raise MissingExtra(f"encoder.runtime {name} needs {packages}. Run: pip install 'mixtura[{name}]'")
    return Accelerated(encoder, name, required=True)


def installed(name: str) -> bool:
    """Whether the packages of a runtime are there."""
    return all(importlib.util.find_spec(package) is not None for package in find(RUNTIMES, name).packages)


def _pays(encoder: Encoder | SoundEncoder, device: str) -> bool:
    if device != "cpu" or not isinstance(encoder, ExportableEncoder) or not installed(FASTEST):
        return False
    return sum(parameter.numel() for parameter in encoder.graph().parameters()) >= MIN_PARAMETERS
