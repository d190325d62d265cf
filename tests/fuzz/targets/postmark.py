"""Postmark's bodies."""

from __future__ import annotations

from collections.abc import Iterator

from tests.fuzz.feeds import check_body, seeds_of

LISTED = frozenset(
    [
        "RecordType",
        "MessageID",
        "Recipient",
        "ReceivedAt",
        "ChangedAt",
        "Tag",
        "Metadata.mailing",
        "UserAgent",
        "Geo.IP",
        "OriginalLink",
        "SuppressSending",
        "SuppressionReason",
    ]
)
WORDS = (
    *{name for place in LISTED for name in place.split(".")},
    "Open",
    "Click",
    "SubscriptionChange",
    "HardBounce",
    "Metadata",
    "Geo",
    "true",
)


def seeds() -> Iterator[bytes]:
    yield from seeds_of("postmark")


def check(data: bytes) -> None:
    check_body("postmark", data, LISTED)
