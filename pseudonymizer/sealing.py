"""Sealing with AES-256-GCM (NIST SP 800-38D): nonce, then ciphertext and tag, as one piece of bytes.

What a sealed piece belongs to goes in as additional data, so that it cannot be moved somewhere else and still open.

GCM shows how long the plaintext is, and the length of an address tells much of who it is: texts about people are padded
to a few fixed sizes first (`seal_text`).
"""

from __future__ import annotations

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

NONCE_BYTES = 12
_KEY_BYTES = 32
_TAG_BYTES = 16


class SealBroken(Exception):
    """A sealed piece does not open: another key, other additional data, or changed bytes. It cannot be told which."""


def seal(key: bytes, plaintext: bytes, aad: bytes, nonce: bytes) -> bytes:
    """nonce || ciphertext || tag: 28 bytes longer than the plaintext, whose length can be seen (`seal_text` hides it).

    `nonce`: 12 bytes that have never been used with this key and never will be; with the same one twice both pieces are
    readable. It is an argument because nothing here draws randomness. Raises ValueError on a wrong length.
    """
    if len(nonce) != NONCE_BYTES:
        raise ValueError(f"a nonce has {NONCE_BYTES} bytes")
    return nonce + _cipher(key).encrypt(nonce, plaintext, aad)


def open_sealed(key: bytes, sealed: bytes, aad: bytes) -> bytes:
    """The plaintext of `seal`. Raises SealBroken when it is not whole, and ValueError when the key is not 32 bytes."""
    cipher = _cipher(key)
    if len(sealed) < NONCE_BYTES + _TAG_BYTES:
        raise SealBroken("too short to be sealed")
    try:
        return cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], aad)
    except InvalidTag:
        raise SealBroken("it does not open with this key in this place") from None


def seal_text(key: bytes, text: str, aad: bytes, nonce: bytes) -> bytes:
    """`seal` of a text whose length must not be seen: it is padded to 256, 1,024, 4,096, … bytes, the least that fit.

    Every address that mail can be delivered to (254 characters, RFC 5321) fits into the first size, unless it has many
    characters outside ASCII. A caller may NOT assume that nothing is told of longer texts: of those the size is.
    """
    return seal(key, _padded(text.encode()), aad, nonce)


def open_text(key: bytes, sealed: bytes, aad: bytes) -> str:
    """The text of `seal_text`, or of `seal` where an earlier release sealed it without padding. Raises SealBroken."""
    text, _, _ = open_sealed(key, sealed, aad).partition(_END)
    return text.decode()


_END = b"\xff"  # a byte that no UTF-8 has: so what was sealed without padding is told from what was padded
_LEAST_BYTES = 256


def _padded(text: bytes) -> bytes:
    size = _LEAST_BYTES
    while size < len(text) + 1:
        size *= 4
    return (text + _END).ljust(size, b"\0")


def _cipher(key: bytes) -> AESGCM:
    if len(key) != _KEY_BYTES:
        raise ValueError(f"a key has {_KEY_BYTES} bytes")
    return AESGCM(key)
