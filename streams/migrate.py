"""Numbered SQL files, applied once each and in order, under the login `migrations` of each store.

    1  read the files and the list of what was applied; a file that changed afterwards, or a list that names a file
       which this release lacks, stops everything
    2  note that a file has begun, apply it statement by statement, note each
    3  a run that was cut off goes on after the last statement that was noted; the next one may have been done without a
       note, so that "exists already" is taken for done there, and nowhere else

Grants are no migrations: they are one table, set anew as a whole (deploy/clickhouse/grants.py).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import resources

from streams.errors import SchleuseError, StoreRefused
from streams.settings import Settings
from streams.stores import Role, Store, StoreClient, connect

_FILE = re.compile(r"([0-9]{3})_([a-z0-9_]+)\.sql")
_EXISTS = re.compile(r"ClickHouse error (?:57|15)\b")  # TABLE_ALREADY_EXISTS, DUPLICATE_COLUMN
_LIST = """
CREATE TABLE IF NOT EXISTS {store}.migrations
(
    number UInt16,
    name String,
    sha256 String,
    done UInt16,
    at DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC')
)
ENGINE = MergeTree ORDER BY (number, done)
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1
"""


class MigrationRefused(SchleuseError):
    """The files and the list of what was applied do not fit together. Nothing was applied."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file: its statements in order, and the SHA-256 (hex) of its bytes."""

    number: int
    name: str
    sha256: str
    statements: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.number:03d}_{self.name}"


@dataclass(frozen=True, slots=True)
class Applied:
    """A line of the list: how many statements of the file are done."""

    number: int
    name: str
    sha256: str
    done: int


@dataclass(frozen=True, slots=True)
class Pending:
    """A file that is still to be applied, from the statement after the first `done` on.

    `begun`: it was noted as begun before, so that the next statement may have been done already.
    """

    migration: Migration
    done: int
    begun: bool


def files(store: Store) -> list[Migration]:
    """The migrations that this release brings for a store. Raises MigrationRefused when their numbers have a gap."""
    found = []
    for file in resources.files("deploy.clickhouse").joinpath(str(store)).iterdir():
        if match := _FILE.fullmatch(file.name):
            raw = file.read_bytes()
            digest = hashlib.sha256(raw).hexdigest()
            found.append(Migration(int(match[1]), match[2], digest, tuple(statements(raw.decode("utf-8")))))
    found.sort(key=lambda migration: migration.number)
    if [migration.number for migration in found] != list(range(1, len(found) + 1)):
        raise MigrationRefused(f"the migrations of the {store} store are not numbered 1, 2, 3, ... without a gap")
    return found


def statements(text: str) -> Iterator[str]:
    """The statements of a file: each ends with `;` at a line's end. Lines that are only a comment are left out."""
    lines: list[str] = []
    for line in text.splitlines():
        if line.lstrip().startswith("--") or not (lines or line.strip()):
            continue
        lines.append(line.rstrip())
        if lines[-1].endswith(";"):
            yield "\n".join(lines)[:-1]
            lines = []
    if lines:
        raise MigrationRefused("a migration's last statement does not end with `;`")


def plan(migrations: list[Migration], applied: list[Applied]) -> list[Pending]:
    """What is still to be done, in order. Pure. Raises MigrationRefused (1)."""
    known = {migration.number: migration for migration in migrations}
    noted = {line.number: line for line in applied}
    for line in applied:
        migration = known.get(line.number)
        if migration is None:
            raise MigrationRefused(
                f"migration {line.number:03d} was applied by a newer release, unknown to this one: use that release"
            )
        if migration.sha256 != line.sha256 or migration.name != line.name:
            raise MigrationRefused(
                f"migration {migration} is not the file that was applied: a change needs a migration of its own"
            )
    pending = []
    for migration in migrations:
        line_or_none = noted.get(migration.number)
        done = line_or_none.done if line_or_none else 0
        if done < len(migration.statements):
            pending.append(Pending(migration, done, line_or_none is not None))
        if pending and noted.keys() & {number for number in known if number > pending[0].migration.number}:
            raise MigrationRefused(f"a migration after {pending[0].migration} was applied before it was done")
    return pending


class Migrations:
    """The migrations of one store, under its login `migrations`. Blocking."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self._store = store
        self._client: StoreClient = connect(settings, store, Role.MIGRATIONS)

    def pending(self) -> list[Pending]:
        """What is still to be done. Makes nothing. Raises MigrationRefused, StoreUnavailable, StoreRefused."""
        there = self._client.rows(
            "looking for the list of migrations",
            "SELECT count() FROM system.tables WHERE database = {store:String} AND name = 'migrations'",
            {"store": str(self._store)},
        )
        return plan(files(self._store), self._applied() if there[0][0] else [])

    def apply(self, pending: list[Pending], said: Callable[[str], None]) -> None:
        """Do what is pending, and say each file that is done. Raises StoreUnavailable, StoreRefused; go on by again."""
        self._client.do("making the database", f"CREATE DATABASE IF NOT EXISTS {self._store}")
        self._client.do("making the list of migrations", _LIST.format(store=self._store))
        for one in pending:
            migration = one.migration
            self._note(migration, one.done)
            for index, statement in enumerate(migration.statements[one.done :], one.done):
                self._statement(migration, index, statement, forgive=one.begun and index == one.done)
                self._note(migration, index + 1)
            said(str(migration))

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def _statement(self, migration: Migration, index: int, statement: str, forgive: bool) -> None:
        try:
            self._client.do(f"migration {migration}, statement {index + 1}", statement, database=str(self._store))
        except StoreRefused as error:
            if not _EXISTS.search(str(error)):
                raise
            if not forgive:  # (3)
                raise StoreRefused(
                    f"{migration}, statement {index + 1}, is done already: another schleuse migrate is at work, or was "
                    "stopped in between; run it again"
                ) from None

    def _note(self, migration: Migration, done: int) -> None:
        self._client.do(
            "noting a migration",
            f"INSERT INTO {self._store}.migrations (number, name, sha256, done) "
            "SELECT {number:UInt16}, {name:String}, {sha256:String}, {done:UInt16}",
            {"number": migration.number, "name": migration.name, "sha256": migration.sha256, "done": done},
            token=f"migration:{migration.number}:{done}",
        )

    def _applied(self) -> list[Applied]:
        rows = self._client.rows(
            "reading the list of migrations",
            "SELECT number, argMax(name, (done, at)), argMax(sha256, (done, at)), max(done) "
            f"FROM {self._store}.migrations GROUP BY number ORDER BY number",
        )
        return [Applied(int(number), name, sha256, int(done)) for number, name, sha256, done in rows]
