"""`schleuse publish`: a process of its own that publishes what is due, every half minute."""

from __future__ import annotations

import signal
import threading
from contextlib import closing
from typing import TYPE_CHECKING, Final

import structlog

from streams.errors import BrokerError, SchleuseError, StoreLate, StoreUnavailable
from streams.patience import FIRST_SECONDS, LONGEST_SECONDS
from streams.publish.publisher import Publisher

if TYPE_CHECKING:
    from streams.settings import Settings

log = structlog.get_logger("schleuse.publish")

EVERY_SECONDS: Final = 30.0


def once(settings: Settings) -> int:
    """Publish what is due now; how many mailings have new figures. Raises SchleuseError."""
    with closing(Publisher.open(settings)) as publisher:
        return publisher.run_once()


def run(settings: Settings) -> int:
    """Publish until SIGTERM or SIGINT; the exit code. Raises SchleuseError before it began. From the main thread
    only."""
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    with closing(Publisher.open(settings)) as publisher:
        log.info("publisher runs", every_seconds=EVERY_SECONDS)
        pause = FIRST_SECONDS
        while not stopping.is_set():
            try:
                publisher.run_once()
            except (StoreUnavailable, StoreLate, BrokerError) as error:
                log.warning("waiting", reason=str(error))
                stopping.wait(pause)
                pause = min(2 * pause, LONGEST_SECONDS)
                continue
            except SchleuseError as error:
                log.error("publisher ends", reason=str(error))  # noqa: TRY400  a sentence, and no traceback
                return 1
            pause = FIRST_SECONDS
            stopping.wait(EVERY_SECONDS)
    log.info("publisher stopped")
    return 0
