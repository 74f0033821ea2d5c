"""Download a named data set: only pinned files, only over https, verified before they are kept."""

import gzip
import hashlib
import io
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urljoin, urlsplit

from mixtura import files
from mixtura.datasets.idx import SOURCES, IdxFile
from mixtura.errors import DataError, NoInput, UsageError
from mixtura.files import is_there
from mixtura.names import nearest

TIMEOUT_SECONDS = 30.0  # seconds without a byte
_SLACK_BYTES = 1 << 20


def download(
    name: str,
    folder: Path | None = None,
    *,
    url: str | None = None,
    report: Callable[[str], None] | None = None,
) -> Path:
    """Download the missing files of a data set and return their folder.

    Args:
        name: an entry of :data:`~mixtura.datasets.idx.SOURCES`.
        folder: destination; the cache folder by default, where ``load`` looks.
        url: source, ``https:`` or ``file:``; the official address by default.
        report: called with the name of each file before its download.

    Raises:
        UsageError: the name or the URL scheme is unknown.
        NoInput: the address cannot be reached.
        DataError: the download is not the published file; it is not kept.
        CannotWrite, OutOfSpace: the folder cannot be written.
    """
    if name not in SOURCES:
        raise UsageError(f"Cannot download {name!r}. {nearest(name, SOURCES)}")
    source, target = SOURCES[name], folder or files.cache_folder(name)
    base = url or source.url
    if urlsplit(base).scheme not in ("https", "file"):
        raise UsageError(f"{base}: only https: and file: addresses are fetched.")
    with files.new_folder(target):
        for file in (file for pair in source.files.values() for file in pair):
            if not is_there(target / f"{file.name}.gz"):
                if report:
                    report(file.name)
                _fetch(urljoin(base, f"{file.name}.gz"), file, target / f"{file.name}.gz")
    return target


def _fetch(url: str, file: IdxFile, path: Path) -> None:
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as answer:  # noqa: S310  the scheme is checked above
            packed: bytes = answer.read(file.size + _SLACK_BYTES)  # packed is at most slightly larger than unpacked
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        raise NoInput(f"{url}: cannot be fetched ({getattr(error, 'reason', error)}). Try again later.") from error
    _require_published(packed, file, url)
    files.write(path, packed)


def _require_published(packed: bytes, file: IdxFile, url: str) -> None:
    try:
        with gzip.open(io.BytesIO(packed)) as stream:
            content = stream.read(file.size + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{url}: is damaged ({error}); nothing was kept. Try again later.") from error
    if hashlib.sha256(content).hexdigest() != file.sha256:
        raise DataError(f"{url}: is not the published file (its SHA-256 differs); nothing was kept.")
