"""Duties: one's trouble is not the others', and a fault ends the process."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from typing import Any

import pytest

from streams.duties import Duty, Service
from streams.errors import BrokerError, SettingsError, StoreUnavailable

GIVEN = object()


async def _serve(*table: Duty[object]) -> int:
    return await Service("service", GIVEN, table).run()


def test_who_waits_is_tried_again_later_each_time_while_the_others_go_on() -> None:
    calls: Counter[str] = Counter()
    closed: list[str] = []

    def away(_: Any) -> int:
        calls["away"] += 1
        raise StoreUnavailable("not there") if calls["away"] % 2 else BrokerError("not there either")

    async def quick(given: Any) -> int:
        assert given is GIVEN
        calls["quick"] += 1
        if calls["quick"] == 300:
            os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(0.002)
        return 1

    async def close() -> None:
        closed.append("quick")

    resting = Duty("resting", 3600, lambda _: calls.update(["resting"]) or 0)
    assert asyncio.run(_serve(Duty("away", 0, away), Duty("quick", 3600, quick, close), resting)) == 0
    assert calls["resting"] == 1
    assert 3 <= calls["away"] <= 6  # after 0.1, 0.3, 0.7, 1.5 s
    assert closed == ["quick"]


@pytest.mark.parametrize("error", [SettingsError("wrong"), ValueError("a fault")])
def test_any_other_error_ends_it(error: Exception) -> None:
    def fails(_: Any) -> int:
        raise error

    assert asyncio.run(_serve(Duty("fails", 0, fails))) == 1
