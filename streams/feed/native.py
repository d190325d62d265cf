"""Our own format: a line is a message of `tracking.events` (or, when asked for, of preferences or mailings)."""

from __future__ import annotations

from typing import Any

from streams.errors import BadRow, Reason
from streams.feed.body import checked_object, has_twins
from streams.feed.items import EVENTS, MAILINGS, PREFERENCES, FeedOptions, Item, Message, Refused
from streams.strict_json import read_value

FIELDS = {
    EVENTS: (
        "event_id",
        "kind",
        "tenant",
        "mailing",
        "recipient",
        "occurred_at",
        "link",
        "url",
        "user_agent",
        "ip",
        "actor",
        "feed",
    ),
    PREFERENCES: ("tenant", "recipient", "decided_at", "purposes", "mode", "proof"),
    MAILINGS: ("tenant", "mailing", "name", "sent_at", "recipients", "links"),
}
"""The fields that are passed on, by topic. Others are allowed in a body and go nowhere."""


def read(body: bytes, options: FeedOptions) -> list[Item]:
    """One body, one item. Raises nothing."""
    try:
        given = checked_object(read_value(body), "one object")
        if options.tenant is not None and given.get("tenant") != options.tenant:
            raise BadRow(Reason.UNKNOWN_TENANT, "tenant", "the tenant that this feed is for")
        return [Message(options.topic, _picked(given, FIELDS[options.topic]))]
    except BadRow as refusal:
        return [Refused(refusal)]


def _picked(given: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """The fields of these names. None may hold a name twice: writing it out again would hide that."""
    picked = {name: given[name] for name in names if name in given}
    for name in [name for name, value in picked.items() if has_twins(value)]:
        if name != "proof":
            raise BadRow(Reason.DUPLICATE_FIELD, name, "each name once")
        del picked[name]  # a grant is then refused for having none, while a withdrawal needs none
    return picked
