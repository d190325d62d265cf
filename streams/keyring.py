"""The key ring: one SQLite file, its entries sealed under a key-encryption key (KEK) that lies elsewhere (streams/kek).

The two are kept apart on purpose: a backup of the ring without its KEK opens nothing, and a key that is destroyed
in the ring is gone. The file is owner-only; one that others can read is refused. All workers share one ring; making a
key is put-if-absent, so whoever comes first has fixed it for everybody, whatever process or thread they are in.

The KEK's source is asked once, when the ring is opened, and once more where the KEK was rotated by somebody else. The
ring's first row tells: a check value under the KEK in force, and the reference by which its source finds it.

`secure_delete` overwrites a destroyed entry in the file; a copy of the page may stay in free blocks of the disk until
they are used again, sealed under the KEK. Backups of the ring keep destroyed keys for as long as they are kept.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from pseudonymizer.keys import KEY_BYTES, KeyKind, encode
from pseudonymizer.sealing import NONCE_BYTES, SealBroken, open_sealed, seal
from streams.errors import SchleuseError, StoreUnavailable
from streams.kek import KekSource, KeyRingRefused, source_of
from streams.kek.file import owner_only

__all__ = ["Entry", "KeyRetired", "KeyRing", "KeyRingRefused"]

BUSY_SECONDS = 30  # how long one process waits while another writes
AT_ONCE = 500  # names in one statement; SQLite takes 32,766 values
_CHECK = b"schleuse key ring 1"
_SCHEMA = """
CREATE TABLE ring (
    only INTEGER PRIMARY KEY CHECK (only = 1), sealed BLOB NOT NULL, reference BLOB NOT NULL DEFAULT x''
);
CREATE TABLE entries (
    kind TEXT NOT NULL, name TEXT NOT NULL, version INTEGER NOT NULL, sealed BLOB NOT NULL, created_at INTEGER NOT NULL,
    PRIMARY KEY (kind, name, version)
) WITHOUT ROWID;
"""
# Also in rings that releases before 0.2 made.
_RETIRED = """
CREATE TABLE IF NOT EXISTS retired (
    kind TEXT NOT NULL, name TEXT NOT NULL, PRIMARY KEY (kind, name)
) WITHOUT ROWID
"""
T = TypeVar("T")


class KeyRetired(SchleuseError):
    """A key was to be made that is retired: it was destroyed, and is never made again."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What can be told of a key without opening it."""

    kind: KeyKind
    name: str
    version: int
    created_at: int
    """Epoch milliseconds, by the clock of whoever made it: for people to read, never to decide by."""


