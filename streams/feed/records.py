"""A message of ours -> the record to send: checked, keyed, in bytes.

The check is the reading that the worker and intake will do (`read_event`, `parse_preference`, `parse_mailing`), so that
what they would reject later is refused here, where file and line are still known. It is a courtesy: producers other
than this one do not have to make it, and the worker makes it again, by its own clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from pseudonymizer.recipients import BadRecipient, canonical
from streams.decode import read_event
from streams.errors import BadRow, Reason
from streams.feed.items import EVENTS, PREFERENCES, Message, Topic
from streams.messages import Tenants, parse_mailing, parse_preference
from streams.partitioner import message_key


@dataclass(frozen=True, slots=True, repr=False)
class Record:
    """One record, ready to send to the partition that its key names."""

    topic: Topic
    key: bytes
    value: bytes

    def __repr__(self) -> str:
        return f"Record({self.topic}, ...)"


def record(message: Message, tenants: Tenants, now_ms: int) -> Record:
    """Check a message and key it. `now_ms` is the time against which the message's own times are judged.

    Raises BadRow and nothing else.
    """
    value = _encode(message.fields)
    if message.topic == EVENTS:
        event = read_event(value, now_ms)
        key = _recipient_key(event.tenant, event.recipient, tenants)
    elif message.topic == PREFERENCES:
        preference = parse_preference(value, tenants, now_ms)
        key = message_key(preference.tenant, preference.recipient)
    else:
        declaration = parse_mailing(value, tenants)
        key = message_key(declaration.tenant, declaration.mailing)
    return Record(message.topic, key, value)


def _encode(fields: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(fields)
    except TypeError:  # orjson.JSONEncodeError: an integer of more than 64 bits; its text may quote
        raise BadRow(Reason.BAD_VALUE, None, "integers of at most 64 bits") from None


def _recipient_key(tenant: str, recipient: str, tenants: Tenants) -> bytes:
    known = tenants.get(tenant)
    if known is None:
        raise BadRow(Reason.UNKNOWN_TENANT, "tenant", "a tenant of the settings in force")
    try:
        return message_key(tenant, canonical(recipient, known.lower_local))
    except BadRecipient:
        raise BadRow(Reason.BAD_RECIPIENT, "recipient", "an address or an id") from None
