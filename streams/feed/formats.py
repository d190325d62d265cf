"""The formats by name."""

from __future__ import annotations

from collections.abc import Callable

from streams.feed import mailgun, native, postmark, sendgrid, ses
from streams.feed.items import FeedOptions, Item

Read = Callable[[bytes, FeedOptions], list[Item]]
"""One body -> its items, at least one. Pure, and raises nothing whatever the bytes are."""

FORMATS: dict[str, Read] = {
    "native": native.read,
    "sendgrid": sendgrid.read,
    "mailgun": mailgun.read,
    "postmark": postmark.read,
    "ses": ses.read,
}
