"""P8: nothing lost, nothing leaked, on bad input: every bad record sent at once, with good ones between them."""

from __future__ import annotations

import json
import secrets
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from kafka import KafkaProducer

from streams.partitioner import message_key, partition_of
from tests.lock import PROOF, Lock, iso, now_ms, shown

pytestmark = pytest.mark.stack

EVENTS, PREFERENCES, MAILINGS = "tracking.events", "tracking.preferences", "tracking.mailings"
MAILING = "p8"
CANARY = f"kanarie{secrets.token_hex(6)}"
HER = f"{CANARY}@leak.example"
DAY_MS = 86_400_000


@dataclass(frozen=True)
class Bad:
    """A record that must be refused: where it is sent, and as what it must be refused."""

    what: str
    topic: str
    value: bytes | None
    reason: str
    field: str | None = None
    partition: int | None = None


def good(**fields: Any) -> dict[str, Any]:
    """An event of hers that is right but for `fields`; None leaves a field out."""
    value = {
        "event_id": f"{CANARY}-{secrets.token_hex(6)}",
        "kind": "open",
        "tenant": "acme",
        "mailing": MAILING,
        "recipient": HER,
        "occurred_at": iso(now_ms() - 1000),
        "user_agent": CANARY,
        **fields,
    }
    return {name: one for name, one in value.items() if one is not None}


def raw(**fields: Any) -> bytes:
    return json.dumps(good(**fields)).encode()


def with_text(placeholder: str, text: bytes, **fields: Any) -> bytes:
    """An event in which the JSON text of a value is replaced by what json.dumps would never write."""
    return raw(**fields).replace(f'"{placeholder}"'.encode(), text)


