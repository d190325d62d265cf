"""Whether a partition stands still: a worker that thinks so ends, so it must not think so too early."""

from __future__ import annotations

from streams.worker import Standing


def test_a_partition_that_comes_back_has_not_stood_still_while_others_had_it() -> None:
    standing, first, again = Standing(), object(), object()
    assert standing.seconds(3, first, 500, now=10.0) == 0
    assert standing.seconds(3, first, 500, now=40.0) == 30
    assert standing.seconds(3, again, 500, now=110.0) == 0, "taken anew, at the same position"
    assert standing.seconds(3, again, 500, now=175.0) == 65
    assert standing.seconds(3, again, 501, now=180.0) == 0, "it moved"
    assert standing.seconds(4, again, 501, now=300.0) == 0, "another one"
