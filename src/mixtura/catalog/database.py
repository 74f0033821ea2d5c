"""The catalog's file: SQLite in WAL mode, one transaction per edit, and each edit stored with what undoes it.

An edit is a list of changes to single values, each with the value before and after; undo writes the values before.
Edits never delete rows: only undo can see an item without a part. A new model in the folder refills these tables, also
in one transaction; everything else in the file stays, above all the journal.
"""

import contextlib
import json
import os
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mixtura.errors import BundleError, CannotWrite, OutOfSpace
from mixtura.files import explained as explained_files
from mixtura.files import temporary_beside
from mixtura.records.catalog import CATALOG_FILE as CATALOG_FILE
from mixtura.records.catalog import Edit, KindsEffect

CATALOG_LAYOUT = "1"
BUSY_SECONDS = 10.0  # seconds that a writer waits for another

SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE setting (key TEXT PRIMARY KEY, value BLOB) WITHOUT ROWID;
CREATE TABLE product (
    id TEXT PRIMARY KEY, name TEXT NOT NULL, status TEXT NOT NULL, created TEXT NOT NULL, gone INTEGER NOT NULL
);
CREATE UNIQUE INDEX product_name ON product (name) WHERE gone = 0;
CREATE TABLE part (
    id INTEGER PRIMARY KEY, product TEXT NOT NULL REFERENCES product (id), base INTEGER UNIQUE
);
CREATE TABLE item (
    id INTEGER PRIMARY KEY, part INTEGER REFERENCES part (id), base INTEGER, split TEXT NOT NULL, source TEXT NOT NULL,
    origin TEXT, sha256 TEXT NOT NULL, weight REAL NOT NULL, added TEXT NOT NULL, embedding BLOB NOT NULL,
    thumbnail BLOB
);
CREATE INDEX item_part ON item (part);
CREATE TABLE edit (
    number INTEGER PRIMARY KEY AUTOINCREMENT, at TEXT NOT NULL, kind TEXT NOT NULL, said TEXT NOT NULL,
    changes TEXT NOT NULL, undone INTEGER NOT NULL DEFAULT 0, undoes INTEGER
);
"""
"""The tables that belong to one model. ``part.base`` and ``item.base`` are class numbers of the model: the class whose
components a part has, and the class whose sums included the item when the model was fitted. ``item.origin`` is the
item's id among the model's features."""

ENCODER_TABLE = """
CREATE TABLE IF NOT EXISTS encoder (bundle TEXT PRIMARY KEY, fingerprint TEXT NOT NULL) WITHOUT ROWID;
"""
"""The encoder of each model this catalog has had, because the journal's decisions outlive the model that made them."""

KIND_TABLE = "CREATE TABLE IF NOT EXISTS kind (id INTEGER PRIMARY KEY, name TEXT)"
"""The kind that an edit has given an item, by its number; empty for none, null where no edit stands. Catalogs from
before kinds get the table with their first one."""

EDIT_STANDS = "undone = 0 AND undoes IS NULL"  # of an edit

VALUE_READERS = {
    ("product", "name"),
    ("product", "status"),
    ("product", "gone"),
    ("part", "product"),
    ("item", "part"),
    ("setting", "value"),
    ("kind", "name"),
}
"""The columns that edits may change."""


@dataclass
class Change:
    """One value of one row, before and after an edit."""

    table: str
    key: str | int
    column: str
    before: Any
    after: Any

    def back(self) -> "Change":
        """The change that reverts this one."""
        return Change(self.table, self.key, self.column, self.after, self.before)


@dataclass
class EditTransaction:
    """An edit in progress, inside its transaction; ``kinds`` are those that it has changed so far."""

    connection: sqlite3.Connection
    kind: str
    summary: str = ""
    changes: list[Change] = field(default_factory=list)
    undoes: int | None = None
    kinds: tuple[KindsEffect, ...] = ()

    def set(self, table: str, key: str | int, column: str, value: Any) -> None:
        """Set one value and record the previous one."""
        name = "key" if table == "setting" else "id"
        found = self.connection.execute(f"SELECT {column} FROM {table} WHERE {name} = ?", (key,)).fetchone()  # noqa: S608
        self.apply(Change(table, key, column, None if found is None else found[0], value))

    def apply(self, change: Change) -> None:
        """Write the new value of a change."""
        assert (change.table, change.column) in VALUE_READERS
        if change.table in ("setting", "kind"):
            text = f"INSERT OR REPLACE INTO {change.table} VALUES (?, ?)"  # noqa: S608
            self.connection.execute(text, (change.key, change.after))
        else:
            text = f"UPDATE {change.table} SET {change.column} = ? WHERE id = ?"  # noqa: S608
            self.connection.execute(text, (change.after, change.key))
        self.changes.append(change)

    def commit(self) -> int:
        """Commit the edit durably and return its number."""
        changes = json.dumps([[c.table, c.key, c.column, _plain(c.before), _plain(c.after)] for c in self.changes])
        number = self.connection.execute(
            "INSERT INTO edit (at, kind, said, changes, undoes) VALUES (?, ?, ?, ?, ?)",
            (now(), self.kind, self.summary, changes, self.undoes),
        ).lastrowid
        self.connection.execute("COMMIT")
        fold(self.connection)
        assert number is not None
        return number


