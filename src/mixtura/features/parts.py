"""One Parquet part of a feature store: rows to bytes and back."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float, Int

from mixtura.errors import NonFinite, StoreError
from mixtura.features.records import RECORD_COLUMNS, Rows

_TEXT = tuple(name for name in RECORD_COLUMNS if name != "weight")


@dataclass(frozen=True)
class Part:
    """A part in memory: ``table`` holds every column but the embedding."""

    table: pa.Table
    embedding: Float[np.ndarray, "N D"]

    @property
    def id_list(self) -> list[str]:
        """The ids, row by row."""
        return self.table["id"].to_pylist()

    def rows(self, index: Int[np.ndarray, " M"] | None = None) -> Rows:
        """The rows, all or those of ``index`` in its order."""
        table = self.table if index is None else self.table.take(pa.array(index))
        text: dict[str, Any] = {name: table[name].to_pylist() for name in _TEXT}
        weight = table["weight"].to_numpy().astype(np.float64)
        return Rows(embedding=self.embedding if index is None else self.embedding[index], weight=weight, **text)


def schema(dimension: int, dtype: str, metadata: dict[str, str] | None = None) -> pa.Schema:
    """The columns of a part; ``dtype`` is float16 or float32."""
    number = pa.float16() if dtype == "float16" else pa.float32()
    names = [pa.field(name, pa.string(), nullable=name not in ("id", "source", "sha256")) for name in _TEXT]
    vector = pa.field("embedding", pa.list_(pa.field("element", number, nullable=False), dimension), nullable=False)
    return pa.schema([*names, pa.field("weight", pa.float64(), nullable=False), vector], metadata=metadata)


def encode(rows: Rows, dimension: int, dtype: str, metadata: dict[str, str]) -> bytes:
    """The bytes of a part.

    Raises:
        NonFinite: NaN or infinity, or a number that float16 cannot hold.
        WrongDimension: the rows are of another width.
    """
    rows.validate(dimension)
    with np.errstate(over="ignore"):
        numbers = np.ascontiguousarray(rows.embedding, dtype=dtype)
    over = np.flatnonzero(~np.isfinite(numbers).all(axis=1))
    if over.size:
        raise NonFinite(
            f"{over.size} of {len(rows)} rows hold numbers beyond 65504, the limit of float16, the first "
            f"{rows.id[int(over[0])]!r}. Store the features as float32."
        )
    layout = schema(dimension, dtype, metadata)
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(numbers.reshape(-1)), type=layout.field("embedding").type)
    text = [pa.array(getattr(rows, name), pa.string()) for name in _TEXT]
    table = pa.Table.from_arrays([*text, pa.array(rows.weight, pa.float64()), vectors], schema=layout)
    options: dict[str, Any] = {"compression": "none", "use_dictionary": ["label", "superlabel", "group", "split"]}
    sink = io.BytesIO()
    pq.write_table(table, sink, **options)  # embeddings hardly compress; a dictionary pays for repeated text only
    return sink.getvalue()


def decode(data: bytes, path: Path, dimension: int, embedding: bool) -> Part:
    """A part from its bytes; without ``embedding`` that column is not read and has width 0.

    Raises:
        StoreError: the bytes are no part of such a store; names ``path``.
    """
    try:
        table = pq.read_table(pa.BufferReader(data), columns=None if embedding else list(RECORD_COLUMNS))
        if not embedding:
            return Part(table.select(RECORD_COLUMNS), np.zeros((len(table), 0), dtype=np.float32))
        width = table.schema.field("embedding").type.list_size
        numbers = table["embedding"].combine_chunks()
        matrix = numbers.flatten().to_numpy(zero_copy_only=False).reshape(len(table), width)
        part = Part(table.select(RECORD_COLUMNS), matrix)
    except (pa.ArrowException, KeyError, AttributeError, ValueError, OSError) as error:
        raise StoreError(f"{path} is no part of a feature store: {error}. Delete it and extract again.") from error
    if width != dimension:
        raise StoreError(
            f"{path} holds {width} numbers a row, and the store says {dimension}. Delete it and extract again."
        )
    return part


def concatenate(parts: list[Part], dimension: int, dtype: str) -> Part:
    """Parts one after another; none give an empty part of ``dimension`` columns."""
    if not parts:
        empty = schema(max(dimension, 1), dtype).remove(len(RECORD_COLUMNS)).empty_table()
        return Part(empty.select(RECORD_COLUMNS), np.zeros((0, dimension), dtype=np.float32))
    return Part(pa.concat_tables([part.table for part in parts]), np.concatenate([part.embedding for part in parts]))
