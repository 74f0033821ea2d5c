"""Writing one file so that it is there completely or not at all."""

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from mixtura.errors import CannotWrite, OutOfSpace

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO})


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A binary file that takes the place of ``path`` when the block ends well, and leaves no trace when it does not.

    Raises:
        OutOfSpace: the disk is full or failing; what was at ``path`` is intact.
        CannotWrite: the folder is missing or not writable.
    """
    temporary: str | None = None
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name[:64]}.", suffix=".part", dir=path.parent)
        with os.fdopen(handle, "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())  # noqa: PTH101  mkstemp makes private files; this one is an ordinary file
        os.replace(temporary, path)  # noqa: PTH105  the name is a string until here
        temporary = None
        _sync_folder(path.parent)
    except OSError as error:
        said = os.strerror(error.errno or errno.EIO).lower()
        if error.errno in _FULL:
            raise OutOfSpace(f"{path}: cannot be written ({said}). Free some space and run again.") from error
        raise CannotWrite(f"{path}: cannot be written ({said}). Choose another place or its permissions.") from error
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
