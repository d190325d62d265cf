"""What Schleuse needs of a store: ClickHouse's behaviour over HTTP, with the real schema and the real grants."""

from __future__ import annotations

import asyncio
import itertools
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import clickhouse_connect
import pyarrow as pa
import pytest
from clickhouse_connect.driver.exceptions import DatabaseError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deploy.clickhouse.grants import Role, Store, roles_of
from deploy.embedded.stack import Stack
from pseudonymizer.siphash import siphash
from streams import migrate
from streams.settings import load
from tests.contracts.conftest import login

pytestmark = pytest.mark.stack
GUARDED = {"async_insert": 0, "deduplicate_blocks_in_dependent_materialized_views": 1}
numbers = itertools.count(1)


def guarded(token: str) -> dict[str, Any]:
    return {**GUARDED, "insert_deduplication_token": token}


def soon(seconds: int = 60) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=seconds)


def events(mailing: str, rows: int, deadline: datetime | None = None) -> pa.Table:
    """A batch for `ingest`: `rows` opens of as many recipients, each counted, a row, and remembered."""
    at = deadline or soon()
    return pa.table(
        {
            "deadline": pa.array([at] * rows, pa.timestamp("ms", "UTC")),
            "incarnation": pa.array([1] * rows, pa.uint32()),
            "partition": pa.array([3] * rows, pa.uint16()),
            "claim": pa.array([7] * rows, pa.uint64()),
            "tenant": ["acme"] * rows,
            "mailing": [mailing] * rows,
            "kind": ["open"] * rows,
            "device": ["phone"] * rows,
            "actor": ["human"] * rows,
            "occurred_ms": pa.array([1_795_000_000_000] * rows, pa.int64()),
            "counted": pa.array([1] * rows, pa.uint8()),
            "seed0": pa.array(range(rows), pa.uint64()),
            "pseudonym": pa.array([n.to_bytes(16, "little") for n in range(1, rows + 1)], pa.binary(16)),
            "expires": pa.array([datetime(2100, 1, 1, tzinfo=UTC).date()] * rows, pa.date32()),
            "event_hash": pa.array(range(1, rows + 1), pa.uint64()),
            "hour": pa.array([498_000] * rows, pa.uint32()),
        }
    )


def counted(stores: Stack, mailing: str) -> tuple[int, int, int]:
    """Events, distinct recipients and pseudonymous rows of a mailing, as three tables have them."""
    operator, worker = login(stores, Store.ANALYTICS, "operator"), login(stores, Store.ANALYTICS, "rights")
    which = f"WHERE mailing = '{mailing}'"
    hourly = operator.query(f"SELECT sum(events) FROM cells_hourly {which}").result_rows[0][0]
    unique = operator.query(
        f"SELECT uniqExactMerge(recipients) FROM cells_unique {which} AND dimension = 'all'"
    ).result_rows[0][0]
    rows = worker.query(f"SELECT count() FROM engagement {which}").result_rows[0][0]
    return hourly, unique, rows


def code(error: pytest.ExceptionInfo[DatabaseError]) -> str:
    return str(error.value).partition("code: ")[2].partition(",")[0]


def test_the_store_computes_siphash_as_we_do(stores: Stack) -> None:
    """So that whoever doubts a hash can ask ClickHouse; and what a view makes of a seed is what we think it is."""
    key, text = bytes(range(100, 116)), "jürgen@example.com"
    halves = int.from_bytes(key[:8], "little"), int.from_bytes(key[8:], "little")
    found = login(stores, Store.ANALYTICS, "operator").query(
        "SELECT sipHash64Keyed(({k0:UInt64}, {k1:UInt64}), {text:String}), "
        "hex(sipHash128ReferenceKeyed(({k0:UInt64}, {k1:UInt64}), {text:String}))",
        parameters={"k0": halves[0], "k1": halves[1], "text": text},
    )
    narrow, wide = siphash(key, text.encode()), siphash(key, text.encode(), wide=True)
    assert found.result_rows == [(int.from_bytes(narrow, "little"), wide.hex().upper())]


def test_a_batch_done_twice_counts_once_in_every_table_even_after_a_kill(stores: Stack) -> None:
    mailing = f"m{next(numbers)}"
    batch = events(mailing, 500)
    worker = login(stores, Store.ANALYTICS, "worker")
    for _ in range(2):
        worker.insert_arrow("ingest", batch, settings=guarded(f"1:events:3:{mailing}"))
    assert counted(stores, mailing) == (500, 500, 500)
    stores.kill("analytics")
    stores.restart("analytics")
    worker = login(stores, Store.ANALYTICS, "worker")
    worker.insert_arrow("ingest", batch, settings=guarded(f"1:events:3:{mailing}"))
    assert counted(stores, mailing) == (500, 500, 500)
    worker.insert_arrow("ingest", batch, settings=guarded(f"1:events:3:{mailing}-next"))
    assert counted(stores, mailing) == (1000, 500, 1000)


