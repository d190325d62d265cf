"""Whole fetched runs of records through Faust, so that no event is ever handled alone.

Faust keeps the consumer group, the assignor, the agents and the commits; this module hands an agent everything that one
fetch brought of one topic-partition as one `Chunk`. Its invariants, by number (the same numbers stand in the code):

 I1  The same worker owns partition p of every chunk topic with the same number of partitions. Faust's sticky assignor
     co-partitions only while `table_standby_replicas > 0`, and what it assigned is checked before anything is loaded.
 I2  Nothing is fed before `Owner.take` has loaded the partitions and said where each begins; the positions are set in
     `perform_seek`, the one place where Faust itself seeks, and never while a fetch is under way.
 I3  Nothing is fed while the group rebalances: Faust clears the agents' queues at the end of a recovery, and what lies
     in them then is lost. The gate opens after that, for one generation.
 I4  A chunk begins where the last one of its partition ended. One that begins later is fetched again from there, once;
     a gap is believed only if it is still there (a log may really have holes: compaction, transaction markers) and the
     log does not begin after it. A log that went back, or begins later than it should, is lost: that ends the worker.
 I5  Only what `Consumer.done` was told is committed, never anything else: Faust's own acks count for nothing here.
 I6  A partition is fetched only while its owner wants more: that is the back-pressure.
 I7  At a revocation and at a stop the owner may finish what it is carrying out, within `drain_seconds`; then what is
     done is committed. A worker that cannot stop ends its process.
 I8  An owner that fails crashes the app: the process ends with 1, and no offset has moved past what is done.

What a caller may not assume: that a chunk comes only once (a rebalance or a restart brings it again), that owning a
partition means that nobody else is still writing for it (a stalled worker wakes up late: the chain of claims makes that
harmless, not this module), or that a chunk is of any particular size.

Needs faust-streaming 0.15.3 exactly: `_getmany`, `_to_message`, `_new_offset`, `_filter_tps_with_pending_acks`,
`_read_offset`, `_unacked_messages`, `_new_consumer_thread` and `perform_seek` are not a public interface.
"""

from __future__ import annotations

import asyncio
import gc
import os
import threading
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import faust
import structlog
from aiokafka.consumer import fetcher
from aiokafka.errors import CorruptRecordException
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from streams.errors import ChainStopped, LostLog
from streams.logs import standing

log = structlog.get_logger("schleuse.transport")


class Record(Protocol):
    """What a fetched record offers; the objects are aiokafka's own (Cython), one layer below its ConsumerRecord."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None


class Chunk:
    """One fetched run of one topic-partition, in offset order, never empty.

    To Faust it looks like one consumer record whose offset is that of its last record. `first` and `offset` (= `last`)
    are offsets; there may be holes between them. `begins` is where the last chunk of the partition ended: the chunk
    stands for everything from there to `last`.
    """

    __slots__ = ("begins", "first", "offset", "partition", "records", "timestamp", "timestamp_type", "topic")
    headers = ()
    key = checksum = None
    serialized_key_size = serialized_value_size = -1

    def __init__(self, tp: Any, records: list[Record], begins: int | None = None) -> None:
        self.topic: str = tp.topic
        self.partition: int = tp.partition
        self.records = records
        self.first, self.offset = records[0].offset, records[-1].offset
        self.begins = self.first if begins is None else begins
        self.timestamp = records[-1].timestamp
        self.timestamp_type = 0

    @property
    def value(self) -> Chunk:
        """Faust hands on `record.value` as the event's value: the chunk itself."""
        return self

    @property
    def last(self) -> int:
        """Offset of the last record."""
        return self.offset

    def __len__(self) -> int:
        return len(self.records)

    def __repr__(self) -> str:
        return f"<Chunk {self.topic}-{self.partition} {self.first}..{self.last}>"


class Owner(Protocol):
    """Whoever carries out what the chunks bring. Every method is called in the app's event loop."""

    async def take(self, partitions: Mapping[str, frozenset[int]]) -> Mapping[TP, int]:
        """Load what belongs to the partitions of each topic and say at which offset each topic-partition begins.

        A topic-partition that is not named begins at its committed offset, or at the beginning of the log. May be
        cancelled, and called again for another set, at any await.
        """

    async def drain(self, seconds: float) -> None:
        """Finish or give up what is being carried out; nothing may be done afterwards for the old assignment."""

    def wants(self, tp: TP) -> bool:
        """Whether more of this topic-partition may be fetched now."""

    async def feed(self, chunk: Chunk) -> None:
        """Take a chunk. Must return soon; what it cannot use yet it keeps."""


