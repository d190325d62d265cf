"""Two ClickHouse stores for the comparison, and the Python contestants' way into them.

The stores are the embedded ones (deploy/embedded/clickhouse_http.py), a process each, beside those of the lock: its
logins may not make other tables, and should not for a benchmark.
"""

from __future__ import annotations

import hashlib
import secrets
import socket
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import clickhouse_connect

from deploy.embedded import probes
from deploy.embedded.processes import Keeper, Part

if TYPE_CHECKING:
    import pyarrow as pa

    from benchmarks.compare.work import Cell, Columns

LOGIN = "compare"
SETTINGS = {"async_insert": 0}  # an acknowledged insert is there; the default since 26.2 gathers inserts first
TABLES = {
    "rows": (
        "CREATE TABLE compare.rows (mailing String, kind String, link String, occurred_ms Int64, "
        "pseudonym FixedString(16)) ENGINE = MergeTree ORDER BY (mailing, occurred_ms)"
    ),
    "counts": (
        "CREATE TABLE compare.counts (mailing String, kind String, link String, hour Int64, events UInt64) "
        "ENGINE = SummingMergeTree ORDER BY (mailing, kind, link, hour)"
    ),
}
_TYPES = {
    "rows": {"mailing": "String", "kind": "String", "link": "String", "occurred_ms": "Int64"}
    | {"pseudonym": "FixedString(16)"},
    "counts": {"mailing": "String", "kind": "String", "link": "String", "hour": "Int64", "events": "UInt64"},
}
_USERS = """<clickhouse><profiles><default/></profiles><quotas><default/></quotas>
<roles><schleuse_compare><grants><query>GRANT ALL ON compare.*</query></grants></schleuse_compare></roles>
<users><compare><password_sha256_hex>{digest}</password_sha256_hex><networks><ip>::/0</ip></networks>
<profile>default</profile><quota>default</quota><grants><query>GRANT schleuse_compare</query></grants></compare>
<default><password/><networks><ip>::1</ip><ip>127.0.0.1</ip></networks><profile>default</profile><quota>default</quota>
<grants><query>GRANT schleuse_compare</query></grants></default></users></clickhouse>
"""


def client(url: str, password: str) -> Any:
    """A connection of clickhouse-connect, without compression: it is all loopback."""
    parts = urlsplit(url)
    return clickhouse_connect.get_client(
        host=parts.hostname,
        port=parts.port,
        username=LOGIN,
        password=password,
        autogenerate_session_id=False,
        compress=False,
    )


class Inserter:
    """Both stores at the same time: the rows into one, the counts into the other."""

    def __init__(self, rows_url: str, counts_url: str, password: str) -> None:
        self._rows, self._counts = client(rows_url, password), client(counts_url, password)
        self._threads = ThreadPoolExecutor(1)

    def lists(self, rows: Columns, counts: dict[Cell, int]) -> None:
        """Insert lists, column by column. Returns when both stores have acknowledged."""
        cells = [[*cell, events] for cell, events in counts.items()]
        other = self._threads.submit(self._insert, self._counts, "counts", list(zip(*cells, strict=True)))
        if len(rows):
            self._insert(self._rows, "rows", [rows.mailings, rows.kinds, rows.links, rows.times, rows.pseudonyms])
        other.result()

    @staticmethod
    def _insert(to: Any, table: str, columns: Sequence[Sequence[object]]) -> None:
        types = _TYPES[table]
        to.insert(
            f"compare.{table}",
            columns,
            column_names=list(types),
            column_type_names=list(types.values()),
            column_oriented=True,
            settings=SETTINGS,
        )

    def arrow(self, rows: pa.Table, counts: pa.Table) -> None:
        """Insert Arrow tables. Returns when both stores have acknowledged."""
        other = self._threads.submit(self._counts.insert_arrow, "compare.counts", counts, settings=SETTINGS)
        if len(rows):
            self._rows.insert_arrow("compare.rows", rows, settings=SETTINGS)
        other.result()


class Stores:
    """The two processes of one run of the comparison. Use as a context manager."""

    def __init__(self, directory: Path) -> None:
        self._directory, self.password = directory, secrets.token_urlsafe(24)
        self._keeper = Keeper(directory, die_with_parent=True)
        self.urls = {name: f"http://127.0.0.1:{free_port()}" for name in TABLES}

    def __enter__(self) -> Stores:
        for name, url in self.urls.items():
            home = self._directory / name
            home.mkdir(parents=True)
            users = home / "users.xml"
            users.touch(mode=0o600)
            users.write_text(_USERS.format(digest=hashlib.sha256(self.password.encode()).hexdigest()))
            port = url.rpartition(":")[2]
            module = [sys.executable, "-m", "deploy.embedded.clickhouse_http"]
            command = [*module, "--path", str(home), "--port", port, "--users", str(users)]
            part = Part(name, command, url, probes.store(url))
            self._keeper.start(part)
            self._keeper.wait_ready(part, 60)
        self._clients = {name: client(url, self.password) for name, url in self.urls.items()}
        for to in self._clients.values():
            to.command("CREATE DATABASE compare")
        self.empty()
        return self

    def __exit__(self, *_: object) -> None:
        for name in self.urls:
            self._keeper.stop(name)

    def pids(self) -> list[int]:
        """The two processes."""
        return [pid for name in self.urls if (pid := self._keeper.pid(name))]

    def empty(self) -> None:
        """Make the tables anew."""
        for name, to in self._clients.items():
            to.command(f"DROP TABLE IF EXISTS compare.{name} SYNC")
            to.command(TABLES[name])

    def contents(self) -> dict[str, Any]:
        """What the tables hold, in the form of `work.outcome`."""
        sums = "SELECT count(), sum(reinterpretAsUInt64(substring(pseudonym, 1, 8))) FROM compare.rows"
        cell = "mailing, kind, link, hour"
        cells = f"SELECT {cell}, sum(events) FROM compare.counts GROUP BY {cell} ORDER BY {cell}"
        ((rows, checksum),) = self._clients["rows"].query(sums).result_rows
        found = self._clients["counts"].query(cells).result_rows
        return {"rows": rows, "sum": f"{checksum:016x}", "cells": [list(row) for row in found]}


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
