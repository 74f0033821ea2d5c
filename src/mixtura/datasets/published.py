"""Check the files of a public data set against what was published: its counts, and MATLAB files that can be read."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mixtura.datasets.paths import readable
from mixtura.errors import DataError, MixturaError, NoInput


def require_count(place: Path | str, things: str, found: int, published: int, advice: str) -> None:
    """Check that a file or folder holds as many things as were published.

    Args:
        place: the file or folder.
        things: what is counted, in the plural.
        found: how many are there.
        published: how many there have to be.
        advice: a sentence on what to do if it is another number.

    Raises:
        DataError: it is another number.
    """
    if found != published:
        raise DataError(
            f"{readable(str(place))}: the number of {things} is {found:,}, and {published:,} were published. {advice}"
        )


def require_md5(path: Path, md5: str, advice: str) -> None:
    """Check that a file is the published one, byte by byte.

    Args:
        path: the file, which can be read.
        md5: its published MD5, in hex; it tells damage, and does not prove who made the file.
        advice: a sentence on what to do if it is another.

    Raises:
        DataError: it is another file.
    """
    with path.open("rb") as file:
        found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if found != md5:
        raise DataError(f"{readable(str(path))}: is not the published file (its MD5 differs). {advice}")


def read_mat(path: Path, names: tuple[str, ...], advice: str) -> dict[str, Any]:
    """Return some arrays of a MATLAB file by name.

    Args:
        path: the file.
        names: of the arrays.
        advice: a sentence on what to do if it cannot be read.

    Raises:
        NoInput: the file is missing, or closed to us.
        DataError: it is damaged, or lacks an array.
    """
    from scipy.io import loadmat

    with unreadable_as_error(path, advice):
        arrays = loadmat(str(path), variable_names=names, struct_as_record=True, appendmat=False)
    absent = [name for name in names if name not in arrays]
    if absent:
        raise DataError(f"{readable(str(path))}: holds no array {absent[0]!r}. {advice}")
    return {name: arrays[name] for name in names}


@contextmanager
def unreadable_as_error(path: Path, advice: str) -> Iterator[None]:
    """Report any error of reading a file as one sentence.

    Raises:
        NoInput: the file is missing, or closed to us.
        DataError: anything else is wrong with it.
    """
    try:
        yield
    except (MixturaError, MemoryError):
        raise
    except OSError as error:
        if error.errno is None:  # the library reports damage this way too, without a number
            raise _damaged(path, error, advice) from error
        raise NoInput(f"{readable(str(path))}: cannot be read ({error.strerror}). {advice}") from error
    except Exception as error:
        raise _damaged(path, error, advice) from error


def _damaged(path: Path, error: Exception, advice: str) -> DataError:
    said = " ".join(str(error).split())[:120]
    return DataError(f"{readable(str(path))}: cannot be read ({said}). {advice}")
