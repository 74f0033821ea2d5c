"""A sweep's files: one row per finished run, and tables of all runs at the end."""

import hashlib
import io
import json
import os
from collections.abc import Iterable
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from mixtura import files
from mixtura.errors import DataError
from mixtura.features.records import Features
from mixtura.files import is_there
from mixtura.pipeline import training_set
from mixtura.recipe import Recipe, dump, dump_dict, with_absolute_paths
from mixtura.records.sweep import Run, Sweep, long_table, table
from mixtura.sweeps.earlier import earlier_parts, run_of

RUNS_FILE, PARQUET_FILE, CSV_FILE, RECIPE_FILE = "runs.jsonl", "runs.parquet", "runs.csv", "recipe.yaml"
LONG_FILE = "metrics.csv"


def fingerprint(recipe: Recipe, features: Features) -> str:
    """A hash of everything a run depends on besides its key: rows with split and group, head, training, program."""
    plain = dump_dict(recipe)
    del plain["fit"]["min_val_fraction"]  # not a matter of a sweep, and unknown to earlier ones
    return _hash({name: plain.get(name) for name in ("head", "fit", "seed", "projection")}, recipe, features)


def earlier_fingerprint(recipe: Recipe, features: Features) -> str | None:
    """The fingerprint under former keys; ``None`` if the recipe could not be written then."""
    parts = earlier_parts(recipe)
    return None if parts is None else _hash(parts, recipe, features)


def _hash(parts: dict[str, Any], recipe: Recipe, features: Features) -> str:
    parts |= {"sweep": [recipe.sweep.folds, recipe.sweep.whiten_power], "mixtura": metadata.version("mixtura")}
    rows = [list(map(str, features.split)), features.group]
    text = json.dumps([parts, training_set.digest_of(features), rows], sort_keys=True)
    return hashlib.sha256(text.encode() + features.embedding.tobytes()).hexdigest()


def earlier(recipe: Recipe, features: Features) -> dict[Any, Run]:
    """The runs in the output folder; the first line of their file identifies the data and recipe.

    Raises:
        DataError: they are of other data or another recipe.
    """
    assert recipe.output is not None
    path, mark = recipe.output / RUNS_FILE, {"sweep": fingerprint(recipe, features)}
    try:
        whole = path.read_bytes() if is_there(path) else b""
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}). Give another folder with -o.") from error
    lines = whole.splitlines()
    if (whole.endswith(b"\n") and len(lines) == 1) or not lines:  # no run yet, whatever the mark
        files.write(path, (json.dumps(mark) + "\n").encode())
        return {}
    renamed = lines[0] == json.dumps({"sweep": earlier_fingerprint(recipe, features)}).encode()
    if lines[0] != json.dumps(mark).encode() and not renamed:
        raise DataError(
            f"{recipe.output} holds a sweep of other data or with other settings. Give another folder with -o, or "
            f"delete {path.name} there."
        )
    runs = [run for line in lines[1:] if (run := _parsed(line)) is not None]
    if renamed or len(runs) < len(lines) - 1 or not whole.endswith(b"\n"):
        files.write(path, b"\n".join([json.dumps(mark).encode(), *(_line(run).encode() for run in runs), b""]))
    return {run.key: run for run in runs}


def _parsed(line: bytes) -> Run | None:
    """A run parsed from its line; a line cut off by a crash is computed again."""
    try:
        plain: dict[str, Any] = {k: float("nan") if v is None else v for k, v in json.loads(line).items()}
        plain["gaps"] = tuple(plain["gaps"])
        return Run(**run_of(plain))
    except (ValueError, TypeError, AttributeError, KeyError):
        return None


def append(path: Path, runs: Iterable[Run]) -> None:
    """Append runs to the file."""
    lines = "".join(_line(run) + "\n" for run in runs)
    with files.explained(path), path.open("a", encoding="utf-8") as file:
        file.write(lines)
        file.flush()
        os.fsync(file.fileno())


def _line(run: Run) -> str:
    return json.dumps(_plain(asdict(run)))


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    return {name: None if value != value else value for name, value in row.items()}  # NaN is not equal to itself


def write(sweep: Sweep, recipe: Recipe) -> None:
    """Write the runs as Parquet and, without what is given by bin or by row, as CSV, wide and long; and the recipe."""
    assert recipe.output is not None
    rows = pa.table(table(sweep.runs))
    parquet, csv, long = io.BytesIO(), io.BytesIO(), io.BytesIO()
    pq.write_table(rows, parquet)
    pacsv.write_csv(rows.drop_columns(["gaps", "right"]), csv)
    pacsv.write_csv(pa.table(long_table(sweep.runs)), long)
    contents = {
        PARQUET_FILE: parquet.getvalue(),
        CSV_FILE: csv.getvalue(),
        LONG_FILE: long.getvalue(),
        RECIPE_FILE: dump(with_absolute_paths(recipe)).encode(),
    }
    files.write_all({recipe.output / name: content for name, content in contents.items()})
