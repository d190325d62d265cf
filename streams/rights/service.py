"""`schleuse rights`: one process that does what nobody should have to ask for twice.

Its duties are a table (`duties`). Each is a function of a module of its own, `run_once(desk) -> int`: how many things
it has done, 0 where there was nothing to do. They are called one after the other, never two at once, and each

- may be called again at any time, after a kill at any instant too, and then goes on where it was;
- may run in several processes at the same time;
- returns soon: what has to be waited for (workers that carry something out) is looked at again next time;
- raises StoreUnavailable, StoreLate or BrokerError where something is away: it is tried again, later each time, and the
  other duties go on meanwhile. Every other error ends the process with 1, to be started again by whatever runs it.

A plain function runs in a thread; a coroutine function runs in the event loop and must not block it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog

from streams.errors import BrokerError, SchleuseError, StoreLate, StoreUnavailable
from streams.patience import FIRST_SECONDS, LONGEST_SECONDS
from streams.rights import closing, retention
from streams.rights.desk import Desk
from streams.rights.export.requests import AccessRequests
from streams.rights.export.sealed import expire_once

if TYPE_CHECKING:
    from streams.settings import Settings

log = structlog.get_logger("schleuse.rights")

DRAIN_SECONDS = 25.0  # how long a duty may take to end after SIGTERM
LOOK_SECONDS = 1.0


@dataclass(slots=True)
class Duty:
    """One line of the table: what is done, and how long to rest after there was nothing to do."""

    name: str
    rest_seconds: float
    run_once: Callable[[Desk], int | Awaitable[int]]
    close: Callable[[], Awaitable[None]] | None = None
    """Called once at the end, where something was opened."""
    due: float = field(default=0.0, repr=False)
    pause: float = field(default=FIRST_SECONDS, repr=False)


def duties() -> list[Duty]:
    """The table, with fresh state: one line for each duty."""
    requests = AccessRequests()
    return [
        Duty("access requests", 0.5, requests.run_once, requests.close),
        Duty("exports whose time is over", 60.0, expire_once),
        Duty("mailings whose window is over", 30.0, closing.run_once),
        Duty("rows and mappings whose time is over", 3600.0, retention.run_once),
    ]


class Service:
    """Does its duties until it is told to stop. Made and run in one event loop."""

    def __init__(self, desk: Desk, table: Sequence[Duty]) -> None:
        self._desk, self._table = desk, table
        self._thread = ThreadPoolExecutor(1, "duty")  # the desk is used by one thread at a time
        self._stopping = asyncio.Event()

    async def run(self) -> int:
        """Run until SIGTERM, SIGINT or a failure; the exit code."""
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._stopping.set)
        log.info("rights service runs", duties=[duty.name for duty in self._table])
        working = asyncio.create_task(self._work())
        stopping = asyncio.create_task(self._stopping.wait())
        await asyncio.wait([working, stopping], return_when=asyncio.FIRST_COMPLETED)
        self._stopping.set()
        done, _ = await asyncio.wait([working], timeout=DRAIN_SECONDS)
        if not done:  # a thread cannot be cancelled; whatever it is at can be done again
            log.error("rights service cannot stop: a duty does not end")
            os._exit(1)
        for duty in self._table:
            if duty.close is not None:
                await duty.close()
        self._thread.shutdown()
        error = working.exception()
        if error is None:
            log.info("rights service stopped")
            return 0
        if isinstance(error, SchleuseError):
            log.error("rights service ends", reason=str(error))
        else:
            log.error("rights service ends by a fault of its own", error=type(error).__name__, exc_info=error)
        return 1

    async def _work(self) -> None:
        while not self._stopping.is_set():
            for duty in self._table:
                if time.monotonic() >= duty.due and not self._stopping.is_set():
                    await self._do(duty)
            soonest = min((duty.due for duty in self._table), default=time.monotonic() + LOOK_SECONDS)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, min(soonest - time.monotonic(), LOOK_SECONDS))):
                    await self._stopping.wait()

    async def _do(self, duty: Duty) -> None:
        try:
            if asyncio.iscoroutinefunction(duty.run_once):
                did: int = await duty.run_once(self._desk)
            else:
                call = asyncio.get_running_loop().run_in_executor(self._thread, duty.run_once, self._desk)
                found = await call
                assert isinstance(found, int)
                did = found
        except (StoreUnavailable, StoreLate, BrokerError) as error:
            log.warning("waiting", duty=duty.name, reason=str(error))
            duty.due = time.monotonic() + duty.pause
            duty.pause = min(2 * duty.pause, LONGEST_SECONDS)
            return
        if did:
            log.info("duty done", duty=duty.name, count=did)
        duty.pause = FIRST_SECONDS
        duty.due = time.monotonic() + (0.0 if did else duty.rest_seconds)


def run(settings: Settings) -> int:
    """Run the service in this process until it is told to stop; the exit code. Raises SchleuseError before it began."""
    with Desk.open(settings, "service") as desk:
        return asyncio.run(_run(desk))


async def _run(desk: Desk) -> int:
    return await Service(desk, duties()).run()
