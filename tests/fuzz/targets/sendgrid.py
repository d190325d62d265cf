"""SendGrid's bodies."""

from __future__ import annotations

from collections.abc import Iterator

from tests.fuzz.feeds import check_body, seeds_of

LISTED = frozenset(
    ["email", "timestamp", "event", "category", "mailing", "sg_event_id", "sg_machine_open", "useragent", "ip", "url"]
)
WORDS = (*{name for place in LISTED for name in place.split(".")}, "open", "click", "unsubscribe", "delivered")


def seeds() -> Iterator[bytes]:
    yield from seeds_of("sendgrid")


def check(data: bytes) -> None:
    check_body("sendgrid", data, LISTED)
