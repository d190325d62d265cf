"""A real Prometheus, where there is one, asks a worker; every question of the operators' dashboard is asked of it."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy.embedded.stack import Stack
from tests.lock import Lock, event

pytestmark = [
    pytest.mark.stack,
    pytest.mark.skipif(shutil.which("prometheus") is None, reason="no Prometheus here"),
]
GRAFANA = Path(__file__).resolve().parents[2] / "deploy" / "grafana"
BOARD = json.loads((GRAFANA / "dashboards" / "operators.json").read_text())
QUESTIONS = [(panel["title"], target["expr"]) for panel in BOARD["panels"] for target in panel["targets"]]
CONFIG = """
global: {{scrape_interval: 1s}}
scrape_configs:
  - job_name: worker
    static_configs: [{{targets: ["127.0.0.1:{port}"]}}]
"""


@pytest.fixture(scope="module")
def lock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lock]:
    with Stack(tmp_path_factory.mktemp("metrics"), "tansu", die_with_parent=True) as stack, Lock(stack) as running:
        running.worker()
        yield running


@pytest.fixture(scope="module")
def prometheus(lock: Lock, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Its address; it has seen the worker."""
    folder = tmp_path_factory.mktemp("prometheus")
    (folder / "prometheus.yaml").write_text(CONFIG.format(port=lock.workers[0].port))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    command = ["prometheus", f"--config.file={folder / 'prometheus.yaml'}", f"--storage.tsdb.path={folder / 'data'}"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([*command, f"--web.listen-address={address}"], stdout=log, stderr=log)
    try:
        yield f"http://{address}"
    finally:
        process.terminate()
        process.wait(20)


def asked(address: str, question: str) -> list[Any]:
    """What Prometheus answers, with Grafana's variable filled in; nothing while it does not answer."""
    asks = urllib.parse.urlencode({"query": question.replace("$__rate_interval", "1m")})
    try:
        with urllib.request.urlopen(f"{address}/api/v1/query?{asks}", timeout=5) as answer:
            found: list[Any] = json.load(answer)["data"]["result"]
            return found
    except urllib.error.HTTPError:
        raise
    except OSError:
        return []


def test_every_question_of_the_operators_has_an_answer(lock: Lock, prometheus: str) -> None:
    lock.until(lambda: asked(prometheus, 'up{job="worker"} == 1'), what="Prometheus to see the worker")
    lock.send([event("acme", f"p{n}@example.com") for n in range(50)])
    lock.send([("tracking.events", b"x", b"{")])
    lock.settle()
    (counted,) = lock.until(lambda: asked(prometheus, 'schleuse_events_total{outcome="counted"} > 0'))
    assert counted["value"][1] == "50"
    for title, question in QUESTIONS:
        lock.until(lambda question=question: asked(prometheus, question), what=title)  # type: ignore[misc]


@pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool here")
def test_its_own_tool_finds_nothing_wrong(lock: Lock) -> None:
    subprocess.run(["promtool", "check", "config", GRAFANA / "prometheus.yaml"], check=True, capture_output=True)
    lock.until(lambda: b"partitions taken" in lock.workers[0].text().encode(), what="the worker")
    said = subprocess.run(
        ["promtool", "check", "metrics"], input=lock.workers[0].get("/metrics"), check=False, capture_output=True
    )
    assert (said.returncode, said.stderr) == (0, b"")