class OutdatedCatalog(BundleError):
    """A file that belongs to another model than the one it was opened for."""


class CatalogDatabase:
    """Connections to one catalog file, one per thread."""

    def __init__(self, path: Path, bundle: str) -> None:
        self.path, self.bundle = path, bundle
        self._local = threading.local()

    @property
    def connection(self) -> sqlite3.Connection:
        """This thread's connection.

        Raises:
            BundleError: the file is no catalog, or one of another model.
        """
        if getattr(self._local, "connection", None) is None:
            connection = connect(self.path)
            self._check(connection)
            self._local.connection = connection
        return self._local.connection

    def outdated(self) -> bool:
        """Whether the file has been handed to another model since it was opened."""
        return bundle_of(self.path, self.connection) != self.bundle

    def remember(self, fingerprint: str) -> None:
        """Record the encoder (its fingerprint) of the model."""
        remember(self.path, self.connection, self.bundle, fingerprint)

    def _check(self, connection: sqlite3.Connection) -> None:
        if bundle_of(self.path, connection) != self.bundle:
            raise OutdatedCatalog(
                f"{self.path} was made for another model than the one in {self.path.parent}: the model was fitted "
                "again since. Move the file away to begin anew, or fit into a new folder."
            )

    def rows(self, text: str, values: Sequence[Any] = ()) -> list[sqlite3.Row]:
        """All rows of a query."""
        with database_errors(self.path):
            return self.connection.execute(text, values).fetchall()

    @contextmanager
    def one_state(self) -> Iterator[None]:
        """All queries inside the block see the file as it is at the first of them, whoever edits it meanwhile."""
        connection = self.connection
        if connection.in_transaction:
            yield
            return
        with database_errors(self.path):
            connection.execute("BEGIN")
        try:
            yield
        finally:
            connection.execute("ROLLBACK")  # nothing was written

    def kinds(self) -> dict[int, str]:
        """The kinds that edits have given to items, by item number; an empty one is of no kind."""
        with database_errors(self.path):
            return kinds_in(self.connection)

    def revision(self) -> int:
        """Number of the latest edit; 0 before the first."""
        return self.rows("SELECT coalesce(max(number), 0) FROM edit")[0][0]

    @contextmanager
    def edit(self, kind: str) -> Iterator[EditTransaction]:
        """One edit as one transaction, which takes effect only when committed."""
        connection = self.connection
        with database_errors(self.path):
            connection.execute("BEGIN IMMEDIATE")
        try:
            self._check(connection)  # the model may have just been refitted; from here on it cannot change
            with database_errors(self.path):
                yield EditTransaction(connection, kind)
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")

    def history(self, limit: int) -> tuple[Edit, ...]:
        """The latest edits, newest first."""
        text = "SELECT number, at, kind, said, undone FROM edit ORDER BY number DESC LIMIT ?"
        return tuple(Edit(n, at, kind, said, bool(undone)) for n, at, kind, said, undone in self.rows(text, (limit,)))

    def close(self) -> None:
        """Close this thread's connection."""
        if getattr(self._local, "connection", None) is not None:
            self._local.connection.close()
            self._local.connection = None


def bundle_of(path: Path, connection: sqlite3.Connection) -> str:
    """The hash of the model that a file belongs to.

    Raises:
        BundleError: it is no catalog, damaged, or of another layout.
    """
    with database_errors(path):
        meta = dict(connection.execute("SELECT key, value FROM meta"))
    if meta.get("layout") != CATALOG_LAYOUT:
        raise BundleError(
            f"{path} has layout {meta.get('layout')!r}, this mixtura reads {CATALOG_LAYOUT!r}. "
            "Move it away to begin anew."
        )
    return meta.get("bundle", "")


def kinds_in(connection: sqlite3.Connection) -> dict[int, str]:
    """The kinds that edits have given to items, by item number; an empty one is of no kind."""
    known = has(connection, "kind")
    return dict(connection.execute("SELECT id, name FROM kind WHERE name IS NOT NULL").fetchall()) if known else {}


def has(connection: sqlite3.Connection, table: str) -> bool:
    """Whether a table exists."""
    return bool(connection.execute("SELECT count(*) FROM sqlite_master WHERE name = ?", (table,)).fetchone()[0])


def remember(path: Path, connection: sqlite3.Connection, bundle: str, fingerprint: str) -> None:
    """Record the encoder (its fingerprint) of a model (its hash)."""
    with database_errors(path):
        known = "SELECT count(*) FROM encoder WHERE bundle = ?"
        if has(connection, "encoder") and connection.execute(known, (bundle,)).fetchone()[0]:
            return
        if os.access(path.parent, os.W_OK):  # a read-only folder records nothing and is never fitted
            connection.executescript(ENCODER_TABLE)
            connection.execute("INSERT OR IGNORE INTO encoder VALUES (?, ?)", (bundle, fingerprint))