def test_one_claim_has_one_winner_whoever_else_tries(stores: Stack) -> None:
    number = next(numbers)
    names = ["incarnation", "partition", "number", "kind", "first", "last", "next_event", "next_change", "rules"]
    names += ["mailings", "settings", "worker", "deadline"]

    def take(name: int) -> None:
        row = [1, 0, number, "events", 0, name, name + 1, 0, 1, 0, "", f"worker-{name}", soon()]
        login(stores, Store.ANALYTICS, "worker").insert(
            "claims", [row], column_names=names, settings=guarded(f"1:claim:0:{number}")
        )

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(take, range(16)))
    found = login(stores, Store.ANALYTICS, "worker").query(f"SELECT last, worker FROM claims WHERE number = {number}")
    ((last, winner),) = found.result_rows
    assert winner == f"worker-{last}"


def test_an_insert_after_its_deadline_writes_nothing_anywhere(stores: Stack) -> None:
    mailing = f"m{next(numbers)}"
    worker = login(stores, Store.ANALYTICS, "worker")
    with pytest.raises(DatabaseError) as late:
        worker.insert_arrow("ingest", events(mailing, 10, soon(-1)), settings=guarded(mailing))
    assert code(late) == "469"
    assert counted(stores, mailing) == (0, 0, 0)
    worker.insert_arrow("ingest", events(mailing, 10), settings=guarded(mailing))  # the token was not spent
    assert counted(stores, mailing) == (10, 10, 10)


def test_removal_deletes_what_the_list_names_and_nothing_else(stores: Stack) -> None:
    mailing = f"m{next(numbers)}"
    worker = login(stores, Store.ANALYTICS, "worker")
    worker.insert_arrow("ingest", events(mailing, 100), settings=guarded(mailing))
    claim = 1000 + next(numbers)
    gone = [[1, 3, claim, n, soon()] for n in (5, 6, 2**127)]
    columns = ["incarnation", "partition", "claim", "pseudonym", "deadline"]
    worker.insert("removals", gone, column_names=columns, settings=guarded(f"r{claim}"))
    names = {"i": 1, "p": 3, "c": claim}
    which = (
        "pseudonym IN (SELECT pseudonym FROM removals "
        "WHERE incarnation = {i:UInt32} AND partition = {p:UInt16} AND claim = {c:UInt64})"
    )
    assert worker.query(f"SELECT count() FROM engagement WHERE {which}", parameters=names).result_rows[0][0] > 0
    worker.command(f"DELETE FROM engagement WHERE {which}", parameters=names)
    assert worker.query(f"SELECT count() FROM engagement WHERE {which}", parameters=names).result_rows == [(0,)]
    assert counted(stores, mailing) == (100, 100, 98)  # the counts keep her


