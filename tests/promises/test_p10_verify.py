"""P10: `schleuse verify` says that all holds while workers write, and notices every single thing that is spoiled."""

from __future__ import annotations

import hashlib
import json
import signal
import threading
from collections.abc import Callable, Iterator

import pytest
from kafka import KafkaProducer

from deploy.clickhouse import grants
from deploy.clickhouse.grants import Grant
from deploy.embedded.stack import Stack
from pseudonymizer.keys import KeyKind
from streams.partitioner import partition_of
from streams.rights.audit import Action
from streams.rights.checks import ALL
from streams.rights.verify import Result, Sight, Verdict, judge
from streams.stores import Role, Store, connect
from tests.lock import Lock, Message, event, key, mailing, now_ms, preference

pytestmark = pytest.mark.stack

PEOPLE = {
    "erika@example.com": "personal",
    "max@example.com": "pseudonymous",
    "nora@example.com": "anonymous",
    "otto@example.com": "off",
}
ERASED, WITHDREW = "elsa@example.com", "willi@example.com"


def erasure(recipient: str) -> Message:
    value = {"tenant": "acme", "recipient": recipient, "request_id": "r-1", "kind": "erasure", "requested_at": now_ms()}
    return "tracking.requests", key("acme", recipient), json.dumps(value).encode()


def events(count: int, mode: str = "") -> list[Message]:
    """Opens and clicks of everybody, one retry, and one that is refused."""
    who = [*PEOPLE, ERASED, WITHDREW]
    sent = [event("acme", who[i % len(who)], kind="click" if i % 3 else "open", link="hero") for i in range(count)]
    return [*sent, sent[0], event("acme", "bad@example.com", kind="bounce"), event("nobody", "bad@example.com")]


@pytest.fixture(scope="module")
def lock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lock]:
    """A lock with a worker, and something of everything in it."""
    with (
        Stack(tmp_path_factory.mktemp("verify"), "tansu", die_with_parent=True) as stack,
        Lock(stack) as running,
    ):
        running.worker()
        both = {who: {"engagement": {"open": mode, "click": mode}} for who, mode in PEOPLE.items()}
        both |= dict.fromkeys((ERASED, WITHDREW), both["erika@example.com"])
        before = now_ms() - 3_600_000
        running.send([mailing("acme", "m1", {"hero": "https://x.example/@hero"})])
        running.send([preference("acme", who, modes, before) for who, modes in both.items()])
        running.settle(changes=len(both))
        running.send(events(60))
        running.settle()
        running.send([preference("acme", WITHDREW, "*", mode="anonymous"), erasure(ERASED)])
        running.settle(changes=len(both) + 2)
        yield running


def check(lock: Lock, name: str) -> Result:
    """What one check says now. The gates are looked at once: what spoils them is done before the first look."""
    (sweep,) = [sweep for sweep in ALL if name in sweep.abouts]
    if name not in GATES:
        with Sight(lock.settings, "test", done_seconds=1) as sight:
            found = {result.name: result for result in judge(sight, sweep, ())}
        if "logins" not in found:
            return found[name]
        GATES.update(found)
    return GATES[name]


GATES: dict[str, Result] = {}


def test_everything_holds_while_workers_write(lock: Lock) -> None:
    """Also what is only in motion: events, grants, withdrawals and erasures go on while it looks."""
    stop = threading.Event()

    def go_on() -> None:
        number = 0
        while not stop.wait(0.3):
            number += 1
            who = f"new{number}@example.com"
            lock.send([preference("acme", who, {"engagement": {"click": "personal"}}, now_ms() - 60_000)])
            lock.send([*events(40), event("acme", who, kind="click", link="hero")])
            lock.send([preference("acme", f"new{number - 2}@example.com", "*", mode="off")])
            lock.send([erasure(f"new{number - 4}@example.com")])

    sender = threading.Thread(target=go_on)
    sender.start()
    try:
        done = lock.run("verify", "--json", check=False)
    finally:
        stop.set()
        sender.join()
    said = json.loads(done.stdout)
    wrong = [one for one in said["checks"] if one["verdict"] != "holds" or one["not_looked_at"]]
    assert (wrong, done.returncode) == ([], 0)
    looked_at = {one["name"]: one["looked_at"] for one in said["checks"]}
    assert all(looked_at.values())
    assert looked_at["erased"]["erased recipients"] > 0
    assert looked_at["mappings"]["mappings"] > 0
    assert looked_at["logins"]["logins"] == 9
    ((kind, held, body),) = lock.rows(Store.ANALYTICS, "SELECT toString(kind), held, body FROM reports", Role.DASHBOARD)
    assert (kind, held, json.loads(body)) == ("verify", True, said), "filed for the officer as it was printed"
    lock.settle()


# --- each check fails once ---

MASTER = [Grant(store, Role.MIGRATIONS, what, "*") for store in Store for what in ("SELECT", "INSERT")]


