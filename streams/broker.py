"""Asking a broker, and reading a topic once from its beginning to its end: for commands, never for the hot path.

kafka-python's errors quote what they met, so nothing of them gets out of here: a BrokerError says the address, what was
being done and the type of the error.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType

from streams.errors import BrokerError, SchleuseError

CLIENT = "schleuse"
CONNECT_MS = 10_000
QUIET_SECONDS = 10.0  # a partition that has more to give and gives nothing for this long does not answer
MARKERS = 10_000  # more than so many offsets behind are records, or will soon be read
_UNKNOWN_TOPIC = 3


class Described(NamedTuple):
    """A topic as the broker has it; `configs` are those that it tells."""

    partitions: int
    replication: int
    id: str | None
    configs: Mapping[str, str]

    @property
    def is_kafka(self) -> bool:
        """Whether this is Apache Kafka or as good: it tells its defaults too. Tansu tells what it was given only."""
        return "segment.bytes" in self.configs


@contextmanager
def told(broker: str, doing: str) -> Iterator[None]:
    """Whatever Kafka's library raises inside becomes a BrokerError that quotes nothing of it; ours stays as it is."""
    try:
        yield
    except SchleuseError:
        raise
    except Exception as error:
        raise BrokerError(f"Kafka at {broker} did not answer ({doing}: {type(error).__name__})") from None


@contextmanager
def admin(broker: str, doing: str) -> Iterator[KafkaAdminClient]:
    """An admin client for one errand. Raises BrokerError."""
    with told(broker, doing):
        client = KafkaAdminClient(
            bootstrap_servers=broker.split(","), client_id=CLIENT, bootstrap_timeout_ms=CONNECT_MS
        )
        try:
            yield client
        finally:
            client.close()


def describe(client: KafkaAdminClient, names: Sequence[str]) -> dict[str, Described]:
    """The topics that are there, by name. Raises kafka-python's errors: use it inside `admin`."""
    there = [one for one in client.describe_topics(list(names)) if one["error_code"] != _UNKNOWN_TOPIC]
    if not there:
        return {}
    wrong = next((one for one in there if one["error_code"]), None)
    if wrong is not None:
        raise BrokerError(f"Kafka cannot describe {wrong['name']} (error code {wrong['error_code']})")
    resources = [ConfigResource(ConfigResourceType.TOPIC, one["name"]) for one in there]
    configs = client.describe_configs(resources, config_filter="all").get("topic", {})
    return {
        one["name"]: Described(
            partitions=len(one["partitions"]),
            replication=len(one["partitions"][0]["replica_nodes"]) if one["partitions"] else 0,
            id=str(one["topic_id"]) if one["topic_id"] else None,
            configs={key: str(of["value"]) for key, of in configs.get(one["name"], {}).items()},
        )
        for one in there
    }


def read_all(broker: str, topic: str) -> Iterator[Any]:
    """Every record (kafka-python's ConsumerRecord) that lay in `topic` when it was asked, by partition in offset order.

    The end is the high-water mark of a fetch: Tansu answers ListOffsets with the last batch's first offset plus one. A
    caller may NOT assume an order between partitions. Raises BrokerError, also when there is no such topic.
    """
    with _consumer(broker, f"reading {topic}") as consumer:
        yield from _read(consumer, broker, _partitions(consumer, broker, topic))


def read_partition(broker: str, topic: str, partition: int, wanted: Callable[[bytes], bool]) -> Iterator[Any]:
    """The records whose keys are wanted that lay in one partition of `topic` when it was asked, in offset order.

    The whole partition is read, and no other record of it is kept. Raises BrokerError, also when there is no such
    partition.
    """
    with _consumer(broker, f"reading {topic}") as consumer:
        here = [tp for tp in _partitions(consumer, broker, topic) if tp.partition == partition]
        if not here:
            raise BrokerError(f"Kafka at {broker} has no partition {partition} of {topic}")
        yield from (one for one in _read(consumer, broker, here) if one.key is not None and wanted(one.key))


def _read(consumer: KafkaConsumer, broker: str, partitions: Sequence[TopicPartition]) -> Iterator[Any]:
    """All records of some partitions of one topic, up to their ends as they are now."""
    topic = partitions[0].topic
    consumer.assign(partitions)
    begins = consumer.beginning_offsets(partitions)
    for tp in partitions:
        consumer.seek(tp, begins[tp])
    last = _ends(consumer, partitions)
    for tp in partitions:
        consumer.seek(tp, begins[tp])
    waiting = {tp for tp in partitions if begins[tp] < last[tp]}
    quiet = time.monotonic()
    while waiting:
        for tp, records in consumer.poll(timeout_ms=200, max_records=5000).items():
            quiet = time.monotonic()
            yield from (record for record in records if record.offset < last[tp])
        waiting = {tp for tp in waiting if consumer.position(tp) < last[tp]}
        if time.monotonic() - quiet > QUIET_SECONDS:
            raise BrokerError(f"Kafka at {broker} stopped giving records of {topic}")