ALLOWED = [
    (Store.ANALYTICS, "worker", "SELECT pseudonym, count() FROM engagement WHERE incarnation < 9 GROUP BY pseudonym"),
    (Store.ANALYTICS, "worker", "SELECT argMax(hash, at) FROM settings"),
    (Store.ANALYTICS, "worker", "SELECT * FROM seen LIMIT 1"),
    (Store.ANALYTICS, "operator", "SELECT uniqExactMerge(recipients) FROM cells_unique"),
    (Store.ANALYTICS, "operator", "SELECT sum(events) FROM outcomes"),
    (Store.ANALYTICS, "analyst", "SELECT count() FROM mailings"),
    (Store.ANALYTICS, "rights", "SELECT * FROM engagement LIMIT 1"),
    (Store.IDENTITY, "worker", "SELECT pseudonym, count() FROM recipients GROUP BY pseudonym"),
    (Store.IDENTITY, "worker", "SELECT tenant, blind, kind, argMax(mode, decided_at) FROM consents GROUP BY ALL"),
    (Store.IDENTITY, "worker", "SELECT * FROM requests"),
    (Store.IDENTITY, "rights", "SELECT * FROM recipients"),
]
REFUSED = [
    (Store.ANALYTICS, "worker", "SELECT mailing FROM engagement"),
    (Store.ANALYTICS, "worker", "INSERT INTO outcomes VALUES (1, 1, 'counted', '', 1)"),
    (Store.ANALYTICS, "worker", "INSERT INTO settings (hash, body) VALUES ('a', 'b')"),
    (Store.ANALYTICS, "worker", "ALTER TABLE claims DELETE WHERE 1"),
    (Store.ANALYTICS, "worker", "ALTER TABLE engagement UPDATE mailing = 'x' WHERE 1"),
    (Store.ANALYTICS, "worker", "ALTER TABLE cells_hourly DROP PARTITION tuple()"),
    (Store.ANALYTICS, "worker", "TRUNCATE TABLE engagement"),
    (Store.ANALYTICS, "worker", "DROP TABLE seen"),
    (Store.ANALYTICS, "operator", "SELECT * FROM engagement"),
    (Store.ANALYTICS, "operator", "SELECT hash FROM seen"),
    (Store.ANALYTICS, "operator", "SELECT * FROM removals"),
    (Store.ANALYTICS, "analyst", "SELECT * FROM cells_hourly"),
    (Store.ANALYTICS, "analyst", "SELECT recipients FROM cells_unique"),
    (Store.ANALYTICS, "analyst", "SELECT count() FROM engagement"),
    (Store.ANALYTICS, "analyst", "CREATE VIEW analytics.v AS SELECT * FROM analytics.engagement"),
    (Store.ANALYTICS, "rights", "INSERT INTO engagement (tenant) VALUES ('acme')"),
    (Store.ANALYTICS, "migrations", "CREATE DATABASE elsewhere"),
    (Store.IDENTITY, "worker", "SELECT sealed FROM recipients"),
    (Store.IDENTITY, "worker", "SELECT count() FROM recipients WHERE sealed = ''"),
    (Store.IDENTITY, "worker", "SELECT proof FROM consents"),
    (Store.IDENTITY, "worker", "ALTER TABLE receipts DELETE WHERE 1"),
    (Store.IDENTITY, "migrations", "SELECT * FROM recipients"),
    (Store.IDENTITY, "migrations", "SELECT count() FROM consents"),
]


@pytest.mark.parametrize(("store", "role", "statement"), ALLOWED)
def test_a_login_may_do_its_work(stores: Stack, store: Store, role: str, statement: str) -> None:
    login(stores, store, role).query(statement)


@pytest.mark.parametrize(("store", "role", "statement"), REFUSED)
def test_a_login_may_do_nothing_else(stores: Stack, store: Store, role: str, statement: str) -> None:
    with pytest.raises(DatabaseError) as refused:
        login(stores, store, role).command(statement)
    assert code(refused) == "497"


def test_nobody_without_business_in_a_store_has_a_login_there(stores: Stack) -> None:
    assert set(roles_of(Store.IDENTITY)) == {Role.WORKER, Role.RIGHTS, Role.MIGRATIONS}
    for name in ("analyst", "operator", "default", "schleuse_worker", ""):
        for password in ("", "x", stores.password(Store.ANALYTICS, "analyst")):
            with pytest.raises(DatabaseError) as refused:
                clickhouse_connect.get_client(dsn=stores.url(Store.IDENTITY), username=name, password=password)
            assert code(refused) == "516"


def test_settings_of_one_request_are_gone_in_the_next(stores: Stack) -> None:
    worker = login(stores, Store.ANALYTICS, "worker", client_name="one")
    token = f"leak{next(numbers)}"
    columns = ["incarnation", "partition", "claim", "pseudonym", "deadline"]
    claim = 5000 + next(numbers)
    worker.insert("removals", [[1, 1, claim, 1, soon()]], column_names=columns, settings=guarded(token))
    worker.insert("removals", [[1, 1, claim, 2, soon()]], column_names=columns)
    found = worker.query(f"SELECT pseudonym FROM removals WHERE claim = {claim} ORDER BY 1").result_rows
    assert found == [(1,), (2,)]
    ask = "SELECT name, value FROM system.settings WHERE name IN ('insert_deduplication_token', 'max_result_rows')"
    assert ("max_result_rows", "77") in worker.query(ask, settings={"max_result_rows": 77}).result_rows
    assert sorted(worker.query(ask).result_rows) == [("insert_deduplication_token", ""), ("max_result_rows", "0")]


# No insert into these carries a token: the same row twice says the same.
WITHOUT_TOKENS = (
    *("settings", "migrations", "removals", "erasing", "disclosures", "rekeys"),
    *("cells_closed", "closing_notes", "readers", "daily", "reports"),
)


def test_what_is_acknowledged_is_on_the_disk_and_every_token_is_remembered(stores: Stack) -> None:
    for store in Store:
        listed = login(stores, store, "migrations").query(
            "SELECT name, create_table_query FROM system.tables "
            f"WHERE database = '{store}' AND engine LIKE '%MergeTree'"
        )
        tables = dict(listed.result_rows)
        assert len(tables) >= 5
        for name, statement in tables.items():
            assert "fsync_after_insert = 1" in statement, name
            assert "fsync_part_directory = 1" in statement, name
            if name not in WITHOUT_TOKENS:
                assert "non_replicated_deduplication_window = 100000" in statement, name


