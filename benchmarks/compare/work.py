"""THE WORK, the same for every contestant, stated in one place; and what the Python ones share.

For each record of the topic (our own wire format, benchmarks/compare/data.py):

1. decode the JSON into typed fields; a required field that is missing or no string ends the run (msgspec in Python,
   Jackson in Java);
2. look the recipient up in the preferences, which were loaded before the clock starts (a dict, a HashMap): 16 bytes
   of salt if pseudonymous rows were granted, else nothing;
3. if granted, the pseudonym: the first 16 bytes of HMAC-SHA-256 under one key over salt + recipient. It is computed for
   every such event; nobody keeps pseudonyms between batches (a withdrawal would have to find them). Who works on
   columns computes it once for each distinct recipient of a batch;
4. group: events by (mailing, kind, link, hour), where the link is the URL without query and fragment, and the set of
   distinct recipients of each mailing;
5. commit offsets as the tool does when left alone;
6. with inserts: the pseudonymous rows into one store and the counts of the batch into the other, both at the same time,
   about BATCH events a batch (whoever fetches runs goes by the run), offsets committed after that.

Each contestant is a process of its own that ends with one line of JSON: what came out, and its clock. The clock starts
when the contestant's own code gets the first event and stops when the last one is done (with inserts: acknowledged by
both stores). Start-up, joining the group and loading the preferences come before it.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import msgspec

from benchmarks.compare.stores import Inserter

HOUR_MS = 3_600_000
BATCH = 40_000  # events, of which about half bring a row
FETCH_BYTES = 4 << 20  # of a partition at once; every contestant's own default is 1 MB
KEY = b"the key of one tenant and purpose"

Cell = tuple[str, str, str, int]
"""mailing, kind, link, hour."""


class DidNotFinish(Exception):
    """A contestant ended early or was not done in time; the text says how."""


@dataclass(frozen=True, slots=True)
class Task:
    """What a contestant is told: a file of JSON, named by its first argument."""

    broker: str
    topic: str
    group: str
    events: int
    preferences: str
    inserts: bool
    rows_url: str
    counts_url: str
    password: str = field(repr=False)


def task() -> Task:
    """The task of this process."""
    return Task(**json.loads(Path(sys.argv[1]).read_text()))


class Event(msgspec.Struct, gc=False):
    """One record, typed. msgspec refuses a missing field and any other type."""

    event_id: str
    kind: Literal["open", "click"]
    tenant: str
    mailing: str
    recipient: str
    occurred_at: int
    url: str | None = None
    link: str | None = None
    user_agent: str | None = None
    ip: str | None = None


read = msgspec.json.Decoder(Event).decode


def _padded(byte: int) -> Any:
    return hashlib.sha256(bytes(key ^ byte for key in KEY.ljust(64, b"\0")))


_inner, _outer = _padded(0x36).copy, _padded(0x5C).copy


def pseudonym(salt: bytes, recipient: str) -> bytes:
    """HMAC-SHA-256 from two hashes that have taken in the key already: half the time of `hmac.digest`."""
    inner = _inner()
    inner.update(salt + recipient.encode())
    outer = _outer()
    outer.update(inner.digest())
    digest: bytes = outer.digest()
    return digest[:16]


def preferences(path: str) -> dict[str, bytes]:
    """Recipient -> salt, empty when she granted nothing."""
    with Path(path).open() as file:
        return {name: bytes.fromhex(salt) for name, _, salt in (line.rstrip("\n").partition("\t") for line in file)}


class Clock:
    """From the first event to the last, and its second half: wall clock and processor time of the whole process."""

    def __init__(self, events: int) -> None:
        self._half = events // 2
        self._marks: list[tuple[float, float, int]] = []

    def start(self) -> None:
        """The first event is there. Later calls change nothing."""
        if not self._marks:
            self._mark(0)

    def passed(self, count: int) -> None:
        """So many events are done."""
        if len(self._marks) == 1 and count >= self._half:
            self._mark(count)

    def stop(self, count: int) -> None:
        """The last one is done."""
        self._mark(count)

    def _mark(self, count: int) -> None:
        self._marks.append((time.monotonic(), time.process_time(), count))

    def figures(self) -> dict[str, float]:
        """Seconds and processor seconds of all events, and of those after the half."""
        (start, cpu, _), (middle, half_cpu, half), (end, last_cpu, count) = self._marks
        if half >= count:  # so few events that one batch went past the half and held the last
            middle, half_cpu, half = start, cpu, 0
        return {
            "seconds": end - start,
            "cpu_seconds": last_cpu - cpu,
            "second_events": count - half,
            "second_seconds": end - middle,
            "second_cpu_seconds": last_cpu - half_cpu,
        }


class Columns:
    """Pseudonymous rows, column by column: what clickhouse-connect takes fastest."""

    __slots__ = ("kinds", "links", "mailings", "pseudonyms", "times")

    def __init__(self) -> None:
        self.mailings: list[str] = []
        self.kinds: list[str] = []
        self.links: list[str] = []
        self.times: list[int] = []
        self.pseudonyms: list[bytes] = []

    def __len__(self) -> int:
        return len(self.times)

    def add(self, mailing: str, kind: str, link: str, time_ms: int, name: bytes) -> None:
        """One row."""
        self.mailings.append(mailing)
        self.kinds.append(kind)
        self.links.append(link)
        self.times.append(time_ms)
        self.pseudonyms.append(name)


class Work:
    """THE WORK, event by event, for every Python contestant but Schleuse. Not thread-safe."""

    def __init__(self, told: Task) -> None:
        self.task, self.clock = told, Clock(told.events)
        self.known = preferences(told.preferences)
        self.count = self.rows = self.sum = self.flushed = 0
        self.people: defaultdict[str, set[str]] = defaultdict(set)
        self.totals: dict[Cell, int] = {}
        self._cells: dict[Cell, int] = {}
        self._columns = Columns()
        self._inserter = Inserter(told.rows_url, told.counts_url, told.password) if told.inserts else None

    @property
    def finished(self) -> bool:
        """Whether all events have come."""
        return self.count >= self.task.events

    @property
    def full(self) -> bool:
        """Whether there is a batch to insert: BATCH events, or the last ones."""
        return self._inserter is not None and (self.count - self.flushed >= BATCH or self.finished)

    def many(self, raws: Iterable[bytes]) -> None:
        """A run of records."""
        self.clock.start()
        known, people, cells, keep = self.known, self.people, self._cells, self._inserter is not None
        add, read_, pseudonym_, number = self._columns.add, read, pseudonym, int.from_bytes
        count = rows = checksum = 0
        for raw in raws:
            event = read_(raw)
            count += 1
            mailing, recipient, kind, at, url = event.mailing, event.recipient, event.kind, event.occurred_at, event.url
            link = "" if url is None else url.partition("?")[0].partition("#")[0]
            cell = (mailing, kind, link, at // HOUR_MS)
            cells[cell] = cells.get(cell, 0) + 1
            people[mailing].add(recipient)
            salt = known.get(recipient)
            if salt:
                name = pseudonym_(salt, recipient)
                rows += 1
                checksum += number(name[:8], "little")
                if keep:
                    add(mailing, kind, link, at, name)
        self.count += count
        self.rows += rows
        self.sum += checksum
        self.clock.passed(self.count)

    def one(self, raw: bytes) -> None:
        """One record; the same as `many`, for tools that hand out one at a time."""
        if not self.count:
            self.clock.start()
        event = read(raw)
        mailing, recipient, kind, at, url = event.mailing, event.recipient, event.kind, event.occurred_at, event.url
        link = "" if url is None else url.partition("?")[0].partition("#")[0]
        cell = (mailing, kind, link, at // HOUR_MS)
        self._cells[cell] = self._cells.get(cell, 0) + 1
        self.people[mailing].add(recipient)
        salt = self.known.get(recipient)
        if salt:
            name = pseudonym(salt, recipient)
            self.rows += 1
            self.sum += int.from_bytes(name[:8], "little")
            if self._inserter is not None:
                self._columns.add(mailing, kind, link, at, name)
        self.count += 1
        if self.count * 2 == self.task.events:
            self.clock.passed(self.count)

    def take(self) -> tuple[Columns, dict[Cell, int]]:
        """What has come since the last batch."""
        columns, cells = self._columns, self._cells
        self._columns, self._cells, self.flushed = Columns(), {}, self.count
        for cell, events in cells.items():
            self.totals[cell] = self.totals.get(cell, 0) + events
        return columns, cells

    def insert(self, columns: Columns, cells: dict[Cell, int]) -> None:
        """Into both stores at the same time; returns when both have acknowledged."""
        assert self._inserter is not None
        self._inserter.lists(columns, cells)

    def flush(self) -> None:
        """Insert what has come since the last batch. Blocking."""
        self.insert(*self.take())

    def end(self) -> None:
        """Stop the clock and say what came out."""
        self.clock.stop(self.count)
        if self._inserter is None:
            self.take()
        say(self.clock, self.count, self.rows, self.sum, self.totals, self.people)


def digest(people: Iterable[str]) -> str:
    """Of a set of recipients: SHA-256 over them in order, a line each."""
    return hashlib.sha256("\n".join(sorted(people)).encode()).hexdigest()


def outcome(
    count: int, rows: int, checksum: int, cells: dict[Cell, int], people: dict[str, set[str]]
) -> dict[str, Any]:
    """What came out, in the form in which contestants and truth are compared."""
    return {
        "events": count,
        "rows": rows,
        "sum": f"{checksum % 2**64:016x}",  # of the pseudonyms' first halves, an event each
        "cells": sorted([*cell, events] for cell, events in cells.items()),
        "recipients": {mailing: [len(people[mailing]), digest(people[mailing])] for mailing in sorted(people)},
    }


def say(
    clock: Clock, count: int, rows: int, checksum: int, cells: dict[Cell, int], people: dict[str, set[str]]
) -> None:
    """Print the one line that the driver reads, and leave at once: what a tool does at its end is not measured."""
    result = {"result": outcome(count, rows, checksum, cells, people), **clock.figures(), "peak_kb": peak_kb("self")}
    sys.stdout.write(json.dumps(result) + "\n")
    sys.stdout.flush()
    os._exit(0)


def peak_kb(process: int | str) -> int:
    """Most memory that a process has held so far (VmHWM), in KB."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1])
    raise OSError("no VmHWM: the comparison needs Linux")
