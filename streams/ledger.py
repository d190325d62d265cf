"""What the identity store holds of a person in words, sealed: the recipient of a mapping, and the proof of a consent.

The files of the store without the key ring tell nothing: neither who it is nor, by its length, who it could be. A proof
is the sender's own text and may hold an address ("confirmed by erika@example.com"), so it lies sealed too, under a key
of its tenant. Values that releases before 0012 wrote (docs/decisions) are read as they are: mappings without padding,
proofs in plain JSON.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

import orjson

from pseudonymizer.sealing import NONCE_BYTES, open_text, seal_text

if TYPE_CHECKING:
    from collections.abc import Mapping

_SEALED = b"\1"  # JSON never begins with it


def seal_recipient(data_key: bytes, canonical: str, pseudonym: bytes) -> bytes:
    """`recipients.sealed`: under her own data key, in the place that the pseudonym names."""
    return seal_text(data_key, canonical, pseudonym, secrets.token_bytes(NONCE_BYTES))


def open_recipient(data_key: bytes, sealed: bytes, pseudonym: bytes) -> str:
    """The canonical recipient of a mapping. Raises SealBroken."""
    return open_text(data_key, sealed, pseudonym)


def proof_text(proof: Mapping[str, Any] | None) -> str:
    """A proof as the ledger keeps it, before it is sealed; empty without one."""
    return orjson.dumps(proof).decode() if proof else ""


def seal_proof(key: bytes, text: str, preference_id: str) -> bytes:
    """`consents.proof`: under the tenant's key for proofs, in the place of its preference."""
    return _SEALED + seal_text(key, text, _place(preference_id), secrets.token_bytes(NONCE_BYTES))


def open_proof(key: bytes, stored: bytes, preference_id: str) -> dict[str, Any] | None:
    """The proof of a row of the ledger; None: there was none. Raises SealBroken."""
    if not stored:
        return None
    plain = stored if stored[:1] != _SEALED else open_text(key, stored[1:], _place(preference_id))
    proof: dict[str, Any] = orjson.loads(plain)
    return proof


def _place(preference_id: str) -> bytes:
    return b"schleuse/proof/" + preference_id.encode()
