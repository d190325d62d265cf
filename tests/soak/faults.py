"""What is done to a system under soak, as data: a seed makes the schedule, each fault is one small function.

Never more than one broker is down or catching up, since min.insync.replicas is 2 of 3; all else may coincide.
"""

from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from kafka import KafkaAdminClient, TopicPartition

from streams import topics
from streams.broker import admin
from streams.stores import Store
from tests import proxy as network
from tests.lock import Lock, WorkerProcess
from tests.proxy import Exchange, Fault, Proxy
from tests.soak.fleet import Fleet

READY_SECONDS, WHOLE_SECONDS, MET_SECONDS = 240.0, 240.0, 300.0
STALL_SECONDS = 60.0
MOST_MET = 12  # requests that one fault of a store is done to
LED = (
    topics.EVENTS,
    topics.CHANGES,
    topics.STATE,
    topics.PREFERENCES,
    topics.REQUESTS,
    topics.RECEIPTS,
    "__consumer_offsets",
)


@dataclass
class System:
    """What faults are done to, and the locks that keep two of them from being done to the same part."""

    lock: Lock
    fleet: Fleet
    proxies: Mapping[Store, Proxy]
    session_seconds: float
    broker: threading.Lock = field(default_factory=threading.Lock)
    stores: Mapping[Store, threading.Lock] = field(default_factory=lambda: {store: threading.Lock() for store in Store})


Doing = Callable[[System, random.Random], str]
"""Does it, and returns what exactly was done, once it is over."""

# --- workers ---


def worker_killed(system: System, chance: random.Random) -> str:
    with system.fleet.some_slot(chance) as slot:
        slot.worker.kill()
        time.sleep(chance.random() * 2)
        slot.worker = system.fleet.start(slot.environment)
    return "SIGKILL, another one started"


def worker_stopped(system: System, chance: random.Random) -> str:
    """Past the session timeout: others take its partitions; then it wakes up."""
    seconds = system.session_seconds * (1.3 + chance.random())
    with system.fleet.some_slot(chance) as slot:
        slot.worker.process.send_signal(signal.SIGSTOP)
        time.sleep(seconds)
        slot.worker.process.send_signal(signal.SIGCONT)
    return f"SIGSTOP for {seconds:.1f} s"


def worker_joins_and_leaves(system: System, chance: random.Random) -> str:
    worker = system.fleet.start(system.fleet.guest)
    until = time.monotonic() + READY_SECONDS
    while worker.process.poll() is None and not (owns := _owns(worker)) and time.monotonic() < until:
        time.sleep(0.2)
    time.sleep(chance.random() * 5)
    system.fleet.leave(worker)
    return f"joined, had {owns} partitions, left" if owns else "joined, left before it had a partition"


def _owns(worker: WorkerProcess) -> int:
    try:
        return worker.get("/ready") == b"ready\n" and worker.get("/status").count(b'"partition":')
    except OSError:  # not up yet, or 503
        return 0


# --- brokers ---


def broker_killed(system: System, chance: random.Random) -> str:
    with system.broker:
        name = chance.choice(system.lock.stack.brokers)
        system.lock.stack.kill(name)
        seconds = 2 + chance.random() * 10
        time.sleep(seconds)
        system.lock.stack.start([name])
        whole = _until_whole(system)
    return f"{name}: SIGKILL, started again after {seconds:.0f} s; all copies in sync {whole:.0f} s later"


def broker_restarted(system: System, chance: random.Random) -> str:
    with system.broker:
        name = chance.choice(system.lock.stack.brokers)
        system.lock.stack.restart(name)
        whole = _until_whole(system)
    return f"{name}: SIGTERM and a start; all copies in sync {whole:.0f} s later"


def leaders_moved(system: System, chance: random.Random) -> str:
    """Every partition's replicas in another order, and the first of them elected."""
    with system.broker, admin(system.lock.stack.broker_address, "moving leaders") as client:
        before = _leaders(client)
        turns = chance.choice((1, 2))
        client.alter_partition_reassignments(
            {tp: [*replicas[turns:], *replicas[:turns]] for tp, (_, replicas) in before.items()}
        )
        time.sleep(1)
        client.elect_leaders(0, list({tp.topic for tp in before}))
        time.sleep(1)
        after = _leaders(client)
    return f"{sum(after[tp][0] != before[tp][0] for tp in after)} of {len(after)} partitions have another leader"


def _leaders(client: KafkaAdminClient) -> dict[TopicPartition, tuple[int, list[int]]]:
    return {
        TopicPartition(one["name"], partition["partition_index"]): (partition["leader_id"], partition["replica_nodes"])
        for one in client.describe_topics(list(LED))
        for partition in one["partitions"]
    }


def _until_whole(system: System) -> float:
    """Wait until every copy of every partition is in sync; how long that took."""
    began = time.monotonic()
    while time.monotonic() < began + WHOLE_SECONDS:
        with admin(system.lock.stack.broker_address, "looking for copies that lag") as client:
            found = client.describe_topics()
            if all(len(p["isr_nodes"]) == len(p["replica_nodes"]) for one in found for p in one["partitions"]):
                return time.monotonic() - began
        time.sleep(0.5)
    raise TimeoutError(f"copies still lag after {WHOLE_SECONDS} s")


# --- stores ---


def store_refuses(system: System, chance: random.Random) -> str:
    """Nobody listens, or ClickHouse says no, or what stands before it does."""
    seconds, how = 2 + chance.random() * 4, chance.choice(("refuses connections", "too many parts", "bad gateway"))
    with _some_store(system, chance) as (store, proxy):
        if how == "refuses connections":
            proxy.down()
            time.sleep(seconds)
            proxy.up()
        else:
            fault = network.bad_gateway if how == "bad gateway" else network.says(252, "TOO_MANY_PARTS")
            _for(seconds, proxy, fault)
    return f"{store}: {how} for {seconds:.1f} s"


