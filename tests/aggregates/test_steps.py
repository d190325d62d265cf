import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from aggregates.steps import HOUR_MS, HOURS, UNDECLARED, step_of

DAY = 24
SENT = 1_794_812_400_000


def test_the_forty_steps() -> None:
    """Hourly for a day, six-hourly to day 3, daily to day 7, then weekly to the closing after 30 days."""
    assert len(HOURS) == 40
    assert list(HOURS) == sorted(set(HOURS))
    gaps = np.diff((0, *HOURS))
    assert [(int(gap), int((gaps == gap).sum())) for gap in (1, 6, 24, 168, 48)] == [
        (1, 24),
        (6, 8),
        (24, 4),
        (168, 3),
        (48, 1),
    ]
    assert {DAY, 3 * DAY, 7 * DAY, 28 * DAY, 30 * DAY} <= set(HOURS)


def test_edges() -> None:
    after = np.array([0, HOUR_MS - 1, HOUR_MS, 24 * HOUR_MS - 1, 24 * HOUR_MS, 720 * HOUR_MS, 10_000 * HOUR_MS, -1])
    assert step_of(SENT + after, np.full(8, SENT)).tolist() == [0, 0, 1, 23, 24, 39, 39, 0]
    assert step_of(np.array([SENT]), np.array([UNDECLARED])).tolist() == [0]
    assert step_of(np.array([], np.int64), np.array([], np.int64)).dtype == np.uint8


@given(st.lists(st.tuples(st.integers(-(10**12), 10**13), st.integers(-1, 10**13)), max_size=20))
def test_the_first_step_whose_hour_lies_after_the_event(pairs: list[tuple[int, int]]) -> None:
    occurred, sent = (np.array([pair[side] for pair in pairs], np.int64) for side in (0, 1))
    for (at, begin), step in zip(pairs, step_of(occurred, sent).tolist(), strict=True):
        later = [index for index, hour in enumerate(HOURS) if begin + hour * HOUR_MS > at]
        assert step == (0 if begin == UNDECLARED else min(later, default=39))
