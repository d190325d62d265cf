"""The key ring: one SQLite file, its entries sealed under a key-encryption key (KEK) in a second file.

The two files are kept apart on purpose: a backup of the ring without its KEK opens nothing, and a key that is destroyed
in the ring is gone. Both are owner-only; a file that others can read is refused. All workers share one ring; making a
key is put-if-absent, so whoever comes first has fixed it for everybody, whatever process or thread they are in.

`secure_delete` overwrites a destroyed entry in the file; a copy of the page may stay in free blocks of the disk until
they are used again, sealed under the KEK. Backups of the ring keep destroyed keys for as long as they are kept.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
import stat
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pseudonymizer.keys import KEY_BYTES, KeyKind, encode
from pseudonymizer.sealing import NONCE_BYTES, SealBroken, open_sealed, seal
from streams.errors import SettingsError, StoreUnavailable

BUSY_SECONDS = 30  # how long one process waits while another writes
AT_ONCE = 500  # names in one statement; SQLite takes 32,766 values
_CHECK = b"schleuse key ring 1"
_SCHEMA = """
CREATE TABLE ring (only INTEGER PRIMARY KEY CHECK (only = 1), sealed BLOB NOT NULL);
CREATE TABLE entries (
    kind TEXT NOT NULL, name TEXT NOT NULL, version INTEGER NOT NULL, sealed BLOB NOT NULL, created_at INTEGER NOT NULL,
    PRIMARY KEY (kind, name, version)
) WITHOUT ROWID;
"""
T = TypeVar("T")


class KeyRingRefused(SettingsError):
    """The key ring cannot be used as it is. The text names the file and what to do."""


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

    def __init__(self, path: Path, kek: bytes, database: sqlite3.Connection) -> None:
        """Use `open`."""
        self._path, self._kek, self._database = path, kek, database
        self._lock = threading.Lock()

    @classmethod
    def open(cls, path: Path, kek_path: Path, create: bool = True) -> KeyRing:
        """Open the ring at `path` with the KEK at `kek_path`; where neither is there, make both if `create`.

        Raises KeyRingRefused when a file is missing or can be read by others, when the two do not belong together, and
        when the ring is gone but its KEK is still there: a new ring in the place of a lost one would give everybody new
        pseudonyms, and leave rows that no withdrawal finds.
        """
        database = None
        try:
            if not path.exists():
                if not create:
                    raise KeyRingRefused(f"there is no key ring at {path}")
                _make_empty(path)
            _owner_only(path)
            database = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
            kek = _unlock(database, path, kek_path, create)
            return cls(path, kek, database)
        except BaseException as error:
            if database is not None:
                database.close()
            if isinstance(error, sqlite3.Error | OSError):
                raise KeyRingRefused(f"{path} with {kek_path} cannot be used as a key ring ({_why(error)})") from None
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
        return self._do(lambda: self._read(kind, [name], version)).get(name)

    def ensure(self, kind: KeyKind, name: str, version: int = 1) -> bytes:
        """The 32 bytes of a key, made where there is none.

        A caller may NOT assume that a key it asked for before is the same one: it may have been destroyed in between.
        """
        found = self.get(kind, name, version)
        return found if found is not None else self._do(lambda: self._make(kind, [name], version))[name]

    def ensure_many(self, kind: KeyKind, names: Iterable[str]) -> dict[str, bytes]:
        """`ensure` of version 1 of each name; all that are missing are made in one transaction."""
        wanted = list(dict.fromkeys(names))
        found = self._do(lambda: self._read(kind, wanted, 1))
        missing = [name for name in wanted if name not in found]
        if missing:
            found |= self._do(lambda: self._make(kind, missing, 1))
        return {name: found[name] for name in wanted}

    def primary(self, tenant: str) -> tuple[int, bytes]:
        """Version and bytes of the tenant's newest root key, the one for new grants; version 1 is made if none is."""
        newest = self._newest_root(tenant)
        if newest is None:
            self.ensure(KeyKind.ROOT, tenant)
            newest = self._newest_root(tenant)
        if newest is None:
            raise StoreUnavailable(f"the key ring {self._path} changed while it was read")
        return newest

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

    # --- destroying ---

    def destroy(self, kind: KeyKind, name: str, version: int | None = None) -> int:
        """Destroy a key, all its versions or one. Returns how many there were. What it sealed is gone."""
        if version is None:
            return self.destroy_many(kind, [name])
        return self._delete("kind = ? AND name = ? AND version = ?", [(str(kind), name, version)])

    def destroy_many(self, kind: KeyKind, names: Iterable[str]) -> int:
        """Destroy all versions of each name, in one transaction. Returns how many keys there were."""
        return self._delete("kind = ? AND name = ?", [(str(kind), name) for name in names])

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
        now_ms = time.time_ns() // 1_000_000
        rows = []
        for name in names:
            fresh, nonce = secrets.token_bytes(KEY_BYTES), secrets.token_bytes(NONCE_BYTES)
            sealed = seal(self._kek, fresh, _place(kind, name, version), nonce)
            rows.append((str(kind), name, version, sealed, now_ms))
        with _transaction(self._database):
            self._database.executemany("INSERT OR IGNORE INTO entries VALUES (?, ?, ?, ?, ?)", rows)
            return self._read(kind, names, version)

    def _newest_root(self, tenant: str) -> tuple[int, bytes] | None:
        row = self._do(
            lambda: self._database.execute(
                "SELECT version, sealed FROM entries WHERE kind = ? AND name = ? ORDER BY version DESC LIMIT 1",
                (str(KeyKind.ROOT), tenant),
            ).fetchone()
        )
        return (row[0], self._open(KeyKind.ROOT, tenant, row[0], row[1])) if row else None

    def _delete(self, which: str, values: Sequence[tuple[object, ...]]) -> int:
        def delete() -> int:
            with _transaction(self._database):
                return self._database.executemany(f"DELETE FROM entries WHERE {which}", values).rowcount

        return self._do(delete) if values else 0

    def _open(self, kind: KeyKind, name: str, version: int, sealed: bytes) -> bytes:
        try:
            return open_sealed(self._kek, sealed, _place(kind, name, version))
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


