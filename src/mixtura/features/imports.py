"""Features that were made elsewhere: NumPy files, Parquet, and the one-file-an-item layout of DGMMC.

Nothing here runs code from a file. The encoder is unknown to us, so the caller names it: features of the same name
belong together.
"""

import csv
import hashlib
import unicodedata
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from jaxtyping import Float
from torch import Tensor

from mixtura import files
from mixtura.errors import DataError, LabelError, NoInput, StoreError, WrongDimension
from mixtura.features.records import Features, Rows, to_features
from mixtura.features.store import FeatureStore
from mixtura.files import is_folder_at, is_there
from mixtura.identity import IMPORTED_PREFIX
from mixtura.names import text_or_none
from mixtura.tables import begun, cells, encoding_of

_TEXT = ("id", "source", "label", "superlabel", "group", "split")
_PART_ROWS = 65_536
_LIST_HEADERS = (("Filename", "Label"), ("filename", "label"), ("file_name", "label"))


def from_npy(embedding: Path, label: Path | None = None, *, encoder: str, split: str | None = None) -> Features:
    """Features of a ``.npy`` file with an N x D array, and labels of another with N entries.

    Raises:
        NoInput: a file is missing.
        DataError: a file is no plain array of numbers (pickled objects are refused).
        LabelError: there are more or fewer labels than rows.
        NonFinite: NaN or infinity.
    """
    labels = None if label is None else _load_array(label)
    return _assemble(_load_array(embedding), {"label": labels}, embedding.name, encoder, split)


def from_npz(
    path: Path,
    *,
    encoder: str,
    embedding: str = "embedding",
    label: str | None = "label",
    split: str | None = None,
) -> Features:
    """Features of one ``.npz`` file; ``embedding`` and ``label`` name its arrays.

    Arrays ``id``, ``source``, ``superlabel``, ``group``, ``split`` and ``weight`` are used where they are.

    Raises:
        NoInput: the file is missing.
        DataError: it has no such array, or holds pickled objects.
        LabelError: a column is longer or shorter than the embedding.
        NonFinite: NaN or infinity.
    """
    archive = _load(path)
    if not isinstance(archive, np.lib.npyio.NpzFile):
        raise DataError(f"{path} is no .npz archive. Use from_npy for a single array.")
    with archive:
        for name in [embedding] if label is None else [embedding, label]:
            if name not in archive.files:
                raise DataError(f"{path} has no array {name!r}. It has: {', '.join(archive.files)}.")
        extra: dict[str, Any] = {
            name: _member(archive, name, path) for name in (*_TEXT, "weight") if name in archive.files
        }
        extra["label"] = None if label is None else _member(archive, label, path)
        return _assemble(_member(archive, embedding, path), extra, path.name, encoder, split)


def from_parquet(
    path: Path,
    *,
    encoder: str,
    embedding: str = "embedding",
    label: str | None = "label",
    split: str | None = None,
) -> Features:
    """Features of a Parquet file made elsewhere, or of a folder of them; ``embedding`` names a column of lists.

    Columns ``id``, ``source``, ``superlabel``, ``group``, ``split`` and ``weight`` are used where they are.

    Raises:
        NoInput: the file is missing.
        DataError: it is no Parquet file, has no such column, or its lists are not numbers of one length.
        LabelError: a column is longer or shorter than the embedding.
        NonFinite: NaN or infinity.
    """
    if not is_there(path):
        raise NoInput(f"{path} does not exist. Check the path.")
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} is no Parquet file: {error}. Check the file.") from error
    for name in [embedding] if label is None else [embedding, label]:
        if name not in table.column_names:
            raise DataError(f"{path} has no column {name!r}. It has: {', '.join(table.column_names)}.")
    extra: dict[str, Any] = {name: table[name].to_pylist() for name in (*_TEXT, "weight") if name in table.column_names}
    extra["label"] = None if label is None else table[label].to_pylist()
    return _assemble(_matrix(table[embedding], path), extra, path.name, encoder, split)


def from_dgmmc(folder: Path, labels: Path, *, encoder: str, split: str | None = None) -> Features:
    """Features of one folder in the layout of DGMMC: one ``.pt`` file an item, and a list of labels.

    ``labels`` is a CSV file with the columns ``Filename`` and ``Label`` (``<Filename>.pt`` holds that item), or a text
    file with one label a line (line i, from 0, belongs to ``i.pt``). Files are read with ``weights_only=True``:
    tensors and NumPy arrays are, anything else is refused.

    Raises:
        NoInput, DataError, WrongDimension, NonFinite: see :func:`from_halves`.
    """
    listed = LabelList.read(labels)
    return from_halves([Half(folder, listed.names, listed.labels, split)], encoder=encoder)


@dataclass(frozen=True)
class Half:
    """A folder of ``.pt`` files, the names of those to read (without the ending), their labels and their split."""

    folder: Path
    names: Sequence[str]
    labels: Sequence[str | None]
    split: str | None = None


