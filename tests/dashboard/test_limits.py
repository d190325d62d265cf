"""A bucket gives what it holds, then one at a time."""

from streams.dashboard.limits import Limits


def test_so_many_at_once_then_so_many_a_minute() -> None:
    now = [0.0]
    limits = Limits(60, 3, lambda: now[0])
    assert [limits.wait("a") for _ in range(3)] == [0.0, 0.0, 0.0]
    assert limits.wait("a") == 1.0
    assert limits.wait("b") == 0.0
    now[0] = 1.0
    assert (limits.wait("a"), limits.wait("a")) == (0.0, 1.0)
    now[0] = 1000.0
    assert [limits.wait("a") for _ in range(4)] == [0.0, 0.0, 0.0, 1.0]
