"""Waiting for a store or a broker that cannot for now, and saying so."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

import structlog

from streams.errors import BrokerError, StoreUnavailable
from streams.stores import unanswered

T = TypeVar("T")
log = structlog.get_logger("schleuse.patience")

FIRST_SECONDS, LONGEST_SECONDS = 0.1, 10.0
SLOW_SECONDS = 2.0  # a store that takes longer is said to be waited for


@dataclass
class Waits:
    """What is being waited for, for `status`: what failed last and is tried again, and how often that was ever."""

    failing: dict[object, tuple[str, float]] = field(default_factory=dict)  # one entry an attempt that is tried again
    total: int = 0

    @property
    def now(self) -> dict[str, float]:
        """A sentence -> since when (epoch seconds): what failed, and the stores that this process finds slow."""
        found = unanswered(SLOW_SECONDS)
        for sentence, since in self.failing.values():
            found[sentence] = min(since, found.get(sentence, since))
        return found


async def patiently(attempt: Callable[[], Awaitable[T]], waits: Waits) -> T:
    """Make `attempt` until it does not fail with StoreUnavailable or BrokerError; any other error goes through.

    The attempt must be one that may be made twice. Waits 0.1 s, then twice as long each time, up to 10 s, for ever.
    """
    pause = FIRST_SECONDS
    me, sentence = object(), ""
    try:
        while True:
            try:
                return await attempt()
            except (StoreUnavailable, BrokerError) as error:
                if str(error) != sentence:
                    sentence = str(error)
                    waits.failing[me] = (sentence, time.time())
                    log.warning("waiting", reason=sentence)
                waits.total += 1
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_SECONDS)
    finally:
        waits.failing.pop(me, None)
