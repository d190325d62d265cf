"""`schleuse rights`: one process that does what nobody should have to ask for twice.

Each duty (streams/duties.py) is a function of a module of its own, called with the desk.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from streams.duties import Duty, Service
from streams.errors import BrokerError
from streams.rights import closing, daily, retention
from streams.rights.desk import Desk
from streams.rights.export.requests import AccessRequests, are_answered
from streams.rights.export.sealed import expire_once

if TYPE_CHECKING:
    from streams.settings import Settings

ONCE_SECONDS = 60.0  # how long access requests may take to be answered, by whichever process
NAME = "rights service"


def duties() -> list[Duty[Desk]]:
    """The table, with fresh state: one line for each duty."""
    requests = AccessRequests()
    return [
        Duty("access requests", 0.5, requests.run_once, requests.close),
        Duty("exports whose time is over", 60.0, expire_once),
        Duty("mailings whose window is over", 30.0, closing.run_once),
        Duty("rows and mappings whose time is over", 3600.0, retention.run_once),
        Duty("counts of the day", 3600.0, daily.run_once),
    ]


def run(settings: Settings) -> int:
    """Run the service in this process until it is told to stop; the exit code. Raises SchleuseError before it began."""
    with Desk.open(settings, "service") as desk:
        return asyncio.run(_run(desk))


def once(settings: Settings) -> Mapping[str, int]:
    """Do every duty until none has anything to do; how many things each has done.

    The access requests that lay in Kafka are answered when it returns, by this process or by another. Raises
    SchleuseError; what was done stays done.
    """
    with Desk.open(settings, "service") as desk:
        return asyncio.run(_once(desk))


async def _run(desk: Desk) -> int:
    return await Service(NAME, desk, duties()).run()


async def _once(desk: Desk) -> Mapping[str, int]:
    until = time.monotonic() + ONCE_SECONDS

    def answered() -> bool:
        if are_answered(desk.settings):
            return True
        if time.monotonic() > until:
            raise BrokerError(f"access requests in Kafka were not answered within {ONCE_SECONDS:.0f} s")
        return False

    return await Service(NAME, desk, duties()).once(answered)
