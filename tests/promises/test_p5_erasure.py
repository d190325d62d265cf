"""P5 and the rest of P4: what an erasure leaves, what it does not touch, and what a lowered ceiling takes away."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pseudonymizer.keys import KeyKind
from pseudonymizer.pseudonyms import blind_index
from streams.keyring import KeyRing
from streams.keys import Keys
from streams.messages import decode_state
from streams.resources import MASKED_IDENTITY, Resources
from streams.rights.barrier import decided
from streams.stores import Role, Store, connect
from tests.lock import TENANTS, Lock, Message, event, iso, key, now_ms, preference
from tests.promises.test_p1_consent_first import carried_out, engagement, mappings, receipt

pytestmark = pytest.mark.stack

PERSONAL = {"engagement": {"open": "personal", "click": "personal"}, "advice": {"open": "personal"}}


def erasure(tenant: str, recipient: str, number: str | None = None, at: int | None = None) -> Message:
    value = {
        "tenant": tenant,
        "recipient": recipient,
        "request_id": number or secrets.token_hex(8),
        "kind": "erasure",
        "requested_at": iso(at or now_ms()),
    }
    return "tracking.requests", key(tenant, recipient), json.dumps(value).encode()


def confirmed(lock: Lock, number: str, tenant: str = "acme") -> int:
    """How many receipts of a tenant the identity store has whose id begins so."""
    which = f"startsWith(id, '{number}') AND tenant = '{tenant}'"
    ((count,),) = lock.rows(Store.IDENTITY, f"SELECT count() FROM receipts WHERE {which}")
    return int(count)


def erase(lock: Lock, tenant: str, recipient: str, at: int | None = None) -> dict[str, Any]:
    """Ask, wait for the receipt, and give it back as the sender gets it."""
    number = secrets.token_hex(8)
    lock.send([erasure(tenant, recipient, number, at)])
    lock.until(lambda: confirmed(lock, number), what="the receipt")

    def told() -> dict[str, Any] | None:
        return next((one for one in receipt(lock, "erasure") if one["request_id"] == number), None)

    found: dict[str, Any] = lock.until(told, what="the receipt on its topic")
    return found


def ledger(lock: Lock, keys: Keys, recipient: str) -> list[tuple[Any, ...]]:
    blind = blind_index(keys.single(KeyKind.BLIND), "acme", recipient).hex().upper()
    columns = "toString(purpose), toString(kind), toString(mode), toString(effect), preference_id, proof"
    rows = lock.rows(
        Store.IDENTITY, f"SELECT {columns} FROM consents WHERE blind = unhex('{blind}') ORDER BY purpose, kind"
    )
    return [tuple(row) for row in rows]


def last_words(lock: Lock) -> dict[bytes, bytes | None]:
    """What tracking.state says last of each key."""
    return {record.key: record.value for record in lock.consume("tracking.state")}


@pytest.fixture
def keys(lock: Lock) -> Any:
    ring = KeyRing.open(lock.settings.keyring, lock.settings.keyring_kek)  # or make it: the worker may not have yet
    yield Keys(ring)
    ring.close()


def test_nothing_is_left_but_that_she_was_erased_and_counts_stay(lock: Lock, keys: Keys) -> None:
    who, mailing, before = "p5.one@example.com", "p5-a", mappings(lock, "acme")
    granted = now_ms() - 60_000
    carried_out(lock, [preference("acme", who, PERSONAL, granted)])
    lock.send([event("acme", who, mailing=mailing), event("acme", who, mailing=mailing, kind="click", link="x")])
    lock.send([event("acme", "p5.else@example.com", mailing=mailing)])
    lock.settle()
    assert len(engagement(lock, mailing)) == 3, "two for engagement, one for advice"
    mine = mappings(lock, "acme") - before
    counted = {cell: total for cell, total in lock.totals().items() if cell[1] == mailing}
    assert len(ledger(lock, keys, who)) == 3

    said = erase(lock, "acme", who)
    assert said["removed"] == {"rows": 3, "mappings": 2, "consents": 3, "disclosures": 0}
    assert said["disclosed_to"] == []
    assert said["gone_by"] > iso(now_ms() + 14 * 86_400_000), "sealed rejections open for 14 days"
    assert engagement(lock, mailing) == []
    assert mappings(lock, "acme") == before
    ring = KeyRing.open(lock.settings.keyring, lock.settings.keyring_kek, create=False)
    assert not {pseudonym.to_bytes(16, "little").hex() for pseudonym in mine} & set(ring.names(KeyKind.DATA))
    ring.close()
    number = said["request_id"]
    assert ledger(lock, keys, who) == [
        ("*", "click", "anonymous", "erased", number, ""),
        ("*", "open", "anonymous", "erased", number, ""),
    ]
    assert {cell: total for cell, total in lock.totals().items() if cell[1] == mailing} == counted
    (stub,) = keys.stub_keys([key("acme", who)])
    words = last_words(lock)
    assert words[key("acme", who)] is None, "her address is in the state no more"
    left = decode_state(words[stub] or b"")
    assert list(left.purposes) == ["*"]
    assert all(not consent.salts for consent in left.purposes["*"].values())

    # What comes late, or again: an event counts, a grant from before does nothing, and leaves nothing.
    changes = lock.changes()
    lock.send([preference("acme", who, PERSONAL, granted + 1), event("acme", who, mailing=mailing)])
    lock.settle(changes=changes + 1)
    assert engagement(lock, mailing) == []
    assert len(ledger(lock, keys, who)) == 2
    assert last_words(lock)[key("acme", who)] is None
    lock.send([erasure("acme", who, number)])
    again = erase(lock, "acme", who)
    assert again["removed"] == {"rows": 0, "mappings": 0, "consents": 0, "disclosures": 0}, "nothing was held"
    assert [one["request_id"] for one in receipt(lock, "erasure")].count(number) == 1

    # A grant of afterwards stands, under a pseudonym of its own, also when an old request comes again.
    carried_out(lock, [preference("acme", who, {"engagement": {"open": "personal"}})])
    lock.send([event("acme", who, mailing=mailing, occurred_at=now_ms() + 2000)])
    lock.settle()
    ((_, _, fresh),) = engagement(lock, mailing)
    assert fresh not in mine
    late = erase(lock, "acme", who, at=granted + 30_000)
    assert late["removed"]["rows"] == 0
    assert [row[2] for row in engagement(lock, mailing)] == [fresh]
    assert [line[3] for line in ledger(lock, keys, who)] == ["erased", "erased", "raised"]


def test_whoever_was_off_stays_off_and_nobody_is_told_apart_from_an_unknown(lock: Lock, keys: Keys) -> None:
    off, unknown, mailing = "p5.off@example.com", "p5.nobody@example.com", "p5-b"
    carried_out(lock, [preference("acme", off, "*", now_ms() - 60_000, mode="off")])
    assert erase(lock, "acme", off)["removed"] == {"rows": 0, "mappings": 0, "consents": 6, "disclosures": 0}
    assert erase(lock, "acme", unknown)["removed"] == {"rows": 0, "mappings": 0, "consents": 0, "disclosures": 0}
    before = lock.status()["off"]
    lock.send([event("acme", off, mailing=mailing), event("acme", unknown, mailing=mailing)])
    assert lock.settle()["off"] == before + 1
    assert lock.totals()["acme", mailing, "open", None, "human"] == (1, 1)
    assert [line[2] for line in ledger(lock, keys, off)] == ["off", "off"]


def test_a_grant_and_an_erasure_within_a_claim_leave_nothing(lock: Lock, keys: Keys) -> None:
    who, before = "p5.quick@example.com", mappings(lock, "acme")
    at = now_ms() - 10
    lock.send([preference("acme", who, PERSONAL, at), erasure("acme", who, "p5-quick", at + 5)])
    lock.until(lambda: confirmed(lock, "p5-quick"), what="the receipt")
    changes = lock.changes()
    lock.send([erasure("acme", "p5.barrier@example.com")])
    lock.settle(changes=changes + 1)
    carried_out(lock, [erasure("acme", who, at=now_ms() + 1)])  # the two topics have no order: whichever came first
    assert mappings(lock, "acme") == before
    assert {line[3] for line in ledger(lock, keys, who)} == {"erased"}


def test_what_a_request_says_wrongly_is_refused_and_named(lock: Lock) -> None:
    topic, at, body = erasure("acme", "p5.wrong@example.com")
    good = json.loads(body)
    bad = [
        {**good, "kind": "oblivion"},
        {**good, "request_id": "a@b"},
        {k: v for k, v in good.items() if k != "tenant"},
    ]
    known = len(lock.consume("tracking.rejected"))
    lock.send([(topic, at, json.dumps(one).encode()) for one in bad])
    lock.until(lambda: len(lock.consume("tracking.rejected")) >= known + 3, what="rejections")
    said = [json.loads(one.value) for one in lock.consume("tracking.rejected")]
    # A rejection may come twice, under one id: after a worker has gone, its successor reads the request again.
    mine = {one["rejection_id"]: (one["reason"], one["field"]) for one in said if one["stage"] == "requests"}
    assert sorted(mine.values()) == [("bad_value", "request_id"), ("missing_field", "tenant"), ("unknown_kind", "kind")]


# --- ceilings ---

GAMMA = """
[gamma.purposes.engagement]
ceiling = "{}"
"""


def apply(lock: Lock, ceiling: str) -> str:
    (lock.stack.directory / "tenants.toml").write_text(TENANTS + GAMMA.format(ceiling))
    return lock.run("tenants", "apply", "--yes").stdout


def test_a_lowered_ceiling_reaches_back_and_a_raised_one_gives_nothing_back(lock: Lock) -> None:
    both, one = [f"p5.g{n}@example.com" for n in range(6)], "p5.gamma@example.com"
    mailing = "p5-g"
    apply(lock, "personal")
    carried_out(
        lock,
        [
            *(preference("gamma", who, {"engagement": {"open": "personal"}}, now_ms() - 5000) for who in both),
            preference("gamma", one, {"engagement": {"open": "pseudonymous"}}, now_ms() - 5000),
        ],
    )
    lock.send([event("gamma", who, mailing=mailing) for who in (*both, one)])
    lock.settle()
    first = {row[2] for row in engagement(lock, mailing)}
    assert (len(first), len(mappings(lock, "gamma"))) == (7, 6)
    counted = lock.totals()["gamma", mailing, "open", None, "human"]

    def lowered(ceiling: str, so_far: int) -> int:
        assert f"above {ceiling}" in apply(lock, ceiling)
        lock.until(lambda: confirmed(lock, "ceiling:", "gamma") == so_far + 4, what="a receipt of every partition")
        lock.until(lambda: len(told()) == so_far + 4, what="the receipts on their topic")
        return sum(said["removed"]["rows"] for said in told()[so_far:])

    def told() -> list[dict[str, Any]]:
        """Each once: a receipt may come twice, with the same words. Other tests lower ceilings of other tenants."""
        return list({one["request_id"]: one for one in receipt(lock, "ceiling") if one["tenant"] == "gamma"}.values())

    assert lowered("pseudonymous", 0) == 6
    ((_, _, untouched),) = engagement(lock, mailing)
    assert mappings(lock, "gamma") == set()
    lock.send([event("gamma", who, mailing=mailing) for who in (*both, one)])
    lock.settle()
    now = {row[2] for row in engagement(lock, mailing)}
    assert len(now) == 7, "everybody is pseudonymous: under a new pseudonym who was seen beside a name"
    assert now & first == {untouched}
    assert lowered("anonymous", 4) == 8
    assert engagement(lock, mailing) == []
    apply(lock, "personal")
    lock.send([event("gamma", who, mailing=mailing) for who in (*both, one)])
    lock.settle()
    assert engagement(lock, mailing) == [], "it takes a new grant"
    assert lock.totals()["gamma", mailing, "open", None, "human"] == (counted[0] * 3, counted[1])
    carried_out(lock, [preference("gamma", one, {"engagement": {"open": "personal"}})])
    assert len(mappings(lock, "gamma")) == 1


# --- replays ---


def test_everything_read_again_from_the_beginning_brings_nobody_back(lock: Lock, keys: Keys) -> None:
    """Another consumer group: all preferences and requests so far are forwarded once more, in any order."""
    who, mailing = "p5.again@example.com", "p5-z"
    carried_out(lock, [preference("acme", who, PERSONAL, now_ms() - 5000)])
    lock.send([event("acme", who, mailing=mailing)])
    lock.settle()
    erase(lock, "acme", who)
    decided(lock.settings)

    def held() -> tuple[Any, ...]:
        rows = lock.rows(Store.ANALYTICS, "SELECT pseudonym, count() FROM engagement GROUP BY ALL ORDER BY ALL")
        known = lock.rows(Store.IDENTITY, "SELECT pseudonym, count() FROM recipients GROUP BY ALL ORDER BY ALL")
        told = lock.rows(Store.IDENTITY, "SELECT tenant, id, kind, rows, mappings, consents FROM receipts ORDER BY ALL")
        return rows, known, told, lock.totals(), {key for key, value in last_words(lock).items() if value}

    before, lines = held(), ledger(lock, keys, who)
    again = lock.worker(SCHLEUSE_GROUP="p5-again")
    decided(replace(lock.settings, group="p5-again"))
    decided(lock.settings)
    again.kill(signal.SIGTERM)
    assert held() == before
    assert [line[:4] for line in ledger(lock, keys, who)] == [line[:4] for line in lines]
    assert len(lines) == 2


# --- the bytes ---


def on_disk(lock: Lock, needles: list[bytes]) -> set[bytes]:
    """Which of them lie in a file of the identity store."""
    found = set()
    for folder, _, names in os.walk(lock.stack.directory / "identity"):
        for name in names:
            with contextlib.suppress(FileNotFoundError):  # an old part, just removed
                blob = Path(folder, name).read_bytes()
                found |= {needle for needle in needles if needle in blob}
    return found


def test_the_sealed_bytes_leave_the_disk(lock: Lock, keys: Keys) -> None:
    """What a worker does twice a day, done now; and old parts, kept for a minute, are kept for a second."""
    who = "p5.bytes@example.com"
    carried_out(lock, [preference("acme", who, PERSONAL, now_ms() - 5000)])
    blind = blind_index(keys.single(KeyKind.BLIND), "acme", who)
    hers = f"WHERE blind = unhex('{blind.hex()}')"
    sealed = lock.rows(Store.IDENTITY, f"SELECT hex(sealed) FROM recipients {hers}")
    proofs = lock.rows(Store.IDENTITY, f"SELECT hex(proof) FROM consents {hers}")
    # The middle of each: LZ4 may cut what cannot be packed into pieces, but not this small.
    needles = [bytes.fromhex(row[0])[40:72] for row in (*sealed, *proofs)]
    assert len(set(needles)) == 3, "two mappings and one proof"
    assert on_disk(lock, needles) == set(needles)

    erase(lock, "acme", who)
    decided(lock.settings)
    soon = "old_parts_lifetime = 1, cleanup_delay_period = 1, max_cleanup_delay_period = 1"
    migrations = connect(lock.settings, Store.IDENTITY, Role.MIGRATIONS)
    for table in MASKED_IDENTITY:
        migrations.do(
            "a test", f"ALTER TABLE identity.{table} MODIFY SETTING {soon}, cleanup_delay_period_random_add = 0"
        )
    migrations.close()
    lock.stack.kill("identity")  # so that whoever cleans up does not sleep by the old settings
    lock.stack.start()
    resources = Resources(lock.settings, "a test")
    resources.analytics = connect(lock.settings, Store.ANALYTICS, Role.WORKER)
    resources.identity = connect(lock.settings, Store.IDENTITY, Role.WORKER)
    resources.let_go()
    resources.close()
    lock.until(lambda: not on_disk(lock, needles), 60, "the bytes to be gone")
