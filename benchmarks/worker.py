"""How many events a second one worker lets through, from Kafka into both stores, with everything on this machine.

    python -m benchmarks.worker [--events 800000] [--rounds 3] [--broker kafka] [--granted 50]

The events lie in the log before the worker starts; rate and processor time are taken between its first finished
batch and its last, for the worker (all threads, user and system), each store and the broker by itself. Medians of
the rounds, each of which has a worker process and events of its own."""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

from benchmarks import results
from benchmarks.load import Load
from benchmarks.lock import Lock, Used, made

PAGE = results.ROOT / "docs" / "capacity.md"
STAGES = ("claim", "build", "insert")


def measured(lock: Lock, events: int, workers: int = 1) -> dict[str, Any]:
    """Start workers on a backlog of `events`; everything that was used between the first batch and the last."""
    before = lock.received()
    started = [lock.worker() for _ in range(workers)]

    def done() -> int:
        said = [worker.status() for worker in started]
        return sum(one["outcomes"]["received"] for one in said if one)

    began = lock.until(lambda: done() > 0, every=0.03)
    first, used_first = done(), lock.used()
    ended = lock.until(lambda: done() >= events, every=0.03)
    used_last = lock.used()
    stages: dict[str, float] = {}
    for worker in started:
        for stage, (seconds, _) in worker.stages().items():
            stages[stage] = stages.get(stage, 0.0) + seconds
    claims = sum(worker.stages().get("claim", (0.0, 0))[1] for worker in started)
    lock.stop_workers()
    lock.workers.clear()
    assert lock.received() - before == events, "the sum does not add up: this is no benchmark of anything"
    between = events - first

    def cpu(name: str) -> float:
        return sum(
            (used_last[one].cpu_s - used_first[one].cpu_s) for one in used_first if one.rstrip("0123456789") == name
        )

    return {
        "events": events,
        "rate": between / (ended - began),
        "seconds": ended - began,
        "cpu_us": {name: cpu(name) / between * 1e6 for name in ("worker", "analytics", "identity", "broker")},
        "peak_mb": _peaks(used_last),
        "stage_us": {stage: stages.get(stage, 0.0) / events * 1e6 for stage in STAGES},
        "events_a_claim": events / max(1, claims),
    }


def _peaks(used: dict[str, Used]) -> dict[str, float]:
    names = {name.rstrip("0123456789") for name in used}
    return {name: max(one.peak_mb for who, one in used.items() if who.rstrip("0123456789") == name) for name in names}


def medians(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Of every number, also in the dictionaries within."""
    return {
        name: {inner: statistics.median(one[name][inner] for one in rounds) for inner in value}
        if isinstance(value, dict)
        else statistics.median(one[name] for one in rounds)
        for name, value in rounds[0].items()
    }


def prepared(lock: Lock, load: Load) -> None:
    """Declare the mailings and have the preferences carried out, by a worker that ends afterwards."""
    lock.send(load.declarations())
    wanted = lock.send(load.grants())
    worker = lock.worker()
    worker.ready()
    lock.until(lambda: lock.changes() >= wanted)
    time.sleep(1.5)  # Faust commits once a second
    lock.stop_workers()
    lock.workers.clear()


def table(said: dict[str, Any]) -> str:
    """For people."""
    middle, rates = said["median"], [one["rate"] for one in said["rounds"]]
    cpu, peak, stage = middle["cpu_us"], middle["peak_mb"], middle["stage_us"]
    lines = [
        f"One worker, {said['broker']}, {said['partitions']} partitions, {said['granted']:g} % of the people "
        f"pseudonymous: **{middle['rate']:,.0f} events/s** (median of {len(rates)} rounds of {middle['events']:,.0f}; "
        f"{min(rates):,.0f} to {max(rates):,.0f}), {middle['events_a_claim']:,.0f} events a claim.",
        "",
        "| process | CPU µs an event | peak MB |",
        "| --- | ---: | ---: |",
        *(f"| {name} | {cpu[name]:.2f} | {peak[name]:,.0f} |" for name in cpu),
        f"| all | {sum(cpu.values()):.2f} | {sum(peak.values()):,.0f} |",
        "",
        "| stage of a claim | µs an event, waiting included |",
        "| --- | ---: |",
        *(f"| {name} | {stage[name]:.2f} |" for name in STAGES),
        "",
        "Partitions claim and insert side by side, so the stages add up to more than the time that passes.",
    ]
    return "\n".join(lines)


def main() -> None:
    """Print a table; write worker.json and docs/capacity.md."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--events", type=int, default=800_000)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--partitions", type=int, default=4)
    arguments.add_argument("--granted", type=float, default=50, help="percent of the people with pseudonymous rows")
    arguments.add_argument("--broker", choices=["kafka", "tansu"], default="kafka")
    arguments.add_argument("--out", type=Path, default=results.FOLDER)
    asked = arguments.parse_args()
    load, rounds = Load(granted=asked.granted), []
    with made(asked.broker, asked.partitions) as lock:
        prepared(lock, load)
        for number in range(asked.rounds):
            lock.send(load.events(asked.events, number * asked.events))
            rounds.append(measured(lock, asked.events))
    said = {
        "broker": asked.broker,
        "partitions": asked.partitions,
        "granted": asked.granted,
        "median": medians(rounds),
        "rounds": rounds,
    }
    results.write("worker", said, table(said), asked.out, PAGE if asked.out == results.FOLDER else None)


if __name__ == "__main__":
    main()
