"""SipHash against its authors' vectors, and the column form against the plain one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pseudonymizer.siphash import Messages, siphash, siphash_column

KEY = bytes(range(16))
# Aumasson and Bernstein, `vectors.h` of the reference implementation: the message is bytes 0, 1, 2 ... of a length.
NARROW = {
    0: "310e0edd47db6f72",
    1: "fd67dc93c539f874",
    7: "37d1018bf50002ab",
    8: "6224939a79f5f593",
    15: "e545be4961ca29a1",
}
WIDE = {0: "a3817f04ba25a8e66df67214c7550293", 1: "da87c1d86b99af44347659119b22fc45"}


@pytest.mark.parametrize(("wide", "vectors"), [(False, NARROW), (True, WIDE)])
def test_the_authors_vectors_hold(wide: bool, vectors: dict[int, str]) -> None:
    messages = [bytes(range(length)) for length in vectors]
    assert [siphash(KEY, message, wide).hex() for message in messages] == list(vectors.values())
    keys = np.tile(np.frombuffer(KEY, "<u8"), (len(messages), 1))
    column = siphash_column(keys, Messages.of(messages), wide)
    assert [row.tobytes().hex() for row in column] == list(vectors.values())


@given(st.lists(st.tuples(st.binary(min_size=16, max_size=16), st.binary(max_size=70)), max_size=40), st.booleans())
def test_the_column_form_agrees_with_the_plain_one(pairs: list[tuple[bytes, bytes]], wide: bool) -> None:
    keys = np.frombuffer(b"".join(key for key, _ in pairs), "<u8").reshape(-1, 2)
    column = siphash_column(keys, Messages.of([message for _, message in pairs]), wide)
    assert column.tobytes() == b"".join(siphash(key, message, wide) for key, message in pairs)


def test_more_than_a_block_of_any_lengths_and_a_column_cut_out_of_another() -> None:
    chance = np.random.default_rng(1)
    parts = [chance.bytes(int(length)) for length in chance.integers(0, 40, 20_000)]
    keys = chance.integers(0, 2**64, (len(parts), 2), np.uint64)
    whole = Messages.of(parts)
    tails = Messages(whole.data, whole.starts + np.minimum(whole.lengths, 3), np.maximum(whole.lengths - 3, 0))
    column, cut = siphash_column(keys, whole), siphash_column(keys, tails)
    for row in chance.integers(0, len(parts), 300).tolist():
        assert column[row].tobytes() == siphash(keys[row].tobytes(), parts[row])
        assert cut[row].tobytes() == siphash(keys[row].tobytes(), parts[row][3:])


def test_a_key_has_16_bytes() -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        siphash(b"k" * 15, b"")
