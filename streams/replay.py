"""Sending rejected records again, where they belong.

A record that lay on the wrong partition is sent under the key made from its body; one that was refused for anything
else goes the same way, and may be refused again. What was sent again is noted in tracking.rejected: beyond the 24 h in
which an event id is known, a second time would count twice.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from kafka import KafkaProducer

from pseudonymizer.recipients import BadRecipient, canonical
from pseudonymizer.sealing import SealBroken
from streams.broker import read_all, told
from streams.errors import BadRow, SchleuseError
from streams.partitioner import message_key, partition_of
from streams.rejections import Listed, Rejection, Replayed, Stage, gather, open_content
from streams.strict_json import read_object
from streams.tenants import TenantSettings
from streams.topics import MAILINGS, REJECTED

ACK_SECONDS = 30.0


class CannotReplay(SchleuseError):
    """A record cannot be sent again. The text says why in a few fixed words, never a value of it."""


@dataclass(frozen=True, slots=True)
class Again:
    """A record that can be sent again: where to, and what (never in a repr)."""

    rejection: Rejection
    partition: int
    key: bytes | None = field(repr=False)
    value: bytes | None = field(repr=False)


def listed(broker: str) -> tuple[dict[str, Listed], int]:
    """Every rejection in the topic once, oldest first; and how many records were none. Raises BrokerError."""
    return gather([record.value for record in read_all(broker, REJECTED)])


def prepare(
    rejection: Rejection, day_key: bytes | None, tenants: Mapping[str, TenantSettings], partitions: int
) -> Again:
    """The record to send again. `day_key` None: that key is destroyed. Raises CannotReplay."""
    if rejection.sealed is None:
        raise CannotReplay("its content was too large to keep")
    if day_key is None:
        raise CannotReplay("the key of its day is destroyed")
    try:
        key, value = open_content(day_key, rejection.sealed, rejection.id)
    except SealBroken:
        raise CannotReplay("its seal does not open") from None
    if rejection.topic == MAILINGS:
        return Again(rejection, 0, key, value)
    if rejection.stage is Stage.CHANGES:  # our own writing: it lies where its key says
        return Again(rejection, rejection.partition, key, value)
    right = _right_key(value, tenants)
    return Again(rejection, partition_of(right, partitions), right, value)


def _right_key(value: bytes | None, tenants: Mapping[str, TenantSettings]) -> bytes:
    """The key that a message about a recipient must have, from its body."""
    try:
        found = read_object(value)
    except BadRow as why:
        raise CannotReplay(f"it cannot be read: {why.reason}") from None
    name, recipient = found.get("tenant"), found.get("recipient")
    tenant = tenants.get(name) if isinstance(name, str) else None
    if tenant is None:
        raise CannotReplay("its tenant is not in the settings in force")
    if not isinstance(recipient, str):
        raise CannotReplay("it has no recipient")
    try:
        return message_key(tenant.name, canonical(recipient, tenant.lower_local))
    except BadRecipient:
        raise CannotReplay("its recipient is no address or id") from None


def send(broker: str, again: Sequence[Again], done: Callable[[Again], None]) -> None:
    """Send each record, then note it. Raises BrokerError; what was noted until then stays sent."""
    with told(broker, "sending again"):
        producer = KafkaProducer(
            bootstrap_servers=broker.split(","),
            acks="all",
            enable_idempotence=False,  # the embedded broker has none; an event sent twice has the same id
            max_request_size=4 << 20,
        )
        try:
            for one in again:
                sent = producer.send(one.rejection.topic, key=one.key, value=one.value, partition=one.partition)
                at = sent.get(ACK_SECONDS)
                note = Replayed(one.rejection.id, int(time.time() * 1000), at.topic, at.partition, at.offset)
                producer.send(REJECTED, key=note.rejection_id.encode(), value=note.encode()).get(ACK_SECONDS)
                done(one)
        finally:
            producer.close()
