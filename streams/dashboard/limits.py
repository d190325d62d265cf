"""How often somebody may ask: a bucket of tokens each, filled at a steady rate."""

from __future__ import annotations

import time
from collections.abc import Callable


class Limits:
    """Buckets by name, in memory of this process. Used from one event loop."""

    def __init__(self, per_minute: int, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        """`per_minute` on average, `burst` at once."""
        self._rate, self._burst, self._clock = per_minute / 60.0, float(burst), clock
        self._full_after = burst / self._rate
        self._buckets: dict[str, tuple[float, float]] = {}
        self._tidied = clock()

    def wait(self, name: str) -> float:
        """Take one; 0.0 when there was one, else seconds until there will be."""
        now = self._clock()
        if now - self._tidied > self._full_after:  # full buckets are like none
            self._buckets = {of: b for of, b in self._buckets.items() if now - b[1] <= self._full_after}
            self._tidied = now
        tokens, since = self._buckets.get(name, (self._burst, now))
        tokens = min(self._burst, tokens + (now - since) * self._rate)
        if tokens < 1.0:
            self._buckets[name] = (tokens, now)
            return (1.0 - tokens) / self._rate
        self._buckets[name] = (tokens - 1.0, now)
        return 0.0