class KeyRing:
    """An open key ring. Any number of threads may use it; its repr shows the path and nothing else.

    Every method raises StoreUnavailable when the file does not answer (locked for longer than `BUSY_SECONDS`, disk
    full: nothing was done, try again) and KeyRingRefused when an entry does not open. Nothing is cached.
    """

    def __init__(self, path: Path, source: KekSource, unlocked: _Unlocked, database: sqlite3.Connection) -> None:
        """Use `open`."""
        self._path, self._source, self._database = path, source, database
        self._unlocked = unlocked
        self._lock = threading.Lock()

    @classmethod
    def open(cls, path: Path, kek: Path | str, create: bool = True) -> KeyRing:
        """Open the ring at `path` with the KEK from `kek` (a path or URI: streams/kek); where neither is there, make
        both if `create`.

        Raises KeyRingRefused when one of them is missing or can be read by others, when the two do not belong together,
        and when the ring is gone but was there: a new ring in the place of a lost one would give everybody new
        pseudonyms, and leave rows that no withdrawal finds. Raises StoreUnavailable when the KEK's source does not
        answer, and SettingsError when `kek` names none.
        """
        database, source = None, source_of(kek)
        try:
            if not path.exists():
                if not create:
                    raise KeyRingRefused(f"there is no key ring at {path}")
                _make_empty(path)
            owner_only(path)
            database = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
            unlocked = _unlock(database, path, source, create)
            _settle(path, source, unlocked.reference)
            return cls(path, source, unlocked, database)
        except BaseException as error:
            if database is not None:
                database.close()
            if isinstance(error, sqlite3.Error | OSError):
                raise KeyRingRefused(f"{path} cannot be used as a key ring ({_why(error)})") from None
            raise

    def close(self) -> None:
        """Close the file. The ring cannot be used afterwards."""
        with self._lock:
            self._database.close()

    def __repr__(self) -> str:
        return f"<KeyRing {self._path}>"

    # --- reading and making ---

    def get(self, kind: KeyKind, name: str, version: int = 1) -> bytes | None:
        """The 32 bytes of a key, or None: there is none, or it was destroyed."""
        return self._do(lambda: self._reading(lambda: self._read(kind, [name], version))).get(name)

    def get_many(self, kind: KeyKind, names: Iterable[str]) -> dict[str, bytes]:
        """`get` of version 1 of each name; those that are not there are left out."""
        return self._do(lambda: self._read(kind, list(dict.fromkeys(names)), 1))

    def ensure(self, kind: KeyKind, name: str, version: int = 1) -> bytes:
        """The 32 bytes of a key, made where there is none. Raises KeyRetired when it must not be made.

        A caller may NOT assume that a key it asked for before is the same one: it may have been destroyed in between.
        """
        found = self.get(kind, name, version)
        return found if found is not None else self._do(lambda: self._make(kind, [name], version))[name]

    def ensure_many(self, kind: KeyKind, names: Iterable[str]) -> dict[str, bytes]:
        """`ensure` of version 1 of each name; all that are missing are made in one transaction, or none of them."""
        wanted = list(dict.fromkeys(names))
        found = self._do(lambda: self._reading(lambda: self._read(kind, wanted, 1)))
        missing = [name for name in wanted if name not in found]
        if missing:
            found |= self._do(lambda: self._make(kind, missing, 1))
        return {name: found[name] for name in wanted}

    def primary(self, tenant: str) -> tuple[int, bytes]:
        """Version and bytes of the tenant's newest root key, the one for new grants; version 1 is made if none is."""
        newest = self._do(lambda: self._reading(lambda: self._newest(tenant)))
        if newest is None:
            self.ensure(KeyKind.ROOT, tenant)
            newest = self._do(lambda: self._reading(lambda: self._newest(tenant)))
        if newest is None:
            raise StoreUnavailable(f"the key ring {self._path} changed while it was read")
        return newest

    def rotate(self, tenant: str) -> int:
        """Make the next version of a tenant's root key, which is the primary one from now on. Returns its number.

        Raises KeyRingRefused when the tenant has none yet: there is nothing to rotate.
        """

        def make() -> int:
            with _transaction(self._database):
                self._renew()
                newest = self._newest(tenant)
                if newest is None:
                    raise KeyRingRefused(f"the tenant has no root key in {self._path} yet: nothing to rotate")
                self._put(KeyKind.ROOT, [tenant], newest[0] + 1)
                return newest[0] + 1

        return self._do(make)

    def roots(self) -> frozenset[tuple[str, int]]:
        """Tenant and version of every root key that is there: one that was destroyed is missing."""
        rows = self._do(
            lambda: self._database.execute(
                "SELECT name, version FROM entries WHERE kind = ?", (str(KeyKind.ROOT),)
            ).fetchall()
        )
        return frozenset((name, version) for name, version in rows)

    def rotate_kek(self, to: Path | str | None = None) -> int:
        """Seal every entry anew under a new KEK, all in one transaction; returns how many there were.

        `to`: where the new KEK is to come from, if not from the source of the one in force. Killed before the
        transaction ends, everything is as it was; after it, the new KEK is in force and the old one may still have to
        be destroyed by hand. Other processes notice at their next use of the ring; if its source has changed they are
        refused until they are started again with the new setting.
        """
        old, new = self._source, self._source if to is None else source_of(to)

        def rewrap() -> tuple[int, bytes]:
            with _transaction(self._database):
                self._renew()
                before = self._unlocked
                kek, reference = new.make(before.reference if old is new else None)
                rows = self._database.execute("SELECT kind, name, version, sealed FROM entries").fetchall()
                anew = []
                for kind, name, version, sealed in rows:
                    place = _place(KeyKind(kind), name, version)
                    key = self._open(KeyKind(kind), name, version, sealed)
                    anew.append((seal(kek, key, place, secrets.token_bytes(NONCE_BYTES)), kind, name, version))
                self._database.executemany(
                    "UPDATE entries SET sealed = ? WHERE kind = ? AND name = ? AND version = ?", anew
                )
                check = seal(kek, _CHECK, b"", secrets.token_bytes(NONCE_BYTES))
                self._database.execute("UPDATE ring SET sealed = ?, reference = ?", (check, reference))
            self._source, self._unlocked = new, _Unlocked(kek, check, reference)
            return len(rows), before.reference

        count, before = self._do(rewrap)
        old.forget(before)
        _settle(self._path, new, self._unlocked.reference)
        return count

    def names(self, kind: KeyKind) -> list[str]:
        """The names of all keys of a kind, each once, in order."""
        rows = self._do(
            lambda: self._database.execute(
                "SELECT DISTINCT name FROM entries WHERE kind = ? ORDER BY name", (str(kind),)
            ).fetchall()
        )
        return [row[0] for row in rows]

    def entries(self) -> list[Entry]:
        """What the ring holds, without any key, in order of kind, name and version."""
        rows = self._do(
            lambda: self._database.execute(
                "SELECT kind, name, version, created_at FROM entries ORDER BY kind, name, version"
            ).fetchall()
        )
        return [Entry(KeyKind(kind), name, version, created_at) for kind, name, version, created_at in rows]

    def made(self, kind: KeyKind) -> dict[str, int]:
        """The names of all keys of a kind, and when the first version of each was made (`Entry.created_at`)."""
        rows = self._do(
            lambda: self._database.execute(
                "SELECT name, min(created_at) FROM entries WHERE kind = ? GROUP BY name", (str(kind),)
            ).fetchall()
        )
        return dict(rows)

    # --- destroying ---

    def destroy(self, kind: KeyKind, name: str, version: int | None = None) -> int:
        """Destroy a key, all its versions or one. Returns how many there were. What it sealed is gone."""
        if version is None:
            return self.destroy_many(kind, [name])
        return self._delete("kind = ? AND name = ? AND version = ?", [(str(kind), name, version)])

    def destroy_many(self, kind: KeyKind, names: Iterable[str]) -> int:
        """Destroy all versions of each name, in one transaction. Returns how many keys there were."""
        return self._delete("kind = ? AND name = ?", [(str(kind), name) for name in names])

    def destroy_named(self, kind: KeyKind, begins: Iterable[str]) -> int:
        """Destroy the keys of a kind whose names begin with one of these, in one transaction. How many there were."""
        ranges = [(str(kind), first, first + "\U0010ffff") for first in begins]
        return self._delete("kind = ? AND name >= ? AND name < ?", ranges)

    def retire_many(self, kind: KeyKind, names: Iterable[str]) -> int:
        """Destroy all versions of each name and note that none is made again, in one transaction; how many there were.

        Whoever asks for one from then on gets KeyRetired, however long it slept in between.
        """
        values = [(str(kind), name) for name in names]

        def retire() -> int:
            with _transaction(self._database):
                self._database.executemany("INSERT OR IGNORE INTO retired VALUES (?, ?)", values)
                return self._database.executemany("DELETE FROM entries WHERE kind = ? AND name = ?", values).rowcount

        return self._do(retire) if values else 0

    def destroy_before(self, kind: KeyKind, name: str) -> int:
        """Destroy the keys of a kind whose names come before this one: days, for one. Returns how many there were.

        When they were made decides nothing: that is told by the clock of whoever made them.
        """
        return self._delete("kind = ? AND name < ?", [(str(kind), name)])

    # --- inside ---

    def _do(self, call: Callable[[], T]) -> T:
        try:
            with self._lock:
                return call()
        except sqlite3.Error as error:
            raise StoreUnavailable(f"the key ring {self._path} did not answer ({_why(error)})") from None

    def _reading(self, read: Callable[[], T]) -> T:
        """What is read, once more if the KEK was rotated before or meanwhile: then nothing opened."""
        try:
            return read()
        except KeyRingRefused:
            known = self._unlocked
            self._renew()
            if self._unlocked is known:
                raise
            return read()

    def _renew(self) -> None:
        """Take in that the KEK was rotated by another process. Under the lock; within a transaction it stays so."""
        sealed, _ = row = _first_row(self._database) or (b"", b"")
        if sealed != self._unlocked.check:
            self._unlocked = _unlocked(row, self._path, self._source)

    def _read(self, kind: KeyKind, names: Sequence[str], version: int) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        for start in range(0, len(names), AT_ONCE):
            some = names[start : start + AT_ONCE]
            marks = ", ".join("?" * len(some))
            rows = self._database.execute(
                f"SELECT name, sealed FROM entries WHERE kind = ? AND version = ? AND name IN ({marks})",
                (str(kind), version, *some),
            )
            found |= {name: self._open(kind, name, version, sealed) for name, sealed in rows}
        return found

    def _make(self, kind: KeyKind, names: Sequence[str], version: int) -> dict[str, bytes]:
        """Put new keys if absent, and read back what is there now: whoever came first has won."""
        with _transaction(self._database):
            self._renew()
            self._put(kind, names, version)
            made = self._read(kind, names, version)
            if len(made) < len(set(names)):
                raise KeyRetired(f"a key of the kind {kind} was destroyed for good and is not made again")
            return made

    def _put(self, kind: KeyKind, names: Sequence[str], version: int) -> None:
        now_ms = time.time_ns() // 1_000_000
        rows = []
        for name in names:
            fresh, nonce = secrets.token_bytes(KEY_BYTES), secrets.token_bytes(NONCE_BYTES)
            sealed = seal(self._unlocked.kek, fresh, _place(kind, name, version), nonce)
            rows.append((str(kind), name, version, sealed, now_ms))
        self._database.executemany(
            "INSERT OR IGNORE INTO entries SELECT ?1, ?2, ?3, ?4, ?5 "
            "WHERE NOT EXISTS (SELECT 1 FROM retired WHERE kind = ?1 AND name = ?2)",
            rows,
        )

    def _newest(self, tenant: str) -> tuple[int, bytes] | None:
        row = self._database.execute(
            "SELECT version, sealed FROM entries WHERE kind = ? AND name = ? ORDER BY version DESC LIMIT 1",
            (str(KeyKind.ROOT), tenant),
        ).fetchone()
        return (row[0], self._open(KeyKind.ROOT, tenant, row[0], row[1])) if row else None

    def _delete(self, which: str, values: Sequence[tuple[object, ...]]) -> int:
        def delete() -> int:
            with _transaction(self._database):
                return self._database.executemany(f"DELETE FROM entries WHERE {which}", values).rowcount

        return self._do(delete) if values else 0

    def _open(self, kind: KeyKind, name: str, version: int, sealed: bytes) -> bytes:
        try:
            return open_sealed(self._unlocked.kek, sealed, _place(kind, name, version))
        except SealBroken:
            raise KeyRingRefused(f"an entry of the kind {kind} in {self._path} was changed: it does not open") from None


