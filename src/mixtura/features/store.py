"""The feature store: a folder of Parquet parts, each written once and never changed.

::

    store/
      store.json                              encoder's identity, dimension, number format
      part-000000-<16 hex digits>.parquet     the digits are the SHA-256 of the file: a damaged part betrays itself
      .lock                                   held by the one writer, free again when its process ends

A part appears whole or not at all. A later part overrides an earlier one, item by item, so a changed photo gets a new
row and nothing is ever rewritten.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from mixtura import files
from mixtura.errors import CannotWrite, FingerprintMismatch, NoInput, StoreError
from mixtura.features import parts
from mixtura.features.records import Features, Rows, to_features
from mixtura.files import is_there
from mixtura.identity import differences, fingerprint

HEADER_FILE = "store.json"
STORE_LAYOUT = 1
DTYPES = ("float16", "float32")
_PART = re.compile(r"part-(\d{6})-([0-9a-f]{16})\.parquet")


class FeatureStore:
    """Features of one encoder on disk; make one with :meth:`create` or :meth:`open`."""

    def __init__(self, path: Path, header: Mapping[str, Any]) -> None:
        self.path = path
        self.identity: dict[str, str] = dict(header["identity"])
        self.versions: dict[str, str] = dict(header["versions"])
        self.dimension = int(header["dimension"])
        self.dtype = str(header["dtype"])
        self._locked = False

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the encoder whose features these are."""
        return fingerprint(self.identity)

    @classmethod
    def create(
        cls,
        path: Path,
        identity: Mapping[str, str],
        dimension: int,
        dtype: str = "float16",
        versions: Mapping[str, str] | None = None,
    ) -> "FeatureStore":
        """A new, empty store.

        Raises:
            CannotWrite: there is a store already, or the folder is not writable.
            StoreError: ``dtype`` is neither float16 nor float32, or ``dimension`` is not positive.
        """
        if dtype not in DTYPES or dimension < 1:
            raise StoreError(
                f"A store of {dimension} x {dtype} cannot be made. Use float16 or float32, and at least 1 number."
            )
        files.make_folder(path)
        if is_there(path / HEADER_FILE):
            raise CannotWrite(f"{path} already holds features. Open it, or choose another folder.")
        header = {
            "layout": STORE_LAYOUT,
            "identity": dict(identity),
            "versions": dict(versions or {}),
            "dimension": dimension,
            "dtype": dtype,
        }
        files.write(path / HEADER_FILE, json.dumps(header, indent=2, sort_keys=True).encode())
        return cls(path, header)

    @classmethod
    def open(cls, path: Path | str) -> "FeatureStore":
        """A store that exists.

        Raises:
            NoInput: there is none.
            StoreError: its header is damaged or of another layout.
        """
        path = Path(path)
        try:
            text = (path / HEADER_FILE).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            if isinstance(error, OSError) and error.errno in files.NO_SUCH_FILE:
                raise NoInput(
                    f"{path} is no feature store: {HEADER_FILE} is missing. Run the extraction first."
                ) from error
            raise StoreError(
                f"Cannot read {path / HEADER_FILE}: {error}. Restore it, or extract into a new folder."
            ) from error
        return cls(path, _checked_header(text, path / HEADER_FILE))

    @classmethod
    def open_or_create(
        cls,
        path: Path,
        identity: Mapping[str, str],
        dimension: int,
        dtype: str = "float16",
        versions: Mapping[str, str] | None = None,
    ) -> "FeatureStore":
        """The store at ``path`` if it is of the same encoder, or a new one.

        Raises:
            FingerprintMismatch: there is a store of another encoder.
        """
        if not is_there(path / HEADER_FILE):
            return cls.create(path, identity, dimension, dtype, versions)
        store = cls.open(path)
        store.check(identity)
        return store

    def check(self, identity: Mapping[str, str]) -> None:
        """Make sure that ``identity`` is the encoder of this store.

        Raises:
            FingerprintMismatch: it is another one; the sentence names both and how they differ.
        """
        if fingerprint(identity) != self.fingerprint:
            ours = f"{self.identity.get('name')!r} ({self.fingerprint[:12]})"
            theirs = f"{identity.get('name')!r} ({fingerprint(identity)[:12]})"
            how = differences(self.identity, identity)
            raise FingerprintMismatch(
                f"{self.path} holds features of encoder {ours}, not of {theirs}: {how}. "
                "Use the same encoder, or extract into a new folder."
            )

    def part_paths(self) -> list[Path]:
        """The committed parts, in the order in which they were written.

        Raises:
            StoreError: a Parquet file lies here that no store has written.
        """
        found = sorted(self.path.glob("*.parquet"))
        for path in found:
            if not _PART.fullmatch(path.name):
                raise StoreError(
                    f"{path} is no part of this store. Move it away, or import it into a store of its own."
                )
        return found

    def facts(self) -> Rows:
        """All columns but the embedding (which is N x 0): quick to read."""
        return self._merged(embedding=False)

    def digests(self) -> dict[str, str]:
        """The SHA-256 of the photo behind each id that is in the store."""
        facts = self.facts()
        return dict(zip(facts.id, facts.sha256, strict=True))

    def read(self) -> Features:
        """Everything in the store, in the order of first writing, as float32.

        Raises:
            StoreError: a part is damaged; names the file.
            NonFinite: a part holds NaN or infinity.
        """
        return to_features(self._merged(embedding=True), self.identity, self.versions)

    def append(self, rows: Rows, versions: Mapping[str, str] | None = None) -> Path | None:
        """Commit ``rows`` as one part and return its path; no rows, no part. An id that is there already is overridden.

        ``versions`` is what made these rows, as the part records it; what began the store unless given.

        Raises:
            NonFinite: NaN or infinity, also where float16 overflows.
            WrongDimension: the rows are of another width.
            OutOfSpace: the disk is full; the parts before are intact.
            CannotWrite: the folder is not writable, or another process is writing here.
        """
        if not len(rows):
            return None
        data = parts.encode(rows, self.dimension, self.dtype, self._metadata(versions or self.versions))
        with self.lock():
            existing = self.part_paths()
            number = int(existing[-1].name[5:11]) + 1 if existing else 0
            path = self.path / f"part-{number:06d}-{_digest(data)}.parquet"
            files.write(path, data)
        return path

    def delete(self) -> None:
        """Delete the files of the store, and its folder if nothing else is in it."""
        for path in (*self.part_paths(), self.path / HEADER_FILE, self.path / files.LOCK_FILE):
            path.unlink(missing_ok=True)
        with suppress(OSError):
            self.path.rmdir()

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Be the one writer; may be nested. The lock goes with the process, so a killed writer leaves none behind.

        Raises:
            CannotWrite: another writer is at work; names its process.
        """
        if self._locked:
            yield
            return
        with files.only_writer(self.path):
            self._locked = True
            try:
                files.collect(self.path)
                yield
            finally:
                self._locked = False

    def _metadata(self, versions: Mapping[str, str]) -> dict[str, str]:
        return {
            "identity": json.dumps(self.identity, sort_keys=True),
            "versions": json.dumps(dict(versions), sort_keys=True),
        }

    def _merged(self, embedding: bool) -> Rows:
        """All parts as one, the last row of each id in the place of its first."""
        tables = [self._read_part(path, embedding) for path in self.part_paths()]
        whole = parts.concatenate(tables, self.dimension if embedding else 0, self.dtype)
        last = {id: row for row, id in enumerate(whole.id_list)}
        if len(last) == len(whole.id_list):
            return whole.rows()
        return whole.rows(np.fromiter(last.values(), dtype=np.int64))

    def _read_part(self, path: Path, embedding: bool) -> parts.Part:
        try:
            data = path.read_bytes()
        except OSError as error:
            raise StoreError(f"Cannot read {path}: {error.strerror}. Restore the file, or extract again.") from error
        if _digest(data) != path.name[12:28]:
            raise StoreError(
                f"{path} is damaged: its content does not match its name. Restore it from a copy, "
                "or delete it and extract again; only its items are computed anew."
            )
        return parts.decode(data, path, self.dimension, embedding)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def _checked_header(text: str, path: Path) -> dict[str, Any]:
    """The header, once it is known to be one."""
    try:
        header = json.loads(text)
        known = header["layout"] == STORE_LAYOUT and header["dtype"] in DTYPES and int(header["dimension"]) > 0
        whole = {str(v) for v in [*header["identity"].values(), *header["versions"].values()]}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(f"{path} is damaged: {error!r}. Restore it, or extract into a new folder.") from error
    if not known or not whole:
        raise StoreError(
            f"{path} is of another layout than {STORE_LAYOUT}. Update mixtura, or extract into a new folder."
        )
    return header
