"""P6: stores that refuse, stall, lose answers or lie still; workers that stop in the middle and wake up late.

Whatever happens between a worker and its stores, in the end: totals and uniques equal a plain count of what was sent;
the rows of `engagement` equal a replay of the chain in plain Python; every withdrawal has one receipt that says what
that replay removed; and no table holds anything twice.
"""

from __future__ import annotations

import json
import random
import signal
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from kafka import KafkaConsumer, TopicPartition

from deploy.embedded.stack import Stack
from streams.stores import Role, Store
from tests import proxy as faults
from tests.lock import Lock, Message, WorkerProcess, event, now_ms, preference, shown
from tests.proxy import Fault, Held, Proxy

pytestmark = pytest.mark.stack


class Reader:
    """Everything of a topic, read on as it grows: (partition, offset) -> value."""

    def __init__(self, lock: Lock, topic: str) -> None:
        self._consumer = KafkaConsumer(bootstrap_servers=lock.stack.broker_address, enable_auto_commit=False)
        partitions = [TopicPartition(topic, p) for p in sorted(self._consumer.partitions_for_topic(topic) or ())]
        self._consumer.assign(partitions)
        self._consumer.seek_to_beginning(*partitions)
        self.values: dict[tuple[int, int], dict[str, Any]] = {}

    def read(self) -> dict[tuple[int, int], dict[str, Any]]:
        """One more fetch; what is known by now."""
        for run in self._consumer.poll(timeout_ms=200).values():
            self.values |= {(record.partition, record.offset): json.loads(record.value) for record in run}
        return self.values

    def close(self) -> None:
        self._consumer.close()


@dataclass
class Replay:
    """What the chain of claims, carried out in plain Python, leaves."""

    rows: Counter[str] = field(default_factory=Counter)  # by mailing
    mapped: int = 0
    removed: dict[str, dict[str, int]] = field(default_factory=dict)  # by the withdrawal's preference_id


