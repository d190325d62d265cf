"""Recipients, tenants and keys, from docs/test-vectors.md, docs/tenants.md and the format of the key ring."""

from __future__ import annotations

import hmac
import re
import sqlite3
import tomllib
import unicodedata
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import idna
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tests.reference.facts import ReferenceFailed

MODES = {"off": 0, "anonymous": 1, "pseudonymous": 2, "personal": 3}
DAYS = {"day": 1, "week": 7, "month": 30, "year": 365}


# --- tenants.toml ---


@dataclass(frozen=True, slots=True)
class Tenant:
    """A tenant's settings, defaults filled in. `purposes`: name -> (ceiling, retention in days)."""

    name: str
    lower_local: bool
    path_links: bool
    url_keys: tuple[str, ...]
    purposes: dict[str, tuple[int, int]]
    feeds: frozenset[str] = frozenset()


def tenants(toml: str) -> dict[str, Tenant]:
    """The tenants of a tenants.toml, which must not change during the run."""
    return {name: _tenant(name, table) for name, table in tomllib.loads(toml).items()}


def _tenant(name: str, table: dict) -> Tenant:  # type: ignore[type-arg]
    purposes = {"engagement": {}, **table.get("purposes", {})}
    return Tenant(
        name,
        table.get("local_part") == "lower",
        table.get("links") == "path",
        tuple(sorted(table.get("url_keys", []))),
        {
            purpose: (MODES[of.get("ceiling", "personal")], _days(of.get("retention", "13 months")))
            for purpose, of in purposes.items()
        },
        frozenset(table.get("feed", {}).get("names", [])) | {"sendgrid", "mailgun", "postmark", "ses"},
    )


def _days(text: str) -> int:
    count, unit = text.split()
    return int(count) * DAYS[unit.rstrip("s")]


# --- recipients ---


@cache
def canonical(recipient: str, lower_local: bool) -> str | None:
    """The canonical form by rule 1, or None: it names nobody."""
    text = unicodedata.normalize("NFC", recipient.strip())
    if not 1 <= len(text) <= 320 or any(unicodedata.category(char) in ("Cc", "Cs") for char in text):
        return None
    local, at, domain = text.rpartition("@")
    if not at:
        return text
    try:
        domain = domain.lower() if domain.isascii() else idna.encode(domain, uts46=True).decode()
    except idna.IDNAError:
        return None
    if not local or not re.fullmatch(r"([a-z0-9_-]{1,63}\.)*[a-z0-9_-]{1,63}", domain):
        return None
    return f"{local.lower() if lower_local else local}@{domain}"


def message_key(tenant: str, recipient: str) -> bytes:
    """The key of every message about a recipient, who is canonical already."""
    return f"{tenant}\x1f{recipient}".encode()


def partition_of(key: bytes, partitions: int) -> int:
    """Where Kafka's default partitioner (murmur2, seed 0x9747b28c) puts a key."""
    mask, m, length = 0xFFFFFFFF, 0x5BD1E995, len(key)
    h = 0x9747B28C ^ length
    for start in range(0, length - length % 4, 4):
        k = int.from_bytes(key[start : start + 4], "little") * m & mask
        k = (k ^ k >> 24) * m & mask
        h = (h * m & mask) ^ k
    if length % 4:
        h = (h ^ int.from_bytes(key[length - length % 4 :], "little")) * m & mask
    h = (h ^ h >> 13) * m & mask
    return ((h ^ h >> 15) & 0x7FFFFFFF) % partitions


# --- hashes and keys ---


def encode(*parts: bytes) -> bytes:
    """Each part behind its length."""
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def purpose_key(root: bytes, tenant: str, purpose: str, version: int) -> bytes:
    """HKDF-SHA-256 without a salt (RFC 5869), for 32 bytes: one round of expansion."""
    info = encode(b"schleuse/pseudonym", tenant.encode(), purpose.encode(), version.to_bytes(4, "big"))
    extracted = hmac.digest(bytes(32), root, "sha256")
    return hmac.digest(extracted, info + b"\x01", "sha256")


def pseudonym(key: bytes, salt: bytes, recipient: str) -> bytes:
    """The 16 bytes under which a recipient's rows stand."""
    digest = hmac.digest(key, encode(salt, recipient.encode()), "sha256")
    return digest[:16] if any(digest[:16]) else digest[16:]


def number(of: bytes) -> int:
    """A pseudonym as ClickHouse shows it."""
    return int.from_bytes(of, "little")


