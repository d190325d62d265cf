"""Logs: a canary in everything that a library or an exception could quote, and in no line that comes out."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

from streams.logs import standing

CANARY = "erika.mustermann"
PROGRAM = """
import logging, sys, threading, warnings
import structlog
from streams import logs
from streams.errors import BrokerError

canary = "erika" + "." + "mustermann"
logs.configure("info")
ours = structlog.get_logger("schleuse.test")
ours.debug("not this")
ours.info("counted", partition=3, events=17)
theirs = logging.getLogger("aiokafka.consumer")
theirs.info("not this either")
theirs.warning("Failed fetch for %s: %r after %d tries", canary, ValueError(canary), 3)
theirs.warning("Named %(who)s", {"who": canary})
theirs.error(f"Unknown topic {canary}")
theirs.error("Joined " + canary)
theirs.error(ValueError(canary))
theirs.warning("Wrong arguments %d %d", canary)
try:
    try:
        raise KeyError(canary)
    except KeyError as error:
        raise ValueError(canary) from error
except ValueError as error:
    theirs.exception("Unexpected error")
    ours.exception("went wrong", error=error)
    known = BrokerError("Kafka did not answer")
    ours.warning("went wrong", reason=str(known), error=known)
warnings.warn(canary)
thread = threading.Thread(target=lambda: {}[canary])
thread.start()
thread.join()
raise RuntimeError(canary)
"""


def lines(tmp_path: Path) -> list[dict[str, Any]]:
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(PROGRAM))
    done = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, check=False)
    assert CANARY not in done.stdout + done.stderr
    assert done.returncode == 1
    return [json.loads(line) for line in done.stderr.splitlines()]


def test_no_value_gets_out_and_what_helps_does(tmp_path: Path) -> None:
    said = lines(tmp_path)
    events = [line["event"] for line in said]
    assert events == [
        "counted",
        "Failed fetch for <str>: <ValueError> after 3 tries",
        "Named <str>",
        "(text withheld: it may quote data)",
        "(text withheld: it may quote data)",
        "(text withheld: it may quote data)",
        "Wrong arguments <str> None",
        "Unexpected error",
        "went wrong",
        "went wrong",
        "(text withheld: it may quote data)",
        "an error that nobody expected",
        "an error that nobody expected",
    ]
    assert said[0] | {"timestamp": ""} == {
        "event": "counted",
        "partition": 3,
        "events": 17,
        "level": "info",
        "logger": "schleuse.test",
        "timestamp": "",
    }
    theirs = said[7]["exception"]
    assert [one["type"] for one in theirs] == ["ValueError", "KeyError"]
    assert all("program.py" in one["at"][-1] for one in theirs)
    assert said[7]["logger"] == "aiokafka.consumer"
    assert said[9]["reason"] == "Kafka did not answer"
    assert said[9]["error"][0]["text"] == "Kafka did not answer"
    assert [line["error"][0]["type"] for line in said[-2:]] == ["KeyError", "RuntimeError"]


def test_where_tasks_wait_is_told_by_the_innermost_place() -> None:
    async def inner(what: asyncio.Event) -> None:
        await what.wait()

    async def outer(what: asyncio.Event) -> None:
        await inner(what)

    async def run() -> list[str]:
        what = asyncio.Event()
        tasks = [asyncio.create_task(outer(what)) for _ in range(3)]
        await asyncio.sleep(0)
        found = await asyncio.to_thread(standing, asyncio.get_running_loop())
        what.set()
        await asyncio.gather(*tasks)
        return found

    found = asyncio.run(run())
    assert {place.split()[1] for place in found} == {"inner", "run"}, found
