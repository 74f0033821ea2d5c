"""Assemble a page from its sections and style, and write it to a file."""

import contextlib
import errno
import os
import secrets
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

from markupsafe import Markup

from mixtura.errors import CannotWrite, OutOfSpace
from mixtura.names import find
from mixtura.records.decision import Evaluation
from mixtura.report import SECTIONS
from mixtura.report.parts import PageContext, Section, Thumbnails, render, require_whole
from mixtura.report.subclass_png import PICTURE_FILE, png


def write_report(evaluation: Evaluation, path: Path, *, title: str, thumbnails: Thumbnails) -> Path:
    """Write one self-contained HTML file that needs no network and runs no script.

    The picture of named subclasses is also a file of its own beside it, :data:`PICTURE_FILE`.

    Args:
        evaluation: what to report.
        path: the file to write; its folder is created, an existing file is replaced atomically.
        title: the heading of the page.
        thumbnails: the JPEG bytes for an item's id, or ``None``.

    Raises:
        DataError: the arrays of the evaluation do not fit together.
        CannotWrite: the folder or file cannot be written.
        OutOfSpace: the disk is full.
    """
    saved = save(path, page(evaluation, title, thumbnails))
    if evaluation.subclass_map is not None:
        save(path.with_name(PICTURE_FILE), png(evaluation.subclass_map))
    return saved


def save(path: Path, content: str | bytes) -> Path:
    """Write a page or a picture; its folder is created, an existing file is replaced atomically.

    Raises:
        CannotWrite: the folder or file cannot be written.
        OutOfSpace: the disk is full.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _replace(path, content if isinstance(content, bytes) else content.encode())
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
            raise OutOfSpace(
                f"Cannot write {path}: {error.strerror}. Free some space; an older report is intact."
            ) from error
        raise CannotWrite(f"Cannot write {path}: {error.strerror}. Choose another place for the report.") from error
    return path


def page(evaluation: Evaluation, title: str, thumbnails: Thumbnails) -> str:
    """Return the page as HTML.

    Raises:
        DataError: the arrays of the evaluation do not fit together.
    """
    require_whole(evaluation)
    material = PageContext(evaluation, thumbnails)
    made = {name: find(SECTIONS, name)(material) for name in SECTIONS}
    return assemble(title, {name: section for name, section in made.items() if section is not None})


def assemble(title: str, sections: Mapping[str, Section], *styles: str) -> str:
    """Return the page made of ``sections``, keyed by id; ``styles`` are further style sheets from this folder."""
    folder = files("mixtura.report")
    sheets = [folder.joinpath(name).read_text(encoding="utf-8") for name in ("style.css", *styles)]
    style = Markup("\n".join(sheets))  # noqa: S704  our own files
    return str(render("page.html", title=title, style=style, sections=sections))


def _replace(path: Path, content: bytes) -> None:
    """Write a temporary file, flush it to disk, then rename: a reader sees the old file or the new one."""
    beside = path.with_name(f".report-{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        with beside.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise
