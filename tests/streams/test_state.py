"""The index of states: the highest version wins, and what the topic says worse than that is noticed."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pseudonymizer.consent import ALWAYS, Consent, Mode, Salt
from pseudonymizer.pseudonyms import stubs
from streams.errors import BadRow
from streams.messages import state_version
from streams.state import StateIndex
from tests.claims import NOW, Fetched, state

KEY = b"acme\x1ferika@example.com"
GRANTED = Consent(Mode.PSEUDONYMOUS, (ALWAYS, 10, None), 10, (Salt(Mode.PSEUDONYMOUS, 10, b"s" * 16, 1),))
WITHDRAWN = Consent(Mode.OFF, (None, None, None), 20)
GRANT, WITHDRAWAL = (state(n, {"engagement": {"open": c}}) for n, c in ((5, GRANTED), (6, WITHDRAWN)))


def mode(index: StateIndex) -> Mode:
    known = index.state(KEY)
    assert known
    return known.purposes["engagement"]["open"].mode


def test_nobody_is_known_at_first() -> None:
    index = StateIndex()
    assert (index.raw(KEY), index.state(KEY), index.highest, len(index)) == (None, None, (0, -1), 0)


def test_a_stalled_worker_does_not_turn_its_own_index_back() -> None:
    """It sent a grant; while it slept, another one carried out the withdrawal, which its tail has read meanwhile."""
    index = StateIndex()
    index.apply([Fetched(1, WITHDRAWAL, KEY)])
    index.put(KEY, GRANT)
    assert mode(index) is Mode.OFF
    assert index.stale == [KEY], "the topic's last word is now the older one: it has to be written again"
    index.stale.clear()
    index.apply([Fetched(2, GRANT, KEY)])  # and so it comes back from the topic
    assert mode(index) is Mode.OFF
    assert index.stale == [KEY]
    assert index.highest == (1, 6)


def test_an_older_record_of_the_topic_is_stale_and_a_newer_one_wins() -> None:
    index = StateIndex()
    index.put(KEY, GRANT)
    index.apply([Fetched(0, GRANT, KEY)])
    assert index.stale == [], "its own record, come back"
    index.apply([Fetched(1, WITHDRAWAL, KEY)])
    assert (mode(index), index.stale) == (Mode.OFF, [])
    index.apply([Fetched(2, GRANT, KEY)])
    assert (mode(index), index.stale) == (Mode.OFF, [KEY])


def test_what_cannot_be_a_state_changes_nothing() -> None:
    index = StateIndex()
    index.put(KEY, GRANT)
    index.apply([Fetched(0, None, KEY), Fetched(1, WITHDRAWAL, None), Fetched(2, b"{}", KEY), Fetched(3, b"", KEY)])
    assert (mode(index), index.highest) == (Mode.PSEUDONYMOUS, (1, 5))
    assert index.stale == [KEY], "a tombstone that no stub stands for: the state has to be written again"


def test_a_state_of_a_newer_release_is_known_but_cannot_be_read() -> None:
    """Unknown would mean anonymous: never guessed."""
    index = StateIndex()
    index.apply([Fetched(0, b'{"version":[1,9],"purposes":{"engagement":{"open":[9]}}}', KEY)])
    assert index.highest == (1, 9)
    with pytest.raises(BadRow):
        index.state(KEY)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 2), st.integers(1, 2), st.integers(0, 9)), max_size=30))
def test_in_any_order_the_highest_version_wins(writes: list[tuple[bool, int, int, int]]) -> None:
    """Two incarnations, three recipients, records of the topic and states written here, mixed."""
    index, best = StateIndex(), dict[bytes, tuple[int, int]]()
    for is_ours, who, incarnation, offset in writes:
        key, value = b"%d" % who, state(offset, {}, incarnation)
        late = best.get(key, (0, -1)) > (incarnation, offset)
        if is_ours:
            index.put(key, value)
        else:
            index.apply([Fetched(0, value, key)])
        assert (index.stale == [key]) == late
        index.stale.clear()
        best[key] = max(best.get(key, (0, -1)), (incarnation, offset))
        assert {k: state_version(raw) for k in best if (raw := index.raw(k))} == best
        assert index.highest == max(best.values())


# --- who was erased ---


def stub_keys(keys: Sequence[bytes]) -> list[bytes]:
    return stubs(b"k" * 32, keys)


(STUB,) = stub_keys([KEY])
ERASED = state(7, {"*": {"open": Consent(Mode.OFF, (None, None, None), NOW)}})
AGAIN = state(9, {"engagement": {"open": Consent(Mode.ANONYMOUS, (ALWAYS, None, None), NOW)}})


@given(st.permutations([(KEY, GRANT), (KEY, WITHDRAWAL), (STUB, ERASED), (KEY, None)]), st.booleans())
def test_who_was_erased_stays_so_in_whatever_order_her_records_come(
    writes: list[tuple[bytes, bytes | None]], at_once: bool
) -> None:
    """A stalled worker writes a state of before; a tombstone comes before its stub: the stub decides."""
    index, written = StateIndex(stub_keys), dict[bytes, bytes | None]()
    records = [Fetched(n, value, key) for n, (key, value) in enumerate(writes)]
    for run in [records] if at_once else [[record] for record in records]:
        index.apply(list(run))
    known = index.state(KEY)
    assert known
    assert known.purposes["*"]["open"].mode is Mode.OFF
    assert index.of_tenant("acme") == []
    index.look_for_superseded()
    for record in records:
        assert record.key
        written[record.key] = record.value
    for key in index.stale:
        written[key] = index.written(key)
    assert written == {KEY: None, STUB: ERASED}, "the topic's last word, after what is stale was written again"
    assert index.highest == (1, 7)

    index.put(KEY, AGAIN)
    known = index.state(KEY)
    assert known
    assert known.version == (1, 9)
    assert index.written(KEY) == AGAIN
    index.stale.clear()
    index.apply([Fetched(9, ERASED, STUB), Fetched(10, None, KEY)])  # of a stalled worker: she has granted anew since
    assert index.stale == [KEY]
    assert index.written(KEY) == AGAIN
