"""P6 on three brokers, the short form of `make soak`: every kind of fault once at least, in about three minutes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.seed import seed
from tests.soak.report import details, page
from tests.soak.run import SHORT, soak

pytestmark = [pytest.mark.kafka, pytest.mark.stack]


def test_everything_goes_wrong_at_once_and_nothing_is_lost_doubled_or_ignored(tmp_path: Path) -> None:
    outcome = soak(seed(), SHORT, tmp_path / "soak", lambda line: print(line, flush=True))
    told = page(outcome, f"SCHLEUSE_SEED={outcome.seed} make test-kafka") + details(outcome)
    print(told)
    assert outcome.holds, told
