"""Rows of analytics.ingest as Arrow: what a claim of events inserts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pyarrow as pa

if TYPE_CHECKING:
    from streams.chain import Claim

Array = np.ndarray[Any, Any]

# The columns of analytics.ingest, in its order, but for `deadline`, which every attempt appends anew.
SCHEMA = pa.schema(
    [
        ("incarnation", pa.uint32()),
        ("partition", pa.uint16()),
        ("claim", pa.uint64()),
        ("first", pa.uint64()),
        ("tenant", pa.string()),
        ("mailing", pa.string()),
        ("kind", pa.string()),
        ("link", pa.string()),
        ("device", pa.string()),
        ("actor", pa.string()),
        ("occurred_ms", pa.int64()),
        ("counted", pa.uint8()),
        ("step", pa.uint8()),
        ("seed0", pa.uint64()),
        ("seed1", pa.uint64()),
        ("purpose", pa.string()),
        ("pseudonym", pa.binary(16)),
        ("key_version", pa.uint16()),
        ("expires", pa.date32()),
        ("feed", pa.string()),
        ("event_hash", pa.uint64()),
        ("hour", pa.uint32()),
        ("outcome", pa.string()),
        ("reason", pa.string()),
        ("events", pa.uint64()),
    ]
)


def rows(columns: Mapping[str, Any], kept: Array) -> pa.Table:
    """The rows of `columns` where `kept`, in the shape of `ingest`; a column that is not named is empty."""
    count = int(kept.sum())
    arrays = [
        _arrow(field.name, columns[field.name], kept) if field.name in columns else _empty(field.type, count)
        for field in SCHEMA
    ]
    return pa.Table.from_arrays(arrays, schema=SCHEMA)


def of_claim(claim: Claim, parts: list[pa.Table]) -> pa.Table:
    """The whole insert: all parts, with the claim's own columns filled in."""
    table = pa.concat_tables(parts)
    same = (claim.incarnation, claim.partition, claim.number, claim.first)
    for index, value in enumerate(same):
        field = SCHEMA.field(index)
        table = table.set_column(index, field, pa.repeat(pa.scalar(value, field.type), len(table)))
    return table


def outcome_rows(outcomes: Mapping[str, int], reasons: Mapping[str, int]) -> pa.Table:
    """How many records ended in each way; nothing is a row too, but for `rejected`, whose reasons are its rows."""
    told = [(name, "", count) for name, count in outcomes.items() if count and name != "rejected"]
    told += [("rejected", reason, count) for reason, count in sorted(reasons.items())]
    names, whys, counts = ([line[i] for line in told] for i in range(3))
    columns = {
        "outcome": pl.Series(names, dtype=pl.String),
        "reason": pl.Series(whys, dtype=pl.String),
        "events": np.array(counts, np.uint64),
    }
    return rows(columns, np.ones(len(told), bool))


def _arrow(name: str, column: Any, kept: Array) -> pa.Array:
    kind = SCHEMA.field(name).type
    if isinstance(column, pl.Series):
        return column.filter(pl.Series(kept)).to_arrow().cast(kind)
    column = np.ascontiguousarray(column[kept])
    if name == "pseudonym":
        return pa.FixedSizeBinaryArray.from_buffers(kind, len(column), [None, pa.py_buffer(column)])
    if name == "expires":
        return pa.array(column, pa.int32()).cast(kind)
    return pa.array(column, kind)


def _empty(kind: pa.DataType, rows: int) -> pa.Array:
    """A column of zeros, or of empty strings: whatever the type, its buffers are zeros."""
    width = 32 if kind == pa.string() else kind.bit_width
    zeros = pa.py_buffer(bytes((rows + 1) * width // 8))  # strings: one offset more than there are rows
    return pa.Array.from_buffers(kind, rows, [None, zeros, pa.py_buffer(b"")] if kind == pa.string() else [None, zeros])
