"""Reading topics to their end and on, outside the consumer group.

The state topic and tracking.mailings are read whole by whoever needs them. The connections are their own: they do not
queue behind Faust's long poll, its flow control or its recovery.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import IllegalStateError, KafkaError

from streams.errors import BrokerError, ChainStopped, LostLog
from streams.transport import Record, flatten

Apply = Callable[[int, list[Record]], None]
REACH_SECONDS = 60  # how long the end of a topic may be out of reach before that is said
SLICE = 20_000  # records applied between two looks at the event loop


class Tail:
    """Follows some topic-partitions from their beginning.

    `apply(partition, records)` of a topic is called in offset order, in the event loop. Needs `fetch_batches()` to have
    been called in this process. Not safe to use from two event loops.
    """

    def __init__(self, broker: str, client_id: str) -> None:
        self._broker, self._client_id = broker, client_id
        self._apply: dict[str, Apply] = {}
        self._position: dict[TopicPartition, int] = {}
        self._moved = asyncio.Condition()
        self._epoch = 0  # of what is followed: what was fetched in another one is dropped
        self._failed: BaseException | None = None
        self._task: asyncio.Task[None] | None = None
        self._reader: AIOKafkaConsumer | None = None
        self._offsets: AIOKafkaConsumer | None = None

    async def start(self) -> None:
        """Connect. Raises BrokerError when nobody answers."""
        common = {
            "bootstrap_servers": self._broker,
            "client_id": self._client_id,
            "enable_auto_commit": False,
            "auto_offset_reset": "earliest",
            "isolation_level": "read_committed",
        }
        self._reader = AIOKafkaConsumer(**common, max_partition_fetch_bytes=4 << 20, fetch_max_wait_ms=100)
        self._offsets = AIOKafkaConsumer(**common)
        try:
            await self._reader.start()
            await self._offsets.start()
        except KafkaError as error:
            await self.stop()
            raise BrokerError(f"Kafka at {self._broker} did not answer ({type(error).__name__})") from None
        self._task = asyncio.create_task(self._follow(), name=f"tail {self._client_id}")

    async def stop(self) -> None:
        """Disconnect."""
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        for consumer in (self._reader, self._offsets):
            if consumer:
                await consumer.stop()

    def follow(self, topic: str, partitions: Iterable[int], apply: Apply) -> None:
        """Follow exactly these partitions of `topic` from now on; those that are new begin at the beginning."""
        assert self._reader
        self._apply[topic] = apply
        wanted = {TopicPartition(topic, partition) for partition in partitions}
        kept = {tp for tp in self._position if tp.topic != topic or tp in wanted}
        new = wanted - kept
        self._position = {tp: self._position[tp] for tp in kept} | dict.fromkeys(new, 0)
        self._epoch += 1
        self._reader.assign(list(self._position))
        self._seek()

    def _seek(self) -> None:
        assert self._reader
        for tp, position in self._position.items():
            self._reader.seek(tp, position)

    def position(self, topic: str, partition: int) -> int:
        """The next offset that will be applied."""
        return self._position.get(TopicPartition(topic, partition), 0)

    async def caught_up(self, topic: str, partitions: Iterable[int]) -> None:
        """After this, everything that the broker had acknowledged before the call has been applied.

        Raises BrokerError when the broker does not answer.
        """
        assert self._offsets
        wanted = [TopicPartition(topic, partition) for partition in partitions]
        if not wanted:
            return
        try:
            ends = await self._offsets.end_offsets(wanted)
        except KafkaError as error:
            raise BrokerError(
                f"Kafka at {self._broker} did not tell the end of {topic} ({type(error).__name__})"
            ) from None

        def there() -> bool:
            return self._failed is not None or all(self._position.get(tp, end) >= end for tp, end in ends.items())

        if not there():
            try:
                async with self._moved:
                    await asyncio.wait_for(self._moved.wait_for(there), REACH_SECONDS)
            except TimeoutError:
                raise BrokerError(
                    f"Kafka at {self._broker} did not give all of {topic} within {REACH_SECONDS} s"
                ) from None
        if self._failed is not None:
            raise self._failed

    async def bounds(self, topic: str, partition: int) -> tuple[int, int]:
        """First offset that the log still holds, and an offset that its end has at least reached."""
        assert self._offsets
        tp = TopicPartition(topic, partition)
        try:
            first = (await self._offsets.beginning_offsets([tp]))[tp]
            end = (await self._offsets.end_offsets([tp]))[tp]
        except KafkaError as error:
            raise BrokerError(
                f"Kafka at {self._broker} did not tell where {topic} begins ({type(error).__name__})"
            ) from None
        return first, end

    async def _follow(self) -> None:
        assert self._reader
        try:
            while True:
                if not self._position:
                    await asyncio.sleep(0.02)
                    continue
                epoch = self._epoch
                fetched = await self._reader.getmany(timeout_ms=100)
                for tp, batches in fetched.items():
                    await self._apply_run(tp, flatten(batches), epoch)
                if epoch == self._epoch:
                    await self._pass_markers(epoch)
                else:  # what was fetched has moved the reader beyond what is applied
                    self._seek()
                async with self._moved:
                    self._moved.notify_all()
        except asyncio.CancelledError:
            raise
        except Exception as error:
            # aiokafka retries KafkaErrors of a fetch itself; what arrives here is final, and must not be waited for.
            self._failed = (
                error
                if isinstance(error, LostLog)
                else ChainStopped(f"reading {self._client_id} from Kafka ended ({type(error).__name__}): start again")
            )
            async with self._moved:
                self._moved.notify_all()

    async def _pass_markers(self, epoch: int) -> None:
        """Move on over what is no record: transaction markers, a beginning that retention has moved."""
        assert self._reader
        for tp in list(self._position):
            if epoch != self._epoch:
                return
            with contextlib.suppress(TimeoutError, IllegalStateError):  # a position that is being found; a rebalance
                async with asyncio.timeout(1.0):  # wait_for could swallow the cancellation of `stop`
                    position = await self._reader.position(tp)
                if epoch == self._epoch and position > self._position[tp]:
                    self._position[tp] = position

    async def _apply_run(self, tp: TopicPartition, run: list[Record], epoch: int) -> None:
        for begin in range(0, len(run), SLICE):
            part = run[begin : begin + SLICE]
            if epoch != self._epoch:  # `follow` was called meanwhile
                return
            if part[-1].offset < self._position[tp]:
                raise LostLog(f"{tp.topic}-{tp.partition} went back behind offset {self._position[tp]}")
            self._apply[tp.topic](tp.partition, part)
            self._position[tp] = part[-1].offset + 1
            await asyncio.sleep(0)
