"""A broker that comes back empty: a new incarnation, where nothing is skipped, doubled, or known above what was agreed.

Tansu keeps its log in memory, so restarting it is the fault itself.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from deploy.embedded.stack import Stack
from streams.stores import Store
from tests.lock import Lock, Message, WorkerProcess, event, now_ms, preference

pytestmark = pytest.mark.stack

CELL = ("acme", "i", "open", None, "human")
OFF, PERSONAL, PSEUDONYMOUS, UNKNOWN = (f"i.{mode}@example.com" for mode in ("off", "personal", "pseudo", "unknown"))
EVERYBODY = (OFF, PERSONAL, PSEUDONYMOUS, UNKNOWN)


@pytest.fixture
def lock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lock]:
    with Stack(tmp_path_factory.mktemp("incarnations"), "tansu", die_with_parent=True) as stack, Lock(stack) as running:
        yield running


def status(worker: WorkerProcess) -> dict[str, Any]:
    """What the worker says of itself."""
    said: dict[str, Any] = json.loads(worker.get("/status"))
    return said


def carried_out(lock: Lock, worker: WorkerProcess, messages: list[Message]) -> None:
    """Send preferences, and wait until the worker has carried their changes out."""

    def changes() -> int:
        return sum(line["next_change"] for line in status(worker)["partitions"])

    lock.until(lambda: b"ready" in worker.get("/ready"), what="the worker")
    want = changes() + len(messages)
    lock.send(messages)
    lock.until(lambda: changes() >= want, what="changes to be carried out")


def opens(recipient: str, *numbers: int, **fields: Any) -> list[Message]:
    return [event("acme", recipient, mailing="i", event_id=f"{recipient[:8]}-{n}", **fields) for n in numbers]


def kept(lock: Lock) -> tuple[int, int]:
    """Rows in engagement, and mappings."""
    ((rows,),) = lock.rows(Store.ANALYTICS, "SELECT count() FROM engagement")
    ((mappings,),) = lock.rows(Store.IDENTITY, "SELECT count() FROM recipients")
    return rows, mappings


def ended(worker: WorkerProcess, seconds: float = 45) -> str:
    """Wait until a worker has ended by itself, with 1; the one sentence that it ended with."""
    end = time.monotonic() + seconds
    while worker.process.poll() is None and time.monotonic() < end:
        time.sleep(0.1)
    assert worker.process.poll() == 1, f"it has to end by itself:\n{worker.text()[-3000:]}"
    lines = [json.loads(line) for line in worker.text().splitlines() if line.startswith("{")]
    (sentence,) = [line["reason"] for line in lines if line["event"] == "worker ends"]
    return str(sentence)


def lose_everything(lock: Lock) -> None:
    """Tansu keeps its log in memory."""
    lock.stack.kill("broker")
    lock.stack.start(only=["broker"])


def forget(lock: Lock, worker: WorkerProcess) -> WorkerProcess:
    """Let the broker lose everything; the old worker has to see it and to end by itself. The next one."""
    lose_everything(lock)
    too_early = lock.run("worker", check=False)  # takes its time, in which the old one looks too
    assert too_early.returncode == 1
    assert "schleuse topics" in too_early.stderr
    assert "Traceback" not in too_early.stderr
    lock.until(
        lambda: worker.process.poll() is not None or "schleuse topics" in worker.text(),
        what="the worker to say that the topics are gone",
    )
    lock.run("topics")
    assert "topics" in ended(worker)
    return lock.worker()


def test_a_broker_that_forgot_everything_begins_a_new_incarnation(lock: Lock) -> None:
    worker = lock.worker()
    lock.until(lambda: worker.text().count("partitions taken"), what="the worker")
    decided = now_ms() - 60_000
    carried_out(
        lock,
        worker,
        [
            preference("acme", OFF, "*", decided, mode="off"),
            preference("acme", PERSONAL, {"engagement": {"open": "personal"}}, decided),
            preference("acme", PSEUDONYMOUS, {"engagement": {"open": "pseudonymous"}}, decided),
        ],
    )
    for who in EVERYBODY:
        lock.send(opens(who, *range(10)))
    first = lock.settle()
    assert (first["counted"], first["off"], first["duplicates"]) == (30, 10, 0)
    assert lock.totals()[CELL] == (30, 3)
    assert kept(lock) == (20, 1)

    worker = forget(lock, worker)
    # Fewer events than there were offsets before: whoever held on to old positions would skip them all.
    for who in EVERYBODY:
        lock.send(opens(who, 3, 4, 10, 11))  # two retries of events from before, and two that are new
    second = lock.settle()
    assert status(worker)["incarnation"] == 2
    assert (second["duplicates"], second["rejected"]) == (8, 0)
    assert (second["counted"], second["off"]) == (30 + 6, 10 + 2)
    assert lock.totals()[CELL] == (36, 3), "what was counted stays, and everybody is the person she was"
    assert kept(lock) == (0, 0), "rows and mappings whose salts are lost are gone, and nothing new was agreed to"

    # What comes late from before does not make more known; what is decided anew does.
    carried_out(
        lock,
        worker,
        [
            preference("acme", OFF, {"engagement": {"open": "personal"}}, decided - 1),
            preference("acme", OFF, "*", mode="anonymous"),
            preference("acme", PERSONAL, {"engagement": {"open": "personal"}}, now_ms() - 2000),
        ],
    )
    lock.send([*opens(OFF, 12), *opens(PERSONAL, 12), *opens(UNKNOWN, 12)])
    third = lock.settle()
    assert (third["counted"], third["off"]) == (38, 13)
    assert kept(lock) == (1, 1)

    # Lost again, while the old worker still reads and the new log soon reaches beyond its positions. Who was off two
    # incarnations ago is off, until she says otherwise.
    lose_everything(lock)
    lock.run("topics")
    bulk = [one for n in range(1000, 1500) for who in EVERYBODY for one in opens(who, n)]
    lock.send([*bulk, *opens(OFF, 13), *opens(PERSONAL, 12, 13), *opens(UNKNOWN, 0, 13)])
    old, worker = worker, lock.worker()
    ended(old)
    counted, off = 38 + 3 * 500 + 2, 13 + 500 + 1
    lock.until(lambda: (now := lock.status())["counted"] + now["off"] >= counted + off, what="the new events")
    lock.until(lambda: not any(line["lag"] for line in status(worker)["partitions"]), what="the rest")
    fourth = lock.status()
    assert status(worker)["incarnation"] == 3
    # Those that the old worker had counted already are received twice, and so duplicates more.
    assert (fourth["counted"], fourth["off"], fourth["adds_up"]) == (counted, off, True)
    assert fourth["duplicates"] >= 10
    assert kept(lock) == (0, 0)
    carried_out(lock, worker, [preference("acme", OFF, {"engagement": {"open": "anonymous"}}, now_ms() - 2000)])
    lock.send(opens(OFF, 14))
    lock.until(lambda: lock.status()["counted"] > counted, what="the event of one who is not off any more")
    assert lock.totals()[CELL] == (counted + 1, 4)
    assert lock.status()["off"] == off
    assert "@" not in "".join(one.text() for one in lock.workers)
