"""One soak: three brokers, both stores behind proxies, workers, a story, all that can go wrong, and the verdict."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from deploy.embedded.stack import Stack
from streams.stores import Store
from tests import reference
from tests.lock import Lock, now_ms
from tests.proxy import Proxy
from tests.soak.faults import Done, System, carry_out, schedule
from tests.soak.fleet import Fleet, clock
from tests.soak.looks import (
    DAY_SECONDS,
    compact,
    figures,
    listen,
    look_on,
    removed_by_compaction,
    settle,
    until_compacted,
)
from tests.soak.sending import Sent, send
from tests.story import AGENTS, TENANTS, Story

BROKERS, WATCH_SECONDS = 3, 5.0
CLOCKS = (DAY_SECONDS, -DAY_SECONDS)  # of the first two workers; the others' are right


@dataclass(frozen=True, slots=True)
class Scale:
    """How much, and each fault how often. `changes`: decisions an event; `rows`, `batch`, `session`: workers' settings.

    The story is told over `seconds`, or longer where the machine is slow, and the faults fall into it; after that there
    is calm for at most `settle`.
    """

    partitions: int
    workers: int
    events: int
    recipients: int
    changes: float
    seconds: float
    settle: float
    rows: int
    batch: float
    session: float
    faults: Mapping[str, int]


LONG = Scale(
    partitions=12,
    workers=4,
    events=2_000_000,
    recipients=20_000,
    changes=0.015,
    seconds=1_300,
    settle=1_800,
    rows=20_000,
    batch=1.0,
    session=10,
    faults={
        "worker killed": 24,
        "worker stopped past its session": 8,
        "worker joins and leaves": 20,
        "broker killed": 6,
        "broker restarted": 4,
        "leaders moved": 8,
        "store refuses": 8,
        "store resets after applying": 8,
        "store stalls": 3,
        "store cuts an answer": 8,
    },
)
SHORT = Scale(
    partitions=6,
    workers=3,
    events=150_000,
    recipients=3_000,
    changes=0.02,
    seconds=100,
    settle=300,
    rows=5_000,
    batch=0.5,
    session=10,
    faults={
        "worker killed": 3,
        "worker stopped past its session": 1,
        "worker joins and leaves": 2,
        "broker killed": 1,
        "broker restarted": 1,
        "leaders moved": 1,
        "store refuses": 1,
        "store resets after applying": 2,
        "store stalls": 1,
        "store cuts an answer": 2,
    },
)


@dataclass
class Outcome:
    """What a soak found."""

    seed: int
    scale: Scale
    began: datetime
    directory: Path
    done: list[Done] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)
    said: Counter[str] = field(default_factory=Counter)
    ended: Counter[str] = field(default_factory=Counter)
    exits: Counter[str] = field(default_factory=Counter)
    clocks: Counter[str] = field(default_factory=Counter)
    comparison: reference.Report | None = None
    after_receipts: list[str] = field(default_factory=list)
    """Rows and mappings that were seen in a store after the receipt that says that they are gone."""
    missing: list[str] = field(default_factory=list)
    """What was to be done and was not: then the run proves less than it says."""
    skipped: list[str] = field(default_factory=list)
    """What cannot be done on this machine."""

    @property
    def holds(self) -> bool:
        """Whether nothing differs, and everything that was to be done was done."""
        return bool(self.comparison and not (self.comparison.lines or self.after_receipts or self.missing))


def soak(seed: int, scale: Scale, directory: Path, tell: Callable[[str], None]) -> Outcome:
    """Run it, in a new directory. What goes wrong with the run itself is raised; what goes wrong in it is told."""
    outcome = Outcome(seed, scale, datetime.now().astimezone(), directory)
    with _started(directory, scale) as (pool, lock, tap), ExitStack() as open_until_the_end:
        enter = open_until_the_end.enter_context
        proxies = {store: enter(Proxy(lock.stack.url(store))) for store in Store}
        through = {f"SCHLEUSE_{store.upper()}_URL": proxy.url for store, proxy in proxies.items()}
        watch = enter(reference.Watch(lock.rows, WATCH_SECONDS))
        fleet = enter(Fleet(lock, _environments(directory, scale.workers, through, outcome), through))
        tell(f"{scale.workers} workers, {scale.partitions} partitions, {BROKERS} brokers: the soak begins")
        began = time.monotonic()
        outcome.figures = _play(outcome, System(lock, fleet, proxies, scale.session), pool, tell)
        calm = time.monotonic()
        tell("all is said and done to it; waiting until everything is carried out")
        if behind := settle(lock, scale.settle):
            outcome.missing.append(f"after {scale.settle:.0f} s of calm {behind} records were still not carried out")
        settled = time.monotonic()
        removed = removed_by_compaction(lock)
        fleet.close()
        for slot in fleet.slots:
            fleet.leave(slot.worker)
        tap.stop(300)
        outcome.ended, outcome.exits = fleet.ended, fleet.exits
        outcome.said, outcome.clocks = listen(lock)
        _missing(outcome, removed)
        tell("comparing")
        outcome.comparison = _compare(lock, directory)
        outcome.after_receipts = watch.after_receipts(outcome.comparison.expected)
        outcome.figures |= {
            **figures(lock),
            "looks at both stores for what outlives its receipt": watch.looks - watch.failed,
            "records that compaction has taken out of tracking.state": removed,
            "seconds of faults": round(calm - began),
            "seconds to settle": round(settled - calm),
        }
    return outcome


@contextmanager
def _started(directory: Path, scale: Scale) -> Iterator[tuple[ThreadPoolExecutor, Lock, reference.Tap]]:
    """Brokers, stores, topics and tables, and a tap on every topic."""
    with ThreadPoolExecutor(64, "fault") as pool:
        # By a thread of the pool: what the parts are tied to must outlive every fault that starts one of them again.
        stack = Stack(directory, "kafka", nodes=BROKERS, die_with_parent=True)
        try:
            pool.submit(stack.start).result()
            lock = Lock(stack, TENANTS, scale.partitions)
            lock.environment["SCHLEUSE_BATCH_ROWS"] = str(scale.rows)
            lock.environment["SCHLEUSE_BATCH_SECONDS"] = str(scale.batch)
            lock.environment["SCHLEUSE_SESSION_TIMEOUT_SECONDS"] = str(scale.session)
            with lock:
                compact(lock)
                tap = reference.Tap(stack.broker_address, directory / "tap", reference.TOPICS)
                tap.start()
                try:
                    yield pool, lock, tap
                finally:
                    tap.kill()
        finally:
            stack.stop()


def _play(outcome: Outcome, system: System, pool: ThreadPoolExecutor, tell: Callable[[str], None]) -> dict[str, Any]:
    """Tell the story and do all faults; returns when both are over."""
    lock, seed, scale = system.lock, outcome.seed, outcome.scale
    story = Story(seed, scale.events, now_ms() - 1000, scale.recipients, scale.changes, scale.partitions)
    every = scale.seconds / scale.events / (1 + scale.changes)
    over, sent = threading.Event(), Sent()
    try:
        sending = pool.submit(
            lambda: asyncio.run(send(lock.stack.broker_address, scale.partitions, story.messages(), every, sent, over))
        )
        pool.submit(look_on, lock, over, tell)
        lock.until(lambda: lock.status()["received"], 600, "the workers to begin")
        until_compacted(lock)
        told = sent.messages  # so far all is calm: the faults fall into the rest

        def age() -> float:
            share = (sent.messages - told) / (scale.seconds / every - told)
            return math.inf if sending.done() else share * scale.seconds

        outcome.done = carry_out(schedule(seed, scale.seconds, scale.faults), system, pool, age, tell)
        sending.result()
    finally:
        over.set()
    return {"events sent": sent.events, "messages sent again, since nobody had acknowledged them": sent.again}


def _environments(directory: Path, workers: int, through: dict[str, str], outcome: Outcome) -> list[dict[str, str]]:
    library = clock(directory)
    if library is None:
        outcome.skipped.append("no worker's clock was put wrong: that takes Linux and a C compiler (cc)")
    shifts = [*CLOCKS, *(0 for _ in range(workers))][:workers]
    return [
        {**through, "LD_PRELOAD": str(library), "CLOCK_SHIFT_SECONDS": str(shift)} if shift and library else through
        for shift in shifts
    ]


def _missing(outcome: Outcome, removed: int) -> None:
    """Say what was planned and did not happen."""
    for name, times in outcome.scale.faults.items():
        happened = sum(one.name == name and not one.failed for one in outcome.done)
        if happened < times:
            outcome.missing.append(f"{name}: {happened} of {times}")
    if removed <= 0:
        outcome.missing.append("nothing was compacted")
    for shift in () if outcome.skipped else CLOCKS:
        if not outcome.clocks[f"{shift // DAY_SECONDS:+d} days"]:
            outcome.missing.append(f"no worker's clock was off by {shift // DAY_SECONDS:+d} days")


def _compare(lock: Lock, directory: Path) -> reference.Report:
    settings = lock.settings
    ring = reference.Ring(settings.keyring, settings.keyring_kek)
    log = reference.Files(directory / "tap")
    claims = reference.read_claims(lock.rows)
    expected = reference.expect(log, claims, reference.tenants(TENANTS), ring, AGENTS, lock.partitions)
    return reference.compare(expected, reference.read(log, lock.rows, ring, lock.partitions))
