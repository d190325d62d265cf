"""One lock with one worker for the promises that need no fault: each test speaks of recipients of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from deploy.embedded.stack import Stack
from tests.lock import Lock


@pytest.fixture(scope="package")
def lock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lock]:
    """A running lock. Tests add to it and never stop it; its sums are over all of them."""
    with (
        Stack(tmp_path_factory.mktemp("promises"), "tansu", die_with_parent=True) as stack,
        Lock(stack) as running,
    ):
        running.worker()
        yield running