def _place(kind: KeyKind, name: str, version: int) -> bytes:
    """What an entry is sealed to: moved to another place, it does not open."""
    return encode(kind.encode(), name.encode(), version.to_bytes(4, "big"))


@contextmanager
def _transaction(database: sqlite3.Connection) -> Iterator[None]:
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
        database.execute("COMMIT")
    except BaseException:
        if database.in_transaction:
            database.execute("ROLLBACK")
        raise


@dataclass(frozen=True, slots=True)
class _Unlocked:
    """The KEK in force, and what the ring's first row said of it."""

    kek: bytes = field(repr=False)
    check: bytes = field(repr=False)
    reference: bytes = field(repr=False)


def _unlock(database: sqlite3.Connection, path: Path, source: KekSource, create: bool) -> _Unlocked:
    """The KEK of a ring, both made where the ring is empty. SQLite's lock lets one process do this at a time."""
    database.execute("PRAGMA secure_delete = ON")
    database.execute("PRAGMA synchronous = FULL")
    if not _is_made(database) and create:
        with _transaction(database):
            if not _is_made(database):
                if _mark(path).exists():
                    raise KeyRingRefused(
                        f"there was a key ring at {path} ({_mark(path).name} says so): bring it back from a backup, or "
                        "delete what is left of it to begin with new keys"
                    )
                kek, reference = source.make(None)
                for statement in _SCHEMA.split(";\n"):
                    database.execute(statement)
                check = seal(kek, _CHECK, b"", secrets.token_bytes(NONCE_BYTES))
                database.execute("INSERT INTO ring VALUES (1, ?, ?)", (check, reference))
    if _is_made(database) and not _has_reference(database):  # a ring of a release before 0014 (docs/decisions)
        with _transaction(database):
            if not _has_reference(database):
                database.execute("ALTER TABLE ring ADD COLUMN reference BLOB NOT NULL DEFAULT x''")
    row = _first_row(database) if _is_made(database) else None
    if row is None:
        raise KeyRingRefused(f"{path} is not a key ring")
    database.execute(_RETIRED)
    return _unlocked(row, path, source)


