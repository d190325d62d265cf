"""How many events a second one worker lets through, from Kafka into both stores, with everything on this machine.

    python -m benchmarks.worker [--events 800000] [--broker kafka] [--granted 50]

The events lie in the log before the worker starts; the rate is taken between its first finished batch and its last, the
processor time is that of the worker's process, its start included. Other processes on the machine blur both: compare
ratios taken in one run, not figures of two days.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from deploy.embedded.stack import Stack
from streams.demo.send import send
from streams.partitioner import message_key

PARTITIONS, PEOPLE, PORT = 4, 50_000, 27_991
AGENTS = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148",
    "Mozilla/5.0",
    "Microsoft Office/16.0 (Windows NT 10.0; Microsoft Outlook 16.0.17928; Pro)",
)


def grants(share: int) -> Iterator[tuple[str, bytes, bytes]]:
    """Preferences of `share` percent of the people, given long before the events."""
    proof = {"source": "benchmark", "text_version": "1"}
    modes = {"engagement": {"open": "pseudonymous", "click": "pseudonymous"}}
    for number in range(PEOPLE * share // 100):
        who = f"user{number:06d}@example.com"
        value = {
            "tenant": "acme",
            "recipient": who,
            "decided_at": "2026-01-01T00:00:00Z",
            "purposes": modes,
            "proof": proof,
        }
        yield "tracking.preferences", message_key("acme", who), json.dumps(value).encode()


def events(count: int) -> Iterator[tuple[str, bytes, bytes]]:
    """A quarter clicks, spread over four mailings and an hour."""
    chance, begin = random.Random(1), int(time.time() * 1000) - 3_600_000
    for number in range(count):
        who = f"user{int(chance.random() * PEOPLE):06d}@example.com"
        value = {
            "event_id": f"01J8ZK3V9Q5Y7W2X{number:010d}",
            "kind": "open",
            "tenant": "acme",
            "mailing": f"2026-11-m{number % 4}",
            "recipient": who,
            "occurred_at": begin + chance.randrange(3_600_000),
            "user_agent": AGENTS[number & 3],
            "ip": f"203.0.113.{number % 250}",
        }
        if number % 4 == 0:
            value |= {"kind": "click", "url": f"https://inxmail.de/p{number % 9}?rid={who}"}
        yield "tracking.events", message_key("acme", who), json.dumps(value, separators=(",", ":")).encode()


def main() -> None:
    """Print one line."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--events", type=int, default=800_000)
    arguments.add_argument(
        "--granted", type=int, default=50, help="percent of the people who granted pseudonymous rows"
    )
    arguments.add_argument("--broker", choices=["tansu", "kafka"], default="tansu")
    asked = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder, Stack(Path(folder), asked.broker, die_with_parent=True) as stack:
        (stack.directory / "tenants.toml").write_text("[acme]\n")
        environment = {**os.environ, "SCHLEUSE_PARTITIONS": str(PARTITIONS), "SCHLEUSE_HTTP_PORT": str(PORT)}
        command = [sys.executable, "-m", "streams.cli", "--config", str(stack.settings_file)]
        for step in (["topics"], ["migrate"], ["tenants", "apply", "--yes"]):
            subprocess.run([*command, *step], env=environment, check=True, stdout=subprocess.DEVNULL)
        asyncio.run(send(stack.broker_address, PARTITIONS, grants(asked.granted)))
        worker = subprocess.Popen([*command, "worker"], env=environment, stderr=subprocess.DEVNULL)
        try:
            wait(lambda said: sum(line["next_change"] for line in said["partitions"]) >= PEOPLE * asked.granted // 100)
            worker.terminate()
            worker.wait(60)
            asyncio.run(send(stack.broker_address, PARTITIONS, events(asked.events)))
            worker = subprocess.Popen([*command, "worker"], env=environment, stderr=subprocess.DEVNULL)
            first = wait(lambda said: said["outcomes"]["received"] > 0)
            last = wait(lambda said: said["outcomes"]["received"] >= asked.events)
            spent = Path(f"/proc/{worker.pid}/stat").read_text().rsplit(")", 1)[1].split()
            cpu = (int(spent[11]) + int(spent[12])) / os.sysconf("SC_CLK_TCK") / asked.events * 1e6
        finally:
            worker.terminate()
            worker.wait(60)
    rate = (last[1] - first[1]) / (last[0] - first[0])
    print(f"{asked.broker}: {rate:,.0f} events/s, {cpu:.1f} us of processor an event, {asked.granted} % granted")


def wait(there: object) -> tuple[float, int]:
    """When the worker's status first answers `there`, and how many events it had received by then."""
    assert callable(there)
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/status", timeout=5) as answer:
                said = json.loads(answer.read())
            if there(said):
                return time.monotonic(), said["outcomes"]["received"]
        except OSError:
            pass
        time.sleep(0.1)


if __name__ == "__main__":
    main()
