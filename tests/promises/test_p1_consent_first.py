"""P1: no pseudonymous row without a grant that was in force when the event occurred and still when it was processed.

With it what this release keeps of P4: after the receipt of a withdrawal no row and no mapping of hers exists.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from pseudonymizer.keys import KeyKind
from streams.keyring import KeyRing
from streams.ledger import open_proof
from streams.stores import Store
from tests.lock import PROOF, Lock, Message, event, now_ms, preference

pytestmark = pytest.mark.stack


def carried_out(lock: Lock, messages: list[Message]) -> None:
    """Send preferences and wait until their changes are carried out."""
    before = lock.changes()
    lock.send(messages)
    lock.settle(changes=before + len(messages))


def engagement(lock: Lock, mailing: str) -> list[tuple[Any, ...]]:
    return [
        tuple(row)
        for row in lock.rows(
            Store.ANALYTICS,
            "SELECT toString(purpose), toString(kind), pseudonym FROM engagement "
            f"WHERE mailing = '{mailing}' ORDER BY ALL",
        )
    ]


def mappings(lock: Lock, tenant: str) -> set[int]:
    return {row[0] for row in lock.rows(Store.IDENTITY, f"SELECT pseudonym FROM recipients WHERE tenant = '{tenant}'")}


def receipt(lock: Lock, kind: str = "withdrawal") -> list[dict[str, Any]]:
    """All receipts, the newest last (the topic has several partitions)."""
    receipts = [r for record in lock.consume("tracking.receipts") if (r := json.loads(record.value))["kind"] == kind]
    return sorted(receipts, key=lambda r: str(r["completed_at"]))


def test_unknown_means_anonymous_and_a_grant_is_not_retroactive(lock: Lock) -> None:
    granted = now_ms() - 60_000
    carried_out(
        lock,
        [preference("acme", "p1.one@example.com", {"engagement": {"open": "pseudonymous"}}, decided_at=granted)],
    )
    lock.send(
        [
            event("acme", "p1.nobody@example.com", mailing="p1-a"),  # unknown
            event("acme", "p1.one@example.com", mailing="p1-a", occurred_at=granted - 1),  # before the grant
            event("acme", "p1.one@example.com", mailing="p1-a", occurred_at=granted),  # covered
            event("acme", "p1.one@example.com", mailing="p1-a", kind="click", url="https://x.example/"),  # opens only
        ]
    )
    lock.settle()
    assert [(row[0], row[1]) for row in engagement(lock, "p1-a")] == [("engagement", "open")]
    totals = lock.totals()
    assert totals["acme", "p1-a", "open", None, "human"] == (3, 2)
    assert totals["acme", "p1-a", "click", "other", "human"] == (1, 1)


def test_the_lower_of_mode_and_ceiling_governs(lock: Lock) -> None:
    """`advice` has the ceiling pseudonymous: a row, but no mapping, although `personal` was granted."""
    before = mappings(lock, "acme")
    carried_out(lock, [preference("acme", "p1.two@example.com", {"advice": {"open": "personal"}}, now_ms() - 1000)])
    lock.send([event("acme", "p1.two@example.com", mailing="p1-b", occurred_at=now_ms())])
    lock.settle()
    assert [(row[0], row[1]) for row in engagement(lock, "p1-b")] == [("advice", "open")]
    assert mappings(lock, "acme") == before


def test_off_is_not_counted_and_leaves_nothing(lock: Lock) -> None:
    carried_out(lock, [preference("acme", "p1.off@example.com", "*", now_ms() - 60_000, mode="off")])
    off = lock.status()["off"]
    lock.send([event("acme", "p1.off@example.com", mailing="p1-c"), event("acme", "p1.on@example.com", mailing="p1-c")])
    assert lock.settle()["off"] == off + 1
    assert lock.totals()["acme", "p1-c", "open", None, "human"] == (1, 1)


def test_a_withdrawal_reaches_back_and_counts_stay(lock: Lock) -> None:
    who, mailing = "p1.three@example.com", "p1-d"
    before = mappings(lock, "acme")
    both = {"engagement": {"open": "personal", "click": "personal"}}
    carried_out(lock, [preference("acme", who, both, now_ms() - 5000)])
    acts = [event("acme", who, mailing=mailing) for _ in range(3)]
    acts += [event("acme", who, mailing=mailing, kind="click", url="https://x.example/") for _ in range(2)]
    lock.send([*acts, event("acme", "p1.else@example.com", mailing=mailing)])
    lock.settle()
    rows = engagement(lock, mailing)
    assert len(rows) == 5
    pseudonyms = {row[2] for row in rows}
    assert len(pseudonyms) == 2, "opens and clicks have salts of their own"
    assert mappings(lock, "acme") - before == pseudonyms
    counted = {cell: total for cell, total in lock.totals().items() if cell[1] == mailing}

    known = len(receipt(lock))
    carried_out(lock, [preference("acme", who, {"engagement": {"click": "anonymous"}})])
    lock.until(lambda: len(receipt(lock)) > known, what="the receipt")
    assert [row[1] for row in engagement(lock, mailing)] == ["open"] * 3, "clicks are gone, opens were not withdrawn"
    assert receipt(lock)[-1]["removed"] == {"rows": 2, "mappings": 1}
    assert len(mappings(lock, "acme") - before) == 1

    carried_out(lock, [preference("acme", who, "*", mode="anonymous")])
    lock.until(lambda: len(receipt(lock)) > known + 1, what="the receipt")
    assert engagement(lock, mailing) == []
    assert mappings(lock, "acme") == before
    assert {cell: total for cell, total in lock.totals().items() if cell[1] == mailing} == counted

    lock.send([event("acme", who, mailing=mailing, occurred_at=now_ms())])
    lock.settle()
    assert engagement(lock, mailing) == [], "withdrawals ignored: 0"

    carried_out(lock, [preference("acme", who, {"engagement": {"open": "pseudonymous"}})])
    lock.send([event("acme", who, mailing=mailing, occurred_at=now_ms() + 2000)])
    lock.settle()
    (again,) = engagement(lock, mailing)
    assert again[2] not in pseudonyms, "a new stretch cannot be joined to the old one"


def test_a_step_down_from_personal_starts_anew(lock: Lock) -> None:
    who, mailing, before = "p1.four@example.com", "p1-e", mappings(lock, "acme")
    carried_out(lock, [preference("acme", who, {"engagement": {"open": "personal"}}, now_ms() - 5000)])
    lock.send([event("acme", who, mailing=mailing)])
    lock.settle()
    ((_, _, seen_beside_a_name),) = engagement(lock, mailing)
    carried_out(lock, [preference("acme", who, {"engagement": {"open": "pseudonymous"}})])
    assert engagement(lock, mailing) == []
    assert mappings(lock, "acme") == before
    lock.send([event("acme", who, mailing=mailing)])
    lock.settle()
    ((_, _, anew),) = engagement(lock, mailing)
    assert anew != seen_beside_a_name


def test_an_older_decision_changes_nothing_and_equal_times_take_the_lower_mode(lock: Lock) -> None:
    who, at = "p1.five@example.com", now_ms() - 10_000
    carried_out(
        lock,
        [
            preference("acme", who, {"engagement": {"open": "anonymous"}}, at),
            preference("acme", who, {"engagement": {"open": "personal"}}, at - 1),
            preference("acme", who, {"engagement": {"open": "personal"}}, at),
        ],
    )
    lock.send([event("acme", who, mailing="p1-f")])
    lock.settle()
    assert engagement(lock, "p1-f") == []
    effects = lock.rows(
        Store.IDENTITY,
        "SELECT toString(effect) FROM consents WHERE tenant = 'acme' AND decided_at IN "
        f"(fromUnixTimestamp64Milli({at}), fromUnixTimestamp64Milli({at - 1})) ORDER BY recorded_at, preference_id",
    )
    assert sorted(row[0] for row in effects) == ["confirmed", "out_of_date", "out_of_date"]


def test_the_ledger_keeps_the_proof(lock: Lock) -> None:
    who = "p1.six@example.com"
    carried_out(lock, [preference("acme", who, {"engagement": {"open": "pseudonymous"}}, now_ms() - 7777)])
    rows = lock.rows(Store.IDENTITY, "SELECT hex(proof), preference_id FROM consents WHERE tenant = 'acme'")
    ring = KeyRing.open(lock.settings.keyring, lock.settings.keyring_kek, create=False)
    try:
        key = ring.get(KeyKind.PROOF, "acme")
    finally:
        ring.close()
    assert key
    assert PROOF in [open_proof(key, bytes.fromhex(stored), number) for stored, number in rows]
    assert PROOF["evidence"].encode() not in b"".join(bytes.fromhex(row[0]) for row in rows)


@pytest.mark.parametrize(
    ("proof", "reason"),
    [(None, "no_proof"), ({**PROOF, "conditional": True}, "conditional_consent")],
)
def test_a_grant_without_free_proof_is_rejected(lock: Lock, proof: Any, reason: str) -> None:
    lock.send([preference("acme", "p1.seven@example.com", {"engagement": {"open": "personal"}}, proof=proof)])

    def found() -> bool:
        return any(json.loads(record.value)["reason"] == reason for record in lock.consume("tracking.rejected"))

    lock.until(found, what=f"a rejection as {reason}")
