"""Sealed exports: a file each in the folder `exports`, under a key each in the ring; and their end.

    file      HEADER, one line of JSON (key's name, tenant, when it was made), then AES-256-GCM over the zip;
              both lines are bound to what is sealed
    its name  a hash of the key's name: it says nothing of whom it is about
    its key   `KeyKind.EXPORT`, named by blind index and request: an erasure destroys all of hers (streams/changes.py)

The key is made before anything is read and looked at again after the file is there: where an erasure came between, the
key is another one or none, and the file is made anew, from what is left. Whoever destroys the key has destroyed every
copy of the file.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import structlog

from pseudonymizer.keys import KeyKind
from pseudonymizer.sealing import NONCE_BYTES, SealBroken, open_sealed, seal
from streams.errors import SchleuseError, SettingsError
from streams.rights.audit import Action
from streams.topics import DAY_MS

if TYPE_CHECKING:
    from streams.rights.desk import Desk

HEADER = b"schleuse-export 1\n"
SUFFIX, SCRATCH = ".sealed", ".new"
MOST_HEADER = 2_000
SCRATCH_SECONDS = 3_600.0
_EXPIRED = "its time was over"

log = structlog.get_logger("schleuse.rights.exports")


class CannotOpen(SchleuseError):
    """A file is no sealed export, was changed, or its key is destroyed."""


class _Head(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    key: str
    tenant: str
    made_at: str


@dataclass(frozen=True, slots=True)
class SealedExport:
    """A sealed export that is there and opens."""

    path: Path
    sha256: str
    """Of the whole file, hex."""
    made_at: str
    until_ms: int
    """When its key is destroyed, epoch milliseconds."""


@dataclass(frozen=True, slots=True)
class Sealed:
    """A file taken apart. `repr` shows neither whom it is about nor its content."""

    head: _Head = field(repr=False)
    blind: bytes = field(repr=False)
    request_id: str
    bound: bytes = field(repr=False)
    content: bytes = field(repr=False)


def key_name(blind: bytes, request_id: str) -> str:
    """The name of an export's key in the ring."""
    return f"{blind.hex()}:{request_id}"


def file_name(name: str) -> str:
    """The name of an export's file, from its key's."""
    return hashlib.sha256(name.encode()).hexdigest()[:32] + SUFFIX


def ensure(desk: Desk, tenant: str, name: str, make: Callable[[], tuple[str, bytes]]) -> SealedExport:
    """The sealed export of this key's name: the one that is there, or one made now.

    `make` makes it: when, and the zip. It is called again where an erasure came between. Blocking. Raises what it
    raises, StoreUnavailable, and SettingsError when the folder cannot be used.
    """
    folder = desk.settings.exports
    prepare(folder)
    path = folder / file_name(name)
    while True:
        key = desk.ring.ensure(KeyKind.EXPORT, name)  # before anything is read
        whole = _read(path)
        about = _about(key, whole, name)
        if about is None:
            made_at, packed = make()
            _publish(path, seal_file(key, name, tenant, made_at, packed), instead=bool(whole))
            whole = _read(path)
            about = _about(key, whole, name)
        made_ms = desk.ring.made(KeyKind.EXPORT).get(name)
        if about is not None and made_ms is not None and desk.ring.get(KeyKind.EXPORT, name) == key:
            until_ms = made_ms + desk.settings.exports_days * DAY_MS
            return SealedExport(path, hashlib.sha256(whole).hexdigest(), about.made_at, until_ms)


def seal_file(key: bytes, name: str, tenant: str, made_at: str, packed: bytes) -> bytes:
    """The bytes of a sealed export."""
    head = HEADER + msgspec.json.encode(_Head(name, tenant, made_at)) + b"\n"
    return head + seal(key, packed, head, secrets.token_bytes(NONCE_BYTES))


def look(path: Path) -> Sealed:
    """What a file says of itself, before it is opened. Raises CannotOpen."""
    try:
        whole = path.read_bytes()
    except OSError as error:
        raise CannotOpen(f"{path} cannot be read ({type(error).__name__})") from None
    return _take_apart(whole, path)


