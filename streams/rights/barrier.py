"""Waiting until everything that people have decided is carried out.

A withdrawal that Kafka has taken may still lie before intake, or before its claim. Whoever hands something out about
people waits for it first: when `decided` returns, every preference and request that lay in Kafka when it was called is
in the stores and in tracking.state.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from streams.broker import admin, is_committed, log_ends
from streams.errors import StoreUnavailable
from streams.topics import CHANGES, PREFERENCES, REQUESTS

if TYPE_CHECKING:
    from streams.settings import Settings

_EVERY_SECONDS = 0.3


def decided(settings: Settings, seconds: float = 60.0) -> None:
    """Return when all decisions up to now are carried out. Blocking.

    The workers' committed positions tell: intake commits what it has forwarded, and a change is committed after its
    claim is done (streams/chain.py, 3). Raises BrokerError, and StoreUnavailable when it takes longer than `seconds`:
    then no worker runs, or something keeps them waiting.
    """
    until = time.monotonic() + seconds
    with admin(settings.broker, "asking what is carried out") as client:
        for topics in ((PREFERENCES, REQUESTS), (CHANGES,)):  # the second only once all of the first is in it
            ends = {topic: log_ends(settings.broker, topic) for topic in topics}
            while not all(is_committed(settings.broker, client, settings.group, *one) for one in ends.items()):
                if time.monotonic() > until:
                    raise StoreUnavailable(
                        f"decisions that lie in Kafka were not carried out within {seconds:.0f} s, and without them "
                        "nothing is handed out: is a worker running? (schleuse status)"
                    )
                time.sleep(_EVERY_SECONDS)
