"""HKDF by RFC 5869, and derivations that cannot run into one another."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pseudonymizer.keys import encode, hkdf, purpose_key

# RFC 5869, appendix A.1 to A.3: key, salt, info, length, result.
RFC_5869 = [
    (
        "0b" * 22,
        "000102030405060708090a0b0c",
        "f0f1f2f3f4f5f6f7f8f9",
        42,
        "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865",
    ),
    (
        bytes(range(0x00, 0x50)).hex(),
        bytes(range(0x60, 0xB0)).hex(),
        bytes(range(0xB0, 0x100)).hex(),
        82,
        "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c59045a99cac7827271cb41c65e590e09"
        "da3275600c2f09b8367793a9aca3db71cc30c58179ec3e87c14c01d5c1f3434f1d87",
    ),
    (
        "0b" * 22,
        "",
        "",
        42,
        "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8",
    ),
]


@pytest.mark.parametrize(("key", "salt", "info", "length", "expected"), RFC_5869)
def test_hkdf_is_that_of_rfc_5869(key: str, salt: str, info: str, length: int, expected: str) -> None:
    found = hkdf(bytes.fromhex(key), bytes.fromhex(info), bytes.fromhex(salt), length)
    assert found.hex() == expected


parts = st.lists(st.binary(max_size=6), max_size=4)


@given(parts, parts)
def test_encodings_are_equal_only_if_their_parts_are(one: list[bytes], other: list[bytes]) -> None:
    assert (encode(*one) == encode(*other)) == (one == other)


def test_every_tenant_purpose_and_version_has_a_key_of_its_own() -> None:
    root = bytes(range(32))
    keys = [
        purpose_key(root, "acme", "engagement", 1),
        purpose_key(root, "acme", "engagement", 2),
        purpose_key(root, "acme", "scoring", 1),
        purpose_key(root, "acmee", "ngagement", 1),  # the same letters, cut elsewhere
        purpose_key(bytes(32), "acme", "engagement", 1),
    ]
    assert all(one != other for one, other in combinations(keys, 2))
    with pytest.raises(ValueError, match="32 bytes"):
        purpose_key(b"short", "acme", "engagement", 1)