def siphash_128(key: bytes, message: bytes) -> bytes:
    """SipHash-2-4 with 128 bits, as its authors' reference code computes it (siphash.c)."""
    mask = 2**64 - 1
    k0, k1 = int.from_bytes(key[:8], "little"), int.from_bytes(key[8:16], "little")
    a, b = k0 ^ 0x736F6D6570736575, k1 ^ 0x646F72616E646F6D ^ 0xEE
    c, d = k0 ^ 0x6C7967656E657261, k1 ^ 0x7465646279746573

    def turn(x: int, by: int) -> int:
        return (x << by | x >> 64 - by) & mask

    def rounds(count: int) -> None:
        nonlocal a, b, c, d
        for _ in range(count):
            a, b = a + b & mask, turn(b, 13)
            b, a = b ^ a, turn(a, 32)
            c, d = c + d & mask, turn(d, 16)
            d ^= c
            a, d = a + d & mask, turn(d, 21)
            d ^= a
            c, b = c + b & mask, turn(b, 17)
            b, c = b ^ c, turn(c, 32)

    padded = message + bytes(7 - len(message) % 8) + bytes([len(message) % 256])
    for at in range(0, len(padded), 8):
        word = int.from_bytes(padded[at : at + 8], "little")
        d ^= word
        rounds(2)
        a ^= word
    c ^= 0xEE
    rounds(4)
    first = a ^ b ^ c ^ d
    b ^= 0xDD
    rounds(4)
    return first.to_bytes(8, "little") + (a ^ b ^ c ^ d).to_bytes(8, "little")


class Ring:
    """The key ring file, read by its format: entries sealed with AES-256-GCM under the KEK, each to its place."""

    def __init__(self, path: Path, kek: Path) -> None:
        self._path, self._kek = path, AESGCM(kek.read_bytes())
        self._blind: bytes | None = None
        self._stub: bytes | None = None
        self._purposes: dict[tuple[str, str, int], bytes] = {}

    def get(self, kind: str, name: str, version: int = 1) -> bytes | None:
        """The bytes of a key, or None: there is none."""
        rows = self._rows("SELECT sealed FROM entries WHERE kind = ? AND name = ? AND version = ?", kind, name, version)
        return self._open(kind, name, version, rows[0][0]) if rows else None

    def all(self, kind: str) -> dict[str, bytes]:
        """Every key of a kind whose names have one version."""
        rows = self._rows("SELECT name, sealed FROM entries WHERE kind = ? AND version = 1", kind)
        return {name: self._open(kind, name, 1, sealed) for name, sealed in rows}

    def purpose(self, tenant: str, purpose: str, version: int) -> bytes:
        """The key of a tenant's purpose under a version of its root key."""
        found = self._purposes.get((tenant, purpose, version))
        if found is None:
            root = self.get("root", tenant, version)
            if root is None:
                raise ReferenceFailed(f"the ring has no root key {version} of {tenant}")
            found = self._purposes[tenant, purpose, version] = purpose_key(root, tenant, purpose, version)
        return found

    def blind(self, tenant: str, recipient: str) -> str:
        """The blind index of a recipient, in upper-case hex as ClickHouse shows it."""
        self._blind = self._blind or self.get("blind", "")
        if self._blind is None:
            raise ReferenceFailed("the ring has no key for the blind index")
        return hmac.digest(self._blind, encode(tenant.encode(), recipient.encode()), "sha256")[:16].hex().upper()

    def stub(self, key: bytes) -> bytes:
        """The key in tracking.state under which an erased recipient is still known, of her message key."""
        self._stub = self._stub or self.get("stub", "")
        if self._stub is None:
            raise ReferenceFailed("the ring has no key for stubs")
        return b"\0" + siphash_128(self._stub, key).hex().encode()

    def _rows(self, sql: str, *values: object) -> list[tuple]:  # type: ignore[type-arg]
        database = sqlite3.connect(f"file:{self._path}?mode=ro", uri=True, timeout=30)
        try:
            return database.execute(sql, values).fetchall()
        finally:
            database.close()

    def _open(self, kind: str, name: str, version: int, sealed: bytes) -> bytes:
        place = encode(kind.encode(), name.encode(), version.to_bytes(4, "big"))
        return self._kek.decrypt(sealed[:12], sealed[12:], place)


def open_mapping(key: bytes | None, sealed: bytes, of: bytes) -> str | None:
    """The recipient of a mapping, sealed to its pseudonym; None: it does not open."""
    if key is None:
        return None
    try:
        return _unpadded(AESGCM(key).decrypt(sealed[:12], sealed[12:], of))
    except InvalidTag:
        return None


def open_proof(key: bytes | None, stored: bytes, preference_id: str) -> str:
    """The proof of a decision as JSON, sealed to its preference behind a byte 01; empty: there was none."""
    if not stored:
        return ""
    if key is None or stored[:1] != b"\x01":
        raise ReferenceFailed("a proof is not sealed, or there is no key for it")
    return _unpadded(AESGCM(key).decrypt(stored[1:13], stored[13:], b"schleuse/proof/" + preference_id.encode()))


def _unpadded(text: bytes) -> str:
    """Up to the byte FF; zeros fill it up to 256 bytes, or four times as many, and so on."""
    said, end, rest = text.partition(b"\xff")
    if not end or any(rest) or len(text) not in (256, 1024, 4096, 16384):
        raise ReferenceFailed("a sealed text is not padded as it should be")
    return said.decode()