class Story:
    """A lock behind two proxies, and everything that was sent to it."""

    def __init__(self, lock: Lock, analytics: Proxy, identity: Proxy) -> None:
        self.lock, self.analytics, self.identity = lock, analytics, identity
        self.chance = random.Random(11)
        self.counts: Counter[tuple[str, str]] = Counter()
        self.people: dict[tuple[str, str], set[str]] = defaultdict(set)
        self.sent = self.retries = self.preferences = self.withdrawals = self.waves = 0
        self.asleep: WorkerProcess | None = None  # stopped: it cannot be asked
        self._granted: list[str] = []
        self._readers = {name: Reader(lock, f"tracking.{name}") for name in ("events", "preferences", "receipts")}

    # --- what is sent ---

    def wave(self) -> list[list[Message]]:
        """Three parts to send one after the other: events of many, of some who grant, withdraw and grant again."""
        number, self.waves = self.waves, self.waves + 1
        t = now_ms()
        new = [f"g{number}.{i}@example.com" for i in range(8)]
        leaving, self._granted = self._granted, new
        # The even ones withdraw, every fourth comes back: what occurred at -40 s is not of the second grant.
        grants = [self._grant(who, t - 60_000) for who in new]
        withdrawals = [self._withdrawal(who, t - 30_000, index) for index, who in enumerate(leaving) if index % 2 == 0]
        returns = [self._grant(who, t - 20_000) for who in leaving[::4]]
        first = [*grants[:4], *self._events([*new, *leaving], t), *grants[4:]]
        second = [*withdrawals[:2], *self._events([*new, *leaving], t), *withdrawals[2:]]
        third = [*self._events([*new, *leaving], t), *returns, *self._events([*new, *leaving], t)]
        return [first, second, third]

    def send(self, messages: list[Message]) -> None:
        """Send, and wait for the broker only."""
        self.lock.send(messages)

    def _events(self, own: list[str], t: int) -> list[Message]:
        messages = []
        for index in range(60):
            who, mailing = f"r{self.chance.randrange(300)}@example.com", f"m{self.chance.randrange(3)}"
            if index % 3 == 0:
                who = self.chance.choice(own)
                mailing = "own." + who.partition("@")[0] if index % 2 else mailing
            kind = self.chance.choice(["open", "click"])
            link = {"link": "hero"} if kind == "click" else {}
            at = {"occurred_at": t - self.chance.choice([10_000, 40_000])}
            messages.append(event("acme", who, event_id=f"s{self.sent}", mailing=mailing, kind=kind, **link, **at))
            self.counts[mailing, kind] += 1
            self.people[mailing, kind].add(who)
            self.sent += 1
            if index % 20 == 0:
                messages.append(messages[self.chance.randrange(len(messages))])
                self.sent += 1
                self.retries += 1
        return messages

    def _grant(self, who: str, at: int) -> Message:
        self.preferences += 1
        mode = "personal" if _personal(who) else "pseudonymous"
        return preference("acme", who, {"engagement": {"open": mode, "click": mode}}, at)

    def _withdrawal(self, who: str, at: int, index: int) -> Message:
        self.preferences += 1
        self.withdrawals += 1
        if index % 4:
            return preference("acme", who, "*", at, mode="anonymous")
        return preference("acme", who, {"engagement": {"open": "anonymous", "click": "anonymous"}}, at)

    # --- what must come out ---

    def check(self, seconds: float = 90) -> None:
        """Wait until everything is carried out; then all sums, rows, receipts and tables."""
        said = self.lock.settle(received=self.sent, seconds=seconds)
        self.lock.until(self._carried_out, seconds, "all changes to be carried out")
        got = {(cell[1], cell[2]): total for cell, total in self.lock.totals().items() if cell[3] is None}
        assert got == {cell: (self.counts[cell], len(self.people[cell])) for cell in self.counts}
        terms = [said[term] for term in ("received", "counted", "duplicates", "rejected", "off")]
        assert terms == [self.sent, self.sent - self.retries, self.retries, 0, 0]
        assert said["adds_up"]
        replay = self._replay()
        rows = self._rows(Store.ANALYTICS, "SELECT toString(mailing), count() FROM engagement GROUP BY mailing")
        assert dict(rows) == +replay.rows
        self._check_receipts(replay)
        self._check_nothing_twice(replay)

    def _rows(self, store: Store, sql: str, role: Role = Role.RIGHTS) -> list[tuple[Any, ...]]:
        return [tuple(row) for row in self.lock.rows(store, sql, role)]

    def _carried_out(self) -> bool:
        ((decided,),) = self._rows(Store.IDENTITY, "SELECT uniqExact(preference_id) FROM consents")
        ((confirmed,),) = self._rows(Store.IDENTITY, "SELECT uniqExact(id) FROM receipts")
        if (decided, confirmed) != (self.preferences, self.withdrawals):
            return False
        done: dict[int, tuple[int, int]] = {}
        for worker in self.awake():
            for line in _status(worker)["partitions"]:
                at = (line["next_event"], line["next_change"])
                done[line["partition"]] = max(at, done.get(line["partition"], at))
        claimed = self._rows(
            Store.ANALYTICS,
            "SELECT partition, max(next_event), max(next_change) FROM claims GROUP BY partition",
            Role.OPERATOR,
        )
        return all(done.get(partition) == (events, changes) for partition, events, changes in claimed)

    def _replay(self) -> Replay:
        events, preferences = self._readers["events"], self._readers["preferences"]
        self.lock.until(lambda: len(events.read()) == self.sent, what="the reader of events")
        self.lock.until(lambda: len(preferences.read()) == self.preferences, what="the reader of preferences")
        of_claim: dict[tuple[int, int], set[tuple[int, int]]] = defaultdict(set)
        for partition, claim, of in self._rows(
            Store.IDENTITY, "SELECT DISTINCT partition, claim, preference_id FROM consents"
        ):
            _, where, offset = of.split(":")
            of_claim[partition, claim].add((int(where), int(offset)))
        result = Replay()
        granted: dict[str, int] = {}  # who -> since when
        rows: dict[str, Counter[str]] = defaultdict(Counter)
        known: set[Any] = set()
        for partition, number, kind, first, last in self._rows(
            Store.ANALYTICS,
            "SELECT partition, number, toString(kind), first, last FROM claims ORDER BY partition, number",
            Role.OPERATOR,
        ):
            if kind == "changes":
                for at in sorted(of_claim[partition, number] - known):  # forwarded twice changes nothing
                    known.add(at)
                    value = preferences.values[at]
                    who, decided = value["recipient"], _ms(value["decided_at"])
                    if value["purposes"] != "*" and value["purposes"]["engagement"]["open"] != "anonymous":
                        granted.setdefault(who, decided)
                    else:
                        mapped = 2 if granted.pop(who, None) is not None and _personal(who) else 0
                        gone = {"rows": rows.pop(who, Counter()).total(), "mappings": mapped}
                        result.removed[f"tracking.preferences:{at[0]}:{at[1]}"] = gone
                continue
            for offset in range(first, last + 1):
                value = events.values[partition, offset]
                if value["event_id"] in known:
                    continue
                known.add(value["event_id"])
                who = value["recipient"]
                if who in granted and value["occurred_at"] >= granted[who]:
                    rows[who][value["mailing"]] += 1
        for counted in rows.values():
            result.rows += counted
        result.mapped = sum(2 for who in granted if _personal(who))
        return result

    def _check_receipts(self, replay: Replay) -> None:
        """One receipt an id, whatever was forwarded twice; sent twice, it says the same."""
        receipts = self._readers["receipts"]
        self.lock.until(
            lambda: len({value["preference_id"] for value in receipts.read().values()}) == self.withdrawals,
            what="the receipts",
        )
        for value in receipts.values.values():
            assert value["removed"] == replay.removed[value["preference_id"]]
        stored = self._rows(Store.IDENTITY, "SELECT id, rows, mappings FROM receipts")
        assert len(stored) == self.withdrawals
        assert {of: {"rows": rows, "mappings": mappings} for of, rows, mappings in stored} == replay.removed

    def _check_nothing_twice(self, replay: Replay) -> None:
        for store, table, what, right in (
            (Store.IDENTITY, "recipients", "pseudonym", replay.mapped),
            (Store.ANALYTICS, "claims", "incarnation, partition, number", None),
            (Store.ANALYTICS, "seen", "incarnation, partition, hash", self.sent - self.retries),
        ):
            role = Role.RIGHTS if store is Store.IDENTITY else Role.WORKER
            ((count, distinct),) = self._rows(store, f"SELECT count(), uniqExact({what}) FROM {table}", role)
            assert count == distinct, f"{table} holds something twice"
            assert right in (None, count), f"{table} holds what it should"
        # The ledger has a row for each purpose and kind of each record in tracking.changes, and no more.
        records: Counter[tuple[int, int]] = Counter()
        for partition, claim, of, rows in self._by_claim("consents", "preference_id"):
            _, where, offset = of.split(":")
            value = self._readers["preferences"].values[int(where), int(offset)]
            times, rest = divmod(rows, 6 if value["purposes"] == "*" else 2)  # two purposes and those to come
            assert rest == 0
            records[partition, claim] += times
        runs = "SELECT partition, number, last - first + 1 FROM claims WHERE kind = 'changes'"
        assert records == {(row[0], row[1]): row[2] for row in self._rows(Store.ANALYTICS, runs, Role.OPERATOR)}
        assert self._by_claim("requests", "id") == self._by_claim("receipts", "id")

    def _by_claim(self, table: str, of: str) -> list[tuple[Any, ...]]:
        return self._rows(
            Store.IDENTITY, f"SELECT partition, claim, {of}, count() FROM {table} GROUP BY ALL ORDER BY ALL"
        )

    # --- faults ---

    def break_both(self, fault: Fault | None) -> None:
        """Both stores have this fault from now on."""
        self.analytics.fault = self.identity.fault = fault

    def awake(self) -> list[WorkerProcess]:
        """The workers that can be asked."""
        return [worker for worker in self.lock.workers if worker is not self.asleep and worker.process.poll() is None]

    def beside(self, **environment: str) -> WorkerProcess:
        """One more worker: both stores reached directly, whatever befalls the others, and a long deadline."""
        here, settings = dict(self.lock.environment), self.lock.settings
        self.lock.environment |= {
            "SCHLEUSE_ANALYTICS_URL": settings.analytics_url,
            "SCHLEUSE_IDENTITY_URL": settings.identity_url,
            "SCHLEUSE_INSERT_DEADLINE_SECONDS": "60",
            **environment,
        }
        started = self.lock.worker()
        self.lock.environment.clear()
        self.lock.environment.update(here)
        return started

    def said(self, worker: WorkerProcess, *words: str) -> None:
        """Wait until the worker says in its status that it waits, in these words."""

        def there() -> bool:
            status = _status(worker)
            reasons = " ".join(line["reason"] for line in status["waiting_for"])
            return status["state"] == "waiting" and all(word in reasons for word in words)

        self.lock.until(there, 30, f"the worker to wait for {words}")

    def close(self) -> None:
        for reader in self._readers.values():
            reader.close()


