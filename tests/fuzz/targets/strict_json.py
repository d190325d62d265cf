"""The strict reading of JSON against the library it stands on, and against a second one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import orjson

from streams.errors import BadRow, Reason
from streams.strict_json import MAX_DEPTH, Pairs, read_object, read_value
from tests.fuzz.samples import CLICK, MAILING, PREFERENCE

WORDS = (
    "null",
    "true",
    "false",
    "NaN",
    "Infinity",
    "\\ud800",
    "\\ud83d\\ude00",
    "1e999",
    "-0",
    '{"a":1,"a":2}',
    "[[[[",
)
REASONS = (Reason.TOO_LARGE, Reason.TOO_DEEP, Reason.NOT_JSON)


def seeds() -> Iterator[bytes]:
    for message in (CLICK, MAILING, PREFERENCE, [1, -2.5e3, None, True, "ü\N{GRINNING FACE}"]):
        yield json.dumps(message).encode()
        yield json.dumps(message, ensure_ascii=False, indent=1).encode()
    yield b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1)
    yield b'{"a":{"b":1,"b":2},"\\ud800":0}'


def check(data: bytes) -> None:
    try:
        value = read_value(data)
    except BadRow as why:
        assert why.reason in REASONS
        assert why.field is None
        assert why.__cause__ is None, "the library's text quotes what was sent"
        value = None
        taken = False
    else:
        taken = True
        assert value == json.loads(data.decode())
        json.dumps(value, ensure_ascii=False).encode(), "what is taken can be written again"
        assert _depth(value) <= MAX_DEPTH
    try:
        other = orjson.loads(data)
    except orjson.JSONDecodeError:
        pass  # it also refuses numbers without end, which Python reads as infinite
    else:
        assert taken or _depth(other) > MAX_DEPTH or b"\\u" in data, "good JSON was refused"
    try:
        record = read_object(data)
    except BadRow as why:
        assert why.reason in (*REASONS, Reason.DUPLICATE_FIELD)
        if taken:
            assert not isinstance(value, Pairs) or value.twice
    else:
        assert isinstance(value, Pairs)
        assert not value.twice
        assert record == value


def _depth(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(_depth, value.values()), default=0)
    return 1 + max(map(_depth, value), default=0) if isinstance(value, list) else 0
