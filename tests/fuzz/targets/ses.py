"""Bodies of Amazon SES, in SNS's envelope."""

from __future__ import annotations

import json
from collections.abc import Iterator

from tests.fuzz.feeds import check_body, seeds_of

LISTED = frozenset(
    [
        "Type",
        "MessageId",
        "Message.eventType",
        "Message.notificationType",
        "Message.mail.destination",
        "Message.mail.tags",
        "Message.open.ipAddress",
        "Message.open.timestamp",
        "Message.open.userAgent",
        "Message.open.linkTags",
        "Message.click.ipAddress",
        "Message.click.link",
        "Message.click.timestamp",
        "Message.click.userAgent",
        "Message.click.linkTags",
        "Message.subscription.timestamp",
        "Message.subscription.newTopicPreferences.unsubscribeAll",
        "Message.subscription.newTopicPreferences.topicSubscriptionStatus",
        "Message.subscription.oldTopicPreferences.topicSubscriptionStatus",
    ]
)
WORDS = (
    *{name for place in LISTED for name in place.split(".")},
    "Notification",
    "Open",
    "Click",
    "Subscription",
    "OptOut",
    "ses:x",
)


_SUBSCRIPTION = {
    "eventType": "Subscription",
    "mail": {"destination": ["erika@example.com"]},
    "subscription": {
        "timestamp": "2026-11-20T10:00:00Z",
        "newTopicPreferences": {
            "unsubscribeAll": False,
            "topicSubscriptionStatus": [{"topicName": "news", "subscriptionStatus": "OptOut"}],
        },
        "oldTopicPreferences": {"topicSubscriptionStatus": [{"topicName": "news", "subscriptionStatus": "OptIn"}]},
    },
}


def seeds() -> Iterator[bytes]:
    yield from seeds_of("ses")
    yield json.dumps({"Type": "Notification", "MessageId": "m", "Message": json.dumps(_SUBSCRIPTION)}).encode()


def check(data: bytes) -> None:
    check_body("ses", data, LISTED)
