"""A catalog's file becomes that of another model: its tables are filled anew in one transaction, the journal stays."""

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mixtura.catalog.database import EDIT_STANDS, bundle_of, connect, database_errors, fill_in, fold, has
from mixtura.errors import CannotWrite

OF_ONE_MODEL = ("edit", "item", "part", "product", "setting", "meta")
"""The tables of one model, those that refer to others first."""


@contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection of its own, closed in the end; what was not committed is rolled back."""
    connection = connect(path)
    try:
        with database_errors(path):
            yield connection
    finally:
        connection.close()


def bundle_in(path: Path) -> str:
    """The hash of the model that a file is for, without opening the catalog.

    Raises:
        BundleError: it is no catalog, damaged, or of another layout.
    """
    with reading(path) as connection:
        return bundle_of(path, connection)


@contextmanager
def transaction(path: Path) -> Iterator[sqlite3.Connection]:
    """A transaction in which nobody else edits: all of it is kept at the end of the block, or nothing.

    Raises:
        CannotWrite, OutOfSpace: the file cannot be written.
        BundleError: it is no catalog, damaged, or of another layout.
    """
    with reading(path) as connection:
        connection.execute("BEGIN IMMEDIATE")
        bundle_of(path, connection)
        yield connection
        connection.execute("COMMIT")
        fold(connection)


def check_no_edits(path: Path, connection: sqlite3.Connection) -> None:
    """See that another model may take the place of the present one.

    Raises:
        CannotWrite: edits stand, which it would not know.
    """
    count = edits_in(connection)
    if count:
        raise CannotWrite(
            f"{path} holds {count} edit{'s' * (count > 1)} of the model in {path.parent}, which a new model would not "
            "know. Fit into another folder, or move that file away."
        )


def refill(connection: sqlite3.Connection, bundle: str, fill: Mapping[str, Iterator[Sequence[Any]]]) -> None:
    """Put the rows of another model in place of those of the last one, inside a transaction.

    Numbers of edits go on, so that nobody takes the new catalog for a revision of the old one.

    Args:
        connection: in a transaction.
        bundle: hash (hex) of the model.
        fill: rows to begin with, by ``INSERT`` statement.
    """
    for table in OF_ONE_MODEL:
        connection.execute(f"DELETE FROM {table}")  # noqa: S608
    fill_in(connection, bundle, fill)


def ids_in(connection: sqlite3.Connection) -> tuple[dict[str, str], set[str]]:
    """The ids of the products by name, and all that were ever given, as far as the catalog and the journal know."""
    products = connection.execute("SELECT name, id, gone FROM product").fetchall()
    taken = {row["id"] for row in products}
    if has(connection, "decision"):
        taken |= {row[0] for row in connection.execute("SELECT DISTINCT product FROM decision WHERE product NOT NULL")}
    return {row["name"]: row["id"] for row in products if not row["gone"]}, taken


def edits_in(connection: sqlite3.Connection) -> int:
    """How many edits stand, whatever model they are of."""
    return connection.execute(f"SELECT count(*) FROM edit WHERE {EDIT_STANDS}").fetchone()[0]  # noqa: S608