def _unpack_batches(self: Any) -> Iterator[list[Record]]:
    """In place of aiokafka's `PartitionRecords._unpack_records`: a list of records a batch, without an object each.

    What the original does is kept: CRCs are checked, control batches and aborted transactions skipped, records before
    the fetch offset dropped, and the next offset is that of the batch (so a compacted tail is not fetched for ever).
    """
    records = self._records
    while records.has_next():
        batch = records.next_batch()
        if self._check_crcs and not batch.validate_crc():
            raise CorruptRecordException(f"Invalid CRC - {self._tp}")
        if self._isolation_level == fetcher.READ_COMMITTED and batch.producer_id is not None:
            self._consume_aborted_up_to(batch.base_offset)
            if batch.is_control_batch and self._contains_abort_marker(batch):
                self._aborted_producers.discard(batch.producer_id)
            if batch.is_transactional and batch.producer_id in self._aborted_producers:
                self.next_fetch_offset = batch.next_offset
                continue
        if batch.is_control_batch:
            self.next_fetch_offset = batch.next_offset
            continue
        first = self.next_fetch_offset
        run = list(batch)
        if run and run[0].offset < first:
            run = [record for record in run if record.offset >= first]
        self.next_fetch_offset = batch.next_offset
        if run:
            yield run


def fetch_batches() -> None:
    """Make every aiokafka consumer of this process hand out whole batches (lists of records) in place of records.

    For the worker's process only: a consumer that expects ConsumerRecords must live elsewhere. 1.0 of the 2.6 us that
    aiokafka spends on fetching a record go into building that object (benchmarks/).

    And tell the collector of cycles to look seldom: records and what is made of them hold each other in no cycles, and
    hundreds of thousands are alive at a time. Looking through them, over and over, costs more than fetching them.
    """
    fetcher.PartitionRecords._unpack_records = _unpack_batches
    gc.freeze()
    gc.set_threshold(200_000, 20, 100)


def flatten(batches: list[list[Record]]) -> list[Record]:
    """The records of what one fetch brought of one topic-partition."""
    return batches[0] if len(batches) == 1 else [record for batch in batches for record in batch]


class _ReadOffsets(dict[TP, int | None]):
    """Faust drops a message that lies before the offset it read last, so a seek back could be lost: not for chunks."""

    def __init__(self, ours: Any) -> None:
        super().__init__()
        self._ours = ours

    def __getitem__(self, tp: TP) -> int | None:
        return None if self._ours(tp) else self.get(tp)


class _CommittedThread(driver.AIOKafkaConsumerThread):  # type: ignore[misc]  # Faust ships no types
    """Faust reads uncommitted records unless it is transactional itself; a sender's aborted transaction never was."""

    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        consumer._isolation_level = "read_committed"
        return consumer