@pytest.fixture(scope="module")
def spoiled(lock: Lock) -> Lock:
    """The lock without its worker, whose logins `migrations` may do everything, and an analyst something; an operator
    has the password of somebody at the other store."""
    assert lock.workers[0].kill(signal.SIGTERM) == 0
    credentials = lock.stack.directory / "credentials"
    (credentials / "analytics-operator").write_text((credentials / "identity-rights").read_text())
    table = (*grants.GRANTS, *MASTER, Grant(Store.ANALYTICS, Role.ANALYST, "SELECT", "engagement", ("mailing",)))
    with lock.desk() as desk:
        desk.audit.record(Action.VERIFIED, "", None, "a line of the trail", {})
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(grants, "GRANTS", table)
        for store in Store:
            lock.stack.restart(store)
    return lock


def sql(store: Store, statement: str) -> Callable[[Lock], None]:
    """A statement of the spoilt login `migrations`."""

    def spoil(lock: Lock) -> None:
        client = connect(lock.settings, store, Role.MIGRATIONS)
        try:
            client.do("spoiling", statement, database=str(store), mutations_sync=2, async_insert=0)
        finally:
            client.close()

    return spoil


def more(store: Store, table: str, changes: str, which: str = "1") -> Callable[[Lock], None]:
    """One more row of a table: one that is there, changed."""
    if table in ("recipients", "consents", "claims"):
        changes += ", now64(3) + 60 AS deadline"
    one = f"(SELECT * FROM {table} WHERE {which} LIMIT 1)"
    return sql(store, f"INSERT INTO {table} SELECT * REPLACE ({changes}) FROM {one}")


def record(topic: str, value: bytes, of: bytes = key("acme", "somebody@example.com")) -> Callable[[Lock], None]:
    def send(lock: Lock) -> None:
        producer = KafkaProducer(bootstrap_servers=lock.stack.broker_address, enable_idempotence=False)
        producer.send(topic, key=of, value=value, partition=partition_of(of, lock.partitions)).get(10)
        producer.close()

    return send


def make_data_key(lock: Lock) -> None:
    with lock.desk() as desk:
        desk.ring.ensure(KeyKind.DATA, hashlib.md5(b"nobody").hexdigest())


def destroy_a_data_key(lock: Lock) -> None:
    with lock.desk() as desk:
        desk.ring.destroy(KeyKind.DATA, desk.ring.names(KeyKind.DATA)[0])


def make_export(lock: Lock) -> None:
    ((blind,),) = lock.rows(Store.IDENTITY, "SELECT hex(any(blind)) FROM consents WHERE effect = 'erased'")
    with lock.desk() as desk:
        desk.ring.ensure(KeyKind.EXPORT, f"{blind.lower()}:r-0")
        with desk.ring._lock:  # made before the erasure
            desk.ring._database.execute("UPDATE entries SET created_at = 1 WHERE kind = 'export'")


def lower_ceiling(lock: Lock) -> None:
    """As if the message that removes what is above it had been lost."""
    ((body,),) = lock.rows(Store.ANALYTICS, "SELECT argMax(body, at) FROM settings", Role.OPERATOR)
    lower = body.replace('"ceiling":"personal"', '"ceiling":"anonymous"')
    assert lower != body
    sql(Store.ANALYTICS, f"INSERT INTO settings (hash, body) SELECT 'spoilt', '{lower}'")(lock)


A, ID = Store.ANALYTICS, Store.IDENTITY
ACME = "tenant = 'acme' AND purpose = 'engagement' AND pseudonym > 100000"
MAPPED = "effect = 'raised' AND mode = 'personal' AND (tenant, blind) IN (SELECT tenant, blind FROM recipients)"
OF_ERASED = "(tenant, blind) IN (SELECT tenant, blind FROM consents WHERE effect = 'erased')"
HERS = ", ".join(f"(SELECT any({one}) FROM consents WHERE {OF_ERASED}) AS {one}" for one in ("blind", "partition"))
LONG_AGO = "'2026-01-01' AS decided_at"
TOLD = f"SELECT tenant, blind, 'sales', '2026-01-01' FROM consents WHERE {OF_ERASED} LIMIT 1"
CROWD = "'acme', 'm1', 'open', 'all', '', 'human', 1, uniqExactState(toUInt64(number)) FROM numbers(5000)"


def last_of(partition: int) -> str:
    """The newest claim of a partition."""
    return f"partition = {partition} AND number = (SELECT max(number) FROM claims WHERE partition = {partition})"


