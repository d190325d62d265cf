"""Amazon SES event publishing through SNS: the event is JSON text in `Message` of SNS's envelope.

https://docs.aws.amazon.com/ses/latest/dg/event-publishing-retrieving-sns-contents.html. SNS's `MessageId` is the same
in every try to deliver one event. A mail with several destinations says of none of them that it was the one: refused.
No address in an envelope (`SubscribeURL`, `SigningCertURL`) is ever fetched. Raw message delivery has no envelope and
no id: it has to be off.
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
    needed_text,
    text,
    withdrawal,
)
from streams.feed.items import EVENTS, PREFERENCES, FeedOptions, Ignored, Item, Message, Refused
from streams.strict_json import read_text, read_value

KINDS = {"Open": "open", "Click": "click"}
OTHER = {
    "Send": "send",
    "Delivery": "delivery",
    "Bounce": "bounce",
    "Complaint": "complaint",
    "Reject": "reject",
    "Rendering Failure": "rendering failure",
    "DeliveryDelay": "delivery delay",
    "Subscription": "subscription",
}
ENVELOPES = {
    "SubscriptionConfirmation": "subscription confirmation",
    "UnsubscribeConfirmation": "unsubscribe confirmation",
}
_FIRST_MESSAGE = "Successfully validated SNS topic for Amazon SES"  # plain text, once, when SES is set up
_OPTED_OUT = ("OptOut", "OPT_OUT")  # the first is documented, the second is met


def read(body: bytes, options: FeedOptions) -> list[Item]:
    """One body, one item. Raises nothing."""
    try:
        return [_read(checked_object(read_value(body), "one object"), options)]
    except BadRow as refusal:
        return [Refused(refusal)]


def _read(envelope: dict[str, Any], options: FeedOptions) -> Item:
    kind_of_envelope = needed_text(envelope, "Type", "kind")
    if kind_of_envelope in ENVELOPES:
        return Ignored(ENVELOPES[kind_of_envelope])
    if kind_of_envelope != "Notification":
        raise BadRow(Reason.UNKNOWN_KIND, "kind", "Type: one that SNS documents")
    packed = needed_text(envelope, "Message", "kind")
    if packed.startswith(_FIRST_MESSAGE):
        return Ignored("validation")
    report = checked_object(read_text(packed), "Message: one object")
    word = text(report, "eventType", "kind") or needed_text(report, "notificationType", "kind")
    mail = inner(report, "mail")
    if word == "Subscription" and options.withdraw and _is_withdrawal(inner(report, "subscription")):
        decided = needed_text(inner(report, "subscription"), "timestamp", "decided_at")
        return Message(PREFERENCES, withdrawal(options.tenant, _recipient(mail), decided, options.withdraw))
    if word in OTHER:
        return Ignored(OTHER[word])
    if word not in KINDS:
        raise BadRow(Reason.UNKNOWN_KIND, "kind", "eventType: one that SES documents")
    hit = inner(report, word.lower())
    return Message(
        EVENTS,
        event(
            event_id=fitting_id(needed_text(envelope, "MessageId", "event_id")),
            kind=KINDS[word],
            tenant=options.tenant,
            mailing=_mailing(inner(mail, "tags"), options.mailing),
            recipient=_recipient(mail),
            occurred_at=needed_text(hit, "timestamp", "occurred_at"),
            link=_link(inner(hit, "linkTags")),
            url=text(hit, "link", "url") if word == "Click" else None,
            user_agent=text(hit, "userAgent", "user_agent"),
            ip=text(hit, "ipAddress", "ip"),
            feed="ses",
        ),
    )


def _recipient(mail: dict[str, Any]) -> str:
    """The one destination. With a second one (copies stand here too) nobody knows which of them acted."""
    destinations = mail.get("destination")
    if destinations is None or destinations == []:
        raise BadRow(Reason.MISSING_FIELD, "recipient", "mail.destination")
    if not isinstance(destinations, list):
        raise BadRow(Reason.WRONG_TYPE, "recipient", "mail.destination: an array of strings")
    if len(destinations) > 1:
        raise BadRow(Reason.NOT_ATTRIBUTABLE, "recipient", "one destination a mail")
    return needed_text({"mail.destination": destinations[0]}, "mail.destination", "recipient")


def _mailing(tags: dict[str, Any], name: str) -> str:
    """The tag called `name`, else the only tag of the sender's own.

    With several, none is the first: tags have names here and no order, and another of them may name a person.
    """
    own = [values for tag, values in tags.items() if not tag.startswith("ses:")]
    return mailing(_first(tags.get(name)), _first(own[0]) if len(own) == 1 else None, f"mail.tags.{name}, or one tag")


def _link(link_tags: dict[str, Any]) -> str | None:
    """The link's id: the tag called `link`, else the only one. Without, the URL decides."""
    found = _first(link_tags.get("link") or (next(iter(link_tags.values())) if len(link_tags) == 1 else None))
    return text({"linkTags": found}, "linkTags", "link")


def _first(values: Any) -> Any:
    """A tag's first value; SES has an array for every tag."""
    if isinstance(values, list):
        return values[0] if values else None
    return values


def _is_withdrawal(subscription: dict[str, Any]) -> bool:
    """Whether the recipient has left a topic that she was on, or all of them. Coming back is none."""
    new, old = inner(subscription, "newTopicPreferences"), inner(subscription, "oldTopicPreferences")
    return new.get("unsubscribeAll") is True or bool(_opted_out(new) - _opted_out(old))


def _opted_out(preferences: dict[str, Any]) -> set[str]:
    topics = preferences.get("topicSubscriptionStatus")
    return {
        str(topic.get("topicName"))
        for topic in (topics if isinstance(topics, list) else [])
        if isinstance(topic, dict) and topic.get("subscriptionStatus") in _OPTED_OUT
    }
