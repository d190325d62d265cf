"""Who may read: a key for each reader, which opens one tenant in one role.

A key is `schleuse_<reader>_<secret>`: the first half names it in lists and logs, the second is 256 random bits that are
printed once and kept nowhere. The store has its SHA-256: of so many random bits nothing slower is needed.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import threading
import time
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from streams.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from streams.stores import StoreClient

KNOWN_SECONDS: Final = 3.0
"""For so long what is known of readers is not asked again: a key that was taken back opens nothing after it."""
_KEY: Final = re.compile(r"schleuse_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")
_READER: Final = re.compile(r"[0-9a-f]{12}")


class ReaderRole(StrEnum):
    """What a reader is to see."""

    SENDER = "sender"
    ANALYST = "analyst"
    PRIVACY = "privacy"
    OPERATOR = "operator"

    @property
    def sees_figures(self) -> bool:
        """Mailings and trends. A sender sees what an analyst sees."""
        return self is not ReaderRole.OPERATOR

    @property
    def sees_proof(self) -> bool:
        """The officer's view."""
        return self is ReaderRole.PRIVACY

    @property
    def sees_publishing(self) -> bool:
        """How far publishing is, without a figure."""
        return self is ReaderRole.OPERATOR


@dataclass(frozen=True, slots=True)
class Reader:
    """Who holds a key. `label` is the operator's word for her; times in epoch milliseconds."""

    reader: str
    tenant: str
    role: ReaderRole
    label: str
    until_ms: int
    revoked: bool


_LIST: Final = (
    "SELECT reader, argMax(toString(tenant), at), argMax(toString(role), at), argMax(label, at), "
    "argMax(hex(key_sha256), at), toUnixTimestamp64Milli(argMax(until, at)), max(revoked) FROM readers GROUP BY reader"
)


def let_in(operator: StoreClient, tenant: str, role: ReaderRole, label: str, until_ms: int) -> str:
    """Make a reader; her key, which is kept nowhere. `operator`: the analytics store under that login.

    The caller has checked that the tenant is in force. Raises StoreUnavailable, StoreRefused.
    """
    reader = secrets.token_hex(6)
    key = f"schleuse_{reader}_{secrets.token_urlsafe(32)}"
    _write(operator, Reader(reader, tenant, role, label, until_ms, revoked=False), _digest(key).hex())
    return key


def shut_out(operator: StoreClient, reader: str) -> Reader:
    """Take a reader's key back. It opens nothing within `KNOWN_SECONDS`. Raises SettingsError when there is none."""
    for found, digest in _all(operator).values():
        if found.reader == reader:
            _write(
                operator, Reader(reader, found.tenant, found.role, found.label, found.until_ms, revoked=True), digest
            )
            return found
    raise SettingsError("there is no such reader: schleuse readers list shows them")


def listed(operator: StoreClient) -> list[Reader]:
    """All readers, by tenant."""
    found = (reader for reader, _ in _all(operator).values())
    return sorted(found, key=lambda one: (one.tenant, one.role, one.label, one.reader))


def is_reader(text: str) -> bool:
    """Whether a text could be the public half of a key."""
    return bool(_READER.fullmatch(text))


class Readers:
    """Who holds which key, asked of the store every few seconds at most. May be used by several threads."""

    def __init__(self, store: StoreClient) -> None:
        """`store`: the analytics store under the login `dashboard`."""
        self._store, self._lock = store, threading.Lock()
        self._known: Mapping[str, tuple[Reader, str]] = {}
        self._until = 0.0

    def by_key(self, key: str) -> Reader | None:
        """Whom a key belongs to, if it opens anything now. Raises StoreUnavailable, StoreRefused."""
        matched = _KEY.fullmatch(key)
        if matched is None:
            return None
        found = self._all().get(matched[1])
        if found is None or not hmac.compare_digest(_digest(key).hex(), found[1]):
            return None
        return _open(found[0])

    def by_name(self, reader: str) -> Reader | None:
        """A reader who had a key and now has a session, if her key still opens anything."""
        found = self._all().get(reader)
        return _open(found[0]) if found else None

    def _all(self) -> Mapping[str, tuple[Reader, str]]:
        with self._lock:
            if time.monotonic() > self._until:
                self._known = _all(self._store)
                self._until = time.monotonic() + KNOWN_SECONDS
            return self._known


def _open(reader: Reader) -> Reader | None:
    return None if reader.revoked or reader.until_ms <= time.time_ns() // 1_000_000 else reader


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


def _all(store: StoreClient) -> dict[str, tuple[Reader, str]]:
    return {
        reader: (Reader(reader, tenant, ReaderRole(role), label, until, bool(revoked)), digest.lower())
        for reader, tenant, role, label, digest, until, revoked in store.rows("reading who may read", _LIST)
        if role in set(ReaderRole)  # one that a later release knows opens nothing here
    }


def _write(operator: StoreClient, reader: Reader, digest: str) -> None:
    operator.do(
        "writing who may read",
        "INSERT INTO readers (reader, tenant, role, label, key_sha256, until, revoked) SELECT {reader:String}, "
        "{tenant:String}, {role:String}, {label:String}, unhex({digest:String}), "
        "fromUnixTimestamp64Milli({until:Int64}), {revoked:Bool}",
        {
            "reader": reader.reader,
            "tenant": reader.tenant,
            "role": str(reader.role),
            "label": reader.label,
            "digest": digest,
            "until": reader.until_ms,
            "revoked": reader.revoked,
        },
        async_insert=0,
    )
