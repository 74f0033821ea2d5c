"""Write clusters to disk, and accept them as classes: a list or a feature store that ``mixtura fit`` reads."""

import csv
import io
import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from mixtura import files
from mixtura.datasets.paths import from_id, readable, to_label
from mixtura.errors import CannotWrite, DataError, NoInput, UsageError
from mixtura.features.records import Features
from mixtura.features.store import FeatureStore
from mixtura.files import is_there
from mixtura.names import nearest, quoted
from mixtura.tables import read_rows
from mixtura.tasks.cluster import NOISE_CLUSTER, Clusters
from mixtura.tasks.kept_features import Origin, origin_of

TABLE_FILE, LIST_FILE, STORE_FOLDER = "clusters.csv", "labels.csv", "accepted"
ORIGIN_FILE = "clusters.json"
TABLE_COLUMNS = ("id", "source", "cluster", "probability", "margin")
NOISE_WORD = "noise"
"""The table's entry for items in no cluster."""


@dataclass(frozen=True)
class Accepted:
    """Input for ``mixtura fit``: a list or a store, the item count of each class, and how many items were left out."""

    path: Path
    classes: dict[str, int]
    left_out: int


def write_table(found: Clusters, folder: Path, origin: Origin | None = None) -> Path:
    """Write one line per item: id, source, cluster, probability (empty if the method gives none) and margin.

    Beside it stands where the features are from.

    Raises:
        CannotWrite, OutOfSpace: the folder cannot be written.
    """
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(TABLE_COLUMNS)
    columns = zip(
        found.features.id, found.features.source, found.number.tolist(), found.probability.tolist(),
        found.margin.tolist(), strict=True,
    )  # fmt: skip
    for id, source, number, probability, margin in columns:
        sure = "" if math.isnan(probability) else f"{probability:.4f}"
        table.writerow([id, source, NOISE_WORD if number == NOISE_CLUSTER else number, sure, f"{margin:.4f}"])
    with files.new_folder(folder):
        files.write(folder / TABLE_FILE, text.getvalue().encode())
        record = (origin or Origin(dict(found.features.identity))).record()
        files.write(folder / ORIGIN_FILE, json.dumps(record, indent=2).encode())
    return folder / TABLE_FILE


def read_table(folder: Path) -> dict[str, str]:
    """The cluster of each item, read from the table, in which users may have replaced numbers by names.

    Raises:
        NoInput: there is no table.
        DataError: it has lost a column.
    """
    path = folder / TABLE_FILE
    try:
        rows = read_rows(path, ("id", "cluster"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NoInput(f"{path} is missing. Cluster first: mixtura cluster PHOTOS -o {folder}.") from error
    except (OSError, UnicodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read ({error}). Save it as CSV in UTF-8, or cluster again.") from error
    for column in ("id", "cluster"):
        if not rows or column not in rows[0]:
            raise DataError(f"{path} has no column {column!r}. Restore it, or cluster again.")
    return {row["id"]: row["cluster"].strip() for row in rows}


def read_origin(folder: Path) -> Origin | None:
    """Where the features of the last run are from; ``None`` if an earlier version has made it.

    Raises:
        DataError: the record is damaged.
    """
    path = folder / ORIGIN_FILE
    try:
        return origin_of(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} cannot be read ({error}). Cluster again.") from error


def check_free(path: Path) -> None:
    """Check that nothing is where accepted labels go.

    Raises:
        CannotWrite: there is something.
    """
    if is_there(path):
        way = "Remove it" if path.name == STORE_FOLDER else "Edit the labels in it, or remove it"
        raise CannotWrite(f"{path} is there already. {way} and accept again.")


def label_of(name: str) -> str:
    """The label that a name from a person makes.

    Raises:
        UsageError: it holds a line break or something else that cannot be printed.
    """
    if readable(name) != name:
        raise UsageError(
            f"The name {quoted(name)} holds a line break, or a character that cannot be printed. Give one line of text."
        )
    return to_label(name)


def named(cluster: Mapping[str, str], names: Mapping[str, str]) -> dict[str, str]:
    """The class of each item: the cluster's name, or ``cluster-3`` if 3 has none; drops noise and empty names.

    Raises:
        UsageError: a name is given to a cluster that does not exist, cannot be printed, or nothing is left.
    """
    known = set(cluster.values())
    for number in names:
        if number not in known:
            raise UsageError(f"There is no cluster {number!r} to name. {nearest(number, known)}")
    given = {NOISE_WORD: ""} | dict(names)
    label = {
        one: label_of(given.get(one, f"cluster-{one}" if one.isdecimal() else one)) for one in known if one
    }  # fmt: skip
    found = {id: label[one] for id, one in cluster.items() if label.get(one)}
    if not found:
        raise UsageError("No cluster is left to be a class. Leave at least one with a name.")
    return found


def as_list(label: Mapping[str, str], folder: Path, left_out: int) -> Accepted:
    """Write ``labels.csv`` into the photo folder: ``file_name,label``, one line per photo that still exists.

    Raises:
        CannotWrite: there is such a list already, or the folder cannot be written.
        DataError: the clusters are those of other photos.
    """
    path = folder / LIST_FILE
    check_free(path)
    rows = [(name, label[id]) for id in label if (folder / (name := from_id(id))).exists()]
    if not rows:
        raise DataError(f"The clusters are of other photos: none of them is in {folder}. Cluster these first.")
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerows([("file_name", "label"), *rows])
    files.write(path, text.getvalue().encode("utf-8", "surrogateescape"))
    return Accepted(path, dict(Counter(name for _, name in rows).most_common()), left_out + len(label) - len(rows))


def as_store(label: Mapping[str, str], features: Features, folder: Path) -> Accepted:
    """Write the features of the accepted items, with their new labels, as a separate store.

    Raises:
        CannotWrite: there is such a store already, or the folder cannot be written.
        DataError: the table names items that are not here.
    """
    rows = features.select_ids(list(label))
    relabeled = replace(rows, label=[label[id] for id in rows.id], superlabel=list(rows.label))
    store = FeatureStore.create(
        folder / STORE_FOLDER, features.identity, features.dimension, "float32", features.versions
    )
    store.append(relabeled)
    return Accepted(folder / STORE_FOLDER, dict(Counter(label.values()).most_common()), len(features) - len(rows))
