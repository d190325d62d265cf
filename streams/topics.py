"""The topics as data, and making them so.

Kafka holds addresses and tracking data for as long as its retention says: it is a third store, and this table is what
the record of processing says about it. Every topic has the broker's time on its records (LogAppendTime): retention,
compaction, duplicates within 24 h and arrival must not depend on a sender's clock. Nothing is made by itself: a topic
made with another partition count would put a recipient's events and preferences on two workers.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kafka import TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType

from streams import broker
from streams.broker import Described, admin, describe, log_ends
from streams.errors import BrokerError

if TYPE_CHECKING:
    from streams.settings import Settings

EVENTS = "tracking.events"
PREFERENCES = "tracking.preferences"
REQUESTS = "tracking.requests"
MAILINGS = "tracking.mailings"
CHANGES = "tracking.changes"
STATE = "tracking.state"
REJECTED = "tracking.rejected"
RECEIPTS = "tracking.receipts"

HOUR_MS, DAY_MS = 3_600_000, 86_400_000
NO_LIMIT = -1
_APPEARS_SECONDS = 5.0  # a topic just made may be unknown for some milliseconds
_COMMON = {"message.timestamp.type": "LogAppendTime", "retention.bytes": "-1"}


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic as it shall be. `personal`: holds addresses, or what is sealed from them."""

    name: str
    partitions: int
    replication: int
    configs: Mapping[str, str]
    written_by: str
    read_by: str
    personal: bool
    why: str


def topics(settings: Settings) -> tuple[Topic, ...]:
    """The table of topics, for these settings."""
    keyed, copies = settings.partitions, settings.replication
    safe = {"min.insync.replicas": "2"} if copies >= 3 else {}

    def topic(name: str, partitions: int, retention_ms: int, by: str, to: str, personal: bool, why: str) -> Topic:
        configs = {
            **_COMMON,
            **safe,
            "cleanup.policy": "delete",
            "retention.ms": str(retention_ms),
            **_OWN.get(name, {}),
        }
        return Topic(name, partitions, copies, configs, by, to, personal, why)

    events_ms = settings.events_retention_hours * HOUR_MS
    return (
        topic(EVENTS, keyed, events_ms, "senders", "workers", True, "long enough to outlive an outage"),
        topic(PREFERENCES, keyed, 7 * DAY_MS, "senders", "workers", True, "no withdrawal may be lost in a long outage"),
        topic(
            REQUESTS,
            keyed,
            7 * DAY_MS,
            "senders, rights",
            "workers, rights",
            True,
            "no request may be lost in a long outage",
        ),
        topic(MAILINGS, 1, NO_LIMIT, "senders", "workers", False, "read whole by every worker; claims name positions"),
        topic(
            CHANGES,
            keyed,
            NO_LIMIT,
            "workers, rights",
            "workers",
            True,
            "trimmed by the partition's owner, never by time",
        ),
        topic(
            STATE, keyed, NO_LIMIT, "workers", "workers, rights", True, "compacted: the last word of every recipient"
        ),
        topic(REJECTED, keyed, 14 * DAY_MS, "workers", "operators", True, "as long as the key of the day opens it"),
        topic(
            RECEIPTS, keyed, NO_LIMIT, "workers, rights", "senders", False, "proof without an address (Art. 5(2) GDPR)"
        ),
    )