def _personal(who: str) -> bool:
    return int(who.partition("@")[0][-1]) % 4 < 2


def _ms(text: str) -> int:
    head, _, rest = text.partition(".")
    return int(time.mktime(time.strptime(head, "%Y-%m-%dT%H:%M:%S")) - time.timezone) * 1000 + int(rest[:3])


def _status(worker: WorkerProcess) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(worker.get("/status"))
    return found


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    """One lock for all: what one test leaves, the next one still has to find whole."""
    with (
        Stack(tmp_path_factory.mktemp("misbehave"), "tansu", die_with_parent=True) as stack,
        Lock(stack) as lock,
        Proxy(lock.settings.analytics_url) as analytics,
        Proxy(lock.settings.identity_url) as identity,
    ):
        lock.environment |= {
            "SCHLEUSE_ANALYTICS_URL": analytics.url,
            "SCHLEUSE_IDENTITY_URL": identity.url,
            "SCHLEUSE_BATCH_SECONDS": "0.2",
            "SCHLEUSE_INSERT_DEADLINE_SECONDS": "5",  # so that a stall outlasts it
        }
        found = Story(lock, analytics, identity)
        yield found
        found.close()


@pytest.fixture
def worker(story: Story) -> WorkerProcess:
    """The one worker that lives through the faults; another one if a test has ended it."""
    living = story.awake()
    if not living:
        living = [story.lock.worker()]
        for part in story.wave():
            story.send(part)
        story.check()
    return living[0]


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        pytest.param(None, ["did not answer"], id="refused"),
        pytest.param(faults.stalled(6.0), ["has not answered yet"], id="stalled"),
        pytest.param(
            faults.sometimes(0.7, 1, faults.cut(0.1), faults.cut(0.5), faults.cut(0.99)), [], id="cut answers"
        ),
        pytest.param(faults.says(242, "TABLE_IS_READ_ONLY"), ["242 TABLE_IS_READ_ONLY"], id="read-only"),
        pytest.param(
            faults.sometimes(
                0.5,
                2,
                faults.reset_before,
                faults.lost_answer,
                faults.half_request,
                faults.cut(0.6),
                faults.stalled(1.0),
                faults.bad_gateway,
                faults.says(252, "TOO_MANY_PARTS"),
                faults.says(241, "MEMORY_LIMIT_EXCEEDED", 503),
            ),
            [],
            id="everything",
        ),
    ],
)
def test_a_store_that_misbehaves_is_waited_for(
    story: Story, worker: WorkerProcess, fault: Fault | None, words: list[str]
) -> None:
    parts = story.wave()
    waits = _status(worker)["waits"]
    story.send(parts[0])
    if fault is None:
        story.analytics.down()
        story.identity.down()
    story.break_both(fault)
    began = time.monotonic()
    story.send(parts[1])
    if words:
        story.said(worker, *words)
    story.send(parts[2])
    time.sleep(max(0.0, 1.5 - (time.monotonic() - began)))
    story.break_both(None)
    if fault is None:
        story.analytics.up()
        story.identity.up()
    story.check()
    if "has not answered yet" in words:
        assert story.analytics.said["469"], "what came after its deadline was refused"
    else:
        assert _status(worker)["waits"] > waits
    assert worker.process.poll() is None, "the worker waited, and was not started again"
    story.lock.until(lambda: not _status(worker)["waiting_for"], what="nothing to be waited for any more")