def fill_in(connection: sqlite3.Connection, bundle: str, fill: Mapping[str, Iterator[Sequence[Any]]]) -> None:
    """Insert the initial rows of a model, inside a transaction."""
    connection.executemany("INSERT INTO meta VALUES (?, ?)", [("layout", CATALOG_LAYOUT), ("bundle", bundle)])
    for text, rows in fill.items():
        connection.executemany(text, rows)


def fold(connection: sqlite3.Connection) -> None:
    """Fold the write-ahead log into the file unless someone is reading, so that there is one file to copy."""
    with contextlib.suppress(sqlite3.OperationalError):
        connection.execute("PRAGMA busy_timeout = 100")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.execute(f"PRAGMA busy_timeout = {int(1000 * BUSY_SECONDS)}")


def undo(draft: EditTransaction) -> str | None:
    """Undo the latest edit in effect; returns its summary, or ``None`` if there is no such edit."""
    found = draft.connection.execute(
        f"SELECT number, said, changes FROM edit WHERE {EDIT_STANDS} ORDER BY number DESC LIMIT 1"  # noqa: S608
    ).fetchone()
    if found is None:
        return None
    number, said, changes = found
    for table, key, column, before, after in reversed(json.loads(changes)):
        draft.apply(Change(table, key, column, _value(before), _value(after)).back())
    draft.connection.execute("UPDATE edit SET undone = 1 WHERE number = ?", (number,))
    draft.undoes = number
    return said


def create(path: Path, bundle: str, fill: Mapping[str, Iterator[Sequence[Any]]]) -> None:
    """Create the file under a temporary name and move it into place once it is complete.

    Args:
        path: of the file; if another process has created it meanwhile, that file stays.
        bundle: hash (hex) of its model.
        fill: initial rows, by ``INSERT`` statement.

    Raises:
        CannotWrite, OutOfSpace: it cannot be written.
    """
    _check_no_log(path)
    temporary = temporary_beside(path)
    try:
        connection = connect(temporary, "rwc")
        with database_errors(path):
            connection.executescript(SCHEMA)
            connection.execute("BEGIN")
            fill_in(connection, bundle, fill)
            connection.execute("COMMIT")
            connection.close()
        with explained_files(path), contextlib.suppress(FileExistsError):
            os.link(temporary, path)  # never overwrites a file in use
    finally:
        temporary.unlink(missing_ok=True)


def _check_no_log(path: Path) -> None:
    """Refuse a leftover log of a file that was moved away: SQLite would replay it into the new file and corrupt it."""
    log = path.with_name(path.name + "-wal")
    if log.exists() and not path.exists():
        raise CannotWrite(
            f"{log} belongs to a catalog that is no longer beside it. Put {path.name} back, or move this file to where "
            "it went: it holds its last changes."
        )


def connect(path: Path, mode: str = "rw") -> sqlite3.Connection:
    """A connection that waits for other writers and makes every commit durable.

    Args:
        path: of the file; in a folder without write permission it is opened read-only.
        mode: ``rwc`` creates the file, without a log beside it; ``rw`` does not.
    """
    if mode == "rw" and not os.access(path.parent, os.W_OK):
        mode = "ro&immutable=1"
    with database_errors(path):
        connection = sqlite3.connect(
            f"{path.resolve().as_uri()}?mode={mode}",
            BUSY_SECONDS,
            uri=True,
            isolation_level=None,
            check_same_thread=False,
        )
        connection.row_factory = sqlite3.Row
        if mode == "rw":
            connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
    return connection


@contextmanager
def database_errors(path: Path) -> Iterator[None]:
    """Convert SQLite errors into errors with advice.

    Raises:
        OutOfSpace: the disk is full.
        CannotWrite: the file is locked, read-only, or its folder is.
        BundleError: it is no catalog, or it is damaged.
    """
    try:
        yield
    except sqlite3.OperationalError as error:
        said = str(error)
        if "disk is full" in said:
            raise OutOfSpace(f"Cannot write {path}: {said}. Free space; what was saved before is intact.") from error
        if "no such" in said:
            raise BundleError(f"{path} is no catalog of mixtura ({said}). Move it away to begin anew.") from error
        raise CannotWrite(
            f"Cannot use {path}: {said}. See that it is a file that you may write to, and that nobody else holds it."
        ) from error
    except sqlite3.DatabaseError as error:
        raise BundleError(f"{path} is damaged or no catalog ({error}). Restore it, or move it away.") from error


def now() -> str:
    """The current time in UTC, to the second (ISO 8601)."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _plain(value: Any) -> Any:
    return {"hex": value.hex()} if isinstance(value, bytes) else value


def _value(value: Any) -> Any:
    return bytes.fromhex(value["hex"]) if isinstance(value, dict) else value
