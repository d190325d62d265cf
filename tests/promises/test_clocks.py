"""Time that decides anything is Kafka's or the analytics store's: a worker's own clock decides nothing."""

from __future__ import annotations

import dataclasses
import time
from datetime import UTC, datetime, timedelta

import pytest

from pseudonymizer.keys import KeyKind
from streams.keyring import KeyRing
from streams.resources import Resources
from streams.topics import KEPT_DAYS
from tests.lock import Lock

pytestmark = pytest.mark.stack


@pytest.mark.parametrize("off", [-86_400, 86_400, 30 * 86_400])
def test_a_key_of_a_day_lives_as_long_as_the_stores_clock_says(
    lock: Lock, monkeypatch: pytest.MonkeyPatch, off: int
) -> None:
    today = datetime.now(UTC)
    days = [(today - timedelta(days=ago)).date().isoformat() for ago in (0, KEPT_DAYS - 1, KEPT_DAYS + 2)]
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + off)
    ring = KeyRing.open(lock.settings.keyring, lock.settings.keyring_kek)
    ring.ensure_many(KeyKind.DAY, days)
    settings = dataclasses.replace(lock.settings, partitions=lock.partitions)
    resources = Resources(settings, "a worker whose clock is off")
    resources.open()
    try:
        resources.forget_days()
    finally:
        resources.close()
    assert set(days) & set(ring.names(KeyKind.DAY)) == set(days[:2])
