"""Schleuse, the same work and no more: its transport under a Faust app, its strict decoder, columns from end to end.

Whole fetched runs come through `ChunkApp`; `streams.decode` reads them as strictly as the lock does (types, lengths, no
name twice, times in range: more than THE WORK asks for); polars looks up (the preferences are a frame), joins and
groups; the pseudonym is computed once for each distinct recipient of a batch and joined to its events. As in the lock,
batches are built in one thread while Faust fetches, and the inserts of one batch wait while the next one is built;
offsets are committed up to what is done. What the lock does beyond this (duplicates, consent in time, seeds, claims) is
measured as `lock`.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import polars as pl
from faust.types import TP

from benchmarks.compare.stores import Inserter
from benchmarks.compare.work import BATCH, FETCH_BYTES, HOUR_MS, Cell, Clock, Task, preferences, pseudonym, say, task
from streams.decode import decode
from streams.transport import Chunk, ChunkApp, fetch_batches

Batch = tuple[pl.DataFrame, pl.DataFrame]


class Visits:
    """The distinct recipients of each mailing: rows, made distinct whenever they have doubled."""

    def __init__(self) -> None:
        self._frames: list[pl.DataFrame] = []
        self._distinct = self._rows = 0

    def add(self, visits: pl.DataFrame) -> None:
        """Columns mailing and recipient, each pair once."""
        self._frames.append(visits)
        self._rows += len(visits)
        if self._rows > 2 * self._distinct + 100_000:
            self.all()

    def all(self) -> pl.DataFrame:
        """Every pair once."""
        whole = pl.concat(self._frames).unique()
        self._frames, self._distinct, self._rows = [whole], len(whole), len(whole)
        return whole


class Columns:
    """THE WORK on a batch of values at once. Used by one thread."""

    def __init__(self, told: Task) -> None:
        granted = [(name, salt) for name, salt in preferences(told.preferences).items() if salt]
        self._granted = pl.DataFrame(granted, schema={"recipient": pl.String, "salt": pl.Binary}, orient="row")
        self.count = self.rows = self.sum = 0
        self.visits = Visits()
        self.totals: dict[Cell, int] = {}

    def batch(self, values: list[bytes | None]) -> Batch:
        """The pseudonymous rows and the counts of a batch, added to the totals."""
        decoded = decode(values, int(time.time() * 1000))
        assert not decoded.bad
        frame = decoded.frame.select(
            "recipient",
            "mailing",
            "kind",
            pl.col("url").str.extract("^([^?#]*)").fill_null("").alias("link"),
            "occurred_ms",
        )
        known = frame.select(pl.col("recipient").unique()).join(self._granted, on="recipient")
        names = list(map(pseudonym, known["salt"].to_list(), known["recipient"].to_list()))
        made = known.select("recipient", pl.Series("pseudonym", names, pl.Binary))
        rows = frame.join(made, on="recipient").select("mailing", "kind", "link", "occurred_ms", "pseudonym")
        hour = (pl.col("occurred_ms") // HOUR_MS).alias("hour")
        counts = frame.group_by("mailing", "kind", "link", hour).len("events")
        self.visits.add(frame.select("mailing", "recipient").unique())
        for *cell, events in counts.iter_rows():
            key: Any = tuple(cell)
            self.totals[key] = self.totals.get(key, 0) + events
        halves = np.frombuffer(b"".join(rows["pseudonym"].to_list()), "<u8")[::2]
        self.sum += int(halves.sum(dtype=np.uint64))  # wraps, as it should
        self.rows += len(rows)
        self.count += len(values)
        return rows, counts


class Tally:
    """Owner of the chunks (streams/transport.py)."""

    def __init__(self, told: Task) -> None:
        self._task, self._work, self._clock = told, Columns(told), Clock(told.events)
        self._chunks: list[Chunk] = []
        self._waiting = 0
        self._fed = asyncio.Event()
        self._builder, self._writer = ThreadPoolExecutor(1), ThreadPoolExecutor(1)
        self._inserter = Inserter(told.rows_url, told.counts_url, told.password) if told.inserts else None
        self.app: ChunkApp

    async def take(self, partitions: Mapping[str, frozenset[int]]) -> Mapping[TP, int]:
        """Nothing to load: everything begins at the committed offset, or where the log does."""
        return {}

    async def drain(self, seconds: float) -> None:
        """The comparison ends before its group does."""

    def wants(self, tp: TP) -> bool:
        """Up to one and a half batches ahead."""
        return self._waiting < BATCH * 3 // 2

    async def feed(self, chunk: Chunk) -> None:
        """Keep a chunk for the next batch."""
        self._clock.start()
        self._chunks.append(chunk)
        self._waiting += len(chunk)
        self._fed.set()

    async def run(self) -> None:
        """Whatever is there, up to BATCH, is a batch; its inserts wait while the next one is built."""
        loop, writing = asyncio.get_running_loop(), None
        while self._work.count < self._task.events:
            await self._fed.wait()
            self._fed.clear()
            if self._inserter and self._waiting < BATCH // 2 and self._work.count + self._waiting < self._task.events:
                continue
            chunks = self._some()
            values = [record.value for chunk in chunks for record in chunk.records]
            batch = await loop.run_in_executor(self._builder, self._work.batch, values)
            if writing is not None:
                await writing
            writing = asyncio.ensure_future(self._write(chunks, batch))
            self._clock.passed(self._work.count)
        assert writing is not None
        await writing
        work = self._work
        visits = work.visits.all()
        self._clock.stop(work.count)
        people = {str(mailing): set(of["recipient"].to_list()) for (mailing,), of in visits.group_by("mailing")}
        say(self._clock, work.count, work.rows, work.sum, work.totals, people)

    def _some(self) -> list[Chunk]:
        """The oldest chunks, up to BATCH events and no less than one; what is left comes with the next batch."""
        chunks: list[Chunk] = []
        count = 0
        while self._chunks and (not chunks or count + len(self._chunks[0]) <= BATCH):
            chunks.append(self._chunks.pop(0))
            count += len(chunks[-1])
        self._waiting -= count
        if self._chunks:
            self._fed.set()
        return chunks

    async def _write(self, chunks: list[Chunk], batch: Batch) -> None:
        if self._inserter is not None:
            rows, counts = map(_arrow, batch)
            await asyncio.get_running_loop().run_in_executor(self._writer, self._inserter.arrow, rows, counts)
        for chunk in chunks:
            self.app.consumer.done(TP(chunk.topic, chunk.partition), chunk.last + 1)


def _arrow(frame: pl.DataFrame) -> Any:
    return frame.to_arrow(compat_level=pl.CompatLevel.oldest())


async def main() -> None:
    """Run to the end of the task."""
    told = task()
    fetch_batches()
    tally = Tally(told)
    tally.app = ChunkApp(
        told.group,
        broker=f"kafka://{told.broker}",
        chunk_topics=(told.topic,),
        owner=tally,
        consumer_auto_offset_reset="earliest",
        consumer_max_fetch_size=FETCH_BYTES,
        stream_recovery_delay=0.0,
        datadir=tempfile.mkdtemp(),
        store="memory://",
    )
    tally.app.finalize()
    await tally.app.start()
    await tally.run()


if __name__ == "__main__":
    asyncio.run(main())
