"""Our own format: what an adapter lets through is what the worker, intake and the declarations will take."""

from __future__ import annotations

import json
from collections.abc import Iterator

from streams.errors import BadRow
from streams.feed.items import EVENTS, FeedOptions, Message
from streams.feed.native import FIELDS, read
from streams.feed.records import record
from tests.fuzz.feeds import check_body
from tests.fuzz.samples import CLICK, MAILING, NOW, OPEN, PREFERENCE, TENANTS, WITHDRAWAL

WORDS = tuple({name for names in FIELDS.values() for name in names})


def seeds() -> Iterator[bytes]:
    for message in (OPEN, CLICK, PREFERENCE, WITHDRAWAL, MAILING):
        yield json.dumps(message).encode()


def check(data: bytes) -> None:
    check_body("native", data, frozenset(FIELDS[EVENTS]))
    for topic, names in FIELDS.items():
        (item,) = read(data, FeedOptions(None, topic=topic))
        (own,) = read(data, FeedOptions("acme", topic=topic))
        if isinstance(item, Message):
            assert item.topic == topic
            assert set(item.fields) <= set(names)
            assert isinstance(own, Message) == (item.fields.get("tenant") == "acme")
            try:
                sent = record(item, TENANTS, NOW)
            except BadRow:
                continue
            assert sent.key.startswith(item.fields["tenant"].encode() + b"\x1f")
