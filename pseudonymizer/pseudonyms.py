"""Keyed hashes of people: pseudonyms, the blind index, visitor seeds, and hashes of event ids.

Each has a key of its own, so that no two of them can be joined. Which hash for which: HMAC-SHA-256 where the result
outlives the day and somebody has to be able to check it with any tool; keyed BLAKE2b on the path of every event (0.5 µs
against 0.8 for an HMAC, both from a keyed state that is copied). Text is hashed as UTF-8. None of these functions makes
a recipient canonical: what goes in must be.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.hmac import HMAC
from numpy.typing import NDArray

from pseudonymizer.keys import encode

SALT_BYTES = 16
PSEUDONYM_BYTES = 16
SEED_BYTES = 16


def keyed(key: bytes) -> HMAC:
    """HMAC-SHA-256 (RFC 2104) that has taken in its key and nothing else: copy it for each message."""
    return HMAC(key, hashes.SHA256())


def mac(state: HMAC, message: bytes) -> bytes:
    """The 32 bytes of the HMAC of a message; `state` comes from `keyed` and is not changed."""
    copy = state.copy()
    copy.update(message)
    return copy.finalize()


class Pseudonymizer:
    """Pseudonyms under one purpose key. Keeps the key only inside a keyed hash state; its repr shows nothing."""

    __slots__ = ("_state",)

    def __init__(self, key: bytes) -> None:
        """`key`: 32 bytes, from `purpose_key`. Raises ValueError on another length."""
        if len(key) != 32:
            raise ValueError("a purpose key has 32 bytes")
        self._state = keyed(key)

    def __repr__(self) -> str:
        return "<Pseudonymizer>"

    def pseudonym(self, salt: bytes, canonical: str) -> bytes:
        """16 bytes: the first half of HMAC-SHA-256 over encode(salt, canonical recipient).

        Never 16 zero bytes, which mark "no pseudonym" in columns: then (once in 2^128) it is the second half instead.
        Raises ValueError when the salt is not 16 bytes.
        """
        if len(salt) != SALT_BYTES:
            raise ValueError(f"a consent salt has {SALT_BYTES} bytes")
        digest = mac(self._state, encode(salt, canonical.encode()))
        return _not_zero(digest)


def _not_zero(digest: bytes) -> bytes:
    first = digest[:PSEUDONYM_BYTES]
    return first if any(first) else digest[PSEUDONYM_BYTES:]


def blind_index(key: bytes, tenant: str, canonical: str) -> bytes:
    """16 bytes by which the identity store finds a recipient: HMAC-SHA-256 over encode(tenant, canonical), cut.

    The same recipient of two tenants has two. Whoever holds the key can confirm a guess: it stays with the identity
    store's own login, and never goes to analytics.
    """
    return mac(keyed(key), encode(tenant.encode(), canonical.encode()))[:16]


def visitor_seed(secret: bytes, canonical: str) -> bytes:
    """16 bytes: BLAKE2b of the canonical recipient, keyed with the mailing's secret (at most 64 bytes).

    Lives as long as one insert. What is stored comes from it once more, by cell.
    """
    return blake2b(canonical.encode(), key=secret, digest_size=SEED_BYTES).digest()


def visitor_seeds(secret: bytes, names: Sequence[str]) -> bytes:
    """`visitor_seed` of each of `names`, one behind the other: 16 bytes each, in their order."""
    copy = blake2b(key=secret, digest_size=SEED_BYTES).copy
    digests = []
    for name in names:
        state = copy()
        state.update(name.encode())
        digests.append(state.digest())
    return b"".join(digests)


def event_hash(key: bytes, tenant: str, event_id: str) -> int:
    """64 bits by which an event id is remembered: BLAKE2b of encode(tenant, event id), keyed; little-endian.

    Never 0, which marks a free place in a table: then it is 1.
    """
    digest = blake2b(encode(tenant.encode(), event_id.encode()), key=key, digest_size=8).digest()
    return int.from_bytes(digest, "little") or 1


def event_hashes(key: bytes, tenants: Sequence[str], ids: Sequence[str]) -> NDArray[np.uint64]:
    """`event_hash` of each pair, in order. Raises ValueError when the two columns differ in length."""
    base = blake2b(key=key, digest_size=8)
    by_tenant = {}
    for tenant in set(tenants):
        state = base.copy()
        state.update(encode(tenant.encode()))
        by_tenant[tenant] = state.copy
    digests = []
    for tenant, event_id in zip(tenants, ids, strict=True):
        raw = event_id.encode()
        state = by_tenant[tenant]()
        state.update(len(raw).to_bytes(4, "big") + raw)
        digests.append(state.digest())
    found = np.frombuffer(b"".join(digests), "<u8").astype(np.uint64)
    found[found == 0] = 1
    return found
