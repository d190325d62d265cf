"""Fetched records that wait for a claim."""

from __future__ import annotations

import time
from bisect import bisect_left
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from streams.transport import Chunk, Record


class Buffer:
    """Fetched records of one topic-partition that no claim has taken yet, in offset order."""

    def __init__(self, position: int) -> None:
        self.position = position  # the offset that the next chunk has to begin with
        self.records: list[Record] = []
        self.since = 0.0  # when the oldest came (monotonic seconds)

    def add(self, chunk: Chunk) -> None:
        """Take a chunk that begins at or before the position; one that begins later is of an older fetch: dropped."""
        if chunk.begins > self.position or chunk.last < self.position:
            return
        records = chunk.records
        if chunk.first < self.position:
            records = [record for record in records if record.offset >= self.position]
        if not self.records:
            self.since = time.monotonic()
        self.records += records
        self.position = chunk.last + 1

    def run(self, last: int) -> list[Record]:
        """The records up to `last`, which stay until `drop`."""
        if self.records and self.records[-1].offset <= last:
            return list(self.records)
        return self.records[: bisect_left(self.records, last + 1, key=lambda record: record.offset)]

    def drop(self, before: int) -> None:
        """Forget the records below `before`."""
        if not self.records or self.records[-1].offset < before:
            self.records = []
        else:
            self.records = self.records[bisect_left(self.records, before, key=lambda record: record.offset) :]
        self.since = time.monotonic()

    def oldest_ms(self) -> int | None:
        """Record time of the oldest record that no done claim has taken; None when there is none."""
        return self.records[0].timestamp if self.records else None

    def age(self) -> float:
        """Seconds since the oldest record came; 0 when there is none."""
        return time.monotonic() - self.since if self.records else 0.0
