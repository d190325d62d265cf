"""What a body can hold, as a closed union, and what an adapter has to be told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from streams.errors import BadRow

Topic: TypeAlias = Literal["tracking.events", "tracking.preferences", "tracking.mailings"]
EVENTS: Topic = "tracking.events"
PREFERENCES: Topic = "tracking.preferences"
MAILINGS: Topic = "tracking.mailings"


@dataclass(frozen=True, slots=True)
class FeedOptions:
    """What the vendor's body does not say, or says where only the sender knows."""

    tenant: str | None
    """Whose events these are: vendors do not say. For our own format, None allows every tenant."""
    mailing: str = "mailing"
    """The sender's own field that names the mailing (`[acme.feed] mailing` in the tenants file)."""
    withdraw: Literal["off", "anonymous"] | None = None
    """The mode to which an unsubscribe lowers everything; None: an unsubscribe changes no preference."""
    topic: Topic = EVENTS
    """What the messages are; only our own format has others than events."""


@dataclass(frozen=True, slots=True, repr=False)
class Message:
    """A message in our own format, put together field by field. Not yet checked: `records.record` does that."""

    topic: Topic
    fields: dict[str, Any]

    def __repr__(self) -> str:
        return f"Message({self.topic}, ...)"


@dataclass(frozen=True, slots=True)
class Ignored:
    """Something that is neither an open nor a click. `what` is a word of our own list, never one from the body."""

    what: str


@dataclass(frozen=True, slots=True)
class Refused:
    """Something that should have been a message and cannot be one."""

    why: BadRow


Item: TypeAlias = Message | Ignored | Refused
