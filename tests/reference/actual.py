"""What is there: both stores, the key ring, and what the workers told on their topics."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from deploy.clickhouse.grants import Role, Store
from tests.reference.facts import Claim, Decision, Facts, Log, Mapping, Receipt, Row
from tests.reference.people import Ring, number, open_mapping, open_proof

Rows = Callable[[Store, str, Role], Sequence[Sequence[Any]]]
"""A SELECT in a store under a login: tests.lock.Lock.rows."""

_CLAIMS = """
SELECT incarnation, partition, number, toString(kind), first, last, next_event, next_change,
    toUnixTimestamp64Milli(now), mailings, settings, worker
FROM claims ORDER BY partition, number
"""
_OUTCOMES = "SELECT partition, toString(outcome), toString(reason), sum(events) FROM outcomes GROUP BY ALL"
_TOTALS = """
SELECT toString(tenant), toString(mailing), toString(kind), toString(link), toString(device), toString(actor),
    toUnixTimestamp(hour), sum(events)
FROM cells_hourly GROUP BY ALL
"""
_UNIQUES = """
SELECT toString(tenant), toString(mailing), toString(kind), toString(dimension), toString(value), toString(actor),
    toInt16({step}), uniqExactMerge(recipients)
FROM cells_unique GROUP BY ALL
"""
_ROWS = """
SELECT partition, claim, toString(tenant), toString(purpose), toString(mailing), toString(kind), toString(link),
    toUnixTimestamp(occurred), toString(device), toString(actor), pseudonym, key_version, toUInt16(expires),
    toString(feed)
FROM engagement
"""
_MAPPINGS = """
SELECT partition, claim, toString(tenant), toString(purpose), toString(kind), pseudonym, key_version, hex(blind),
    hex(sealed), toUnixTimestamp64Milli(at)
FROM recipients
"""
_LEDGER = """
SELECT partition, claim, toString(tenant), hex(blind), toString(purpose), toString(kind), toString(mode),
    toString(effect), toUnixTimestamp64Milli(decided_at), toUnixTimestamp64Milli(recorded_at), preference_id, hex(proof)
FROM consents
"""
_CONFIRMED = "SELECT partition, claim, id, toString(kind), toString(tenant), rows, mappings, consents FROM {table}"


def read_claims(rows: Rows) -> list[Claim]:
    """The chain of every partition."""
    return [Claim(*row) for row in rows(Store.ANALYTICS, _CLAIMS, Role.OPERATOR)]


def read(log: Log, rows: Rows, ring: Ring, partitions: int) -> Facts:
    """Everything that is compared. `log` has to hold tracking.state, tracking.receipts and tracking.rejected too."""

    def asked(store: Store, sql: str) -> list[tuple[Any, ...]]:
        role = Role.OPERATOR if store is Store.ANALYTICS and sql is not _ROWS else Role.RIGHTS
        return [tuple(row) for row in rows(store, sql, role)]

    facts = Facts()
    for *outcome, count in asked(Store.ANALYTICS, _OUTCOMES):
        facts.outcomes[tuple(outcome)] += count
    for *cell, count in asked(Store.ANALYTICS, _TOTALS):
        facts.totals[tuple(cell)] += count
    for step in ("step", "-1"):
        for *cell, count in asked(Store.ANALYTICS, _UNIQUES.format(step=step)):
            facts.uniques[tuple(cell)] += count
    facts.rows.update(Row(*row) for row in asked(Store.ANALYTICS, _ROWS))
    keys = {number(bytes.fromhex(name)): key for name, key in ring.all("data").items()}
    facts.data_keys.update(keys.keys())
    for *known, pseudonym, version, blind, sealed, at_ms in asked(Store.IDENTITY, _MAPPINGS):
        of = int(pseudonym).to_bytes(16, "little")
        recipient = open_mapping(keys.get(pseudonym), bytes.fromhex(sealed), of)
        facts.mappings[Mapping(*known, pseudonym, version, blind, recipient, at_ms)] += 1
    proof_keys = ring.all("proof")
    for *decided, stored in asked(Store.IDENTITY, _LEDGER):
        proof = open_proof(proof_keys.get(decided[2]), bytes.fromhex(stored), decided[-1])
        facts.ledger[Decision(*decided, json.dumps(json.loads(proof or "{}"), sort_keys=True))] += 1
    facts.receipts.update(Receipt(*row) for row in asked(Store.IDENTITY, _CONFIRMED.format(table="receipts")))
    facts.requests.update(Receipt(*row) for row in asked(Store.IDENTITY, _CONFIRMED.format(table="requests")))
    for partition in range(partitions):
        _read_topics(log, partition, ring, facts)
    facts.outcomes += Counter()  # without zeros
    facts.totals += Counter()
    return facts


def _read_topics(log: Log, partition: int, ring: Ring, facts: Facts) -> None:
    for record in log.records("tracking.receipts", partition):
        said = json.loads(record.value or b"{}")
        removed = said["removed"]
        number_ = said["preference_id"] if said["kind"] == "withdrawal" else said["request_id"]
        facts.told[number_, said["tenant"], removed["rows"], removed["mappings"]] = 1
    for record in log.records("tracking.rejected", partition):
        said = json.loads(record.value or b"{}")
        source = said.get("source") or {"topic": "a replay"}
        if source["topic"] in ("tracking.events", "tracking.changes"):
            facts.rejected[source["topic"], source["partition"], source["offset"], said["reason"]] = 1
    highest: dict[bytes, tuple[tuple[int, int], bytes]] = {}
    last: dict[bytes, bytes | None] = {}
    for record in log.records("tracking.state", partition):
        key = record.key or b""
        last[key] = record.value
        if record.value is None:
            continue
        version = tuple(json.loads(record.value)["version"])
        if key not in highest or version >= highest[key][0]:
            highest[key] = (version, record.value)
    stubs = any(key[:1] == b"\0" for key in highest)
    for key, (version, value) in highest.items():
        stub = highest.get(ring.stub(key)) if key[:1] != b"\0" and stubs else None
        if stub is None or stub[0] < version:
            facts.states[partition, key, json.dumps(json.loads(value), sort_keys=True)] += 1
    for key, value_ in last.items():
        if value_ is not None:
            facts.last_states[partition, key, json.dumps(json.loads(value_), sort_keys=True)] += 1
