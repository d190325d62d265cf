"""HMAC by RFC 4231, columns that agree with single values, and no key in any repr."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pseudonymizer.pseudonyms import (
    Pseudonymizer,
    _not_zero,
    blind_index,
    event_hash,
    event_hashes,
    keyed,
    mac,
    visitor_seed,
    visitor_seeds,
)
from pseudonymizer.siphash import Messages

LARGER = b"Test Using Larger Than Block-Size Key - Hash Key First"
LARGEST = (
    b"This is a test using a larger than block-size key and a larger than block-size data. The key needs to be hashed "
    b"before being used by the HMAC algorithm."
)
# RFC 4231, test cases 1 to 7 (the fifth is cut to 16 bytes): key, data, HMAC-SHA-256.
RFC_4231 = [
    (b"\x0b" * 20, b"Hi There", "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"),
    (b"Jefe", b"what do ya want for nothing?", "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"),
    (b"\xaa" * 20, b"\xdd" * 50, "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe"),
    (bytes(range(1, 26)), b"\xcd" * 50, "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b"),
    (b"\x0c" * 20, b"Test With Truncation", "a3b6167473100ee06e0c796c2955552b"),
    (b"\xaa" * 131, LARGER, "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"),
    (b"\xaa" * 131, LARGEST, "9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2"),
]


@pytest.mark.parametrize(("key", "data", "expected"), RFC_4231)
def test_hmac_is_that_of_rfc_4231_however_often_its_state_is_used(key: bytes, data: bytes, expected: str) -> None:
    state = keyed(key)
    for _ in range(2):
        assert mac(state, data)[: len(expected) // 2].hex() == expected


def test_a_pseudonym_depends_on_key_salt_and_recipient_alone() -> None:
    one, other = Pseudonymizer(b"k" * 32), Pseudonymizer(b"l" * 32)
    salt, new_salt = b"s" * 16, b"t" * 16
    found = one.pseudonym(salt, "erika@example.com")
    assert len(found) == 16
    assert found == one.pseudonym(salt, "erika@example.com")
    assert len({found, *(p.pseudonym(s, r) for p, s, r in [
        (one, new_salt, "erika@example.com"), (other, salt, "erika@example.com"), (one, salt, "max@example.com"),
    ])}) == 4  # fmt: skip
    for wrong in (b"", b"s" * 15, b"s" * 17):
        with pytest.raises(ValueError, match="16 bytes"):
            one.pseudonym(wrong, "erika@example.com")
    with pytest.raises(ValueError, match="32 bytes"):
        Pseudonymizer(b"short")


def test_a_pseudonym_is_never_the_zeros_that_mark_none() -> None:
    assert _not_zero(bytes(16) + b"\x01" * 16) == b"\x01" * 16
    assert _not_zero(b"\x00" * 15 + b"\x02" + b"\x01" * 16) == b"\x00" * 15 + b"\x02"


def test_no_repr_of_what_holds_a_key_shows_it() -> None:
    shown = repr(Pseudonymizer(b"kkkkkkkk" * 4)) + str(Pseudonymizer(b"kkkkkkkk" * 4))
    assert "kk" not in shown
    assert b"kk".hex() not in shown


@given(
    st.lists(st.tuples(st.integers(0, 2), st.text(max_size=40)), max_size=12),
    st.lists(st.binary(min_size=32, max_size=32), min_size=3, max_size=3),
)
def test_columns_agree_with_single_values(pairs: list[tuple[int, str]], keys: list[bytes]) -> None:
    tenants, which = ["acme", "müller", "globex"], np.array([index for index, _ in pairs], np.int64)
    texts = Messages.of([text.encode() for _, text in pairs])
    hashes = event_hashes(keys[0], tenants, which, texts)
    assert hashes.dtype == np.uint64
    assert hashes.tolist() == [event_hash(keys[0], tenants[index], text) for index, text in pairs]
    seeds = visitor_seeds(keys, which, texts)
    assert seeds.tobytes() == b"".join(visitor_seed(keys[index], text) for index, text in pairs)


def test_two_tenants_and_two_recipients_have_two_hashes() -> None:
    key = b"k" * 32
    assert event_hash(key, "ab", "c") != event_hash(key, "a", "bc")
    assert event_hash(key, "a", "c") != event_hash(key, "b", "c")
    assert blind_index(key, "ab", "c") != blind_index(key, "a", "bc")


def test_a_hash_of_zero_becomes_one(monkeypatch: pytest.MonkeyPatch) -> None:
    # No input is known that hashes to zero.
    monkeypatch.setattr("pseudonymizer.pseudonyms.siphash", lambda *_: bytes(8))
    monkeypatch.setattr("pseudonymizer.pseudonyms.siphash_column", lambda *_: np.zeros(1, np.uint64))
    assert event_hash(b"k" * 32, "acme", "1") == 1
    assert event_hashes(b"k" * 32, ["acme"], np.zeros(1, np.int64), Messages.of([b"1"])).tolist() == [1]


def test_a_key_that_is_too_short_is_refused() -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        visitor_seed(b"short", "erika@example.com")
    with pytest.raises(ValueError, match="16 bytes"):
        visitor_seeds([b"short"], np.zeros(1, np.int64), Messages.of([b"erika@example.com"]))
