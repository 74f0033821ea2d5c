"""Write files atomically: temporary name, fsync, rename, fsync of the folder."""

import errno
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from mixtura.errors import CannotWrite, OutOfSpace

TEMPORARY_PREFIX, STAGED_PREFIX = ".tmp-", ".staged-"
LOCK_FILE = ".lock"
NEXT_FOLDER = ".next"
"""Folder of a new set of files, from the moment it counts until each file is in its place; see :func:`publish`."""

NO_SUCH_FILE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG})
"""Errors of the system that say that no file has a name."""

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG}


def cache_folder(name: str) -> Path:
    """Return the cache folder for downloaded or converted files: ``$XDG_CACHE_HOME/mixtura/NAME``."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "mixtura" / name


def is_there(path: Path) -> bool:
    """Whether a file or folder has this name. Never raises: of a name too long, or in a closed folder, it is false."""
    return os.path.exists(path)  # noqa: PTH110  pathlib raises


def is_file_at(path: Path) -> bool:
    """Whether a regular file has this name, as :func:`is_there`."""
    return os.path.isfile(path)  # noqa: PTH113


def is_folder_at(path: Path) -> bool:
    """Whether a folder has this name, as :func:`is_there`."""
    return os.path.isdir(path)  # noqa: PTH112


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn an ``OSError`` while writing ``path`` into a sentence.

    Raises:
        OutOfSpace: the disk is full, over quota or failing.
        CannotWrite: any other reason: no permission, read-only file system, a missing folder.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno in _FULL:
            raise OutOfSpace(
                f"Cannot write {path}: {reason}. Free space or choose another folder; what was saved before is intact."
            ) from error
        raise CannotWrite(
            f"Cannot write {path}: {reason}. Choose a folder that you may write to; what was saved before is intact."
        ) from error


def make_folder(path: Path) -> None:
    """Create the folder ``path`` and its parents; an existing folder is fine.

    Raises:
        CannotWrite: it cannot be made, or a file has that name.
        OutOfSpace: the disk is full.
    """
    with explained(path):
        path.mkdir(parents=True, exist_ok=True)


@contextmanager
def new_folder(path: Path) -> Iterator[None]:
    """Create the folder ``path`` and its parents for the work inside; an existing folder is fine.

    If the work fails and has left nothing, the folders that were created go again.

    Args:
        path: the folder.

    Raises:
        CannotWrite: it cannot be made, or a file has that name.
        OutOfSpace: the disk is full.
    """
    created = [folder for folder in (path, *path.parents) if not is_there(folder)]
    make_folder(path)
    try:
        yield
    except BaseException:
        for folder in created:
            with suppress(OSError):  # something is in it
                if {one.name for one in folder.iterdir()} == {LOCK_FILE}:
                    (folder / LOCK_FILE).unlink()
                folder.rmdir()
        raise


@contextmanager
def kept_if_done(path: Path, results: Path | None = None) -> Iterator[None]:
    """Delete a file that the work inside has made if the work fails; one from before stays.

    The caller is the only writer of its folder.

    Args:
        path: the file.
        results: what belongs with it; if this exists, the file stays too.
    """
    new = not is_there(path)
    try:
        yield
    except BaseException:
        if new and not (results is not None and is_there(results)):
            with suppress(OSError):
                path.unlink()
        raise


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Lock a folder for one writer; the lock ends with the process, so a killed writer leaves none behind.

    Raises:
        CannotWrite: another writer is at work, or the folder is not writable.
    """
    descriptor = _acquire(folder / LOCK_FILE)
    try:
        yield
    finally:
        os.close(descriptor)


