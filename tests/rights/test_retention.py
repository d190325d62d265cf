"""Rows and mappings go at their time: by the settings in force, on both real stores. No worker is needed for that."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest

from deploy.embedded.stack import Stack
from pseudonymizer.keys import KeyKind
from streams import ingest
from streams.keyring import KeyRing
from streams.rights import retention
from streams.rights.desk import Desk
from streams.stores import Role, Store, connect
from tests.lock import Lock, now_ms

pytestmark = pytest.mark.stack
DAY_MS = 86_400_000
FAR = datetime.now(UTC).date() + timedelta(days=300)
TENANTS = """
[acme.purposes.engagement]
[acme.purposes.advice]
retention = "{advice}"
"""


@pytest.fixture(scope="module")
def lock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lock]:
    with (
        Stack(tmp_path_factory.mktemp("retention"), "tansu", die_with_parent=True) as stack,
        Lock(stack, TENANTS.format(advice="300 days"), partitions=2) as running,
    ):
        yield running


@pytest.fixture(scope="module")
def desk(lock: Lock) -> Iterator[Desk]:
    KeyRing.open(lock.settings.keyring, lock.settings.keyring_kek).close()  # as the first worker makes it
    with Desk.open(lock.settings, "a test") as opened:
        yield opened


def time_column(at_ms: int, rows: int) -> Any:
    return pa.repeat(pa.scalar(at_ms, pa.int64()).cast(pa.timestamp("ms", "UTC")), rows)


def row(lock: Lock, number: int, tenant: str, purpose: str, age_days: int) -> None:
    """A row of `engagement` as a claim wrote it so many days ago; `number` is its pseudonym."""
    line = {name: pa.nulls(1, kind) for name, kind in zip(ingest.SCHEMA.names, ingest.SCHEMA.types, strict=True)}
    values: dict[str, Any] = {
        "tenant": tenant,
        "purpose": purpose,
        "mailing": "m",
        "kind": "open",
        "pseudonym": number.to_bytes(16, "little"),
        "occurred_ms": now_ms() - age_days * DAY_MS,
        "expires": FAR,
    }
    for name, field in zip(ingest.SCHEMA.names, ingest.SCHEMA.types, strict=True):
        empty: Any = "" if field == pa.string() else bytes(16) if name == "pseudonym" else 0
        value = values.get(name, empty)
        line[name] = pa.array([value], field)
    line["deadline"] = time_column(now_ms() + 60_000, 1)
    client = connect(lock.settings, Store.ANALYTICS, Role.WORKER)
    client.insert("a test writing", "ingest", pa.table(line), None)
    client.close()


def mapping(desk: Desk, lock: Lock, number: int, age_days: int) -> None:
    pseudonym = number.to_bytes(16, "little")
    desk.ring.ensure(KeyKind.DATA, pseudonym.hex())
    at = time_column(now_ms() - age_days * DAY_MS, 1)
    line = {"tenant": ["acme"], "purpose": ["advice"], "kind": ["open"], "key_version": pa.array([1], pa.uint16())}
    line |= {"pseudonym": pa.array([pseudonym], pa.binary(16)), "blind": pa.array([bytes(16)], pa.binary(16))}
    line |= {"at": at, "deadline": time_column(now_ms() + 60_000, 1)}
    client = connect(lock.settings, Store.IDENTITY, Role.WORKER)
    client.insert("a test writing", "recipients", pa.table(line), None)
    client.close()


def rows(lock: Lock) -> set[int]:
    return {int(one) for (one,) in lock.rows(Store.ANALYTICS, "SELECT pseudonym FROM engagement")}


def mappings(lock: Lock) -> set[int]:
    return {int(one) for (one,) in lock.rows(Store.IDENTITY, "SELECT pseudonym FROM recipients")}


def data_keys(desk: Desk) -> set[int]:
    return {int.from_bytes(bytes.fromhex(name), "little") for name in desk.ring.names(KeyKind.DATA)}


def test_a_retention_that_was_shortened_reaches_what_is_there_after_a_day(lock: Lock, desk: Desk) -> None:
    row(lock, 11, "acme", "advice", 200)
    row(lock, 12, "acme", "advice", 2)
    row(lock, 13, "acme", "engagement", 200)
    for number, age in ((11, 200), (12, 200), (14, 200), (15, 5)):  # 14 and 15 have no row
        mapping(desk, lock, number, age)
    assert retention.run_once(desk) == 0
    (lock.stack.directory / "tenants.toml").write_text(TENANTS.format(advice="30 days"))
    lock.run("tenants", "apply", "--yes")
    assert retention.run_once(desk) == 0, "it can be taken back for a day"
    assert rows(lock) >= {11, 12, 13}
    assert retention.run_once(desk, grace_ms=0) == 3
    assert rows(lock) >= {12, 13}
    assert 11 not in rows(lock)
    assert mappings(lock) == data_keys(desk) == {12, 15}, "who still has rows stays known, and who granted lately"
    assert retention.run_once(desk, grace_ms=0) == 0
    said = [(line.tenant, dict(line.detail)) for line in desk.audit.lines(10, action="expired")]
    assert said == [("acme", {"purpose": "advice", "rows": 1}), ("acme", {"purpose": "advice", "mappings": 2})]


def test_purposes_and_tenants_that_are_in_no_settings_keep_nothing(lock: Lock, desk: Desk) -> None:
    row(lock, 21, "gone", "engagement", 1)
    row(lock, 22, "acme", "gone", 1)
    row(lock, 23, "acme", "engagement", 1)
    assert retention.run_once(desk) == 2
    assert rows(lock) & {21, 22, 23} == {23}
