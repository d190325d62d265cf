"""States, as bytes that somebody else may have put on the topic: an unreadable one never leads to a row.

Nor does one that contradicts itself: nobody gets a row above the mode that the state names.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pseudonymizer.consent import ALWAYS, DEFAULT, Consent, Mode, Salt
from pseudonymizer.decisions import NEVER, thresholds
from streams.errors import BadRow
from streams.messages import decode_state, encode_state, state_version
from streams.state import StateIndex
from tests.claims import Fetched, state

WORDS = (
    "version",
    "purposes",
    "engagement",
    "open",
    "click",
    "null",
    str(ALWAYS),
    str(NEVER),
    "AAAAAAAAAAAAAAAAAAAAAA==",
)
KEY = b"acme\x1ferika@example.com"


def seeds() -> Iterator[bytes]:
    salts = (Salt(Mode.PSEUDONYMOUS, 5, b"a" * 16, 1), Salt(Mode.PERSONAL, 9, b"b" * 16, 2))
    both = Consent(Mode.PERSONAL, (ALWAYS, 5, 9), 9, salts)
    yield state(7, {"engagement": {"open": both, "click": DEFAULT}})
    yield state(7, {"advice": {"open": Consent(Mode.OFF, (None, None, None), 3)}})
    yield state(7, {})


def check(data: bytes) -> None:
    index = StateIndex()
    index.apply([Fetched(0, data, KEY)])
    try:
        read = decode_state(data)
    except BadRow as why:
        assert why.__cause__ is None
        return
    if index.raw(KEY) is not None:
        assert state_version(data) == read.version
    for kinds in read.purposes.values():
        for consent in kinds.values():
            for ceiling in Mode:
                allowed = thresholds(consent, ceiling)
                np.array([allowed.counts_from, *(begin for begin, _ in allowed.rows)], np.int64)  # as the worker does
                least = min(consent.mode, ceiling)
                assert (allowed.counts_from == NEVER) == (least is Mode.OFF)
                assert all(salt.level <= least for _, salt in allowed.rows)
                assert not allowed.rows or least >= Mode.PSEUDONYMOUS
                begins = [allowed.counts_from, *(begin for begin, _ in allowed.rows)]
                assert begins == sorted(begins)
    assert decode_state(encode_state(read)) == read