def test_a_long_query_holds_up_neither_the_others_nor_the_ping(stores: Stack) -> None:
    async def story() -> tuple[float, float, list[Any]]:
        options = {"username": "worker", "password": stores.password(Store.ANALYTICS, "worker")}
        client = await clickhouse_connect.get_async_client(
            dsn=stores.url(Store.ANALYTICS), autogenerate_session_id=False, **options
        )
        try:
            slow = [asyncio.create_task(client.query("SELECT sleep(2)")) for _ in range(3)]
            await asyncio.sleep(0.3)
            began = time.monotonic()
            await asyncio.to_thread(urllib.request.urlopen, f"{stores.url(Store.ANALYTICS)}/ping", timeout=5)
            ping = time.monotonic() - began
            began = time.monotonic()
            answers = await asyncio.gather(*[client.query(f"SELECT {n}") for n in range(20)])
            quick = time.monotonic() - began
            await asyncio.gather(*slow)
            return ping, quick, [answer.result_rows[0][0] for answer in answers]
        finally:
            await client.close()

    ping, quick, answers = asyncio.run(story())
    assert answers == list(range(20))
    assert ping < 1
    assert quick < 1.5


@pytest.mark.parametrize("method", ["lz4", "zstd", "gzip", False])
def test_inserts_and_answers_survive_compression(stores: Stack, method: str | bool) -> None:
    mailing = f"m{next(numbers)}"
    worker = login(stores, Store.ANALYTICS, "worker", compress=method)
    worker.insert_arrow("ingest", events(mailing, 3000), settings=guarded(mailing))
    assert counted(stores, mailing) == (3000, 3000, 3000)
    assert worker.query("SELECT number, toString(number) FROM numbers(5000)").result_rows[-1] == (4999, "4999")
    assert worker.query_arrow("SELECT number FROM numbers(5000)").num_rows == 5000


@given(value=st.text(max_size=40))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_parameter_comes_back_as_it_was(shared_worker: Any, value: str) -> None:
    bound = shared_worker.query("SELECT {v:String}, length({v:String})", parameters={"v": value}).result_rows
    assert bound == [(value, len(value.encode()))]


@pytest.fixture(scope="module")
def shared_worker(stores: Stack) -> Any:
    return login(stores, Store.ANALYTICS, "worker")


def test_the_stores_log_has_codes_and_no_values(stores: Stack) -> None:
    canary = "erika.canary@example.com"
    worker = login(stores, Store.IDENTITY, "worker")
    for statement in (
        f"SELECT * FROM recipients WHERE sealed = '{canary}'",
        f"SELECT '{canary}' FROM WHERE",
        f"{canary}",
    ):
        with pytest.raises(DatabaseError):
            worker.query(statement)
    with pytest.raises(DatabaseError):
        clickhouse_connect.get_client(dsn=stores.url(Store.IDENTITY), username=canary, password=canary)
    log = (stores.directory / "logs" / "identity.log").read_text()
    assert "code=497 name=ACCESS_DENIED role=schleuse_worker" in log
    assert "code=516" in log
    assert "canary" not in log


def test_a_view_is_made_anew_while_workers_write_and_no_batch_is_lost_or_there_twice(tmp_path: Path) -> None:
    """Migration 005: a batch of before is remembered; one that comes while it runs is refused, and taken when again."""
    stack = Stack(tmp_path, "tansu", die_with_parent=True)
    try:
        stack.start(["analytics"])
        migrations = migrate.Migrations(load(stack.settings_file, {}), Store.ANALYTICS)
        pending = migrations.pending()
        migrations.apply([one for one in pending if one.migration.number < 5], lambda _: None)
        worker = login(stack, Store.ANALYTICS, "worker")
        batch = events("m", 5)
        worker.insert_arrow("ingest", batch, settings=guarded("before"))
        (fifth,) = (one.migration for one in pending if one.migration.number == 5)
        migrations.close()
        for statement in fifth.statements:
            login(stack, Store.ANALYTICS, "migrations").command(statement, settings={"database": "analytics"})
            if statement is not fifth.statements[-1]:
                with pytest.raises(DatabaseError, match="395"):
                    worker.insert_arrow("ingest", batch, settings=guarded("while"))
        for restarted in (False, True):
            if restarted:
                stack.restart("analytics")
            for token in ("before", "while"):
                login(stack, Store.ANALYTICS, "worker").insert_arrow("ingest", batch, settings=guarded(token))
            assert counted(stack, "m") == (10, 5, 10)
    finally:
        stack.stop()