_OWN: dict[str, dict[str, str]] = {
    # Above the 1 MB that an event may have: too large a record becomes a rejection, not only its producer's error.
    # Retention lets go of whole segments: a segment of half an hour keeps an event at most that much longer.
    EVENTS: {"max.message.bytes": str(2 << 20), "segment.ms": str(HOUR_MS // 2)},
    PREFERENCES: {"max.message.bytes": str(2 << 20), "segment.ms": str(HOUR_MS)},
    REQUESTS: {"segment.ms": str(HOUR_MS)},
    MAILINGS: {"max.message.bytes": str(2 << 20)},
    # What was trimmed leaves the disk when its segment is over: salts must not lie in it for a week.
    CHANGES: {"max.message.bytes": str(2 << 20), "segment.ms": str(HOUR_MS)},
    STATE: {
        "cleanup.policy": "compact",
        "min.compaction.lag.ms": str(HOUR_MS),
        "max.compaction.lag.ms": str(DAY_MS),
        "segment.ms": str(DAY_MS),
        "delete.retention.ms": str(DAY_MS),
        "max.message.bytes": str(2 << 20),
    },
    REJECTED: {"segment.ms": str(DAY_MS)},
}
NAMES = (EVENTS, PREFERENCES, REQUESTS, MAILINGS, CHANGES, STATE, REJECTED, RECEIPTS)


KEPT_DAYS = 14  # a sealed rejection can be opened for this long: then the key of its day is destroyed


def withdrawn_after_ms(settings: Settings) -> int:
    """How long after a withdrawal its bytes have left the topics and the stores' old parts, backups included.

    What events say of her stays as long as events do; her old state goes within segment.ms + max.compaction.lag.ms.
    """
    return max(settings.events_retention_hours * HOUR_MS, 2 * DAY_MS) + HOUR_MS + settings.backups_days * DAY_MS


def erased_after_ms(settings: Settings) -> int:
    """How long after an erasure nothing of hers is left: as `withdrawn_after_ms`, and what she and her sender have said
    lies in tracking.preferences and tracking.requests for a week and a segment, what was refused of hers under the
    key of its day."""
    said, refused = 7 * DAY_MS + HOUR_MS, (KEPT_DAYS + 1) * DAY_MS
    return max(withdrawn_after_ms(settings), max(said, refused) + HOUR_MS + settings.backups_days * DAY_MS)


# --- the plan ---


@dataclass(frozen=True, slots=True)
class Create:
    """The topic is missing and will be made."""

    topic: Topic


@dataclass(frozen=True, slots=True)
class Alter:
    """The topic is there with other configs: (name, value now, value wanted) each."""

    name: str
    changes: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True, slots=True)
class Unknown:
    """The topic is there; its configs cannot be asked for at this broker."""

    name: str


@dataclass(frozen=True, slots=True)
class Wrong:
    """The topic is there with another partition count, which cannot be changed."""

    name: str
    there: int
    wanted: int


Action = Create | Alter | Unknown | Wrong


def plan(existing: Mapping[str, Described], wanted: Sequence[Topic]) -> list[Action]:
    """What has to be done so that `wanted` is what is there; nothing for a topic that is right already. Pure.

    Copies are not compared: moving replicas is the cluster's own business. Topics not in `wanted` are not ours.
    """
    actions: list[Action] = []
    for topic in wanted:
        there = existing.get(topic.name)
        if there is None:
            actions.append(Create(topic))
        elif there.partitions != topic.partitions:
            actions.append(Wrong(topic.name, there.partitions, topic.partitions))
        elif not there.configs:
            actions.append(Unknown(topic.name))
        else:
            configs = there.configs
            changes = [
                (key, configs.get(key, "not set"), value)
                for key, value in sorted(topic.configs.items())
                if configs.get(key) != value
            ]
            if changes:
                actions.append(Alter(topic.name, tuple(changes)))
    return actions


def look(settings: Settings) -> list[Action]:
    """The plan for the broker as it is now. Blocking. Raises BrokerError."""
    with admin(settings.broker, "looking at the topics") as client:
        return plan(describe(client, NAMES), topics(settings))


def create(settings: Settings, missing: Sequence[Topic]) -> None:
    """Make topics, and return when the broker knows them. Blocking. Raises BrokerError."""
    wanted = {
        topic.name: {
            "num_partitions": topic.partitions,
            "replication_factor": topic.replication,
            "configs": dict(topic.configs),
        }
        for topic in missing
    }
    with admin(settings.broker, f"making {', '.join(wanted)}") as client:
        client.create_topics(wanted)
        deadline = time.monotonic() + _APPEARS_SECONDS
        while set(wanted) - set(describe(client, list(wanted))):
            if time.monotonic() > deadline:
                raise BrokerError(f"Kafka at {settings.broker} took the topics but does not know them")
            time.sleep(0.05)


def alter(settings: Settings, actions: Sequence[Alter]) -> None:
    """Set configs of topics that exist. Blocking. Raises BrokerError."""
    with admin(settings.broker, "changing topics") as client:
        for action in actions:
            configs = {key: value for key, _, value in action.changes}
            client.alter_configs([ConfigResource(ConfigResourceType.TOPIC, action.name, configs)])


# --- what a worker asks ---


def topic_ids(settings: Settings) -> tuple[tuple[str, ...], bool]:
    """The ids of events, changes, state and mailings, which die with them; and whether ends of logs are lower bounds.

    Tansu answers for the end of a log the last batch's first offset plus one.
    Blocking. Raises BrokerError when a topic is missing, or the broker has no topic ids (Kafka has them since 2.8).
    """
    names = (EVENTS, CHANGES, STATE, MAILINGS)
    with admin(settings.broker, "asking for topic ids") as client:
        deadline = time.monotonic() + _APPEARS_SECONDS
        while missing := [name for name in names if name not in (found := describe(client, names))]:
            if time.monotonic() > deadline:
                raise BrokerError(f"Kafka at {settings.broker} has no topic {', '.join(missing)}: schleuse topics")
            time.sleep(0.1)
        ids = tuple(found[name].id or "" for name in names)
        if not all(ids):
            raise BrokerError(f"Kafka at {settings.broker} gives its topics no ids: Kafka 2.8 or later is needed")
        return ids, not found[EVENTS].is_kafka


def committed(settings: Settings, topic: str, partitions: Iterable[int]) -> dict[int, int]:
    """What the workers' group has committed, by partition; nothing of one where it never has. Blocking.

    Raises BrokerError.
    """
    with admin(settings.broker, "asking for committed offsets") as client:
        return broker.committed(client, settings.group, topic, partitions)


def trim(settings: Settings, topic: str, below: Mapping[int, int]) -> None:
    """Let the broker forget the records of `topic` below an offset, by partition (DeleteRecords).

    Does nothing at a broker that keeps its log in memory only: Tansu drops the connection at the question. Blocking.
    Raises BrokerError.
    """
    wanted = {TopicPartition(topic, partition): offset for partition, offset in below.items() if offset > 0}
    if not wanted:
        return
    with admin(settings.broker, f"trimming {topic}") as client:
        there = describe(client, [topic]).get(topic)
        if there is not None and there.is_kafka:
            client.delete_records(wanted)


def ends(settings: Settings, topic: str) -> dict[int, int]:
    """The offset after the last record of each partition; empty when the broker does not answer. Blocking."""
    try:
        return log_ends(settings.broker, topic)
    except BrokerError:
        return {}
