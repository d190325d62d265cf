"""The KEK in a file of its own, owner-only, which is not backed up together with the ring.

While it is rotated, the new one lies beside the old one as NAME.next; the reference (a fingerprint) tells which of the
two is in force, whenever somebody is killed.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
import tempfile
from hashlib import blake2b
from pathlib import Path

from pseudonymizer.keys import KEY_BYTES
from streams.kek import KeyRingRefused


class KekFile:
    """A KekSource: see there."""

    remembers = True

    def __init__(self, path: Path) -> None:
        self._path, self._next = path, path.with_name(path.name + ".next")

    def __str__(self) -> str:
        return f"the key-encryption key {self._path}"

    def make(self, before: bytes | None) -> tuple[bytes, bytes]:
        """Write a new KEK, whole or not at all."""
        try:
            if before is None and self._path.exists():
                raise KeyRingRefused(
                    f"{self} is there but not its key ring: bring the ring back from a backup, or delete what "
                    "is left of both to begin with new keys"
                )
            kek = secrets.token_bytes(KEY_BYTES)
            _write(self._path if before is None else self._next, kek)
            return kek, _fingerprint(kek)
        except OSError as error:
            raise _failed(self, error) from None

    def fetch(self, reference: bytes) -> bytes:
        """Whichever of the two files is meant; looked at twice, since another process may just be renaming them."""
        found = None
        for path in (self._path, self._next, self._path):
            kek = self._read(path)
            if kek is not None and (not reference or _fingerprint(kek) == reference):
                return kek
            found = found or kek
        if found is None:
            raise KeyRingRefused(f"the key ring is there but not its key-encryption key {self._path}: put it back")
        return found

    def settle(self, reference: bytes) -> None:
        """NAME.next becomes NAME, if it is the one."""
        kek = self._read(self._next)
        if kek is not None and _fingerprint(kek) == reference:
            with contextlib.suppress(FileNotFoundError):  # another process did it
                os.replace(self._next, self._path)
                _sync_folder(self._path.parent)

    def forget(self, reference: bytes) -> None:
        """Delete the file, if it holds this one. What was its place on the disk may show it until it is used again."""
        kek = self._read(self._path)
        if kek is not None and (not reference or _fingerprint(kek) == reference):
            self._path.unlink(missing_ok=True)
            _sync_folder(self._path.parent)

    def _read(self, path: Path) -> bytes | None:
        try:
            owner_only(path)
            return path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _failed(self, error) from None


def _fingerprint(kek: bytes) -> bytes:
    """Tells one random KEK from another, and nothing of either."""
    return blake2b(kek, digest_size=16, person=b"schleuse/kek").digest()


def _write(path: Path, kek: bytes) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f"{path.name}.")  # owner-only
    with os.fdopen(descriptor, "wb") as file:
        file.write(kek)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def owner_only(path: Path) -> None:
    """Refuse what is no file, and what others than its owner can open (only POSIX tells). Raises OSError too."""
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        raise KeyRingRefused(f"{path} is not a file")
    if os.name == "posix" and mode & 0o077:
        raise KeyRingRefused(f"others can read or write {path}: chmod 600 {path}")


def _failed(source: KekFile, error: OSError) -> KeyRingRefused:
    return KeyRingRefused(f"{source} cannot be used ({type(error).__name__})")
