"""Keyed hashes of people: pseudonyms, the blind index, visitor seeds, and hashes of event ids.

Each has a key of its own, so that no two of them can be joined. Which hash for which: HMAC-SHA-256 where the result
outlives the day and somebody has to be able to check it with any tool; SipHash on the path of every event, where it is
computed for a whole column at once (docs/decisions/0010). Text is hashed as UTF-8. None of these functions makes a
recipient canonical: what goes in must be.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.hmac import HMAC

from pseudonymizer.keys import encode
from pseudonymizer.siphash import KEY_BYTES, Ints, Messages, Words, siphash, siphash_column

SALT_BYTES = 16
PSEUDONYM_BYTES = 16
_SALT_LENGTH = SALT_BYTES.to_bytes(4, "big")


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
        name = canonical.encode()  # encode(salt, name), written out: this is on the path of every event
        return _not_zero(mac(self._state, _SALT_LENGTH + salt + len(name).to_bytes(4, "big") + name))


def _not_zero(digest: bytes) -> bytes:
    first = digest[:PSEUDONYM_BYTES]
    return first if any(first) else digest[PSEUDONYM_BYTES:]


def as_number(pseudonym: bytes) -> int:
    """A pseudonym as the stores' columns have it: its 16 bytes as a little-endian UInt128."""
    return int.from_bytes(pseudonym, "little")


def from_number(number: int) -> bytes:
    """The pseudonym of a number that a store gave."""
    return int(number).to_bytes(PSEUDONYM_BYTES, "little")


def blind_index(key: bytes, tenant: str, canonical: str) -> bytes:
    """16 bytes by which the identity store finds a recipient: HMAC-SHA-256 over encode(tenant, canonical), cut.

    The same recipient of two tenants has two. Whoever holds the key can confirm a guess: it stays with the identity
    store's own login, and never goes to analytics.
    """
    return mac(keyed(key), encode(tenant.encode(), canonical.encode()))[:16]


def visitor_seed(secret: bytes, canonical: str) -> bytes:
    """16 bytes: SipHash-2-4 (128 bits) of the canonical recipient, keyed with the first half of the mailing's secret.

    Lives as long as one insert. What is stored comes from it once more, by cell.
    """
    return siphash(secret[:KEY_BYTES], canonical.encode(), wide=True)


def visitor_seeds(secrets: Sequence[bytes], which: Ints, names: Messages) -> Words:
    """`visitor_seed` of each of `names` under `secrets[which[i]]`: its two halves as little-endian words, uint64[n, 2].

    Raises ValueError when a secret is shorter than 16 bytes.
    """
    return siphash_column(_words(secrets)[which], names, wide=True)


def _words(keys: Sequence[bytes]) -> Words:
    if any(len(key) < KEY_BYTES for key in keys):
        raise ValueError(f"a SipHash key has {KEY_BYTES} bytes")
    return np.frombuffer(b"".join(key[:KEY_BYTES] for key in keys), "<u8").astype(np.uint64).reshape(-1, 2)


def event_hash(key: bytes, tenant: str, event_id: str) -> int:
    """64 bits by which an event id is remembered: SipHash-2-4 of the id under a key of the tenant's; little-endian.

    The tenant's key is BLAKE2b of its name, keyed, 16 bytes. Never 0, which marks no event in a column: then it is 1.
    """
    return int.from_bytes(siphash(_event_key(key, tenant), event_id.encode()), "little") or 1


def _event_key(key: bytes, tenant: str) -> bytes:
    return blake2b(tenant.encode(), key=key, digest_size=KEY_BYTES).digest()


def event_hashes(key: bytes, tenants: Sequence[str], which: Ints, ids: Messages) -> Words:
    """`event_hash` of each of `ids`, of the tenant `tenants[which[i]]`. uint64[n]."""
    found = siphash_column(_words([_event_key(key, tenant) for tenant in tenants])[which], ids)
    found[found == 0] = 1
    return found


STUB_PREFIX = b"\0"
"""A stub's key begins with it; no recipient's does, since no tenant's name has a control character."""


def stubs(key: bytes, names: Sequence[bytes]) -> list[bytes]:
    """The key of the stub of each erased recipient: a zero byte and 32 hex digits.

    SipHash-2-4 (128 bits) of the message key (tenant, separator, canonical recipient), keyed with the first half of the
    stub key. It outlives the day, and yet is no HMAC: everybody unknown is looked for under it, on the path of events
    (docs/decisions/0010). Whoever has the key can confirm a guess; without it, nobody can.
    """
    words = siphash_column(np.tile(_words([key]), (len(names), 1)), Messages.of(list(names)), wide=True)
    digits = np.ascontiguousarray(words.astype("<u8")).tobytes().hex().encode()
    return [STUB_PREFIX + digits[at : at + 32] for at in range(0, len(digits), 32)]