def test_every_write_loses_its_answer_once(story: Story, worker: WorkerProcess) -> None:
    """Each step of the protocol by itself: done, without anybody knowing, and then done again."""
    analytics, identity = faults.EachWrite(faults.lost_answer), faults.EachWrite(faults.lost_answer)
    story.analytics.fault, story.identity.fault = analytics, identity
    for part in story.wave():
        story.send(part)
        time.sleep(0.5)
    story.check()
    story.break_both(None)
    assert worker.process.poll() is None
    inserts = {f"INSERT INTO {table}" for table in ("claims", "ingest", "removals")}
    assert set(analytics.met) == {*inserts, "DELETE FROM engagement"}
    inserts = {f"INSERT INTO {table}" for table in ("consents", "recipients", "removals", "requests", "receipts")}
    assert set(identity.met) == {*inserts, "DELETE FROM recipients"}


def stopped_in(story: Story, sleeper: WorkerProcess, proxy: Proxy, what: bytes) -> Held:
    """Stop a worker while an insert of it is on its way and more lies in its buffers."""
    held = Held(lambda exchange: exchange.writes and what in exchange.statement[:80])
    proxy.fault = held
    parts: list[list[Message]] = []
    end = time.monotonic() + 60
    while time.monotonic() < end:  # until the chain gives it such a claim
        parts = parts or story.wave()
        story.send(parts.pop(0))
        if held.held.wait(0.7):
            break
    assert held.held.is_set()
    parts = parts or story.wave()
    story.send(parts.pop(0))
    time.sleep(0.5)  # it fetches
    sleeper.process.send_signal(signal.SIGSTOP)
    story.asleep = sleeper
    for part in parts:
        story.send(part)
    return held