def open_file(desk: Desk, path: Path, why: str) -> bytes:
    """The zip in a sealed export; that it was opened is in the audit trail before it is.

    Raises CannotOpen, also when its key is destroyed; StoreUnavailable.
    """
    sealed = look(path)
    key = desk.ring.get(KeyKind.EXPORT, sealed.head.key)
    if key is None:
        raise CannotOpen(f"the key of {path} is destroyed: its time was over, or she was erased; ask for a new export")
    desk.audit.record(Action.EXPORT_OPENED, sealed.head.tenant, sealed.blind, why, {"request_id": sealed.request_id})
    try:
        return open_sealed(key, sealed.content, sealed.bound)
    except SealBroken:
        raise CannotOpen(f"{path} does not open with its key: it was changed") from None


def expire_once(desk: Desk) -> int:
    """A duty: destroy the keys of exports whose time is over, and delete the files that no key opens any more.

    By the clock of whoever runs it, against that of whoever made the key. Returns how many keys and files went.
    """
    kept_ms = desk.settings.exports_days * DAY_MS
    now_ms = time.time_ns() // 1_000_000
    over = [name for name, made_ms in desk.ring.made(KeyKind.EXPORT).items() if made_ms + kept_ms <= now_ms]
    for name in over:
        blind, request_id = _name_parts(name)
        desk.audit.record(Action.EXPORT_EXPIRED, "", blind, _EXPIRED, {"request_id": request_id})
        desk.ring.destroy(KeyKind.EXPORT, name)
    return len(over) + _sweep(desk)


def _sweep(desk: Desk) -> int:
    folder = desk.settings.exports
    gone = 0
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        try:
            if path.suffix == SCRATCH:
                dead = path.stat().st_mtime < time.time() - SCRATCH_SECONDS  # of a process that was killed
            elif path.suffix == SUFFIX:
                dead = desk.ring.get(KeyKind.EXPORT, look(path).head.key) is None
            else:
                continue
            if dead:
                path.unlink()
                gone += 1
        except FileNotFoundError:  # another process was quicker
            continue
        except CannotOpen as error:
            log.warning("what lies among the exports is none", reason=str(error))
        except OSError as error:
            raise SettingsError(f"{path} cannot be deleted ({type(error).__name__})") from None
    return gone


# --- inside ---


def _take_apart(whole: bytes, path: Path) -> Sealed:
    end = whole.find(b"\n", len(HEADER), len(HEADER) + MOST_HEADER)
    try:
        if not whole.startswith(HEADER) or end < 0:
            raise ValueError
        head = msgspec.json.decode(whole[len(HEADER) : end], type=_Head)
        blind, request_id = _name_parts(head.key)
    except ValueError:  # msgspec's errors are ones
        raise CannotOpen(f"{path} is no sealed export") from None
    return Sealed(head, blind, request_id, whole[: end + 1], whole[end + 1 :])


def _name_parts(name: str) -> tuple[bytes, str]:
    blind, _, request_id = name.partition(":")
    return bytes.fromhex(blind), request_id


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise SettingsError(f"{path} cannot be read ({type(error).__name__})") from None


def _about(key: bytes, whole: bytes, name: str) -> _Head | None:
    """What a whole file says of itself if this key opens it, else None."""
    try:
        sealed = _take_apart(whole, Path("the file"))
        open_sealed(key, sealed.content, sealed.bound)
    except (CannotOpen, SealBroken):
        return None
    return sealed.head if sealed.head.key == name else None


def _publish(path: Path, whole: bytes, instead: bool) -> None:
    """Whole or not at all, owner-only, and on the disk before anybody is told of it.

    Of two processes the first one's file stands; `instead` of one that does not open, the last one's.
    """
    try:
        descriptor, scratch = tempfile.mkstemp(dir=path.parent, suffix=SCRATCH)
        with os.fdopen(descriptor, "wb") as file:
            file.write(whole)
            file.flush()
            os.fsync(file.fileno())
        if instead:
            os.replace(scratch, path)
        else:
            with contextlib.suppress(FileExistsError):
                os.link(scratch, path)
            os.unlink(scratch)
        if os.name == "posix":
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
    except OSError as error:
        raise SettingsError(f"{path} cannot be written ({type(error).__name__})") from None


def prepare(folder: Path) -> None:
    """Make the folder of sealed exports, owner-only. Raises SettingsError when it cannot be, or others can read it."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        mode = folder.stat().st_mode
    except OSError as error:
        raise SettingsError(f"the folder {folder} for exports cannot be made ({type(error).__name__})") from None
    if os.name == "posix" and mode & 0o077:
        raise SettingsError(f"others can read or write the folder {folder} for exports: chmod 700 {folder}")