def store_resets_after_applying(system: System, chance: random.Random) -> str:
    """Writes above all: who may only read would start anew for ever, since a worker that cannot log in ends."""
    counted = _Counted(network.lost_answer)
    seldom, often = (network.sometimes(share, chance.randrange(1 << 30), counted) for share in (0.05, 0.6))
    return _until(
        system,
        chance,
        lambda exchange: (often if exchange.writes else seldom)(exchange),
        lambda: counted.writes,
        lambda: f"lost {counted.met} answers, {counted.writes} of them to writes that it had carried out",
    )


def store_truncates(system: System, chance: random.Random) -> str:
    counted = _Counted(network.cut(0.2 + chance.random() * 0.7))
    return _until(
        system,
        chance,
        network.sometimes(0.3, chance.randrange(1 << 30), counted),
        lambda: counted.met,
        lambda: f"{counted.met} answers cut in the middle, {counted.writes} of them to writes",
    )


def _until(system: System, chance: random.Random, fault: Fault, met: Callable[[], int], told: Callable[[], str]) -> str:
    """A store has the fault until enough requests have met it."""
    wanted = chance.randint(3, MOST_MET)
    with _some_store(system, chance) as (store, proxy):
        began = time.monotonic()
        proxy.fault = fault
        while met() < wanted and time.monotonic() < began + MET_SECONDS:
            time.sleep(0.1)
        proxy.fault = None
    if not met():
        raise TimeoutError(f"nothing that {store} was asked met it within {MET_SECONDS:.0f} s")
    return f"{store}: {told()}, in {time.monotonic() - began:.1f} s"


def store_stalls(system: System, chance: random.Random) -> str:
    """For a minute from the first request on, nothing is passed on; then all of it is, whoever still waits for it."""
    counted, ends = _Counted(network.passed_on), list[float]()

    def stalled(exchange: Exchange) -> None:
        ends.append(time.monotonic() + STALL_SECONDS)
        time.sleep(max(0.0, ends[0] - time.monotonic()))
        counted(exchange)

    with _some_store(system, chance) as (store, proxy):
        began = time.monotonic()
        proxy.fault = stalled
        while time.monotonic() < (ends[0] if ends else began + MET_SECONDS):
            time.sleep(0.1)
        proxy.fault = None
    if not ends:
        raise TimeoutError(f"{store} was asked nothing within {MET_SECONDS:.0f} s")
    return f"{store}: no answer for {STALL_SECONDS:.0f} s; {len(ends)} requests waited"


class _Counted:
    """A fault, and how many requests met it."""

    def __init__(self, fault: Fault) -> None:
        self._fault, self.met, self.writes = fault, 0, 0

    def __call__(self, exchange: Exchange) -> None:
        self.met += 1
        self.writes += exchange.writes
        self._fault(exchange)


def _for(seconds: float, proxy: Proxy, fault: Fault) -> None:
    proxy.fault = fault
    time.sleep(seconds)
    proxy.fault = None


@contextmanager
def _some_store(system: System, chance: random.Random) -> Iterator[tuple[Store, Proxy]]:
    store = chance.choice((Store.ANALYTICS, Store.ANALYTICS, Store.IDENTITY))  # most of what is asked is asked there
    with system.stores[store]:
        yield store, system.proxies[store]


FAULTS: dict[str, Doing] = {
    "worker killed": worker_killed,
    "worker stopped past its session": worker_stopped,
    "worker joins and leaves": worker_joins_and_leaves,
    "broker killed": broker_killed,
    "broker restarted": broker_restarted,
    "leaders moved": leaders_moved,
    "store refuses": store_refuses,
    "store resets after applying": store_resets_after_applying,
    "store stalls": store_stalls,
    "store cuts an answer": store_truncates,
}


# --- the schedule ---


class Planned(NamedTuple):
    """One fault: when the story is so many seconds old. `seed` is all its chance."""

    at: float
    name: str
    seed: int


class Done(NamedTuple):
    """What became of one fault; `planned` in seconds of the story, the others in true ones."""

    planned: float
    began: float
    ended: float
    name: str
    what: str
    failed: bool


def schedule(seed: int, seconds: float, often: Mapping[str, int]) -> list[Planned]:
    """Each fault as often as said, spread evenly over the time, each at a random instant of its share of it."""
    chance = random.Random(seed)
    return sorted(
        Planned(round((number + chance.random()) * seconds / times, 1), name, chance.randrange(1 << 30))
        for name, times in often.items()
        for number in range(times)
    )


def carry_out(
    planned: list[Planned],
    system: System,
    pool: ThreadPoolExecutor,
    age: Callable[[], float],
    tell: Callable[[str], None],
) -> list[Done]:
    """Do all of it, each fault in a thread of `pool`, and return when the last one is over.

    `age` of the story, in its own seconds: where the machine is slow the faults still fall into all of it.

    The pool has to live as long as the brokers: what a thread started ends with it.
    """

    began = time.monotonic()

    def one(fault: Planned) -> Done:
        start, failed = time.monotonic() - began, False
        try:
            what = FAULTS[fault.name](system, random.Random(fault.seed))
        except Exception as error:  # a fault that could not be done is a finding, and the rest goes on
            what, failed = f"{type(error).__name__}: {error}", True
        done = Done(fault.at, start, time.monotonic() - began, fault.name, what, failed)
        tell(f"{done.began:6.0f} s  {done.name}: {done.what}")
        return done

    running: list[Future[Any]] = []
    for fault in planned:
        while age() < fault.at:
            time.sleep(0.05)
        running.append(pool.submit(one, fault))
    return [future.result() for future in running]
