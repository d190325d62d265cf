"""What the worker measures, for Prometheus. No label ever holds a tenant, a mailing or a recipient.

name                              unit      labels           meaning
schleuse_events_total             records   outcome, reason  where records of claims went
schleuse_changes_total            records                    preference changes carried out
schleuse_stage_seconds            seconds   stage            time of a claim by stage, waiting included
schleuse_waits_total              tries                      tries that a store or the broker refused for now
schleuse_waiting                  reasons                    what the worker is waiting for at this moment
schleuse_lag_records              records   topic, partition fetched by nobody yet
schleuse_preferences_known        keys      partition        recipients with a state
schleuse_event_ids_remembered     ids       partition        event ids of the last 24 h
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

if TYPE_CHECKING:
    from streams.events import EventsBatch

SECONDS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """The registry of one worker. `outcomes` is the same in plain numbers, for `status`."""

    def __init__(self) -> None:
        own = self.registry = CollectorRegistry()
        self._events = Counter("schleuse_events", "records of claims by outcome", ["outcome", "reason"], registry=own)
        self._changes = Counter("schleuse_changes", "preference changes carried out", registry=own)
        self._stage = Histogram("schleuse_stage_seconds", "time of a claim", ["stage"], buckets=SECONDS, registry=own)
        self._waits = Counter("schleuse_waits", "tries that were refused for now", registry=own)
        self.waiting = Gauge("schleuse_waiting", "what is being waited for now", registry=own)
        self.lag = Gauge("schleuse_lag_records", "records fetched by nobody yet", ["topic", "partition"], registry=own)
        self.known = Gauge("schleuse_preferences_known", "recipients with a state", ["partition"], registry=own)
        self.remembered = Gauge("schleuse_event_ids_remembered", "ids of 24 h", ["partition"], registry=own)
        self._waited = 0
        self.outcomes = dict.fromkeys(("received", "counted", "off", "duplicates", "rejected"), 0)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Observe how long a stage of a claim takes, waiting included."""
        began = time.monotonic()
        yield
        self._stage.labels(stage).observe(time.monotonic() - began)

    def events(self, batch: EventsBatch) -> None:
        """A claim of events is done."""
        for outcome, count in batch.outcomes.items():
            self.outcomes[outcome] += count
            if outcome not in ("received", "rejected"):
                self._events.labels(outcome, "").inc(count)
        for reason, count in batch.reasons.items():
            self._events.labels("rejected", reason).inc(count)

    def changes(self, count: int) -> None:
        """A claim of changes is done."""
        self._changes.inc(count)

    def waits(self, total: int) -> None:
        """So many tries were refused for now since the worker began."""
        self._waits.inc(total - self._waited)
        self._waited = total

    def text(self) -> bytes:
        """The exposition format of Prometheus."""
        return generate_latest(self.registry)
