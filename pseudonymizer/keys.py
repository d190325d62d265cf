"""Which keys there are, and how the key of a purpose is derived from a tenant's root key.

Every derivation is over a length-prefixed encoding, so that no two inputs can run into one another: ("ab", "c") and
("a", "bc") are different. The published vectors are in docs/test-vectors.md.
"""

from __future__ import annotations

from enum import StrEnum

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

KEY_BYTES = 32
_LABEL = b"schleuse/pseudonym"


class KeyKind(StrEnum):
    """The kinds of key in the key ring. The value stands in the ring's file."""

    ROOT = "root"
    """A tenant's root key; its name is the tenant. Versions are its rotation."""
    MAILING = "mailing"
    """The secret that visitor hashes of one mailing come from; destroyed when its window closes."""
    DATA = "data"
    """Seals the mapping of one pseudonym of one recipient; destroying it erases the mapping, backups included."""
    DAY = "day"
    """Seals what was rejected on one day; destroyed after 14 days."""
    SEEN = "seen"
    """Hashes event ids, to know duplicates."""
    BLIND = "blind"
    """Of the identity store: the blind index by which a recipient is found there."""
    PROOF = "proof"
    """Seals the proofs of consent of one tenant in the ledger: they say what a sender wrote, an address perhaps."""
    STUB = "stub"
    """Hashes the key of an erased recipient, under which a stub without her address stays in the state."""
    AUDIT = "audit"
    """Authenticates the lines of the audit trail: who has the store and not the ring cannot write one."""
    EXPORT = "export"
    """Seals one access export; named by the blind index of its recipient and the request, destroyed with either."""


def encode(*parts: bytes) -> bytes:
    """Each part behind its length in bytes (4 bytes, big-endian). Injective: equal results have equal parts."""
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def hkdf(key: bytes, info: bytes, salt: bytes | None = None, length: int = KEY_BYTES) -> bytes:
    """HKDF with SHA-256 (RFC 5869). `key` has to be random already; this is no password hash."""
    return HKDF(algorithm=hashes.SHA256(), length=length, salt=salt, info=info).derive(key)


def purpose_key(root: bytes, tenant: str, purpose: str, version: int) -> bytes:
    """The 32-byte key of pseudonyms of one tenant, purpose and version of its root key.

    `info` is encode("schleuse/pseudonym", tenant, purpose, version as 4 bytes big-endian). Raises ValueError when
    `root` is not 32 bytes. A caller may NOT write it anywhere: it is derived again whenever it is needed.
    """
    if len(root) != KEY_BYTES:
        raise ValueError(f"a root key has {KEY_BYTES} bytes")
    return hkdf(root, encode(_LABEL, tenant.encode(), purpose.encode(), version.to_bytes(4, "big")))
