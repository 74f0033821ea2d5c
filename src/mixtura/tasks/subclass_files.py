"""Write kinds to disk, and accept them: a list or a feature store with two levels that ``mixtura fit`` reads."""

import csv
import io
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mixtura import files
from mixtura.datasets.paths import from_id
from mixtura.errors import DataError, NoInput, UsageError
from mixtura.features.records import Features, Rows
from mixtura.features.store import FeatureStore
from mixtura.names import nearest
from mixtura.tables import read_rows
from mixtura.tasks.cluster_files import LIST_FILE, STORE_FOLDER, Accepted, check_free, label_of
from mixtura.tasks.kept_features import Origin, origin_of
from mixtura.tasks.subclasses import IN_NO_KIND, Subclasses, digest_of

TABLE_FILE, SUMMARY_FILE, PAGE_FILE = "subclasses.csv", "subclasses.json", "subclasses.html"
SECOND_LIST_FILE = "kinds.csv"
"""The name of the list where the photos came from a list of the usual name."""

TABLE_COLUMNS = ("id", "source", "class", "subclass", "probability", "margin", "count", "stability", "p_value")

Place = tuple[str, str]
"""A class, and a kind of it as the table has it; an empty kind is what is in none."""


@dataclass(frozen=True)
class Table:
    """The kinds of the last run: class and kind of each item, the hash of all, and where their features are from."""

    place: dict[str, Place]
    digest: str
    origin: Origin


def summary(found: Subclasses, origin: Origin | None = None) -> dict[str, Any]:
    """The figures of every class, JSON-ready; kinds name their most typical items first."""
    ids = found.features.id
    classes = [
        {
            "class": one.name, "size": one.size, "count": one.count, "likeliest": one.likeliest,
            "stability": one.stability, "p_value": one.p_value, "corrected_p_value": one.corrected,
            "reason": one.reason, "why": one.why,
            "subclasses": [
                {"subclass": kind.number, "size": kind.size, "stability": kind.stability,
                 "items": [ids[row] for row in kind.typical]}
                for kind in one.kinds
            ],
        }
        for one in found.classes
    ]  # fmt: skip
    return {
        "method": found.method,
        "items": len(ids),
        "split": len(found.split),
        "whole": len(found.classes) - len(found.split),
        "seconds": found.seconds,
        "digest": digest_of(found.features),
        "features": (origin or Origin(dict(found.features.identity))).record(),
        "classes": classes,
    }


def write(found: Subclasses, folder: Path, origin: Origin | None = None) -> Path:
    """Write the table, one line per item, and the summary of the classes; returns the table.

    Raises:
        CannotWrite, OutOfSpace: the folder cannot be written.
    """
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(TABLE_COLUMNS)
    by_name = {one.name: one for one in found.classes}
    for row, (id, label) in enumerate(zip(found.features.id, found.features.label, strict=True)):
        number, own = int(found.number[row]), by_name.get(str(label))
        kind = own.kinds[number - 1] if own is not None and number != IN_NO_KIND else None
        figures = ("", _figure(None if own is None else own.p_value))
        if own is not None:
            figures = (_figure(own.stability if kind is None else kind.stability), figures[1])
        table.writerow([
            id, found.features.source[row], label, "" if kind is None else number,
            _figure(float(found.probability[row])), _figure(float(found.margin[row])),
            "" if own is None else own.count, *figures,
        ])  # fmt: skip
    record = summary(found, origin)
    with files.new_folder(folder):
        files.write(folder / TABLE_FILE, text.getvalue().encode())
        files.write(folder / SUMMARY_FILE, json.dumps(record, indent=2).encode())
    return folder / TABLE_FILE


def _figure(value: float | None) -> str:
    return "" if value is None or math.isnan(value) else f"{value:.4f}"


def read(folder: Path) -> Table:
    """The kind of each item, read from the table, in which users may have replaced numbers by names.

    Raises:
        NoInput: there is no table.
        DataError: the table or the summary is damaged.
    """
    path = folder / TABLE_FILE
    try:
        record = json.loads((folder / SUMMARY_FILE).read_text(encoding="utf-8")) if path.exists() else {}
        rows = read_rows(path, ("id", "class", "subclass"))
        digest, origin = str(record["digest"]), origin_of(record["features"])
    except (FileNotFoundError, NotADirectoryError) as error:
        missing = error.filename or path
        raise NoInput(f"{missing} is missing. Find kinds first: mixtura subclasses PHOTOS -o {folder}.") from error
    except UnicodeError as error:
        raise DataError(f"{path} cannot be read ({error}). Save it as CSV in UTF-8.") from error
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise DataError(f"The kinds in {folder} cannot be read ({error}). Run mixtura subclasses again.") from error
    for column in ("id", "class", "subclass"):
        if not rows or column not in rows[0]:
            raise DataError(f"{path} has no column {column!r}. Restore it, or run mixtura subclasses again.")
    return Table({row["id"]: (row["class"], row["subclass"].strip()) for row in rows}, digest, origin)


def check_same(table: Table, features: Rows, folder: Path) -> None:
    """Check that the kinds are those of these items.

    Raises:
        DataError: items or their classes have changed since.
    """
    known = dict(zip(features.id, features.label, strict=True))
    strange = [id for id, (name, _) in table.place.items() if known.get(id) != name]
    if table.digest == digest_of(features) and not strange:
        return
    example = f" (for example {strange[0]!r})" if strange else ""
    raise DataError(
        f"The photos or their classes have changed since {folder / TABLE_FILE} was written{example}. Run mixtura "
        "subclasses again, look at the page, then accept."
    )