def woken(story: Story, sleeper: WorkerProcess) -> str:
    """It goes on, and so does everything; what it says."""
    slept = len(sleeper.text())
    sleeper.process.send_signal(signal.SIGCONT)
    story.asleep = None
    for part in story.wave():
        story.send(part)
    story.check()
    assert sleeper.process.poll() is None
    return sleeper.text()[slept:]


def test_two_owners_of_everything_at_once(story: Story, worker: WorkerProcess) -> None:
    """Another consumer group: both own all partitions, only the chain is between them, and one of them sleeps."""
    with Proxy(story.lock.settings.analytics_url) as analytics:
        # Shorter runs: who loses a claim has to take the winner's, not its own.
        own = {"SCHLEUSE_GROUP": "another", "SCHLEUSE_BATCH_ROWS": "7", "SCHLEUSE_BATCH_SECONDS": "0.1"}
        other = story.beside(SCHLEUSE_ANALYTICS_URL=analytics.url, **own)
        story.lock.until(lambda: "partitions taken" in other.text(), what="the other worker")
        held = stopped_in(story, other, analytics, b"ingest")
        story.check()
        assert b"HTTP/1.1 200 OK" in held.release(), "its deadline is not over: the token alone makes it harmless"
        assert "another worker" in woken(story, other)
        assert other.kill(signal.SIGTERM) == 0
    assert worker.process.poll() is None


def test_a_worker_that_slept_beyond_its_session(story: Story, worker: WorkerProcess) -> None:
    """Its partitions go to another one in the middle of a burst; it wakes up and takes its part again."""
    held = stopped_in(story, worker, story.identity, b"receipts")
    story.beside()
    story.check()
    time.sleep(max(0.0, 6 - (time.monotonic() - held.since)))
    assert b"VIOLATED_CONSTRAINT" in held.release(), "its deadline is over"
    assert "partitions taken" in woken(story, worker)


def test_a_wrong_password_ends_the_worker_with_a_sentence(story: Story, worker: WorkerProcess) -> None:
    """Waiting cannot help, so it does not wait. Whoever is left, or is started again, goes on, and nothing is lost."""
    refused = "(login worker) refused the password"
    parts = story.wave()
    story.send(parts[0])
    story.break_both(faults.says(516, "AUTHENTICATION_FAILED", 403))
    story.send(parts[1])
    assert worker.process.wait(40) == 1
    (said,) = [line for line in worker.text().splitlines() if '"event": "worker ends"' in line]
    assert refused in said
    started = story.lock.worker()
    assert started.process.wait(40) == 1
    (line,) = started.text().splitlines()
    assert line.startswith("schleuse: the ")
    assert refused in line
    if not story.awake():
        story.beside()
    story.send(parts[2])
    story.check()
    assert "a value" not in shown(story.lock.stack.directory), "what ClickHouse says quotes statements"