def bad_events() -> Iterator[Bad]:
    def bad(what: str, value: bytes | None, reason: str, field: str | None = None) -> Bad:
        return Bad(what, EVENTS, value, reason, field)

    whole = raw()
    yield bad("no JSON", f"hello {CANARY}".encode(), "not_json")
    yield bad("nothing", b"", "not_json")
    yield bad("half a line", whole[: len(whole) // 2], "not_json")
    yield bad("two objects", whole + whole, "not_json")
    yield bad("an array", b"[" + whole + b"]", "not_json")
    yield bad("a string", json.dumps(HER).encode(), "not_json")
    yield bad("UTF-16", whole.decode().encode("utf-16"), "not_json")
    yield bad("invalid UTF-8", raw(user_agent="§").replace(b"\\u00a7", b"\xff"), "not_json")
    yield bad("invalid UTF-8 in an unknown field", raw(more="§").replace(b"\\u00a7", b"\xc3"), "not_json")
    yield bad("a lone surrogate", with_text("x", b'"\\ud800"', user_agent="x"), "not_json")
    yield bad("a raw NUL", raw(user_agent="§").replace(b"\\u00a7", b"\0"), "not_json")
    yield bad("NaN", with_text("x", b"NaN", more="x"), "not_json")
    yield bad("Infinity as a time", with_text("x", b"-Infinity", occurred_at="x"), "not_json")
    yield bad("a number of 5,000 digits", with_text("x", b"9" * 5000, more="x"), "not_json")
    yield bad("a huge number as a time", with_text("x", b"9" * 400, occurred_at="x"), "bad_time", "occurred_at")
    yield bad("1e999 as a time", with_text("x", b"1e999", occurred_at="x"), "wrong_type", "occurred_at")
    yield bad("a name twice", whole[:-1] + b', "mailing": "other"}', "duplicate_field")
    yield bad("an unknown name twice", whole[:-1] + b', "x": 1, "x": 1}', "duplicate_field")
    yield bad("more than 1 MB", raw(more="x" * 1_000_000), "too_large")
    yield bad("10 MB", raw(more="x" * 10_000_000), "too_large")
    deep = b"[" * 100_000 + b"]" * 100_000
    yield bad("nested 100,000 deep", with_text("x", deep, more="x"), "too_deep")
    yield bad("nested 65 deep", with_text("x", b"[" * 64 + b"]" * 64, more="x"), "too_deep")
    yield bad("a tombstone", None, "tombstone")

    for field in ("event_id", "kind", "tenant", "mailing", "recipient", "occurred_at"):
        yield bad(f"no {field}", raw(**{field: None}), "missing_field", field)
        yield bad(f"{field} is an object", raw(**{field: {CANARY: HER}}), "wrong_type", field)
    for field in ("event_id", "kind", "tenant", "mailing", "recipient", "user_agent", "ip", "actor", "url", "link"):
        yield bad(f"{field} is a number", raw(**{field: 7}), "wrong_type", field)
    yield bad("a time that is true", raw(occurred_at=True), "wrong_type", "occurred_at")
    yield bad("a click on nothing", raw(kind="click"), "missing_field", "link")
    yield bad(
        "a vendor's body", json.dumps([{"email": HER, "event": "open", "sg_event_id": CANARY}]).encode(), "not_json"
    )
    yield bad(
        "another vendor's body",
        json.dumps({"Recipient": HER, "RecordType": "Open"}).encode(),
        "missing_field",
        "event_id",
    )

    yield bad("an unknown kind", raw(kind=CANARY), "unknown_kind", "kind")
    yield bad("an unknown tenant", raw(tenant=CANARY), "unknown_tenant", "tenant")
    yield bad("an unknown actor", raw(actor=CANARY), "bad_value", "actor")
    yield bad("an empty id", raw(event_id=""), "bad_value", "event_id")
    yield bad("an id of 65", raw(event_id="x" * 65), "bad_value", "event_id")
    yield bad("NUL in an id", raw(event_id=f"{CANARY}\0"), "bad_value", "event_id")
    yield bad("NUL in a recipient", raw(recipient=f"{CANARY}\0@leak.example"), "bad_recipient", "recipient")
    yield bad(
        "a recipient of 321",
        raw(recipient=f"{CANARY}{'x' * (321 - len(HER))}@leak.example"),
        "bad_recipient",
        "recipient",
    )
    yield bad("a recipient of blanks", raw(recipient="  "), "bad_recipient", "recipient")
    yield bad("a domain that IDNA refuses", raw(recipient=f"{CANARY}@-ü-.example"), "bad_recipient", "recipient")
    for field in ("mailing", "tenant", "feed"):
        yield bad(f"an address as {field}", raw(**{field: HER}), "bad_value", field)
    yield bad("an encoded address as mailing", raw(mailing=HER.replace("@", "%40")), "bad_value", "mailing")

    now = now_ms()
    for what, when in {
        "a naive time": "2026-11-23T09:14:05",
        "year 1": "0001-01-01T00:00:00Z",
        "year 9999": "9999-12-31T23:59:59Z",
        "a time that is none": "2026-02-30T00:00:00Z",
        "a time of the day after tomorrow": iso(now + 2 * DAY_MS),
        "a time of 401 days ago": now - 401 * DAY_MS,
        "seconds in place of milliseconds": now // 1000,
        "an address as a time": HER,
    }.items():
        yield bad(what, raw(occurred_at=when), "bad_time", "occurred_at")


def bad_preferences() -> Iterator[Bad]:
    def bad(what: str, reason: str, field: str | None, **fields: Any) -> Bad:
        value = {
            "tenant": "acme",
            "recipient": HER,
            "decided_at": iso(now_ms() - 1000),
            "purposes": {"engagement": {"open": "personal"}},
            "proof": PROOF,
            **fields,
        }
        return Bad(what, PREFERENCES, json.dumps(value).encode(), reason, field)

    yield Bad("a preference that is no JSON", PREFERENCES, HER.encode(), "not_json")
    yield Bad("a preference that is a tombstone", PREFERENCES, None, "tombstone")
    yield bad("an unknown tenant's preference", "unknown_tenant", "tenant", tenant=CANARY)
    yield bad("an unknown purpose", "unknown_purpose", "purposes", purposes={CANARY: {"open": "off"}})
    yield bad("an unknown kind of event", "unknown_kind", "purposes", purposes={"engagement": {CANARY: "off"}})
    yield bad("an unknown mode", "bad_value", "purposes", purposes={"engagement": {"open": CANARY}})
    yield bad("everything raised at once", "bad_value", "mode", purposes="*", mode="personal")
    yield bad("a decision without a zone", "bad_time", "decided_at", decided_at="2026-11-23T09:14:05")
    yield bad("nobody's preference", "bad_recipient", "recipient", recipient="@leak.example")
    yield bad("a grant without proof", "no_proof", "proof", proof=None)
    yield bad(
        "a grant as a condition", "conditional_consent", "proof.conditional", proof={**PROOF, "conditional": True}
    )


def bad_mailings() -> Iterator[Bad]:
    def bad(what: str, reason: str, field: str, **fields: Any) -> Bad:
        value = {"tenant": "acme", "mailing": MAILING, "name": "x", "sent_at": iso(now_ms()), "recipients": 1, **fields}
        return Bad(what, MAILINGS, json.dumps(value).encode(), reason, field)

    yield Bad("a mailing that is no JSON", MAILINGS, HER.encode(), "not_json")
    yield Bad("a mailing that is a tombstone", MAILINGS, None, "tombstone")
    yield bad("a mailing of an unknown tenant", "unknown_tenant", "tenant", tenant=CANARY)
    yield bad("a mailing named after her", "bad_value", "name", name=f"for {HER}")
    yield bad("a link that names her", "bad_value", "links", links={"hero": f"https://x.example/?to={HER}"})
    yield bad("recipients by name", "wrong_type", "recipients", recipients=HER)


@dataclass
class Sent:
    """What was sent, and what it must come to."""

    bad: dict[tuple[str, int, int], Bad]
    good: int
    before: dict[str, Any]
    after: dict[str, Any]

    def id_of(self, what: str) -> str:
        ((topic, partition, offset),) = [where for where, bad in self.bad.items() if bad.what == what]
        return f"{topic}:{partition}:{offset}"


def produce(lock: Lock, records: list[tuple[str, int, bytes | None, bytes | None]]) -> list[tuple[str, int, int]]:
    """Send (topic, partition, key, value) as they are; where each came to lie."""
    producer = KafkaProducer(
        bootstrap_servers=lock.stack.broker_address,
        acks="all",
        linger_ms=20,
        enable_idempotence=False,
        max_request_size=16 << 20,
    )
    try:
        futures = [producer.send(topic, value, key, partition=partition) for topic, partition, key, value in records]
        found = [future.get(30) for future in futures]
    finally:
        producer.close()
    for topic, *_ in records:
        lock.sent[topic] = lock.sent.get(topic, 0) + 1
    return [(where.topic, where.partition, where.offset) for where in found]


def send_all(lock: Lock, without: tuple[str, ...] = ()) -> Sent:
    """Send all bad records, good events between them, and to one partition nothing but bad rows; wait for the end."""
    before = lock.settle()
    hers = partition_of(message_key("acme", HER), lock.partitions)
    elsewhere = (hers + 1) % lock.partitions
    misrouted = Bad("misrouted", EVENTS, raw(), "misrouted", None, elsewhere)
    rows: list[tuple[str, int, bytes | None, bytes | None]] = []
    wanted: list[Bad | None] = []
    for bad in [*bad_events(), misrouted, *bad_preferences(), *bad_mailings()]:
        if bad.what in without:
            continue
        partition = 0 if bad.topic == MAILINGS else bad.partition if bad.partition is not None else hers
        rows.append((bad.topic, partition, HER.encode(), bad.value))
        wanted.append(bad)
        if bad.topic == EVENTS:
            # Key bytes that differ from the body's but lie right are accepted; so is no key at all.
            rows.append((EVENTS, hers, secrets.choice([None, CANARY.encode(), message_key("acme", HER)]), raw()))
            wanted.append(None)
    only_bad = (hers + 2) % lock.partitions
    rows += [(EVENTS, only_bad, None, CANARY.encode())] * 300
    wanted += [Bad("of 300", EVENTS, CANARY.encode(), "not_json")] * 300
    where = produce(lock, rows)
    after = lock.settle()
    return Sent(
        {at: bad for at, bad in zip(where, wanted, strict=True) if bad is not None},
        wanted.count(None),
        before,
        after,
    )


@pytest.fixture(scope="module")
def sent(lock: Lock) -> Sent:
    return send_all(lock)


def rejections(lock: Lock) -> dict[tuple[str, int, int], dict[str, Any]]:
    found = {}
    for record in lock.consume("tracking.rejected"):
        said = json.loads(record.value)
        if source := said.get("source"):
            found[source["topic"], source["partition"], source["offset"]] = said
    return found


def test_each_is_refused_with_its_reason_and_coordinates_and_nothing_else_is(lock: Lock, sent: Sent) -> None:
    def all_there() -> dict[tuple[str, int, int], dict[str, Any]] | None:
        found = rejections(lock)
        return found if set(sent.bad) <= set(found) else None

    found = lock.until(all_there, what="all rejections")
    wrong = {
        bad.what: (found[at]["reason"], found[at]["field"])
        for at, bad in sent.bad.items()
        if (found[at]["reason"], found[at]["field"]) != (bad.reason, bad.field)
    }
    assert wrong == {}
    sizes = {bad.what: found[at]["size"] for at, bad in sent.bad.items() if found[at]["size"] != len(bad.value or b"")}
    assert sizes == {}
    of_others = [said for at, said in found.items() if at not in sent.bad and said["stage"] == "events"]
    assert of_others == []


def test_good_events_are_counted_and_the_sum_adds_up(lock: Lock, sent: Sent) -> None:
    bad = [bad for bad in sent.bad.values() if bad.topic == EVENTS]
    change = {
        term: sent.after[term] - sent.before[term] for term in ("received", "counted", "off", "duplicates", "rejected")
    }
    assert change == {
        "received": sent.good + len(bad),
        "counted": sent.good,
        "off": 0,
        "duplicates": 0,
        "rejected": len(bad),
    }
    said = json.loads(lock.run("status", "--json").stdout)
    assert said["adds_up"] is True
    assert sum(said["rejected_by_reason"].values()) == said["rejected"]
    assert lock.totals()["acme", MAILING, "open", None, "human"] == (sent.good, 1)


def test_the_held_keys_open_what_was_refused_and_replay_counts_it(lock: Lock, sent: Sent) -> None:
    listed = json.loads(lock.run("rejected", "list", "--json", "--limit", "5000").stdout)
    by_id = {one["rejection_id"]: one for one in listed}
    assert {f"{topic}:{partition}:{offset}" for topic, partition, offset in sent.bad} <= set(by_id)

    number = sent.id_of("an address as mailing")
    (value,) = [bad.value for bad in sent.bad.values() if bad.what == "an address as mailing"]
    assert lock.run("rejected", "show", number, "--raw").stdout.encode() == value
    assert HER in lock.run("rejected", "show", number).stdout
    large = lock.run("rejected", "show", sent.id_of("more than 1 MB"), check=False)
    assert (large.returncode, "too large to keep" in large.stderr) == (1, True)

    number = sent.id_of("misrouted")
    assert "nothing was sent" in lock.run("rejected", "replay", number).stdout
    before, counted = lock.status(), lock.totals()["acme", MAILING, "open", None, "human"]
    assert "sent 1 of 1" in lock.run("rejected", "replay", number, "--yes").stdout
    lock.sent[EVENTS] += 1
    after = lock.settle()
    assert (after["counted"], after["rejected"]) == (before["counted"] + 1, before["rejected"])
    assert lock.totals()["acme", MAILING, "open", None, "human"] == (counted[0] + 1, 1)
    assert "it was sent again before" in lock.run("rejected", "replay", number, "--yes").stdout


def test_what_feed_is_given_wrongly_is_refused_by_file_and_line(lock: Lock, sent: Sent) -> None:
    body = json.dumps({"RecordType": "Open", "Recipient": HER, "MessageID": CANARY}).encode()
    lines = [body, body[:30], b"", f"{CANARY}\xff".encode("latin-1"), raw()]
    given = lock.stack.directory / "wrong.ndjson"
    given.write_bytes(b"\n".join(lines))
    for form in ("sendgrid", "mailgun", "ses"):
        said = lock.run("feed", "--format", form, "--tenant", "acme", "--dry-run", "--json", str(given), check=False)
        account = json.loads(said.stdout)
        assert (account["sent"], said.returncode) == (0, 1)
        assert account["bodies"] == account["ignored"] + account["refused"] > 0
        assert CANARY not in said.stdout + said.stderr
        assert f"{given}:2" in said.stderr


def test_nothing_of_it_is_told_anywhere(lock: Lock, sent: Sent) -> None:
    worker = lock.workers[0]
    assert worker.process.poll() is None, "the worker went on"
    told = shown(lock.stack.directory)
    told += "".join(worker.get(path).decode() for path in ("/status", "/metrics", "/health", "/ready"))
    for command in (["status"], ["rejected", "list", "--limit", "5000"], ["rejected", "list", "--json"], ["keys"]):
        told += lock.run(*command).stdout
    rejected = [
        record for record in lock.consume("tracking.rejected") if CANARY.encode() in (record.key or b"") + record.value
    ]
    assert CANARY not in told
    assert rejected == []
    with urllib.request.urlopen(f"http://127.0.0.1:{worker.port}/metrics", timeout=5) as answer:
        assert b"misrouted" in answer.read()
