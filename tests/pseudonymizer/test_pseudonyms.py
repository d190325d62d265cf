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


@given(st.lists(st.tuples(st.text(max_size=3), st.text(max_size=8)), max_size=8), st.binary(min_size=32, max_size=32))
def test_columns_agree_with_single_values(pairs: list[tuple[str, str]], key: bytes) -> None:
    tenants, ids = [tenant for tenant, _ in pairs], [event_id for _, event_id in pairs]
    hashes = event_hashes(key, tenants, ids)
    assert hashes.dtype == np.uint64
    assert hashes.flags.writeable
    assert hashes.tolist() == [event_hash(key, tenant, event_id) for tenant, event_id in pairs]
    assert visitor_seeds(key, ids) == b"".join(visitor_seed(key, name) for name in ids)


def test_tenant_and_event_id_do_not_run_into_one_another() -> None:
    key = b"k" * 32
    assert event_hash(key, "ab", "c") != event_hash(key, "a", "bc")
    assert blind_index(key, "ab", "c") != blind_index(key, "a", "bc")
    with pytest.raises(ValueError, match="zip"):
        event_hashes(key, ["acme"], [])


def test_a_hash_of_zero_becomes_one(monkeypatch: pytest.MonkeyPatch) -> None:
    class Zero:
        def __init__(self, *_: object, **__: object) -> None: ...

        def copy(self) -> Zero:
            return self

        def update(self, _: bytes) -> None: ...

        def digest(self) -> bytes:
            return bytes(8)

    monkeypatch.setattr("pseudonymizer.pseudonyms.blake2b", Zero)  # no input is known that hashes to zero
    assert event_hash(b"k", "acme", "1") == 1
    assert event_hashes(b"k", ["acme"], ["1"]).tolist() == [1]
