"""Runs of event records: the columns of `decode` against the plain `read_event`, record by record.

The input is a run: records with a form feed between them (it is in no JSON), an empty one being a tombstone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict

from streams.decode import SCHEMA, Event, decode, read_event
from streams.errors import BadRow
from tests.fuzz.samples import CLICK, NOW, OPEN

WORDS = (
    *CLICK,
    "open",
    "click",
    "2026-11-23T09:14:05.120+01:00",
    str(NOW),
    "human",
    "machine",
    "\\u006bind",
    "\\ud800",
)


def seeds() -> Iterator[bytes]:
    for message in (OPEN, CLICK, OPEN | {"occurred_at": NOW}, OPEN | {"x": {"kind": ["open"]}, "ip": None}):
        yield json.dumps(message, separators=(",", ":")).encode()
        yield json.dumps(message, ensure_ascii=False).encode()
    yield b"\x0c".join([json.dumps(OPEN).encode(), b"", json.dumps(CLICK).encode(), b"{"])


def check(data: bytes) -> None:
    values = [value or None for value in data.split(b"\x0c")]
    decoded = decode(values, NOW)
    assert dict(decoded.frame.schema) == SCHEMA
    fast: dict[int, object] = {row.pop("row"): row for row in decoded.frame.to_dicts()}
    refused = {row: (why.reason, why.field, why.expected) for row, why in decoded.bad}
    assert decoded.frame["row"].is_sorted()
    assert len(fast) == len(decoded.frame)
    assert len(refused) == len(decoded.bad)
    assert sorted([*fast, *refused]) == list(range(len(values))), "each record has one outcome"
    assert [fast.get(row, refused.get(row)) for row in range(len(values))] == [plainly(value) for value in values]


def plainly(value: bytes | None) -> object:
    """What the definition says of one record."""
    try:
        event = read_event(value, NOW)
    except BadRow as why:
        return why.reason, why.field, why.expected
    assert isinstance(event, Event)
    for text in (event.tenant, event.mailing, event.feed or ""):
        assert "@" not in text
    return asdict(event)
