"""Hand a catalog's file to another model: its tables are refilled in one transaction, the journal stays."""

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mixtura.catalog.database import EDIT_STANDS, bundle_of, connect, database_errors, fill_in, fold, has
from mixtura.errors import CannotWrite

OF_ONE_MODEL = ("edit", "item", "part", "product", "setting", "meta")
"""The tables of one model; referring tables come first."""


@contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """A separate connection, closed at the end; uncommitted changes are rolled back."""
    connection = connect(path)
    try:
        with database_errors(path):
            yield connection
    finally:
        connection.close()


def bundle_in(path: Path) -> str:
    """The hash of a file's model, without opening the catalog.

    Raises:
        BundleError: it is no catalog, damaged, or of another layout.
    """
    with reading(path) as connection:
        return bundle_of(path, connection)


@contextmanager
def transaction(path: Path) -> Iterator[sqlite3.Connection]:
    """A transaction that locks out other writers; it commits at the end of the block, or keeps nothing.

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
    """Check that another model may replace the present one.

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
    """Replace the rows of the previous model with those of a new one, inside a transaction.

    Edit numbers continue, so that the new catalog is not mistaken for a revision of the old one.

    Args:
        connection: in a transaction.
        bundle: hash (hex) of the model.
        fill: initial rows, by ``INSERT`` statement.
    """
    for table in OF_ONE_MODEL:
        connection.execute(f"DELETE FROM {table}")  # noqa: S608
    fill_in(connection, bundle, fill)


def ids_in(connection: sqlite3.Connection) -> tuple[dict[str, str], set[str]]:
    """Product ids by name, and all ids ever used that the catalog or the journal knows."""
    products = connection.execute("SELECT name, id, gone FROM product").fetchall()
    taken = {row["id"] for row in products}
    if has(connection, "decision"):
        taken |= {row[0] for row in connection.execute("SELECT DISTINCT product FROM decision WHERE product NOT NULL")}
    return {row["name"]: row["id"] for row in products if not row["gone"]}, taken


def edits_in(connection: sqlite3.Connection) -> int:
    """The number of edits in effect, whatever model they belong to."""
    return connection.execute(f"SELECT count(*) FROM edit WHERE {EDIT_STANDS}").fetchone()[0]  # noqa: S608
