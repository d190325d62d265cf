"""A tap on topics: a process of its own that keeps every record in files, from before the workers begin.

tracking.changes is trimmed by its owner, tracking.state is compacted: whoever wants all of it has to be there. One file
for each topic and partition; `Files` reads them. Works on Tansu and on Apache Kafka, through restarts of brokers.

    python -m tests.reference.tap BROKER FOLDER TOPIC ...      # ends when its standard input ends
"""

from __future__ import annotations

import asyncio
import json
import os
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError, OffsetOutOfRangeError

from tests.reference.facts import Record, ReferenceFailed

TOPICS = (
    "tracking.events",
    "tracking.preferences",
    "tracking.requests",
    "tracking.changes",
    "tracking.mailings",
    "tracking.state",
    "tracking.receipts",
    "tracking.rejected",
)
_WITH_HOLES = ("tracking.state",)  # compacted: offsets need not follow one another
_HEAD = struct.Struct("<qqii")  # offset, timestamp, length of key and value; -1: there is none
QUIET_SECONDS = 1.5  # the end is reached when nothing has come for so long
SILENT_SECONDS = 8.0  # a consumer that gets nothing for so long is made anew: aiokafka may fall silent


class Tap:
    """Starts and stops the process."""

    def __init__(self, broker: str, folder: Path, topics: Sequence[str] = TOPICS) -> None:
        self._command = [sys.executable, "-m", "tests.reference.tap", broker, str(folder), *topics]
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Begin, at the beginning of every topic, which must be there."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / "tap.log").open("wb") as log:
            self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=log, stderr=log)

    def positions(self) -> dict[tuple[str, int], int]:
        """The next offset of every topic and partition of which something was kept."""
        try:
            said = json.loads((self._folder / "positions.json").read_text())
        except FileNotFoundError:
            said = []
        if self._process and self._process.poll():
            raise ReferenceFailed(f"the tap ended: {(self._folder / 'tap.log').read_text()[-2000:]}")
        return {(topic, partition): offset for topic, partition, offset in said}

    def stop(self, seconds: float = 60) -> None:
        """Read to the end of every topic, and end. Raises ReferenceFailed when a record was missed."""
        assert self._process
        assert self._process.stdin
        self._process.stdin.close()
        if self._process.wait(seconds):
            raise ReferenceFailed(f"the tap ended: {(self._folder / 'tap.log').read_text()[-2000:]}")

    def kill(self) -> None:
        """End it whatever it does."""
        if self._process and self._process.poll() is None:
            self._process.kill()
            self._process.wait(10)


class Files:
    """What a tap has kept."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def records(self, topic: str, partition: int) -> Iterator[Record]:
        """The records of a topic's partition, by rising offset; none of one that had none."""
        path = self._folder / f"{topic}-{partition}"
        if not path.exists():
            return
        with path.open("rb", buffering=1 << 20) as file:
            while head := file.read(_HEAD.size):
                offset, timestamp, key_size, value_size = _HEAD.unpack(head)
                key = file.read(key_size) if key_size >= 0 else None
                yield Record(partition, offset, timestamp, key, file.read(value_size) if value_size >= 0 else None)


class _Keeper:
    """The inside of the process."""

    def __init__(self, broker: str, folder: Path, topics: Sequence[str]) -> None:
        self._broker, self._folder, self._topics = broker, folder, topics
        self._files: dict[tuple[str, int], BinaryIO] = {}
        self._next: dict[tuple[str, int], int] = {}
        self._ending = asyncio.Event()

    async def run(self) -> None:
        asyncio.get_running_loop().run_in_executor(None, self._wait_for_the_end)
        while True:
            try:
                if await self._follow():
                    break
            except OffsetOutOfRangeError as error:
                raise SystemExit(f"records are gone before they were kept: {error}") from None
            except (KafkaError, OSError) as error:
                print(f"again after {type(error).__name__}: {error}", flush=True)
                await asyncio.sleep(0.5)
        for file in self._files.values():
            file.close()

    def _wait_for_the_end(self) -> None:
        sys.stdin.buffer.read()
        self._ending.set()

    async def _follow(self) -> bool:
        """Read on from where we are; True: the end was reached. False: begin again with a new consumer."""
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self._broker,
            auto_offset_reset="none",
            enable_auto_commit=False,
            max_partition_fetch_bytes=4 << 20,
            fetch_max_wait_ms=200,
            metadata_max_age_ms=10_000,
        )
        await consumer.start()
        try:
            mine = await self._assign(consumer)
            came = time.monotonic()
            while True:
                found = await consumer.getmany(timeout_ms=200)
                for tp, records in found.items():
                    self._keep(tp, records)
                if found:
                    came = time.monotonic()
                    self._flush()
                    continue
                quiet = time.monotonic() - came
                if self._ending.is_set() and quiet > QUIET_SECONDS and await self._is_at_end(consumer, mine):
                    return True
                if quiet > SILENT_SECONDS:
                    if not await self._is_at_end(consumer, mine):
                        return False
                    came = time.monotonic()
        finally:
            await consumer.stop()

    async def _assign(self, consumer: AIOKafkaConsumer) -> list[TopicPartition]:
        known = await consumer._client.fetch_all_metadata()
        mine = [TopicPartition(t, p) for t in self._topics for p in sorted(known.partitions_for_topic(t) or ())]
        if {tp.topic for tp in mine} != set(self._topics):
            raise KafkaError("a topic is not known yet")
        consumer.assign(mine)
        for tp in mine:
            consumer.seek(tp, self._next.get(tp, 0))
        return mine

    def _keep(self, tp: TopicPartition, records: Sequence[Any]) -> None:
        at = self._next.get(tp, 0)
        file = self._files.get(tp)
        if file is None:
            file = self._files[tp] = (self._folder / f"{tp.topic}-{tp.partition}").open("wb", buffering=1 << 20)
        for record in records:
            if record.offset < at:
                continue
            if record.offset != at and tp.topic not in _WITH_HOLES:
                raise SystemExit(f"{tp.topic}-{tp.partition}: offset {at} is gone, the log goes on at {record.offset}")
            key, value = record.key, record.value
            sizes = (-1 if key is None else len(key), -1 if value is None else len(value))
            file.write(_HEAD.pack(record.offset, record.timestamp, *sizes) + (key or b"") + (value or b""))
            at = record.offset + 1
        self._next[tp] = at

    def _flush(self) -> None:
        for file in self._files.values():
            file.flush()
        temporary = self._folder / "positions.tmp"
        temporary.write_text(json.dumps([[*tp, offset] for tp, offset in self._next.items()]))
        os.replace(temporary, self._folder / "positions.json")

    async def _is_at_end(self, consumer: AIOKafkaConsumer, mine: Sequence[TopicPartition]) -> bool:
        ends = await consumer.end_offsets(mine)
        return all(self._next.get(tp, 0) >= end for tp, end in ends.items())


if __name__ == "__main__":
    asyncio.run(_Keeper(sys.argv[1], Path(sys.argv[2]), sys.argv[3:]).run())
