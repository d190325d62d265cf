"""Postmark's webhooks: one record a body (https://postmarkapp.com/developer/webhooks/webhooks-overview).

Postmark gives its events no id. The same record type, message, recipient, second and link make the same event: a
webhook that comes twice counts once, and so do two hits that a person makes within one second. Only the address in
`Geo` is picked, for the rules that tell machines; place and client go nowhere.
"""

from __future__ import annotations

from typing import Any

from streams.errors import BadRow, Reason
from streams.feed.body import checked_object, event, inner, made_id, mailing, needed_text, text, withdrawal
from streams.feed.items import EVENTS, PREFERENCES, FeedOptions, Ignored, Item, Message, Refused
from streams.strict_json import read_value

KINDS = {"Open": "open", "Click": "click"}
OTHER = {
    "Delivery": "delivery",
    "Bounce": "bounce",
    "SpamComplaint": "spam complaint",
    "SMTPApiError": "api error",
    "Inbound": "inbound",
    "SubscriptionChange": "subscription change",
}


def read(body: bytes, options: FeedOptions) -> list[Item]:
    """One body, one item. Raises nothing."""
    try:
        return [_read(checked_object(read_value(body), "one object"), options)]
    except BadRow as refusal:
        return [Refused(refusal)]


def _read(record: dict[str, Any], options: FeedOptions) -> Item:
    word = needed_text(record, "RecordType", "kind")
    if word == "SubscriptionChange" and options.withdraw and _is_withdrawal(record):
        decided = needed_text(record, "ChangedAt", "decided_at")
        fields = withdrawal(options.tenant, needed_text(record, "Recipient", "recipient"), decided, options.withdraw)
        return Message(PREFERENCES, fields)
    if word in OTHER:
        return Ignored(OTHER[word])
    if word not in KINDS:
        raise BadRow(Reason.UNKNOWN_KIND, "kind", "RecordType: one that Postmark documents")
    message = needed_text(record, "MessageID", "event_id")
    recipient = needed_text(record, "Recipient", "recipient")
    received_at = needed_text(record, "ReceivedAt", "occurred_at")
    url = needed_text(record, "OriginalLink", "url") if word == "Click" else None
    place = f"Metadata.{options.mailing}, or Tag"
    return Message(
        EVENTS,
        event(
            event_id=made_id("postmark", word, message, recipient, received_at, url or ""),
            kind=KINDS[word],
            tenant=options.tenant,
            mailing=mailing(inner(record, "Metadata").get(options.mailing), record.get("Tag"), place),
            recipient=recipient,
            occurred_at=received_at,
            url=url,
            user_agent=text(record, "UserAgent", "user_agent"),
            ip=text(inner(record, "Geo"), "IP", "ip"),
            feed="postmark",
        ),
    )


def _is_withdrawal(record: dict[str, Any]) -> bool:
    """Whether the recipient wants no more mail. A hard bounce suppresses too, but nobody has decided anything then."""
    return record.get("SuppressSending") is True and record.get("SuppressionReason") != "HardBounce"