def _unlock(database: sqlite3.Connection, path: Path, kek_path: Path, create: bool) -> bytes:
    """The KEK of a ring, both made where the ring is empty. SQLite's lock lets one process do this at a time."""
    database.execute("PRAGMA secure_delete = ON")
    database.execute("PRAGMA synchronous = FULL")
    if not _is_made(database) and create:
        with _transaction(database):
            if not _is_made(database):
                kek = _make_kek(path, kek_path)
                for statement in _SCHEMA.split(";\n"):
                    database.execute(statement)
                sealed = seal(kek, _CHECK, b"", secrets.token_bytes(NONCE_BYTES))
                database.execute("INSERT INTO ring VALUES (1, ?)", (sealed,))
    row = database.execute("SELECT sealed FROM ring").fetchone() if _is_made(database) else None
    if row is None:
        raise KeyRingRefused(f"{path} is not a key ring")
    if not kek_path.exists():
        raise KeyRingRefused(f"the key ring {path} is there but not its key-encryption key {kek_path}: put it back")
    _owner_only(kek_path)
    kek = kek_path.read_bytes()
    try:
        if len(kek) == KEY_BYTES and open_sealed(kek, row[0], b"") == _CHECK:
            return kek
    except SealBroken:
        pass
    raise KeyRingRefused(f"the key-encryption key {kek_path} does not belong to the key ring {path}")


def _is_made(database: sqlite3.Connection) -> bool:
    return database.execute("SELECT 1 FROM sqlite_master WHERE name = 'ring'").fetchone() is not None


def _make_empty(path: Path) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))


def _make_kek(path: Path, kek_path: Path) -> bytes:
    """Write a new KEK, whole or not at all."""
    if kek_path.exists():
        raise KeyRingRefused(
            f"the key-encryption key {kek_path} is there but not its key ring {path}: bring the ring back from a "
            "backup, or delete both files to begin with new keys"
        )
    kek_path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    kek = secrets.token_bytes(KEY_BYTES)
    descriptor, temporary = tempfile.mkstemp(dir=kek_path.parent, prefix=f"{kek_path.name}.")  # owner-only
    with os.fdopen(descriptor, "wb") as file:
        file.write(kek)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, kek_path)
    _sync_folder(kek_path.parent)
    return kek


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _owner_only(path: Path) -> None:
    """Refuse what is no file, and what others than its owner can open (only POSIX tells)."""
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        raise KeyRingRefused(f"{path} is not a file")
    if os.name == "posix" and mode & 0o077:
        raise KeyRingRefused(f"others can read or write {path}: chmod 600 {path}")


def _why(error: sqlite3.Error | OSError) -> str:
    return str(getattr(error, "sqlite_errorname", type(error).__name__))
