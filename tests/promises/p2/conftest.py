"""One lock for all of P2: what is found in it, and whom its logins let in."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from deploy.embedded.stack import Stack
from tests.lock import Lock
from tests.promises.p2.evidence import TENANTS, Evidence, collect


@pytest.fixture(scope="package")
def lock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lock]:
    """A lock of its own: it is stopped in the middle."""
    with (
        Stack(tmp_path_factory.mktemp("gates"), "tansu", die_with_parent=True) as stack,
        Lock(stack, TENANTS) as running,
    ):
        yield running


@pytest.fixture(scope="package")
def evidence(lock: Lock, tmp_path_factory: pytest.TempPathFactory) -> Evidence:
    """Everything that was written, said and kept."""
    return collect(lock, tmp_path_factory.mktemp("fed"))
