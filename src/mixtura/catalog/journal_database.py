"""The journal's table in ``catalog.sqlite`` and its connections, one per thread."""

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mixtura import files
from mixtura.catalog.database import ENCODER_TABLE, connect, database_errors, has

JOURNAL_SCHEMA = """
CREATE TABLE IF NOT EXISTS decision (
    number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, at REAL NOT NULL, verdict TEXT NOT NULL, reason TEXT,
    label TEXT NOT NULL, probability REAL NOT NULL, typicality REAL NOT NULL, model TEXT NOT NULL,
    embedding BLOB NOT NULL, wide INTEGER NOT NULL, photo BLOB, told REAL, product TEXT, settled REAL
);
CREATE INDEX IF NOT EXISTS decision_at ON decision (at);
"""
"""``at``, ``told`` and ``settled`` are seconds since 1970; ``wide`` is 1 for float32 embeddings, 0 for float16."""


class JournalDatabase:
    """The journal's part of one catalog file; thread-safe.

    Raises:
        CannotWrite, OutOfSpace, BundleError: the file cannot be used.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._open: dict[int, sqlite3.Connection] = {}
        self._guard = threading.Lock()
        self._file = files.identity_of(path)
        with database_errors(path):
            self._connection()

    def close(self) -> None:
        """Close the connections of all threads; the next use opens new ones."""
        with self._guard:
            for connection in self._open.values():
                connection.close()
            self._open.clear()

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A connection for queries."""
        with database_errors(self.path):
            yield self._connection()

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """A connection inside one transaction: either everything is kept, or nothing."""
        with database_errors(self.path):
            connection = self._connection()
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    def _connection(self) -> sqlite3.Connection:
        """This thread's connection; a thread that reuses the number of a dead one takes over its connection."""
        own = threading.get_ident()
        with self._guard:
            self._follow()
            if own not in self._open:
                connection = connect(self.path)
                # Under WAL this is safe against a kill at any moment. Only a power cut may lose the latest decisions;
                # waiting for the disk after each photo would slow every answer.
                connection.execute("PRAGMA synchronous = NORMAL")
                self._make_tables(connection)
                self._open[own] = connection
            return self._open[own]

    def _make_tables(self, connection: sqlite3.Connection) -> None:
        """Create the tables that are missing; those of a folder without write permission are empty and temporary."""
        if os.access(self.path.parent, os.W_OK):
            connection.executescript(JOURNAL_SCHEMA + ENCODER_TABLE)
            return
        for name, schema in (("decision", JOURNAL_SCHEMA), ("encoder", ENCODER_TABLE)):
            if not has(connection, name):
                there = schema.replace("CREATE TABLE", "CREATE TEMP TABLE").replace(
                    "EXISTS decision_at", "EXISTS temp.decision_at"
                )
                connection.executescript(there)

    def _follow(self) -> None:
        """Leave a file that was replaced: what is written to it now, nobody would read again."""
        found = files.identity_of(self.path)
        if found is None or self._file is None or found[:2] != self._file[:2]:
            self._open, self._file = {}, found  # a connection is closed with the last statement that uses it
