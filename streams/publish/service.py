"""`schleuse publish`: a process of its own (streams/duties.py) that publishes what is due, every half minute."""

from __future__ import annotations

import asyncio
from contextlib import closing
from typing import TYPE_CHECKING, Final

from streams.duties import Duty, Service
from streams.publish.publisher import Publisher

if TYPE_CHECKING:
    from streams.settings import Settings

EVERY_SECONDS: Final = 30.0


def once(settings: Settings) -> int:
    """Publish what is due now; how many mailings have new figures. Raises SchleuseError."""
    with closing(Publisher.open(settings)) as publisher:
        return publisher.run_once()


def run(settings: Settings) -> int:
    """Publish until SIGTERM or SIGINT; the exit code. Raises SchleuseError before it began. From the main thread
    only."""
    with closing(Publisher.open(settings)) as publisher:
        return asyncio.run(_run(publisher))


async def _run(publisher: Publisher) -> int:
    table = [Duty("figures that are due", EVERY_SECONDS, Publisher.run_once)]
    return await Service("publisher", publisher, table).run()