class ChunkConsumer(driver.Consumer):  # type: ignore[misc]  # Faust ships no types
    """Faust's consumer with the invariants I2 to I7 of the module."""

    drain_seconds = 10.0
    poll_seconds = 0.1

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._start: Mapping[TP, int] = {}
        self._done: dict[TP, int] = {}
        self._next: dict[TP, int | None] = {}
        self._again: dict[TP, int] = {}
        self._loaded: int | None = None
        self._sought: int | None = None
        self._open: int | None = None
        self._fetching = asyncio.Lock()
        self._read_offset = _ReadOffsets(self._ours)

    def _new_consumer_thread(self) -> _CommittedThread:
        return _CommittedThread(self, loop=self.loop, beacon=self.beacon)

    @property
    def _owner(self) -> Owner:
        owner: Owner = self.app.owner
        return owner

    def _ours(self, tp: TP) -> bool:
        return tp.topic in self.transport.chunk_topics

    async def _getmany(  # `timeout` is Faust's
        self,
        active_partitions: set[TP] | None,
        timeout: float,  # noqa: ASYNC109
    ) -> dict[TP, list[Any]]:
        generation = self.app.consumer_generation_id
        shut = self._open != generation  # I3
        ready = {
            tp for tp in active_partitions or () if not self._ours(tp) or (not shut and self._owner.wants(tp))
        }  # I6
        if not ready:  # an empty set would mean "every partition" to aiokafka
            await asyncio.sleep(0.005)
            return {}
        async with self._fetching:
            fetched = await super()._getmany(ready, min(timeout, self.poll_seconds))
            if self._open != generation or self.app.consumer_generation_id != generation:
                return {tp: flatten(run) for tp, run in fetched.items() if not self._ours(tp)}
            result: dict[TP, list[Any]] = {}
            again: dict[TP, int] = {}
            for tp, batches in fetched.items():
                run = flatten(batches)
                if not self._ours(tp):
                    result[tp] = run
                    continue
                due = self._next.get(tp)
                if due is not None and run[0].offset < due:
                    if run[-1].offset < due:
                        raise LostLog(f"{tp.topic}-{tp.partition} went back from offset {due} to {run[0].offset}")
                    run = [record for record in run if record.offset >= due]
                if due is not None and run[0].offset > due:  # I4
                    if self._again.get(tp) != due:
                        self._again[tp] = again[tp] = due
                        continue
                    log_begins = (await self.earliest_offsets(tp))[tp]
                    if log_begins > due:
                        raise LostLog(f"{tp.topic}-{tp.partition} begins at {log_begins}, after offset {due}")
                self._next[tp] = run[-1].offset + 1
                result[tp] = [Chunk(tp, run, due)]
            if again:
                self.log.warning("a chunk began late, fetching again: %r", again)
                await self.seek_wait(again)
        return result

    async def perform_seek(self) -> None:
        """Set the positions of a loaded generation, once (I2). Faust also calls this while chunks are in progress."""
        generation = self.app.consumer_generation_id
        if self._loaded != generation or self._sought == generation:
            return
        async with self._fetching:
            await super().perform_seek()  # to the committed offsets; a partition without one stays where it is
            owned = self.assignment()
            begin = {tp: offset for tp, offset in self._start.items() if tp in owned}
            unset = [tp for tp in owned if self._ours(tp) and tp not in begin and not self._committed_offset[tp]]
            if unset:
                begin.update(await self.earliest_offsets(*unset))
            if begin:
                await self.seek_wait(begin)
            self._again.clear()
            self._done.clear()
            self._next = {tp: begin.get(tp, self._committed_offset[tp]) for tp in owned if self._ours(tp)}
            self._sought = generation

    def loaded(self, generation: int, start: Mapping[TP, int]) -> None:
        """The owner has loaded its partitions for this generation and wants to begin at `start`."""
        self._start, self._loaded = start, generation

    def open_gate(self) -> None:
        """Faust has cleared the agents' queues: from here on chunks may be fed, for this generation (I3)."""
        generation = self.app.consumer_generation_id
        if self._loaded == self._sought == generation:
            self._open = generation

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Shut the gate, let the owner finish, commit what is done (I7)."""
        self._open = None
        await self._owner.drain(self.drain_seconds)
        await self.commit()
        await super().on_partitions_revoked(revoked)
        self._done.clear()
        self._next.clear()

    async def go_to(self, tp: TP, offset: int) -> None:
        """Fetch `tp` from `offset` on, at any time. Chunks fetched before may still come, and must be dropped:
        they begin elsewhere."""
        async with self._fetching:
            if self._open == self.app.consumer_generation_id and tp in self.assignment():
                await self.seek_wait({tp: offset})
                self._next[tp] = offset

    def behind(self, tp: TP) -> int:
        """How far the next fetch is from the end of what may be read (markers passed), by the last answer."""
        assignment = self._thread._ensure_consumer()._subscription.subscription.assignment
        if tp not in assignment.tps:
            return 0
        at = assignment.state_value(tp)
        return max(0, at.lso - at.position) if at.has_valid_position and at.lso is not None else 0

    def done(self, tp: TP, offset: int) -> None:
        """Everything of `tp` before `offset` is carried out and may be committed (I5). Never goes back."""
        if offset > self._done.get(tp, 0):
            self._done[tp] = offset

    def _filter_tps_with_pending_acks(self, topics: Any = None) -> set[TP]:
        waiting = {tp for tp, offset in self._done.items() if offset != self._committed_offset[tp]}
        return {tp for tp in {*self._acked, *waiting} if topics is None or tp in topics or tp.topic in topics}

    def _new_offset(self, tp: TP) -> int | None:
        if not self._ours(tp):
            offset: int | None = super()._new_offset(tp)
            return offset
        return self._done.get(tp)

    async def wait_empty(self) -> None:
        """Nothing to wait for: the owner was drained, and Faust's own acks count for nothing (I5)."""
        self._unacked_messages.clear()
        await self.commit_and_end_transactions()