def _acquire(path: Path) -> int:
    """An open, exclusively locked file with our process number in it."""
    import fcntl  # absent on Windows, where reading still works

    with explained(path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.read(descriptor, 32).decode(errors="replace").strip() or "unknown"
        os.close(descriptor)
        raise CannotWrite(
            f"{path.parent} is being written by another process (pid {holder}). Wait until it has finished, or stop it."
        ) from error
    os.ftruncate(descriptor, 0)
    os.write(descriptor, str(os.getpid()).encode())
    return descriptor


def temporary_beside(path: Path) -> Path:
    """A name in the same folder that nobody else uses; :func:`collect` deletes such files."""
    return path.with_name(f"{TEMPORARY_PREFIX}{os.getpid()}-{secrets.token_hex(4)}")


def write(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path`` so that a reader sees the old file or the new one, never a part of it.

    Raises:
        CannotWrite: the folder is missing or not writable.
        OutOfSpace: the disk is full; no temporary file is left behind.
    """
    write_all({path: data})


def write_all(contents: Mapping[Path, bytes]) -> None:
    """Write a set of files together: none is replaced before the last one is on disk.

    Raises:
        CannotWrite: the folder is missing or not writable.
        OutOfSpace: the disk is full; all files are as they were, and no temporary file is left behind.
    """
    temporary = {path: temporary_beside(path) for path in contents}
    try:
        for path, data in contents.items():
            with explained(path):
                _write_through(temporary[path], data)
        for path in contents:
            with explained(path):
                temporary[path].replace(path)
        for folder in dict.fromkeys(path.parent for path in contents):
            with explained(folder):
                _sync_folder(folder)
    except BaseException:
        for leftover in temporary.values():
            leftover.unlink(missing_ok=True)
        raise


def _write_through(path: Path, data: bytes) -> None:
    """Write and fsync; the one place where bytes reach the disk."""
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Make the rename itself durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def collect(folder: Path) -> None:
    """Delete temporary files left in ``folder`` by a killed writer; only its current writer may call this."""
    for leftover in folder.glob(f"{TEMPORARY_PREFIX}*"):
        leftover.unlink(missing_ok=True)


def stage(folder: Path, contents: Mapping[str, bytes]) -> Path:
    """Write a set of files, by name, beside those that ``folder`` has; returns the new folder that holds them.

    Nothing changes for readers until :func:`publish`. Delete what is not published with :func:`discard`.

    Raises:
        CannotWrite: the folder is missing or not writable.
        OutOfSpace: the disk is full; nothing is left behind.
    """
    staged = folder / f"{STAGED_PREFIX}{os.getpid()}-{secrets.token_hex(4)}"
    try:
        with explained(folder):
            staged.mkdir()
        for name, data in contents.items():
            with explained(folder / name):
                _write_through(staged / name, data)
        with explained(folder):
            _sync_folder(staged)
    except BaseException:
        discard(staged)
        raise
    return staged


def publish(staged: Path) -> None:
    """Let a staged set of files replace those of the folder it lies in, all at one moment.

    That moment is the renaming of the staged folder to ``.next``: from then on :func:`read_current` gives the new
    files, also if the process is killed before each of them is in its place.

    Raises:
        CannotWrite, OutOfSpace: the folder cannot be written; then the old files count.
    """
    folder = staged.parent
    settle(folder)
    with explained(folder):
        staged.rename(folder / NEXT_FOLDER)
        _sync_folder(folder)
    with suppress(CannotWrite, OutOfSpace):  # the new files count already; the next writer moves the rest
        settle(folder)


def place(staged: Path, path: Path) -> None:
    """Let a staged set of files appear as the new folder ``path`` beside it: whole, or not at all.

    Raises:
        CannotWrite, OutOfSpace: it cannot; then nothing is there, and the staged files are gone.
    """
    try:
        with explained(path):
            staged.rename(path)
            _sync_folder(path.parent)
    except BaseException:
        discard(staged)
        raise


def settle(folder: Path) -> None:
    """Move published files into their places, where a killed writer has not; only a current writer may call this."""
    staged = folder / NEXT_FOLDER
    if not is_folder_at(staged):
        return
    with explained(folder):
        for path in staged.iterdir():
            path.replace(folder / path.name)
        _sync_folder(folder)
        staged.rmdir()


def collect_staged(folder: Path) -> None:
    """Finish or delete what a killed writer has staged in ``folder``; only its current writer may call this."""
    settle(folder)
    for leftover in folder.glob(f"{STAGED_PREFIX}*"):
        discard(leftover)


def discard(staged: Path) -> None:
    """Delete a staged folder, if it is still there."""
    shutil.rmtree(staged, ignore_errors=True)


def read_current(path: Path) -> bytes:
    """The bytes of a file that may belong to a published set; :func:`current` gives the place they are read from.

    Raises:
        OSError: it cannot be read.
    """
    try:
        return current(path).read_bytes()
    except FileNotFoundError:  # moved between the two calls
        return current(path).read_bytes()


def current(path: Path) -> Path:
    """Where the file at ``path`` is: in its place, or still among published files that are being moved there."""
    staged = path.parent / NEXT_FOLDER / path.name
    return staged if is_there(staged) else path


def identity_of(path: Path) -> tuple[int, int, int, int] | None:
    """What tells a file from one that replaces it: device, inode, size and time; ``None`` if there is none."""
    with suppress(OSError):
        found = current(path).stat()
        return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
    return None
