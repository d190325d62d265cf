"""Mailgun's webhooks: one event in `event-data` (https://documentation.mailgun.com/docs/mailgun/user-manual/events).

`signature` beside it is not looked at: a file has no sender to be sure of; whoever receives the webhook checks it.
`client-info.bot` is Mailgun's word: `apple` (prefetch), `generic` (a scanner), `gmail`. The last is Google's image
proxy, which fetches when a person opens: it is not taken as a machine, and our own rules decide.
"""

from __future__ import annotations

from typing import Any

from streams.errors import BadRow, Reason
from streams.feed.body import (
    checked_object,
    event,
    fitting_id,
    inner,
    mailing,
    milliseconds,
    needed_text,
    text,
    withdrawal,
)
from streams.feed.items import EVENTS, PREFERENCES, FeedOptions, Ignored, Item, Message, Refused
from streams.strict_json import read_value

KINDS = {"opened": "open", "clicked": "click"}
OTHER = frozenset(
    (
        "accepted",
        "rejected",
        "delivered",
        "failed",
        "complained",
        "unsubscribed",
        "stored",
        "list_member_uploaded",
        "list_member_upload_error",
        "list_uploaded",
    )
)
_NO_MACHINE = (None, False, "", "gmail")


def read(body: bytes, options: FeedOptions) -> list[Item]:
    """One body, one item. Raises nothing."""
    try:
        return [_read(inner(checked_object(read_value(body), "one object"), "event-data"), options)]
    except BadRow as refusal:
        return [Refused(refusal)]


def _read(hit: dict[str, Any], options: FeedOptions) -> Item:
    word = text(hit, "event", "kind")
    if word is None:
        raise BadRow(Reason.MISSING_FIELD, "kind", "event-data.event")
    if word == "unsubscribed" and options.withdraw:
        decided = milliseconds(hit, "timestamp", "decided_at")
        fields = withdrawal(options.tenant, needed_text(hit, "recipient", "recipient"), decided, options.withdraw)
        return Message(PREFERENCES, fields)
    if word in OTHER:
        return Ignored(word)
    if word not in KINDS:
        raise BadRow(Reason.UNKNOWN_KIND, "kind", "event: one that Mailgun documents")
    place = f"user-variables.{options.mailing}, or tags"
    asked_by = inner(hit, "client-info")
    return Message(
        EVENTS,
        event(
            event_id=fitting_id(needed_text(hit, "id", "event_id")),
            kind=KINDS[word],
            tenant=options.tenant,
            mailing=mailing(inner(hit, "user-variables").get(options.mailing), hit.get("tags"), place),
            recipient=needed_text(hit, "recipient", "recipient"),
            occurred_at=milliseconds(hit, "timestamp", "occurred_at"),
            url=text(hit, "url", "url") if word == "clicked" else None,
            user_agent=text(asked_by, "user-agent", "user_agent"),
            ip=text(hit, "ip", "ip"),
            actor=None if asked_by.get("bot") in _NO_MACHINE else "machine",
            feed="mailgun",
        ),
    )