class ChunkTransport(driver.Transport):  # type: ignore[misc]  # Faust ships no types
    """Faust's aiokafka transport with a `ChunkConsumer`."""

    Consumer = ChunkConsumer
    chunk_topics: frozenset[str] = frozenset()


class _ChunkSchema(faust.Schema):  # type: ignore[misc]  # Faust ships no types
    def loads_key(self, app: Any, message: Any, **_: Any) -> Any:
        return message.key

    def loads_value(self, app: Any, message: Any, **_: Any) -> Any:
        return message.value


class ChunkApp(faust.App):  # type: ignore[misc]  # Faust ships no types
    """A Faust app whose one agent is fed chunks of `chunk_topics` for one `owner`."""

    stop_seconds = 25.0

    def __init__(self, *args: Any, chunk_topics: tuple[str, ...], owner: Owner, **kwargs: Any) -> None:
        super().__init__(
            *args,
            stream_wait_empty=False,
            table_standby_replicas=1,  # I1: without it Faust falls back to a round robin that does not co-partition
            topic_allow_declare=False,
            topic_disable_leader=True,
            web_enabled=False,
            **kwargs,
        )
        self.owner = owner
        self.failure: BaseException | None = None
        self.crashed_or_stopped = asyncio.Event()
        self.transport = ChunkTransport(self.conf.broker_consumer, self)
        self.transport.chunk_topics = frozenset(chunk_topics)
        chunks = self.topic(*chunk_topics, schema=_ChunkSchema(), maxsize=4096)  # bounded by I6, not by this
        self.agent(chunks, name="chunks")(self._feed)
        self.on_rebalance_complete.connect(self._load_assigned)

    async def _feed(self, stream: Any) -> None:
        async for event in stream.noack().events():
            self.consumer._unacked_messages.discard(event.message)  # I5
            try:
                await self.owner.feed(event.value)
            except Exception as error:
                await self.crash(error)  # I8
                return

    async def _load_assigned(self, *_: Any, **__: Any) -> None:
        consumer = self.consumer
        generation, owned = self.consumer_generation_id, consumer.assignment()
        partitions = {
            topic: frozenset(tp.partition for tp in owned if tp.topic == topic)
            for topic in sorted(self.transport.chunk_topics)
        }
        task = asyncio.ensure_future(self.owner.take(partitions))
        while not task.done():  # a new assignment waits behind this: give up a load that is out of date
            await asyncio.wait({task}, timeout=0.05)
            if generation != self.consumer_generation_id or self.should_stop:
                task.cancel()
                return
        try:
            consumer.loaded(generation, task.result())
        except Exception as error:
            await self.crash(error)  # I8
            raise

    async def crash(self, reason: BaseException) -> None:
        """End the app; the first reason is kept, for whoever ends the process."""
        if self.failure is None:
            self.failure = reason
        self.crashed_or_stopped.set()
        await super().crash(reason)

    def on_rebalance_end(self) -> None:
        """Called by Faust at the end of its recovery."""
        super().on_rebalance_end()
        self.consumer.open_gate()

    async def stop(self) -> None:
        """Stop; a broker that does not answer or a thread that does not end must not keep the process (I7)."""
        killer = threading.Timer(self.stop_seconds, self._end_process)
        killer.daemon = True
        killer.start()
        self.consumer._open = None
        await self.owner.drain(ChunkConsumer.drain_seconds)
        await super().stop()  # the timer goes on: a thread that does not end would keep the interpreter from leaving

    def _end_process(self) -> None:
        log.critical(
            "worker did not stop in time: its process ends now, with 1. Nothing is lost: the next owner carries "
            "out again what this one had not finished",
            seconds=self.stop_seconds,
            waits=standing(self.loop),
        )
        os._exit(1)


def co_partitioned(partitions: Mapping[str, frozenset[int]], topics: tuple[str, ...]) -> frozenset[int]:
    """The partitions that all `topics` have in common; they must be the same of each (I1).

    Raises ChainStopped: a worker that owns the events of a partition but not its changes cannot go on.
    """
    sets = {partitions[topic] for topic in topics}
    if len(sets) != 1:
        raise ChainStopped(
            "the group gave this worker different partitions of "
            + " and ".join(topics)
            + ": every worker of the group must be the same release of Schleuse"
        )
    return sets.pop()