# Spoilt in this order, and never put right.
SPOILS: list[tuple[str, str, Callable[[Lock], None]]] = [
    ("ledger", "whose last word is lower", more(ID, "consents", "'off' AS mode, now64(3) AS decided_at", MAPPED)),
    ("ledger", "no proof", sql(ID, "ALTER TABLE consents UPDATE proof = '' WHERE effect = 'raised'")),
    ("ledger", "without a line by which she agreed", sql(ID, "ALTER TABLE consents DELETE WHERE effect = 'raised'")),
    ("rows", "that no recipient's state allows", more(A, "engagement", "toUInt128(4711) AS pseudonym", ACME)),
    ("rows", "a row from before she agreed", more(A, "engagement", "occurred - 86400 AS occurred", ACME)),
    ("rows", "another purpose or kind", more(A, "engagement", "'advice' AS purpose", ACME)),
    ("rows", "another version of the root key", more(A, "engagement", "9 AS key_version", ACME)),
    ("mappings", "that no recipient's state allows", more(ID, "recipients", "toUInt128(4711) AS pseudonym")),
    ("mappings", "for another purpose, kind or key", more(ID, "recipients", "'advice' AS purpose")),
    ("mappings", "somebody else's blind index", more(ID, "recipients", "substring(hex(blind), 1, 16) AS blind")),
    ("mappings", "data keys without a mapping", make_data_key),
    ("mappings", "mappings without a data key", destroy_a_data_key),
    ("erased", "lines of the ledger", more(ID, "consents", f"'raised' AS effect, 0 AS claim, {LONG_AGO}", OF_ERASED)),
    ("erased", "mappings of erased", more(ID, "recipients", f"{HERS}, toUInt128(4712) AS pseudonym, 0 AS claim")),
    ("erased", "keys of sealed exports", make_export),
    ("erased", "disclosures", sql(ID, f"INSERT INTO disclosures (tenant, blind, disclosed_to, at) {TOLD}")),
    ("states", "that cannot be read", record("tracking.state", b'{"version":[1,1],"purposes":{"x":1}}')),
    ("states", "records without a version", record("tracking.state", b"{}")),
    ("addresses", "engagement.link with an address", more(A, "engagement", "'erika@example.com' AS link", ACME)),
    ("topics", "tracking.receipts with an address", record("tracking.receipts", b'"erika@example.com"')),
    ("totals", "in cells that were not counted", more(A, "cells_hourly", "toUInt64(1000) AS events")),
    ("totals", "in no cell", more(A, "outcomes", "toUInt64(5000) AS events", "outcome = 'counted'")),
    ("cells", "more distinct recipients than events", sql(A, f"INSERT INTO cells_unique SELECT {CROWD}")),
    ("cells", "more pseudonymous rows than events", more(A, "engagement", "'m9' AS mailing", ACME)),
    ("outcomes", "do not add up", more(A, "outcomes", "'off' AS outcome")),
    ("received", "were not received", sql(A, "ALTER TABLE outcomes DELETE WHERE outcome = 'received'")),
    ("received", "are in no claim", sql(A, "INSERT INTO outcomes VALUES (1, 0, 'received', '', 90000)")),
    ("rejections", "no rejections", record("tracking.rejected", b"{}")),
    ("rejections", "without a rejection", more(A, "outcomes", "toUInt64(9) AS events", "reason = 'unknown_kind'")),
    ("rejections", "that were not counted", sql(A, "ALTER TABLE outcomes DELETE WHERE reason = 'unknown_tenant'")),
    ("positions", "beyond the chain", sql(A, "ALTER TABLE claims DELETE WHERE number > 0")),
    ("chain", "numbers that were claimed twice", more(A, "claims", "now64(3) AS now", last_of(0))),
    ("chain", "gaps in the numbers", more(A, "claims", "number + 5 AS number", last_of(1))),
    ("chain", "claims that do not follow", more(A, "claims", "number + 1 AS number", last_of(2))),
    ("chain", "impossible claims", more(A, "claims", "number + 1 AS number, last + 7 AS first", last_of(3))),
    ("positions", "end before", more(A, "claims", "number + 1 AS number, last + 10000 AS next_event", last_of(3))),
    ("audit", "the audit trail is broken", sql(ID, "ALTER TABLE audit UPDATE why = 'nothing' WHERE number = 1")),
    ("logins", "migrations at the identity store has more", lambda _: None),
    ("analyst", "SELECT(mailing) on analytics.engagement", lambda _: None),
    ("passwords", "rights at the identity store opens operator", lambda _: None),
    ("rows", "above the tenant's ceiling", lower_ceiling),
    ("mappings", "above the tenant's ceiling", lambda _: None),
]


@pytest.mark.parametrize(("name", "flaw", "spoil"), SPOILS, ids=[f"{name}: {flaw}" for name, flaw, _ in SPOILS])
def test_what_is_spoiled_is_noticed(spoiled: Lock, name: str, flaw: str, spoil: Callable[[Lock], None]) -> None:
    spoil(spoiled)
    result = check(spoiled, name)
    assert result.verdict is Verdict.FAILED
    assert any(flaw in what for what in result.found), result.found
    assert result.otherwise


def test_the_report_names_every_check_that_failed_and_nobody(spoiled: Lock) -> None:
    done = spoiled.run("verify", check=False)
    assert done.returncode == 1
    for name in {name for name, _, _ in SPOILS}:
        line = next(line for line in done.stdout.splitlines() if f" {name}: " in line)
        assert line.startswith("FAILED"), line
    assert "@" not in done.stdout + done.stderr
    assert done.stderr == ""
