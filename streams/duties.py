"""A process that does its duties until it is told to stop: `schleuse rights`, `schleuse publish`.

Its duties are a table. Each is a function, `run_once(given) -> int`: how many things it has done, 0 where there was
nothing to do. They are called one after the other, never two at once, and each

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
from typing import Generic, TypeVar

import structlog

from streams.errors import BrokerError, SchleuseError, StoreLate, StoreUnavailable
from streams.patience import FIRST_SECONDS, LONGEST_SECONDS

log = structlog.get_logger("schleuse.duties")

DRAIN_SECONDS = 25.0  # how long a duty may take to end after SIGTERM
LOOK_SECONDS = 1.0
T = TypeVar("T")


@dataclass(slots=True)
class Duty(Generic[T]):
    """One line of the table: what is done, and how long to rest after there was nothing to do."""

    name: str
    rest_seconds: float
    run_once: Callable[[T], int | Awaitable[int]]
    close: Callable[[], Awaitable[None]] | None = None
    """Called once at the end, where something was opened."""
    due: float = field(default=0.0, repr=False)
    pause: float = field(default=FIRST_SECONDS, repr=False)


class Service(Generic[T]):
    """Does its duties until it is told to stop. Made and run in one event loop, in the main thread."""

    def __init__(self, name: str, given: T, table: Sequence[Duty[T]]) -> None:
        """`name`: what the log calls the process. `given`: what every duty is called with, by one thread at a time."""
        self._name, self._given, self._table = name, given, table
        self._thread = ThreadPoolExecutor(1, "duty")
        self._stopping = asyncio.Event()

    async def run(self) -> int:
        """Run until SIGTERM, SIGINT or a failure; the exit code."""
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._stopping.set)
        log.info(f"{self._name} runs", duties=[duty.name for duty in self._table])
        working = asyncio.create_task(self._work())
        stopping = asyncio.create_task(self._stopping.wait())
        await asyncio.wait([working, stopping], return_when=asyncio.FIRST_COMPLETED)
        self._stopping.set()
        done, _ = await asyncio.wait([working], timeout=DRAIN_SECONDS)
        if not done:  # a thread cannot be cancelled; whatever it is at can be done again
            log.error(f"{self._name} cannot stop: a duty does not end")
            os._exit(1)
        await self._close()
        error = working.exception()
        if error is None:
            log.info(f"{self._name} stopped")
            return 0
        if isinstance(error, SchleuseError):
            log.error(f"{self._name} ends", reason=str(error))
        else:
            log.error(f"{self._name} ends by a fault of its own", error=type(error).__name__, exc_info=error)
        return 1

    async def once(self, is_done: Callable[[], bool] = lambda: True) -> dict[str, int]:
        """Do every duty, again and again, until none has anything to do and `is_done` (in a thread) agrees; how many
        things each has done.

        In place of `run`. Raises whatever a duty raises; what was done stays done.
        """
        done = dict.fromkeys((duty.name for duty in self._table), 0)
        try:
            at_work = True
            while at_work or not await asyncio.to_thread(is_done):
                at_work = False
                for duty in self._table:
                    did = await self._call(duty)
                    done[duty.name] += did
                    at_work = at_work or bool(did)
            return done
        finally:
            await self._close()

    async def _close(self) -> None:
        for duty in self._table:
            if duty.close is not None:
                await duty.close()
        self._thread.shutdown()

    async def _work(self) -> None:
        while not self._stopping.is_set():
            for duty in self._table:
                if time.monotonic() >= duty.due and not self._stopping.is_set():
                    await self._do(duty)
            soonest = min((duty.due for duty in self._table), default=time.monotonic() + LOOK_SECONDS)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, min(soonest - time.monotonic(), LOOK_SECONDS))):
                    await self._stopping.wait()

    async def _do(self, duty: Duty[T]) -> None:
        try:
            did = await self._call(duty)
        except (StoreUnavailable, StoreLate, BrokerError) as error:
            log.warning("waiting", duty=duty.name, reason=str(error))
            duty.due = time.monotonic() + duty.pause
            duty.pause = min(2 * duty.pause, LONGEST_SECONDS)
            return
        if did:
            log.info("duty done", duty=duty.name, count=did)
        duty.pause = FIRST_SECONDS
        duty.due = time.monotonic() + (0.0 if did else duty.rest_seconds)

    async def _call(self, duty: Duty[T]) -> int:
        if asyncio.iscoroutinefunction(duty.run_once):
            did: int = await duty.run_once(self._given)
            return did
        found = await asyncio.get_running_loop().run_in_executor(self._thread, duty.run_once, self._given)
        assert isinstance(found, int)
        return found
