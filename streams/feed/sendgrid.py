"""SendGrid's Event Webhook: an array of events (https://www.twilio.com/docs/sendgrid/for-developers/tracking-events/event).

Custom arguments of the sender lie among SendGrid's own names, at the top level of an event: one of them may name the
mailing, all others go nowhere. `sg_machine_open` is SendGrid's word that Apple's prefetch opened.
"""

from __future__ import annotations

from typing import Any

from streams.errors import BadRow, Reason
from streams.feed.body import (
    checked_object,
    event,
    fitting_id,
    mailing,
    milliseconds,
    needed_text,
    text,
    withdrawal,
)
from streams.feed.items import EVENTS, PREFERENCES, FeedOptions, Ignored, Item, Message, Refused
from streams.strict_json import read_value

OTHER = frozenset(
    (
        "processed",
        "dropped",
        "deferred",
        "delivered",
        "bounce",
        "blocked",
        "spamreport",
        "unsubscribe",
        "group_unsubscribe",
        "group_resubscribe",
        "account_status_change",
    )
)
WITHDRAWALS = frozenset(("unsubscribe", "group_unsubscribe"))
PERSONAL = frozenset(
    (
        "email",
        "ip",
        "useragent",
        "url",
        "timestamp",
        "event",
        "sg_event_id",
        "sg_message_id",
        "smtp-id",
        "response",
        "reason",
    )
)
"""SendGrid's own names that say something about a recipient: none of them can be the sender's field for the mailing."""


def read(body: bytes, options: FeedOptions) -> list[Item]:
    """As many items as the array has elements, an empty array being one; a single event may come without its array.

    Raises nothing. A body that is no JSON is one refusal; a bad element costs only itself.
    """
    try:
        found = read_value(body)
    except BadRow as refusal:
        return [Refused(refusal)]
    if found == []:
        return [Ignored("empty")]
    return [_item(element, options) for element in (found if isinstance(found, list) else [found])]


def _item(element: Any, options: FeedOptions) -> Item:
    try:
        return _read(checked_object(element, "events as objects"), options)
    except BadRow as refusal:
        return Refused(refusal)


def _read(hit: dict[str, Any], options: FeedOptions) -> Item:
    word = needed_text(hit, "event", "kind")
    if word in WITHDRAWALS and options.withdraw:
        decided = milliseconds(hit, "timestamp", "decided_at")
        fields = withdrawal(options.tenant, needed_text(hit, "email", "recipient"), decided, options.withdraw)
        return Message(PREFERENCES, fields)
    if word in OTHER:
        return Ignored(word)
    if word not in ("open", "click"):
        raise BadRow(Reason.UNKNOWN_KIND, "kind", "event: one that SendGrid documents")
    if options.mailing in PERSONAL:
        raise BadRow(Reason.BAD_VALUE, "mailing", "a custom argument, not a name of SendGrid's own")
    return Message(
        EVENTS,
        event(
            event_id=fitting_id(needed_text(hit, "sg_event_id", "event_id")),
            kind=word,
            tenant=options.tenant,
            mailing=mailing(hit.get(options.mailing), hit.get("category"), f"{options.mailing}, or category"),
            recipient=needed_text(hit, "email", "recipient"),
            occurred_at=milliseconds(hit, "timestamp", "occurred_at"),
            url=text(hit, "url", "url") if word == "click" else None,
            user_agent=text(hit, "useragent", "user_agent"),
            ip=text(hit, "ip", "ip"),
            actor="machine" if hit.get("sg_machine_open") is True else None,
            feed="sendgrid",
        ),
    )
