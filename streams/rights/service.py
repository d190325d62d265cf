"""`schleuse rights`: one process that does what nobody should have to ask for twice.

Each duty (streams/duties.py) is a function of a module of its own, called with the desk.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from streams.duties import Duty, Service
from streams.rights import closing, retention
from streams.rights.desk import Desk
from streams.rights.export.requests import AccessRequests
from streams.rights.export.sealed import expire_once

if TYPE_CHECKING:
    from streams.settings import Settings


def duties() -> list[Duty[Desk]]:
    """The table, with fresh state: one line for each duty."""
    requests = AccessRequests()
    return [
        Duty("access requests", 0.5, requests.run_once, requests.close),
        Duty("exports whose time is over", 60.0, expire_once),
        Duty("mailings whose window is over", 30.0, closing.run_once),
        Duty("rows and mappings whose time is over", 3600.0, retention.run_once),
    ]


def run(settings: Settings) -> int:
    """Run the service in this process until it is told to stop; the exit code. Raises SchleuseError before it began."""
    with Desk.open(settings, "service") as desk:
        return asyncio.run(_run(desk))


async def _run(desk: Desk) -> int:
    return await Service("rights service", desk, duties()).run()