def committed(client: KafkaAdminClient, group: str, topic: str, partitions: Iterable[int]) -> dict[int, int]:
    """The positions that a group has committed, by partition; none where it has not. Raises BrokerError."""
    found = client.list_group_offsets({group: [TopicPartition(topic, number) for number in partitions]}).get(group, {})
    return {tp.partition: position.offset for tp, position in found.items() if position.offset >= 0}


def is_committed(broker: str, client: KafkaAdminClient, group: str, topic: str, ends: Mapping[int, int]) -> bool:
    """Whether a group has committed everything of a topic up to the end of each partition, as `log_ends` told it.

    What lies after the committed position and is no record counts for nothing: a transaction leaves its marker in the
    log, an aborted one its records too, and nobody consumes those. Raises BrokerError.
    """
    wanted = {TopicPartition(topic, number): end for number, end in ends.items() if end}
    if not wanted:
        return True
    found = committed(client, group, topic, [tp.partition for tp in wanted])
    behind = {tp: found.get(tp.partition, -1) for tp in wanted}
    behind = {tp: offset for tp, offset in behind.items() if offset < wanted[tp]}
    if any(wanted[tp] - offset > MARKERS for tp, offset in behind.items() if offset >= 0):
        return False
    return not behind or not _holds_records(broker, topic, behind, wanted)


def _holds_records(
    broker: str, topic: str, begins: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int]
) -> bool:
    """Whether a record lies between two offsets of any partition; one that cannot be read to its end counts as one."""
    with _consumer(broker, f"reading {topic}", isolation_level="read_committed") as consumer:
        consumer.assign(list(begins))
        first = consumer.beginning_offsets(list(begins))
        for tp, offset in begins.items():
            consumer.seek(tp, max(offset, first[tp]))
        until = time.monotonic() + 2.0
        while time.monotonic() < until:
            for tp, records in consumer.poll(timeout_ms=200).items():
                if any(record.offset < ends[tp] for record in records):
                    return True
            if all(consumer.position(tp) >= ends[tp] for tp in begins):
                return False
        return True


def partition_count(broker: str, topic: str) -> int:
    """How many partitions the topic has. Raises BrokerError, also when there is no such topic."""
    with _consumer(broker, f"asking for the partitions of {topic}") as consumer:
        return len(_partitions(consumer, broker, topic))


def log_begins(broker: str, topic: str) -> dict[int, int]:
    """The offset of the first record that the log still has, by partition. Raises BrokerError."""
    with _consumer(broker, f"asking for the beginning of {topic}", at_once=1) as consumer:
        partitions = _partitions(consumer, broker, topic)
        return {tp.partition: begin for tp, begin in consumer.beginning_offsets(partitions).items()}


def log_ends(broker: str, topic: str) -> dict[int, int]:
    """The offset after the last record, by partition. Raises BrokerError, also when there is no such topic."""
    with _consumer(broker, f"asking for the end of {topic}", at_once=1) as consumer:
        partitions = _partitions(consumer, broker, topic)
        consumer.assign(partitions)
        return {tp.partition: end for tp, end in _ends(consumer, partitions).items()}


def _ends(consumer: KafkaConsumer, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
    """High-water marks, each as a fetch near the end tells it, and at least what ListOffsets says."""
    ends: dict[TopicPartition, int] = consumer.end_offsets(list(partitions))
    open_ones = {tp for tp in partitions if ends[tp] > 0}
    for tp in open_ones:
        consumer.seek(tp, ends[tp] - 1)
    deadline = time.monotonic() + QUIET_SECONDS
    told_by_fetch: dict[TopicPartition, int] = {}
    while open_ones - told_by_fetch.keys():
        if time.monotonic() > deadline:
            raise BrokerError("Kafka did not say how far its log goes")
        consumer.poll(timeout_ms=100, max_records=5000)
        told_by_fetch = {tp: mark for tp in open_ones if (mark := consumer.highwater(tp)) is not None}
    return {tp: max(end, told_by_fetch.get(tp, 0)) for tp, end in ends.items()}


@contextmanager
def _consumer(
    broker: str, doing: str, at_once: int = 4 << 20, isolation_level: str = "read_uncommitted"
) -> Iterator[KafkaConsumer]:
    """A consumer without a group. `at_once`: bytes a partition and fetch, but always a whole batch."""
    with told(broker, doing):
        consumer = KafkaConsumer(
            bootstrap_servers=broker.split(","),
            client_id=CLIENT,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level=isolation_level,
            bootstrap_timeout_ms=CONNECT_MS,
            max_partition_fetch_bytes=at_once,
            check_crcs=at_once > 1,  # in pure Python; of a mark's batch nothing is read
        )
        try:
            yield consumer
        finally:
            consumer.close()


def _partitions(consumer: KafkaConsumer, broker: str, topic: str) -> list[TopicPartition]:
    numbers = consumer.partitions_for_topic(topic)
    if not numbers:
        raise BrokerError(f"Kafka at {broker} has no topic {topic}: schleuse topics")
    return [TopicPartition(topic, number) for number in sorted(numbers)]