def _unlocked(row: tuple[bytes, bytes], path: Path, source: KekSource) -> _Unlocked:
    check, reference = row
    kek = source.fetch(reference)
    try:
        if len(kek) == KEY_BYTES and open_sealed(kek, check, b"") == _CHECK:
            return _Unlocked(kek, check, reference)
    except SealBroken:
        pass
    raise KeyRingRefused(f"{source} does not belong to the key ring {path}")


def _first_row(database: sqlite3.Connection) -> tuple[bytes, bytes] | None:
    row: tuple[bytes, bytes] | None = database.execute("SELECT sealed, reference FROM ring").fetchone()
    return row


def _has_reference(database: sqlite3.Connection) -> bool:
    return any(row[1] == "reference" for row in database.execute("PRAGMA table_info(ring)"))


def _mark(path: Path) -> Path:
    """The file that says that there was a ring, where the KEK's source remembers nothing."""
    return path.with_name(path.name + ".made")


def _settle(path: Path, source: KekSource, reference: bytes) -> None:
    source.settle(reference)
    if source.remembers:
        _mark(path).unlink(missing_ok=True)
    elif not _mark(path).exists():
        _mark(path).write_text(f"A key ring was made here: {path.name}. If it is gone, bring it back: docs/keys.md.\n")


def _is_made(database: sqlite3.Connection) -> bool:
    return database.execute("SELECT 1 FROM sqlite_master WHERE name = 'ring'").fetchone() is not None


def _make_empty(path: Path) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))


def _why(error: sqlite3.Error | OSError) -> str:
    return str(getattr(error, "sqlite_errorname", type(error).__name__))
