"""Mailgun's bodies."""

from __future__ import annotations

import json
from collections.abc import Iterator

from tests.fuzz.feeds import check_body, seeds_of

LISTED = frozenset(
    [
        "event-data.id",
        "event-data.event",
        "event-data.timestamp",
        "event-data.recipient",
        "event-data.ip",
        "event-data.url",
        "event-data.tags",
        "event-data.user-variables.mailing",
        "event-data.client-info.user-agent",
        "event-data.client-info.bot",
    ]
)
WORDS = (
    *{name for place in LISTED for name in place.split(".")},
    "opened",
    "clicked",
    "unsubscribed",
    "delivered",
    "apple",
    "gmail",
)


def seeds() -> Iterator[bytes]:
    yield from seeds_of("mailgun")
    hit = {"event": "unsubscribed", "timestamp": 1795000000.5, "recipient": "erika@example.com"}
    yield json.dumps({"event-data": hit}).encode()


def check(data: bytes) -> None:
    check_body("mailgun", data, LISTED)
