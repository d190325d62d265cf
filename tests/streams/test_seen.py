"""The memory of event hashes against a dict that forgets nothing, and what it costs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.seen import Seen


class Reference:
    """The rule, one event at a time."""

    def __init__(self) -> None:
        self.remembered: dict[int, int] = {}
        self.clock = -(10**9)

    def add(self, event: int, hour: int) -> tuple[bool, int]:
        effective = max(self.clock, hour)
        if event in self.remembered and effective - self.remembered[event] <= 24:
            return False, effective
        self.remembered[event] = self.clock = effective
        return True, effective

    def live(self) -> int:
        return sum(self.clock - hour <= 24 for hour in self.remembered.values())


def columns(batch: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([event for event, _ in batch], np.uint64), np.array([hour for _, hour in batch], np.int64)


# Few hashes, so that they meet; 0 and 1 are as good as any. Hours run on, stand still, leap and run backwards.
events = st.integers(0, 12) | st.integers(0, 2**64 - 1)
steps = st.sampled_from([0, 0, 0, 0, 0, 1, 1, 2, 12, 23, 24, 25, 26, 250, 70_000, -1, -5, -24, -25, -30, -300])
batches = st.lists(st.lists(st.tuples(events, steps), max_size=30), max_size=12)


def with_hours(batches: list[list[tuple[int, int]]]) -> list[list[tuple[int, int]]]:
    hour, result = 490_000, []
    for batch in batches:
        result.append([(event, hour := hour + step) for event, step in batch])
    return result


@given(batches)
@settings(max_examples=300, deadline=None)
def test_agrees_with_a_memory_that_forgets_nothing(raw: list[list[tuple[int, int]]]) -> None:
    seen, reference = Seen(), Reference()
    kept: list[tuple[int, int]] = []
    for batch in with_hours(raw):
        expected = [reference.add(*pair) for pair in batch]
        hashes, hours = columns(batch)
        new, look = seen.look(hashes, hours)
        again, look = seen.look(hashes, hours)  # a batch that is rebuilt finds what its first attempt found
        assert new.tolist() == again.tolist() == [is_new for is_new, _ in expected]
        assert look.hours.tolist() == [hour for _, hour in expected]
        seen.commit(look)
        assert len(seen) == reference.live()
        kept += zip(hashes[new].tolist(), look.hours[new].tolist(), strict=True)
        # A memory loaded from what the store was given, in any order, goes on as the one that gave it.
        reloaded = Seen()
        reloaded.load(*columns(kept[::-2]))
        reloaded.load(*columns(kept[-2::-2]))
        assert (len(reloaded), reloaded.clock) == (len(seen), seen.clock)
        seen = reloaded if len(kept) % 2 else seen


@given(st.integers(0, 2**32))
@settings(max_examples=15, deadline=None)
def test_agrees_through_growth_expiry_and_shrinking(seed: int) -> None:
    rng = np.random.default_rng(seed)
    seen, reference = Seen(), Reference()
    hour = 490_000
    for size in (3_000, 5, 4_000, 2_000, 10, 10, 3_000):
        hashes = rng.integers(0, 6_000, size).astype(np.uint64) * np.uint64(rng.choice([1, 2**32, 2**52 + 1]))
        hours = hour + (np.arange(size) > size // 2)
        expected = [reference.add(*pair)[0] for pair in zip(hashes.tolist(), hours.tolist(), strict=True)]
        assert seen.add(hashes, hours).tolist() == expected
        assert len(seen) == reference.live()
        hour += int(rng.choice([0, 1, 12, 23, 24, 40]))


def test_24_hours_are_remembered_and_25_are_not() -> None:
    one = np.array([7], np.uint64)
    for later, new in ((24, False), (25, True)):
        seen = Seen()
        assert seen.add(one, np.array([100])).all()
        assert seen.add(one, np.array([100 + later])).tolist() == [new]


def test_growing_drops_nothing_that_is_24_hours_old() -> None:
    for later, new in ((24, False), (25, True)):
        seen, old = Seen(), np.arange(600, dtype=np.uint64)
        seen.add(old, np.full(600, 100))
        small = seen.nbytes
        seen.add(np.arange(1_000, 6_000, dtype=np.uint64), np.full(5_000, 100 + later))
        assert seen.nbytes > small
        assert set(seen.add(old, np.full(600, 100)).tolist()) == {new}


def test_of_several_hours_in_the_store_the_latest_counts() -> None:
    seen, one = Seen(), np.array([7], np.uint64)
    for hours in ([99, 101, 100], [103], [98]):
        seen.load(np.full(len(hours), 7, np.uint64), np.array(hours))
        assert len(seen) == 1
    assert not seen.add(one, np.array([127])).any()
    assert seen.add(one, np.array([128])).all()


def test_a_duplicate_does_not_prolong_its_own_memory() -> None:
    seen, one = Seen(), np.array([7], np.uint64)
    new_at = [hour for hour in (0, 20, 24, 25, 49, 50) if seen.add(one, np.array([hour])).all()]
    assert new_at == [0, 25, 50]


def test_a_look_is_good_only_for_the_memory_it_looked_at() -> None:
    seen, hours = Seen(), np.array([100])
    _, stale = seen.look(np.array([1], np.uint64), hours)
    seen.add(np.array([2], np.uint64), hours)
    with pytest.raises(ValueError, match="has changed"):
        seen.commit(stale)


@pytest.mark.parametrize("events", [100_000, 1_000_000, 3_000_000])
def test_needs_at_most_24_bytes_an_event_at_any_fill(events: int) -> None:
    seen, rng, batch = Seen(), np.random.default_rng(1), max(events // 20, 20_000)
    for start in range(0, events, batch):
        hours = np.full(batch, 490_000 + 30 * start // events)
        assert seen.add(rng.integers(0, 2**64, batch, np.uint64), hours).all()
        assert seen.nbytes / len(seen) <= 24, len(seen)
    # A quiet day after a busy one: expiry gives the memory back.
    for hour in range(490_030, 490_090):
        seen.add(rng.integers(0, 2**64, batch // 10, np.uint64), np.full(batch // 10, hour))
        assert seen.nbytes / len(seen) <= 24, len(seen)
