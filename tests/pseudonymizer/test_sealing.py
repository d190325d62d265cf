"""AES-256-GCM: what is sealed opens in its place with its key, and in no other way."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pseudonymizer.sealing import SealBroken, open_sealed, open_text, seal, seal_text

KEY, NONCE = bytes(range(32)), bytes(range(12))


def test_it_is_aes_256_gcm() -> None:
    # NIST's GCM test case 16 (McGrew and Viega, appendix B): 256-bit key, 96-bit nonce, additional data.
    key = bytes.fromhex("feffe9928665731c6d6a8f9467308308" * 2)
    nonce = bytes.fromhex("cafebabefacedbaddecaf888")
    plaintext = bytes.fromhex(
        "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525"
        "b16aedf5aa0de657ba637b39"
    )
    aad = bytes.fromhex("feedfacedeadbeeffeedfacedeadbeefabaddad2")
    expected = (
        "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838"
        "c5f61e6393ba7a0abcc9f662"
        "76fc6ece0f4e1768cddf8853bb2d551b"
    )
    assert seal(key, plaintext, aad, nonce).hex() == nonce.hex() + expected


@given(st.binary(max_size=50), st.binary(max_size=10), st.integers(min_value=0), st.integers(1, 255))
def test_one_changed_byte_anywhere_breaks_the_seal(plaintext: bytes, aad: bytes, where: int, change: int) -> None:
    sealed = seal(KEY, plaintext, aad, NONCE)
    assert open_sealed(KEY, sealed, aad) == plaintext
    broken = bytearray(sealed)
    broken[where % len(sealed)] ^= change
    for key, piece, place in (
        (KEY, bytes(broken), aad),
        (KEY, sealed, aad + b"x"),
        (bytes(32), sealed, aad),
        (KEY, sealed[:-1], aad),
        (KEY, sealed[:20], aad),
        (KEY, b"", aad),
    ):
        with pytest.raises(SealBroken):
            open_sealed(key, piece, place)


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=2_000))
def test_a_sealed_text_opens_and_shows_no_length(text: str) -> None:
    sealed = seal_text(KEY, text, b"place", NONCE)
    assert open_text(KEY, sealed, b"place") == text
    assert len(sealed) - 28 in (256, 1_024, 4_096, 16_384)
    assert len(sealed) == 284 or len(text.encode()) > 255
    # What was sealed before there was padding still opens, to the letter.
    assert open_text(KEY, seal(KEY, text.encode(), b"place", NONCE), b"place") == text


def test_wrong_lengths_are_programming_errors() -> None:
    with pytest.raises(ValueError, match="nonce"):
        seal(KEY, b"", b"", b"short")
    for wrong in (b"k" * 16, b"k" * 24):  # AES-128 and AES-192 would do, silently
        with pytest.raises(ValueError, match="32 bytes"):
            seal(wrong, b"", b"", NONCE)
        with pytest.raises(ValueError, match="32 bytes"):
            open_sealed(wrong, bytes(40), b"")
