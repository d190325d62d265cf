"""Whether a partition stands still: a worker that thinks so ends, so it must not think so too early."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest

from streams.errors import LostLog
from streams.partition import Partition
from streams.settings import Settings
from streams.state import StateIndex
from streams.worker import STALLED_SECONDS, Standing, Worker


def test_only_a_partition_that_runs_and_has_been_here_for_so_long_stands_still(monkeypatch: pytest.MonkeyPatch) -> None:
    worker, standing, clock = Worker(Settings()), Standing(), [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    consumer: Any = SimpleNamespace(behind=lambda _: 700)  # the log has more, and nothing of it comes
    worker.app = SimpleNamespace(consumer=consumer)  # type: ignore[assignment]

    def look(later: float) -> None:
        clock[0] += later
        worker._measure(standing)

    def taken() -> Partition:
        worker.partitions[3] = partition = Partition(3, worker.resources, None, StateIndex())  # type: ignore[arg-type]
        return partition

    first = taken()
    look(0)
    look(10 * STALLED_SECONDS)  # it still loads
    first.progress.state = "running"
    look(1)
    look(STALLED_SECONDS - 1)
    again = taken()  # others had it meanwhile; at the same position
    again.progress.state = "running"
    look(STALLED_SECONDS)
    look(STALLED_SECONDS - 1)
    with pytest.raises(LostLog, match="moves no more"):
        look(2)
