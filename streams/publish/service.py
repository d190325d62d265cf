"""`schleuse publish`: a process of its own (streams/duties.py) that publishes what is due, every half minute."""

from __future__ import annotations

import asyncio
import time
from contextlib import closing
from typing import TYPE_CHECKING, Final

from streams.duties import Duty, Service
from streams.errors import SchleuseError
from streams.publish.publisher import Publisher

if TYPE_CHECKING:
    from streams.settings import Settings

EVERY_SECONDS: Final = 30.0
WAIT_SECONDS: Final = 60.0


def once(settings: Settings) -> int:
    """Publish what is due now; how many mailings have new figures.

    Waits a minute at most until workers have counted what lies in Kafka now. Raises SchleuseError.
    """
    with closing(Publisher.open(settings)) as publisher:
        told, until = publisher.run_once(), time.monotonic() + WAIT_SECONDS
        while not publisher.caught_up:
            if time.monotonic() > until:
                raise SchleuseError(
                    "workers have not counted within a minute what lay in Kafka: nothing is due before. Does one run? "
                    "(schleuse status)"
                )
            time.sleep(0.5)
            told += publisher.run_once()
        return told


def run(settings: Settings) -> int:
    """Publish until SIGTERM or SIGINT; the exit code. Raises SchleuseError before it began. From the main thread
    only."""
    with closing(Publisher.open(settings)) as publisher:
        return asyncio.run(_run(publisher))


async def _run(publisher: Publisher) -> int:
    table = [Duty("figures that are due", EVERY_SECONDS, Publisher.run_once)]
    return await Service("publisher", publisher, table).run()
