"""Hand a catalog's file to another model: its tables are refilled in one transaction, the journal stays."""

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mixtura.catalog.database import EDIT_STANDS, bundle_of, connect, database_errors, fill_in, fold, has
from mixtura.errors import CannotWrite
from mixtura.names import same_name_key

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
            f"know. Fit into another folder with -o; mixtura history {path.parent} lists the edits."
        )


def refill(connection: sqlite3.Connection, bundle: str, fill: Mapping[str, Iterator[Sequence[Any]]]) -> None:
    """Replace the rows of the previous model with those of a new one, inside a transaction.

    Edit numbers continue, so that the new catalog is not mistaken for a revision of the old one.

    Args:
        connection: in a transaction.
        bundle: hash (hex) of the model.
        fill: initial rows, by ``INSERT`` statement.
    """
    # Pages go to the log while the rows are written, so that a full disk is noticed here and not at the commit.
    connection.execute("PRAGMA cache_size = 16")
    for table in OF_ONE_MODEL:
        connection.execute(f"DELETE FROM {table}")  # noqa: S608
    fill_in(connection, bundle, fill)


def ids_in(connection: sqlite3.Connection) -> tuple[dict[str, str], set[str], int]:
    """Product ids by key of the name, all ids that the catalog or the journal knows, and the last item's number."""
    products = connection.execute("SELECT name, id, gone FROM product").fetchall()
    taken = {row["id"] for row in products}
    if has(connection, "decision"):
        taken |= {row[0] for row in connection.execute("SELECT DISTINCT product FROM decision WHERE product NOT NULL")}
    kept = {same_name_key(row["name"]): row["id"] for row in reversed(products) if not row["gone"]}
    return kept, taken, connection.execute("SELECT coalesce(max(id), 0) FROM item").fetchone()[0]


def edits_in(connection: sqlite3.Connection) -> int:
    """The number of edits in effect, whatever model they belong to."""
    return connection.execute(f"SELECT count(*) FROM edit WHERE {EDIT_STANDS}").fetchone()[0]  # noqa: S608
