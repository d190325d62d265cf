"""The promises on Apache Kafka itself: a log on disk, LogAppendTime, DeleteRecords, and workers that are killed.

One lock for the module. The last test loses a part of the log for good, so it has to stay the last.
"""

from __future__ import annotations

import json
import random
import signal
import time
from collections.abc import Iterator

import pytest
from kafka import KafkaConsumer, TopicPartition
from kafka.errors import MessageSizeTooLargeError

from deploy.embedded.stack import Stack
from streams.broker import admin, log_ends
from streams.stores import Store
from streams.topics import CHANGES, EVENTS, STATE, committed, trim
from tests.lock import Lock, Message, WorkerProcess, event, now_ms, preference
from tests.promises.test_p6_exactly_once import story
from tests.promises.test_p8_bad_input import produce, rejections, send_all

pytestmark = [pytest.mark.kafka, pytest.mark.stack]


@pytest.fixture(scope="module")
def lock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lock]:
    with Stack(tmp_path_factory.mktemp("kafka"), "kafka", die_with_parent=True) as stack, Lock(stack) as running:
        yield running


@pytest.fixture
def worker(lock: Lock) -> WorkerProcess:
    """The one worker that runs; started anew if the last test ended it."""
    alive = [one for one in lock.workers if one.process.poll() is None]
    for spare in alive[1:]:
        spare.kill(signal.SIGTERM)
    found = alive[0] if alive else lock.worker()
    lock.until(lambda: ready(found), what="the worker")
    return found


def ready(worker: WorkerProcess) -> bool:
    try:
        return worker.get("/ready") == b"ready\n"
    except OSError:  # not up yet, or 503
        return False


def positions(worker: WorkerProcess) -> dict[int, tuple[int, int]]:
    """partition -> next event and next change that are not carried out yet."""
    said = json.loads(worker.get("/status"))["partitions"]
    return {line["partition"]: (line["next_event"], line["next_change"]) for line in said}


def carried_out(lock: Lock, worker: WorkerProcess, messages: list[Message]) -> None:
    """Send preferences, and wait until the worker has carried their changes out."""
    want = sum(change for _, change in positions(worker).values()) + len(messages)
    lock.send(messages)
    lock.until(lambda: sum(c for _, c in positions(worker).values()) >= want, what="changes to be carried out")


def begins(lock: Lock, topic: str) -> dict[int, int]:
    """The first offset that each partition still holds."""
    consumer = KafkaConsumer(bootstrap_servers=lock.stack.broker_address)
    try:
        found = consumer.beginning_offsets([TopicPartition(topic, p) for p in range(lock.partitions)])
        return {tp.partition: offset for tp, offset in found.items()}
    finally:
        consumer.close()


def forget(lock: Lock, topic: str, below: dict[int, int]) -> None:
    """Let Kafka delete the records below these offsets, as retention does."""
    with admin(lock.stack.broker_address, "forgetting") as client:
        client.delete_records({TopicPartition(topic, partition): offset for partition, offset in below.items()})


def test_killed_workers_and_a_restarted_broker_lose_and_double_nothing(lock: Lock) -> None:
    messages, truth, retries = story(30_000, seed=now_ms() % 1000)
    chance = random.Random(5)
    lock.send(messages[:10_000])
    workers = [lock.worker(), lock.worker()]
    for step in range(4):
        time.sleep(1 + chance.random() * 3)
        if step == 2:
            lock.stack.restart("broker")
        workers.pop(0).kill()
        workers.append(lock.worker())
        lock.send(messages[10_000 + step * 5_000 : 15_000 + step * 5_000])
    lock.send(messages[30_000:])
    said = lock.settle(seconds=120)
    assert {(cell[1], cell[2]): total for cell, total in lock.totals().items() if cell[3] is None} == truth
    assert (said["received"], said["duplicates"], said["rejected"]) == (len(messages), retries, 0)
    assert said["adds_up"]


