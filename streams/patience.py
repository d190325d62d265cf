"""Waiting for a store or a broker that cannot for now, and saying so."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

import structlog

from streams.errors import BrokerError, StoreUnavailable

T = TypeVar("T")
log = structlog.get_logger("schleuse.patience")

FIRST_SECONDS, LONGEST_SECONDS = 0.1, 10.0


@dataclass
class Waits:
    """What is being waited for now, for `status`: a sentence -> since when (epoch seconds), and how often ever."""

    now: dict[str, float] = field(default_factory=dict)
    total: int = 0


async def patiently(attempt: Callable[[], Awaitable[T]], waits: Waits) -> T:
    """Make `attempt` until it does not fail with StoreUnavailable or BrokerError; any other error goes through.

    The attempt must be one that may be made twice. Waits 0.1 s, then twice as long each time, up to 10 s, for ever.
    """
    pause = FIRST_SECONDS
    sentence = ""
    try:
        while True:
            try:
                return await attempt()
            except (StoreUnavailable, BrokerError) as error:
                if str(error) != sentence:
                    waits.now.pop(sentence, None)
                    sentence = str(error)
                    waits.now.setdefault(sentence, time.time())
                    log.warning("waiting", reason=sentence)
                waits.total += 1
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_SECONDS)
    finally:
        if sentence:
            waits.now.pop(sentence, None)
