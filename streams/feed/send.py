"""Records -> Kafka, with kafka-python: a plain producer, pipelined, in bounded memory.

`acks=all` and retries without the idempotent producer (not every broker has it): a retry may put a record on the topic
twice. That costs nothing: an event counts once by its `event_id`, and a preference or a declaration that comes twice
changes nothing the second time. A caller may NOT assume any order between records.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar

from kafka import KafkaAdminClient, KafkaProducer
from kafka.errors import KafkaError, MessageSizeTooLargeError

from streams.errors import BrokerError
from streams.feed.records import Record
from streams.partitioner import partition_of

DELIVERY_MS = 60_000
"""How long the broker may take to acknowledge a record, retries included."""
CONNECT_MS = 10_000
"""How long the broker may take to answer at all."""
MAX_WAITING, MAX_WAITING_BYTES = 10_000, 64_000_000
"""How much may be on its way before `send` waits for the oldest."""

Place = TypeVar("Place")


class Sender(Generic[Place]):
    """A connection for one run. `settled(place, sent)` is called once for every record, in the order of `send`."""

    def __init__(self, broker: str, topics: Iterable[str], settled: Callable[[Place, bool], None]) -> None:
        """Connect, and read how many partitions each topic has. `broker` is `host:port[,host:port]`.

        Raises BrokerError if the broker does not answer or a topic is not there; nothing is ever created.
        """
        self._settled = settled
        self._waiting: deque[tuple[Any, Place, int]] = deque()
        self._bytes = 0
        self.broken = False
        """Whether the broker has stopped taking records: `send` must not be called any more."""
        servers = broker.split(",")
        self._partitions = _partitions(servers, topics)
        try:
            self._producer = KafkaProducer(
                bootstrap_servers=servers,
                acks="all",
                enable_idempotence=False,
                allow_auto_create_topics=False,
                linger_ms=20,
                batch_size=1 << 17,
                delivery_timeout_ms=DELIVERY_MS,
                request_timeout_ms=DELIVERY_MS // 3,
                max_block_ms=DELIVERY_MS,
            )
        except KafkaError:
            raise BrokerError("the broker does not answer") from None

    def send(self, record: Record, place: Place) -> None:
        """Send one record to the partition of its key; waits while too much is on its way. Failures go to `settled`."""
        size = len(record.key) + len(record.value)
        while self._waiting and (
            self._waiting[0][0].is_done or len(self._waiting) >= MAX_WAITING or self._bytes + size > MAX_WAITING_BYTES
        ):
            self._settle_oldest()
        try:
            future = self._producer.send(
                record.topic,
                key=record.key,
                value=record.value,
                partition=partition_of(record.key, self._partitions[record.topic]),
            )
        except KafkaError as failure:
            self._drain()
            self._failed(failure, place)
            return
        self._waiting.append((future, place, size))
        self._bytes += size

    def close(self) -> None:
        """Wait until every record is acknowledged or given up, and disconnect."""
        if self._waiting:
            self._producer.flush(timeout=None)
        self._drain()
        self._producer.close(timeout=1)

    def _drain(self) -> None:
        while self._waiting:
            self._settle_oldest()

    def _settle_oldest(self) -> None:
        future, place, size = self._waiting.popleft()
        self._bytes -= size
        if future.is_done and future.succeeded():  # nearly always, and cheaper than `get`
            self._settled(place, True)
            return
        try:
            future.get(timeout=2 * DELIVERY_MS / 1000)
        except KafkaError as failure:
            self._failed(failure, place)
        else:
            self._settled(place, True)

    def _failed(self, failure: KafkaError, place: Place) -> None:
        """One record too large for the broker is its own affair; every other failure will meet the next one too."""
        self.broken = self.broken or not isinstance(failure, MessageSizeTooLargeError)
        self._settled(place, False)


def _partitions(servers: list[str], topics: Iterable[str]) -> dict[str, int]:
    wanted = sorted(topics)
    try:
        admin = KafkaAdminClient(bootstrap_servers=servers, bootstrap_timeout_ms=CONNECT_MS)
        try:
            found = admin.describe_topics(wanted)
        finally:
            admin.close()
    except KafkaError:
        raise BrokerError(f"no broker answers at {','.join(servers)}") from None
    counts = {topic["name"]: len(topic["partitions"]) for topic in found if topic["error_code"] == 0}
    missing = [topic for topic in wanted if not counts.get(topic)]
    if missing:
        raise BrokerError(f"the broker has no topic {' and no '.join(missing)}: create it with `schleuse topics`")
    return counts