def test_a_stopped_worker_that_wakes_up_writes_nothing_twice(lock: Lock, worker: WorkerProcess) -> None:
    """SIGSTOP beyond the session timeout: another worker takes the partitions; then the first one wakes up."""
    messages, truth, retries = story(8_000, seed=77)
    messages = [
        (topic, key, value.replace(b'"mailing": "f', b'"mailing": "stalled-')) for topic, key, value in messages
    ]
    before = lock.status()
    lock.send(messages[:4_000])
    worker.process.send_signal(signal.SIGSTOP)
    other = lock.worker()
    try:
        lock.send(messages[4_000:])
        lock.until(lambda: ready(other) and len(positions(other)) == lock.partitions, 90, "the other to take over")
        lock.settle(seconds=90)
    finally:
        worker.process.send_signal(signal.SIGCONT)
    lock.until(lambda: worker.process.poll() is not None or ready(worker), 60, "the first to join again, or to end")
    said = lock.settle()
    of_this = {cell: total for cell, total in lock.totals().items() if cell[1].startswith("stalled-")}
    assert {(c[1].replace("stalled-", "f"), c[2]): t for c, t in of_this.items() if c[3] is None} == truth
    assert said["duplicates"] - before["duplicates"] == retries
    assert said["received"] - before["received"] == len(messages)


def test_a_withdrawal_reaches_back_and_is_not_undone_by_a_kill(lock: Lock, worker: WorkerProcess) -> None:
    who = [f"k.{n}@example.com" for n in range(50)]
    granted = {"engagement": {"open": "personal"}}
    carried_out(lock, worker, [preference("acme", one, granted, now_ms() - 5000) for one in who])
    lock.send([event("acme", one, mailing="withdrawn") for one in who for _ in range(20)])
    lock.settle()
    rows, mappings = "SELECT count() FROM engagement WHERE mailing = 'withdrawn'", "SELECT count() FROM recipients"
    assert lock.rows(Store.ANALYTICS, rows) == [(1000,)]
    assert lock.rows(Store.IDENTITY, mappings) == [(50,)]
    counted = lock.totals()["acme", "withdrawn", "open", None, "human"]
    assert counted == (1000, 50)

    # Killed in the middle of the removal, whatever it had done by then; events go on meanwhile.
    lock.send([preference("acme", one, "*", mode="anonymous") for one in who])
    lock.send([event("acme", one, mailing="withdrawn") for one in who])
    time.sleep(random.Random(3).random())
    worker.kill()
    lock.worker()

    def receipts() -> list[dict[str, object]]:
        said = [json.loads(record.value) for record in lock.consume("tracking.receipts")]
        return [one for one in said if one["kind"] == "withdrawal"]

    lock.until(lambda: len({one["preference_id"] for one in receipts()}) >= 50, 90, "the receipts")
    lock.settle(seconds=90)
    removed = {str(one["preference_id"]): json.dumps(one["removed"]) for one in receipts()}
    assert len({(str(one["preference_id"]), json.dumps(one["removed"])) for one in receipts()}) == 50, (
        "each says one thing"
    )
    assert sum(json.loads(text)["mappings"] for text in removed.values()) == 50
    assert sum(json.loads(text)["rows"] for text in removed.values()) >= 1000
    assert lock.rows(Store.ANALYTICS, rows) == [(0,)]
    assert lock.rows(Store.IDENTITY, mappings) == [(0,)]
    assert lock.totals()["acme", "withdrawn", "open", None, "human"] == (1050, 50)


def test_bad_input_is_refused_as_on_any_broker_and_what_is_far_too_large_by_kafka_itself(
    lock: Lock, worker: WorkerProcess
) -> None:
    sent = send_all(lock, without=("10 MB",))
    lock.until(lambda: set(sent.bad) <= set(rejections(lock)), what="all rejections")
    found = rejections(lock)
    assert {bad.what for at, bad in sent.bad.items() if found[at]["reason"] != bad.reason} == set()
    assert sent.after["counted"] - sent.before["counted"] == sent.good
    assert sent.after["adds_up"]
    with pytest.raises(MessageSizeTooLargeError):
        produce(lock, [(EVENTS, 0, None, b"x" * 10_000_000)])
    assert worker.process.poll() is None


