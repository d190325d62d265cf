"""One strict reading of JSON, for every message that is not on the hot path.

Strict means: UTF-8, no NaN or Infinity, no lone surrogate, at most `MAX_DEPTH` levels, at most `limit` bytes; objects
remember whether a name came twice. RFC 8259 leaves duplicates and surrogates to the reader; a reader that decides
about consent must not guess which of two values was meant.
"""

from __future__ import annotations

import json
from typing import Any, NoReturn

from streams.errors import BadRow, Reason

MAX_BYTES = 1_000_000
MAX_DEPTH = 64


class Pairs(dict[str, Any]):
    """A JSON object that remembers whether a name came twice. `repr` shows nothing of it: senders wrote it."""

    __slots__ = ("twice",)

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.twice = len(self) != len(pairs)

    def __repr__(self) -> str:
        return f"Pairs({len(self)} names)"


def _no_constant(_: str) -> NoReturn:
    raise ValueError


_DECODER = json.JSONDecoder(object_pairs_hook=Pairs, parse_constant=_no_constant)


def depth(raw: str) -> int:
    """Nesting depth of a JSON text, counted without recursion; brackets inside strings do not count."""
    deepest = level = 0
    in_string = escaped = False
    for char in raw:
        if in_string:
            if escaped:
                escaped = False
            elif char == "\\":
                escaped = True
            elif char == '"':
                in_string = False
        elif char == '"':
            in_string = True
        elif char in "{[":
            level += 1
            deepest = max(deepest, level)
        elif char in "}]":
            level -= 1
    return deepest


def read_text(text: str) -> Any:
    """Read one JSON value of any type; objects are `Pairs`, and nobody has looked whether a name came twice.

    Raises BadRow with `too_deep` or `not_json`; nothing else.
    """
    if text.count("{") + text.count("[") > MAX_DEPTH and depth(text) > MAX_DEPTH:
        raise BadRow(Reason.TOO_DEEP, None, f"at most {MAX_DEPTH} levels")
    try:
        value = _DECODER.decode(text)
        if "\\u" in text:  # the only way a lone surrogate gets into valid UTF-8
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError):  # a lone surrogate is a UnicodeEncodeError, and that a ValueError
        raise BadRow(Reason.NOT_JSON, None, "one JSON value") from None
    return value


def read_value(raw: bytes, limit: int = MAX_BYTES) -> Any:
    """`read_text` for bytes. Raises BadRow with `too_large`, `too_deep` or `not_json`; nothing else."""
    if len(raw) > limit:
        raise BadRow(Reason.TOO_LARGE, None, f"at most {limit} bytes")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise BadRow(Reason.NOT_JSON, None, "UTF-8") from None
    return read_text(text)


def read_object(raw: bytes | None, limit: int = MAX_BYTES) -> dict[str, Any]:
    """Read one JSON object, no name of it twice. Values are as `json` gives them: the caller checks every type.

    Raises BadRow with `tombstone` (None), `too_large`, `too_deep`, `not_json` or `duplicate_field`; nothing else.
    """
    if raw is None:
        raise BadRow(Reason.TOMBSTONE, None, "a value")
    value = read_value(raw, limit)
    if not isinstance(value, Pairs):
        raise BadRow(Reason.NOT_JSON, None, "one JSON object")
    if value.twice:
        raise BadRow(Reason.DUPLICATE_FIELD, None, "each name once")
    return value