def from_halves(halves: Sequence[Half], *, encoder: str) -> Features:
    """Features of one or more folders of ``.pt`` files, such as the Train and Test of DGMMC, with their splits.

    Raises:
        NoInput: a folder or one of the files is missing.
        DataError: a file holds no vector.
        WrongDimension: the vectors are of different lengths.
        StoreError: an item is in two halves.
        NonFinite: NaN or infinity.
    """
    vectors: list[Float[np.ndarray, " D"]] = []
    widths: dict[int, str] = {}
    for half in halves:
        if not is_folder_at(half.folder):
            raise NoInput(f"{half.folder} is no folder. Give the folder that holds the .pt files.")
        for name in half.names:
            vectors.append(_vector(half.folder / f"{name}.pt"))
            widths.setdefault(len(vectors[-1]), f"{half.folder.name}/{name}.pt")
    if len(widths) > 1:
        said = " and ".join(f"{name} holds {width:,} numbers" for width, name in list(widths.items())[:2])
        raise WrongDimension(f"{said}: they are of two encoders. Put the features of each into a folder of its own.")
    ids = [f"{half.folder.name}/{name}" for half in halves for name in half.names]
    labels = [label for half in halves for label in half.labels]
    splits = [half.split for half in halves for _ in half.names]
    whole = " and ".join(dict.fromkeys(half.folder.name for half in halves))
    return _assemble(np.stack(vectors), {"id": ids, "label": labels, "split": splits}, whole, encoder, None)


def save(features: Features, path: Path, dtype: str = "float32") -> FeatureStore:
    """Put imported features into a new store at ``path``; nothing stays of one that cannot be finished.

    Raises:
        CannotWrite: there is a store already, or the folder is not writable.
        OutOfSpace: the disk is full.
    """
    with files.new_folder(path):
        store = FeatureStore.create(path, features.identity, features.dimension, dtype, features.versions)
        try:
            for start in range(0, len(features), _PART_ROWS):
                store.append(features.select(np.arange(start, min(start + _PART_ROWS, len(features)))))
        except BaseException:
            store.delete()
            raise
    return store


def _assemble(embedding: np.ndarray, extra: Mapping[str, Any], name: str, encoder: str, split: str | None) -> Features:
    """Columns from wherever they came, filled up and checked."""
    if embedding.ndim != 2 or embedding.dtype.kind not in "fiu" or not embedding.size:
        raise DataError(
            f"{name} holds {embedding.dtype} of shape {embedding.shape}, not N x D numbers. Give one vector an item."
        )
    matrix = np.ascontiguousarray(embedding, dtype=np.float32)
    count = len(matrix)
    text: dict[str, Any] = {column: _text(extra.get(column), count, column, name) for column in _TEXT}
    numbered = [f"{name}#{row}" for row in range(count)]
    text["id"] = numbered if extra.get("id") is None else _present(text["id"], "id", name)
    text["source"] = numbered if extra.get("source") is None else _present(text["source"], "source", name)
    text["split"] = [split] * count if split is not None else text["split"]
    weight = np.ones(count) if extra.get("weight") is None else np.asarray(extra["weight"], dtype=np.float64)
    digest = [hashlib.sha256(row.tobytes()).hexdigest() for row in matrix]
    name = f"{IMPORTED_PREFIX}{encoder}"
    identity = {"name": name, "weights": "unknown", "preprocessing": "unknown", "dtype": "float32"}
    return to_features(Rows(embedding=matrix, weight=weight, sha256=digest, **text), identity)


def _text(values: Any, count: int, column: str, name: str) -> list[str | None]:
    """A column as text; numbers become their decimal form, names are normalized (NFC), missing ones are ``None``."""
    if values is None:
        return [None] * count
    if isinstance(values, np.ndarray) and values.shape[1:] not in ((), (1,)):
        raise LabelError(f"{name}: {column!r} has the shape {values.shape}, not {count}. Give one entry an item.")
    entries = values.ravel().tolist() if isinstance(values, np.ndarray) else list(values)
    if len(entries) != count:
        raise LabelError(f"{name} has {count} rows and {len(entries)} entries of {column!r}. Give one an item.")
    texts = map(text_or_none, entries)
    return [None if text is None else unicodedata.normalize("NFC", text) for text in texts]


def _present(values: Sequence[str | None], column: str, name: str) -> list[str]:
    missing = sum(value is None for value in values)
    if missing:
        raise StoreError(f"{name} has {missing} rows without {column!r}. Fill the column, or leave it out.")
    return [value for value in values if value is not None]


def _load(path: Path) -> Any:
    """A NumPy file, without pickled objects; large arrays stay on disk until they are used."""
    if not is_there(path):
        raise NoInput(f"{path} does not exist. Check the path.")
    try:
        return np.load(path, allow_pickle=False, mmap_mode="r")
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} is no plain NumPy file: {error}. Save it with numpy.save or numpy.savez.") from error


def _load_array(path: Path) -> np.ndarray:
    array = _load(path)
    if not isinstance(array, np.ndarray):
        raise DataError(f"{path} is an archive of arrays. Use from_npz.")
    return array


