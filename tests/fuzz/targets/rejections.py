"""Rejections: what is read comes back as it was; whatever else lies in the topic is counted as strange, and no more."""

from __future__ import annotations

from collections.abc import Iterator

from streams.errors import Reason
from streams.rejections import NotARejection, Rejection, Replayed, Stage, gather, parse

WORDS = (
    "rejection_id",
    "at",
    "stage",
    "reason",
    "source",
    "topic",
    "partition",
    "offset",
    "replayed_to",
    "sealed",
    "key_id",
)
AT = 1_795_500_000_123


def seeds() -> Iterator[bytes]:
    for sealed, key_id in ((None, None), (b"sealed", "2026-11-24")):
        where = ("tracking.events", 1, 7, AT, Stage.EVENTS)
        yield Rejection(*where, Reason.NOT_JSON, None, "one JSON object", 30, sealed, key_id).encode()
    yield Replayed("tracking.events:1:7", AT, "tracking.events", 1, 99).encode()


def check(data: bytes) -> None:
    listed, strange = gather([data, None])
    try:
        read = parse(data)
    except NotARejection as why:
        assert why.__cause__ is None
        assert strange == 2
        return
    assert parse(read.encode()) == read
    if isinstance(read, Rejection):
        assert list(listed) == [read.id]
        assert strange == 1
        assert all(isinstance(text, str | None) for text in (read.field, read.expected, read.key_id))
