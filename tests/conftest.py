"""The embedded stack for tests: real processes on free ports in a temporary directory, started once a session."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from deploy.embedded.stack import Stack


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Tansu and both stores, without topics or schemas. Whoever ends a part of it must start it again."""
    with Stack(tmp_path_factory.mktemp("stack"), "tansu", die_with_parent=True) as started:
        yield started


@pytest.fixture(scope="session")
def kafka_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Apache Kafka and both stores; tests that use it carry the mark `kafka`."""
    with Stack(tmp_path_factory.mktemp("kafka-stack"), "kafka", die_with_parent=True) as started:
        yield started


LONGEST = ("test_p6_exactly_once.py", "test_p6_stores_misbehave.py", "test_p5_erasure.py", "test_p7_attack.py")
"""Files that take minutes: they are begun first, so that nobody waits for one of them at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first."""
    rank = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path.name, len(LONGEST)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With `-n`: a file stays in one process, and so do files that share what takes a minute to collect."""
    from xdist.scheduler import LoadFileScheduling  # noqa: PLC0415  only where several processes are asked for

    class ByFile(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            return "p2" if "/p2/" in file else file

    return ByFile(config, log)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What proofs have found stands at the end of a run, also when all is well: record_property("told", text)."""
    reports = [one for name in ("passed", "failed") for one in terminalreporter.getreports(name)]
    for report in reports:
        for name, value in report.user_properties:
            if name == "told" and report.when == "call":
                terminalreporter.write_line(str(value))