def named(table: Table, names: Sequence[str]) -> dict[str, tuple[str, str]]:
    """The new label of each item, and its class: ``Apple/ripe``, ``Apple/2`` without a name, or the class itself.

    Args:
        table: the kinds found.
        names: as in ``Apple/2=ripe``; kinds of one name are merged, and ``Apple/3=`` is not a kind.

    Raises:
        UsageError: a name is given to a class or kind that does not exist, twice to one kind, is taken, or
            cannot be printed.
    """
    given: dict[Place, str] = {}
    for text in names:
        place, name = _split(text, set(table.place.values()))
        if given.setdefault(place, name) != name:
            raise UsageError(f"Kind {'/'.join(place)!r} is named twice. Give one --name for each kind.")
    found = {id: (_label(place, given), place[0]) for id, place in table.place.items()}
    owner: dict[str, str] = {}
    for label, name in sorted(set(found.values())):
        if owner.setdefault(label, name) != name:
            raise UsageError(
                f"The label {label!r} would stand for classes {owner[label]!r} and {name!r}. "
                "Give the kind another name."
            )
    return found


def by_class(table: Table, names: Sequence[str]) -> dict[str, dict[int, str]]:
    """The kind of each item of a catalog, by class and item number; empty for items of no kind.

    A class that stays whole is left out. For the arguments and the errors see :func:`named`.
    """
    found: dict[str, dict[int, str]] = {}
    for id, (label, name) in named(table, names).items():
        found.setdefault(name, {})[int(id)] = "" if label == name else label.removeprefix(f"{name}/")
    split = {name for name, kind in table.place.values() if kind}
    return {name: items for name, items in found.items() if name in split}


def _label(place: Place, given: Mapping[Place, str]) -> str:
    name, kind = place
    kind = label_of(given.get(place, kind))
    return f"{name}/{kind}" if kind else name


def _split(text: str, known: set[Place]) -> tuple[Place, str]:
    """The kind that a text like ``Apple/2=ripe`` names; class names may hold slashes and equals signs themselves.

    Raises:
        UsageError: it is not of that form, or there is no such class or kind.
    """
    fitting = [place for place in known if place[1] and text.startswith(f"{place[0]}/{place[1]}=")]
    if fitting:
        place = max(fitting, key=lambda one: len("/".join(one)))
        return place, text.removeprefix(f"{place[0]}/{place[1]}=").strip()
    key, equals, _ = text.rpartition("=") if text.endswith("=") else text.partition("=")
    name, slash, kind = key.rpartition("/")
    if not equals or not slash:
        raise UsageError(f"--name {text!r} is not CLASS/NUMBER=NAME. Write for example --name Apple/2=ripe.")
    classes = {own for own, _ in known}
    if name not in classes:
        raise UsageError(f"There is no class {name!r} to name a kind of. {nearest(name, classes)}")
    kinds = {own_kind for own, own_kind in known if own == name and own_kind}
    if not kinds:
        raise UsageError(f"Class {name!r} is whole: it has no kind {kind!r} to name. Leave out --name {text!r}.")
    raise UsageError(f"Class {name!r} has no kind {kind!r}. {nearest(kind, kinds)}")


def place_of_list(folder: Path, source: Path | None) -> Path:
    """Where the list of a folder of photos goes, which is free; ``source`` is the list that they came from, if any.

    Raises:
        CannotWrite: there is such a list already.
    """
    path = folder / (SECOND_LIST_FILE if source is not None and source.name == LIST_FILE else LIST_FILE)
    check_free(path)
    return path


def as_list(label: Mapping[str, tuple[str, str]], features: Rows, folder: Path, source: Path | None) -> Accepted:
    """Write the list into the photos' folder: ``file_name, label, superclass``, and what else the photos came with.

    Args:
        label: new label and class of each item.
        features: of the items; group, split and weight are written where any item has one.
        folder: the photos' folder.
        source: the list that the photos came from, if any, which is not overwritten.

    Raises:
        CannotWrite: there is such a list already, or the folder cannot be written.
    """
    path = place_of_list(folder, source)
    rows = features.select_ids(list(label))
    columns: dict[str, Sequence[Any]] = {
        "file_name": [from_id(id) for id in rows.id],
        "label": [label[id][0] for id in rows.id],
        "superclass": [label[id][1] for id in rows.id],
    }
    own = {"group": rows.group, "split": rows.split, "weight": rows.weight.tolist()}
    for name, usual in (("group", None), ("split", None), ("weight", 1.0)):
        if any(value != usual for value in own[name]):
            columns[name] = ["" if value is None else value for value in own[name]]
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(columns)
    table.writerows(zip(*columns.values(), strict=True))
    files.write(path, text.getvalue().encode("utf-8", "surrogateescape"))
    return _accepted(path, label, features)


def as_store(label: Mapping[str, tuple[str, str]], features: Features, folder: Path) -> Accepted:
    """Write the features as a separate store, with the kind as label and the class as superlabel.

    Raises:
        CannotWrite: there is such a store already, or the folder cannot be written.
    """
    rows = features.select_ids(list(label))
    new = replace(rows, label=[label[id][0] for id in rows.id], superlabel=[label[id][1] for id in rows.id])
    path = folder / STORE_FOLDER
    FeatureStore.create(path, features.identity, features.dimension, "float32", features.versions).append(new)
    return _accepted(path, label, features)


def _accepted(path: Path, label: Mapping[str, tuple[str, str]], features: Rows) -> Accepted:
    classes = dict(Counter(name for name, _ in label.values()).most_common())
    return Accepted(path, classes, len(features) - len(label))
