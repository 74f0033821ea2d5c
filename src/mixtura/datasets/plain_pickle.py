"""Read a pickle as data: lists, dicts, texts, bytes, numbers and NumPy arrays; nothing that a file names is run.

A pickle is a program that may call any function. Here, the few names that arrays need stand for classes of this module,
which keep what they are given, and every other name is refused before anything is called. Python 2 and 3 and all
versions of NumPy write the same few names.
"""

import pickle
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from mixtura.datasets.published import unreadable_as_error

PLAIN_KINDS = frozenset("biufSU")
"""Kinds of numbers and texts, as NumPy names them, whose values are their bytes."""


class _Kept:
    """What the pickle wants built, kept as the arguments and the state that it is given."""

    __slots__ = ("given", "state")

    def __init__(self, *given: Any) -> None:
        self.given: Any = given
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Kind(_Kept):
    """A type of NumPy numbers: its code, such as ``u1``, and in its state the order of its bytes."""

    def dtype(self) -> np.dtype:
        found = np.dtype((as_text(self.state[1]) if self.state else "") + as_text(self.given[0]))
        if found.kind not in PLAIN_KINDS:
            raise ValueError(f"an array of {found}")
        return found


class Stored(_Kept):
    """An array as the file has it; :meth:`array` makes it one."""

    def parts(self) -> tuple[Any, Any, bool, Any]:
        """Return shape, type, whether the first axis runs fastest, and content."""
        _, shape, kind, fortran, content = self.state
        return shape, kind, fortran, content

    def array(self) -> np.ndarray:
        """Return the array; of Python objects, where these are lists, texts or numbers.

        Raises:
            ValueError: its parts contradict each other.
        """
        shape, kind, fortran, content = self.parts()
        if not isinstance(kind, _Kind):
            raise ValueError("an array without a type")
        if isinstance(content, list):
            return np.fromiter(content, dtype=object, count=len(content))
        return np.frombuffer(content, kind.dtype()).reshape(shape, order="F" if fortran else "C")


class _FromBuffer(Stored):
    """The same as later protocols write it."""

    def parts(self) -> tuple[Any, Any, bool, Any]:
        content, kind, shape, order = self.given
        return shape, kind, order == "F", content


class _Bytes(_Kept):
    """Bytes that an early protocol writes as a text."""

    def __new__(cls, text: str, _: str = "latin1") -> Any:
        return text.encode("latin-1")


_NAMES: dict[tuple[str, str], type[_Kept]] = {
    ("numpy", "ndarray"): _Kept,
    ("numpy", "dtype"): _Kind,
    ("_codecs", "encode"): _Bytes,
    **{
        (f"numpy.{core}.{module}", name): kept
        for core in ("core", "_core")
        for module, name, kept in (
            ("multiarray", "_reconstruct", Stored),
            ("numeric", "_frombuffer", _FromBuffer),
        )
    },
}


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module_name: str, global_name: str, /) -> type[_Kept]:
        found = _NAMES.get((module_name, global_name))
        if found is None:
            raise pickle.UnpicklingError(f"it asks for {module_name}.{global_name}, which is refused")
        return found

    def persistent_load(self, pid: Any) -> NoReturn:
        raise pickle.UnpicklingError("it asks for objects outside of it, which is refused")


def read_plain(path: Path, advice: str) -> Any:
    """Return the content of a pickle, with :class:`Stored` for its arrays; texts of Python 2 are bytes.

    Args:
        path: the file.
        advice: a sentence on what to do if it cannot be read.

    Raises:
        NoInput: the file is missing, or closed to us.
        DataError: it is damaged, or asks for anything but plain values and arrays.
    """
    with unreadable_as_error(path, advice), path.open("rb") as file:
        return _PlainUnpickler(file, encoding="bytes").load()


def as_text(value: Any) -> str:
    """Return a text of Python 2 or 3.

    >>> as_text(b"tench"), as_text("tench")
    ('tench', 'tench')
    """
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)


def as_array(value: Any) -> np.ndarray:
    """Return a list or a stored array as an array.

    Raises:
        ValueError: it is neither.
    """
    if isinstance(value, Stored):
        return value.array()
    if not isinstance(value, list):
        raise ValueError(f"{type(value).__name__} in place of a list")
    return np.fromiter(value, dtype=object, count=len(value))