def _member(archive: Any, name: str, path: Path) -> np.ndarray:
    try:
        return archive[name]
    except (ValueError, OSError, EOFError, MemoryError, zipfile.BadZipFile) as error:
        raise DataError(
            f"Array {name!r} of {path} cannot be read: {error}. Save it again, as plain numbers."
        ) from error


def _matrix(column: pa.ChunkedArray, path: Path) -> Float[np.ndarray, "N D"]:
    """A column of lists as one array."""
    kind = column.type
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)):
        raise DataError(f"The embedding column of {path} holds {kind}, not lists. Name the column of vectors.")
    lengths = {len(row) if row.is_valid else None for row in column}
    flat = column.combine_chunks().flatten()
    if len(lengths) != 1 or None in lengths or flat.null_count:
        raise DataError(f"The vectors of {path} are of different lengths, or have gaps. Give all the same length.")
    return flat.to_numpy(zero_copy_only=False).reshape(len(column), -1).astype(np.float32)


@dataclass(frozen=True)
class LabelList:
    """A list in DGMMC's way: files by name, without their ending, and their labels.

    ``folders`` are the folders that a CSV file gives before the names (empty where it gives none); in a text file the
    names are the ``numbered`` places of its lines. Separators and encodings are those of lists of photos.
    """

    names: list[str]
    labels: list[str]
    folders: list[str]
    numbered: bool

    @classmethod
    def read(cls, path: Path) -> "LabelList":
        """The list in a CSV or text file; see :func:`from_dgmmc`.

        Raises:
            NoInput: the list cannot be read.
            DataError: it is no UTF-8 text.
            LabelError: it is empty, or an item has no label.
        """
        try:
            with path.open(encoding=encoding_of(path), newline="") as file:
                lines, delimiter, _ = begun(file, *_LIST_HEADERS)
                return cls._of(path, list(lines), delimiter)
        except OSError as error:
            raise NoInput(f"Cannot read the labels {path}: {error.strerror}. Check the path.") from error
        except UnicodeError as error:
            raise DataError(f"The labels {path} are no UTF-8 text. Save the list as UTF-8.") from error
        except csv.Error as error:
            raise DataError(f"The labels {path} are no CSV file ({error}). Save the list as CSV in UTF-8.") from error

    @classmethod
    def _of(cls, path: Path, lines: list[str], delimiter: str) -> "LabelList":
        header = [name.casefold().replace("_", "") for name in cells(lines[0], delimiter)] if lines else []
        found = [header.index(name) if name in header else None for name in ("filename", "label")]
        numbered = None in found
        if numbered:
            if found != [None, None] and header != ["label"]:
                raise LabelError(
                    f"The first line of {path} has one of the columns Filename and Label, not both. Give both, or one "
                    "label a line."
                )
            labels = [line.strip() for line in lines[header == ["label"] :] if line.strip()]
            listed = [Path(str(row)) for row in range(len(labels))]
        else:
            rows = [[value.strip() for value in row] for row in csv.reader(lines[1:], delimiter=delimiter, strict=True)]
            rows = [row + [""] * len(header) for row in rows if any(row)]  # spreadsheets end with rows of separators
            listed, labels = ([row[place or 0] for row in rows] for place in found)
            listed = [Path(name.replace("\\", "/")) for name in listed]
        names = [file.name.removesuffix(".pt") for file in listed]
        if not labels or not all(labels) or not all(names):
            raise LabelError(
                f"{path} has no labels, or a row without one. Give one label a line, or Filename and Label."
            )
        return cls(names, labels, [file.parent.name for file in listed], numbered)


def _vector(path: Path) -> Float[np.ndarray, " D"]:
    """The vector in one ``.pt`` file."""
    try:
        with _numpy_allowed():
            value = torch.load(path, weights_only=True, map_location="cpu")
    except FileNotFoundError as error:
        raise NoInput(f"{path} does not exist, but the label list names it. Check the list and the folder.") from error
    except Exception as error:  # a damaged or hostile file may raise anything
        raise DataError(
            f"{path} is refused: it holds more than a tensor, or is damaged. Save plain tensors."
        ) from error
    if isinstance(value, np.ndarray) and value.dtype.kind == "f":
        return value.astype(np.float32).reshape(-1)
    if isinstance(value, Tensor) and value.is_floating_point() and not value.is_meta and value.layout == torch.strided:
        return value.detach().float().reshape(-1).numpy()
    raise DataError(f"{path} holds no vector of floating-point numbers. Save one dense tensor an item.")


def _numpy_allowed() -> AbstractContextManager[Any]:
    """DGMMC saved rows of NumPy arrays; such a file names these constructors, and they only make arrays."""
    multiarray: Any = np._core.multiarray  # pyright: ignore[reportAttributeAccessIssue]
    rebuild = multiarray._reconstruct
    kinds = [type(np.dtype(kind)) for kind in ("float16", "float32", "float64")]
    old_name: Any = (rebuild, "numpy.core.multiarray._reconstruct")
    return torch.serialization.safe_globals([rebuild, old_name, np.ndarray, np.dtype, *kinds])
