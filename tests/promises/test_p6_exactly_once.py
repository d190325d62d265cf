"""P6, short: workers killed and stores restarted in the middle; totals and uniques equal a plain count of the log."""

from __future__ import annotations

import random
import time
from collections import Counter, defaultdict
from collections.abc import Iterator

import pytest

from deploy.embedded.stack import Stack
from tests.lock import Lock, Message, event, now_ms

pytestmark = pytest.mark.stack


@pytest.fixture
def lock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lock]:
    with Stack(tmp_path_factory.mktemp("faults"), "tansu", die_with_parent=True) as stack, Lock(stack) as running:
        yield running


def story(number: int, seed: int) -> tuple[list[Message], dict[tuple[str, str], tuple[int, int]], int]:
    """Events with retries, and the truth: (mailing, kind) -> events and distinct recipients; how many are retries."""
    chance = random.Random(seed)
    messages: list[Message] = []
    counts: Counter[tuple[str, str]] = Counter()
    people: dict[tuple[str, str], set[str]] = defaultdict(set)
    retries = 0
    for index in range(number):
        who, mailing = f"r{chance.randrange(500)}@example.com", f"f{chance.randrange(5)}"
        kind = chance.choice(["open", "open", "click"])
        link = {"url": "https://x.example/a"} if kind == "click" else {}
        messages.append(event("acme", who, event_id=f"{seed}-{index}", mailing=mailing, kind=kind, **link))
        counts[mailing, kind] += 1
        people[mailing, kind].add(who)
        if chance.random() < 0.05:
            messages.append(messages[chance.randrange(len(messages))])
            retries += 1
    return messages, {cell: (counts[cell], len(people[cell])) for cell in counts}, retries


def check(lock: Lock, truth: dict[tuple[str, str], tuple[int, int]], messages: int, retries: int) -> None:
    said = lock.settle(seconds=90)
    got = {(cell[1], cell[2]): total for cell, total in lock.totals().items() if cell[3] is None}
    assert got == truth
    assert (said["received"], said["duplicates"], said["rejected"]) == (messages, retries, 0)
    assert said["adds_up"]


def test_workers_killed_in_the_middle(lock: Lock) -> None:
    messages, truth, retries = story(30_000, seed=now_ms() % 1000)
    chance = random.Random(7)
    lock.send(messages[:10_000])
    workers = [lock.worker(), lock.worker()]
    for step in range(4):
        time.sleep(0.5 + chance.random() * 2.5)
        victim = workers.pop(0)
        victim.kill()
        workers.append(lock.worker())
        part = messages[10_000 + step * 5_000 : 10_000 + (step + 1) * 5_000]
        lock.send(part)
    lock.send(messages[30_000:])
    check(lock, truth, len(messages), retries)
    assert workers[0].kill(15) == 0, "SIGTERM ends a worker with 0"


def test_a_store_that_goes_away_is_waited_for(lock: Lock) -> None:
    messages, truth, retries = story(9_000, seed=3)
    worker = lock.worker()
    lock.send(messages[:3_000])
    lock.settle(received=1)
    for store in ("analytics", "identity"):
        lock.stack.kill(store)
        lock.send(messages[3_000:6_000] if store == "analytics" else messages[6_000:])
        if store == "analytics":
            lock.until(lambda: b"did not answer" in worker.get("/status"), what="the worker to say what it waits for")
        lock.stack.restart(store)
    check(lock, truth, len(messages), retries)
    assert worker.process.poll() is None, "the worker waited, and was not started again"


def test_a_retry_is_known_after_a_restart(lock: Lock) -> None:
    messages, truth, retries = story(2_000, seed=5)
    first = lock.worker()
    lock.send(messages)
    lock.settle()
    first.kill()
    lock.worker()
    lock.send(messages)  # the sender sends everything again
    check(lock, truth, 2 * len(messages), retries + len(messages))