def test_what_is_carried_out_may_be_forgotten_by_the_log(lock: Lock, worker: WorkerProcess) -> None:
    """DeleteRecords on changes as the owner trims them, and on events as retention does; then a new worker begins."""
    carried_out(lock, worker, [preference("acme", f"t.{n}@example.com", "*", mode="off") for n in range(40)])
    at = positions(worker)
    trim(lock.settings, CHANGES, {partition: change for partition, (_, change) in at.items()})
    assert begins(lock, CHANGES) == {partition: change for partition, (_, change) in at.items()}
    assert worker.kill(signal.SIGTERM) == 0, "its offsets are committed"
    forget(lock, EVENTS, {partition: event_ for partition, (event_, _) in at.items()})
    before = lock.status()
    lock.send([event("acme", f"t.{n}@example.com", mailing="trimmed") for n in range(80)])
    lock.worker()
    said = lock.settle()
    change = {term: said[term] - before[term] for term in ("received", "counted", "off", "duplicates", "rejected")}
    assert change == {"received": 80, "counted": 40, "off": 40, "duplicates": 0, "rejected": 0}
    assert lock.totals()["acme", "trimmed", "open", None, "human"] == (40, 40)


def test_a_state_that_alone_is_lost_is_begun_anew_and_events_are_not_read_again(
    lock: Lock, worker: WorkerProcess
) -> None:
    """Somebody deletes tracking.state; events and changes are as they were, changes trimmed."""
    off, known = [f"s.{n}@example.com" for n in range(20)], "s.known@example.com"
    grant = preference("acme", known, {"engagement": {"open": "personal"}}, now_ms() - 5000)
    carried_out(lock, worker, [*(preference("acme", one, "*", now_ms() - 5000, mode="off") for one in off), grant])
    lock.send([event("acme", one, mailing="state") for one in [*off, known]])
    before = lock.settle()
    rows = "SELECT count() FROM engagement WHERE mailing = 'state'"
    assert lock.rows(Store.ANALYTICS, rows) == [(1,)]
    trim(lock.settings, CHANGES, {partition: change for partition, (_, change) in positions(worker).items()})
    assert worker.kill(signal.SIGTERM) == 0
    with admin(lock.stack.broker_address, "losing the state") as client:
        client.delete_topics([STATE])
    lock.until(lambda: lock.run("topics", check=False).returncode == 0, what="the topic to be made anew")
    worker = lock.worker()
    lock.send([event("acme", one, mailing="state") for one in [*off, known]])
    after = lock.settle()
    change = {term: after[term] - before[term] for term in ("received", "counted", "off", "duplicates", "rejected")}
    assert change == {"received": 21, "counted": 1, "off": 20, "duplicates": 0, "rejected": 0}
    assert lock.rows(Store.ANALYTICS, rows) == [(0,)]


def test_a_log_that_lost_what_was_not_counted_stops_the_worker(lock: Lock, worker: WorkerProcess) -> None:
    at = {partition: event_ for partition, (event_, _) in positions(worker).items()}
    assert worker.kill(signal.SIGTERM) == 0
    lock.send([event("acme", f"l.{n}@example.com", mailing="lost") for n in range(200)])
    ends = log_ends(lock.stack.broker_address, EVENTS)
    assert all(ends[partition] > at[partition] + 5 for partition in at)
    forget(lock, EVENTS, {partition: at[partition] + 5 for partition in at})
    before = lock.status()

    ended = lock.worker()
    assert ended.process.wait(60) == 1, ended.text()
    (sentence,) = [
        line["reason"] for line in map(json.loads, ended.text().splitlines()) if line["event"] == "worker ends"
    ]
    assert "lost" in sentence
    assert "docs/operations.md" in sentence
    assert "the chain stands at" in sentence
    assert lock.status()["received"] == before["received"]
    assert committed(lock.settings, EVENTS, at) == at
