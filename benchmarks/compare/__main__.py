"""Run the comparison: rounds of all contestants one after another (A B C ... A B C ...), on one Apache Kafka.

    python -m benchmarks.compare [--events 1000000] [--rounds 3] [--only faust,schleuse] [--no-docs]

Prints a line a run, writes every run to benchmarks/results/compare.jsonl, and the tables and the plot into docs/. A
contestant whose result is not the truth is disqualified by name. Nothing else should run on the machine meanwhile:
what is seen of others is printed before each round.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from kafka.admin import NewTopic

from benchmarks.compare import machine, report
from benchmarks.compare.contestants import CONTESTANTS, Contestant, jars
from benchmarks.compare.data import PARTITIONS, Truth, events, write_preferences
from benchmarks.compare.lock import Lock, cpu_seconds
from benchmarks.compare.stores import Stores
from benchmarks.compare.work import DidNotFinish, Task
from deploy.embedded.stack import Stack
from streams.broker import admin, log_ends
from streams.demo.send import send

RUN_SECONDS = 900
# polars on one thread: every contestant has one for its work, however many its client fetches with.
ENVIRONMENT = {**os.environ, "POLARS_MAX_THREADS": "1"}
ALL, FEW = "compare.all", "compare.few"  # the same events, and their first tenth


class Course:
    """Broker, stores, topics, truth: what all runs share."""

    def __init__(self, folder: Path, stack: Stack, stores: Stores, asked: argparse.Namespace) -> None:
        self._folder, self._stack, self._stores, self._runs = folder, stack, stores, 0
        self._preferences = folder / "preferences.tsv"
        write_preferences(self._preferences, asked.people)
        self.truths: dict[str, Truth] = {}
        with admin(stack.broker_address, "making topics") as client:
            client.create_topics([NewTopic(name, PARTITIONS, 1) for name in (ALL, FEW)])
        time.sleep(2)  # until their leaders are known
        for topic, count in ((ALL, asked.events), (FEW, max(1, asked.events // 10))):
            truth = self.truths[topic] = Truth()
            asyncio.run(send(stack.broker_address, PARTITIONS, events(topic, count, asked.people, truth)))
            if (there := sum(log_ends(stack.broker_address, topic).values())) != count:
                raise SystemExit(
                    f"{topic} holds {there} records in place of {count}: a batch was sent twice, try again"
                )
        self.lock = Lock(stack, asked.people) if "lock" in {one.name for one in asked.only} else None

    def run(self, who: Contestant, inserts: bool) -> dict[str, Any]:
        """One run of one contestant: its figures, and what differs from the truth."""
        self._runs += 1
        named = {"contestant": who.name, "variant": "inserts" if inserts else "work"}
        try:
            return named | self._run(who, inserts)
        except DidNotFinish as error:
            print(error, flush=True)
            return named | {"wrong": ["end: it did not finish"]}

    def _run(self, who: Contestant, inserts: bool) -> dict[str, Any]:
        truth = self.truths[FEW if who.few else ALL]
        others = {"broker": self._part("broker")}
        if who.name == "lock":
            assert self.lock is not None
            self.lock.fill(truth.count)
            stores = {name: self._part(name) for name in ("identity", "analytics")}
            busy = machine.settle()
            got, before, after = self._beside(others | stores, lambda: self.lock.run(truth.count))  # type: ignore[union-attr]
            wrong = self.lock.wrong(truth)
        else:
            self._stores.empty()
            task = self._task(FEW if who.few else ALL, truth.count, inserts)
            stores = dict(zip(("rows", "counts"), self._stores.pids(), strict=True))
            busy = machine.settle()
            got, before, after = self._beside(others | stores, lambda: self._process(who, task))
            wrong = self._wrong(got.pop("result", None), truth, inserts)
        spent = {name: (after[name] - before[name]) / truth.count * 1e6 for name in before}
        return {
            "events": truth.count,
            "rate": truth.count / got["seconds"],
            "cpu_us": got["cpu_seconds"] / truth.count * 1e6,
            "second_rate": got["second_events"] / got["second_seconds"],
            "second_cpu_us": got["second_cpu_seconds"] / got["second_events"] * 1e6,
            "peak_mb": got["peak_kb"] / 1024,
            "broker_us": spent["broker"],
            "stores_us": sum(spent.values()) - spent["broker"],
            "busy_before": busy,
            "wrong": wrong,
            **{name: got[name] for name in ("between_batches",) if name in got},
        }

    def _part(self, name: str) -> int:
        return next(part.pid for part in self._stack.status() if part.name == name and part.pid)

    @staticmethod
    def _beside(
        others: dict[str, int], run: Callable[[], dict[str, Any]]
    ) -> tuple[dict[str, Any], dict[str, float], dict[str, float]]:
        before = {name: cpu_seconds(pid) for name, pid in others.items()}
        got = run()
        return got, before, {name: cpu_seconds(pid) for name, pid in others.items()}

    def _task(self, topic: str, count: int, inserts: bool) -> Path:
        task = Task(
            broker=self._stack.broker_address,
            topic=topic,
            group=f"compare-{self._runs}",
            events=count,
            preferences=str(self._preferences),
            inserts=inserts,
            rows_url=self._stores.urls["rows"],
            counts_url=self._stores.urls["counts"],
            password=self._stores.password,
        )
        path = self._folder / "task.json"
        path.touch(mode=0o600)
        path.write_text(json.dumps(asdict(task)))
        return path

    def _process(self, who: Contestant, task: Path) -> dict[str, Any]:
        log = self._folder / f"{who.name}.log"
        with log.open("ab") as errors:
            child = subprocess.Popen(who.command(task), stdout=subprocess.PIPE, stderr=errors, env=ENVIRONMENT)
            try:
                out, _ = child.communicate(timeout=RUN_SECONDS)
            except subprocess.TimeoutExpired:
                child.kill()
                child.communicate()
                late = f"{who.name} was not done after {RUN_SECONDS} s; the end of its log: {_tail(log)}"
                raise DidNotFinish(late) from None
        lines = [line for line in out.decode().splitlines() if line.startswith('{"')]
        if child.returncode or not lines:
            raise DidNotFinish(f"{who.name} ended with {child.returncode}; the end of its log: {_tail(log)}")
        said: dict[str, Any] = json.loads(lines[-1])
        return said

    def _wrong(self, result: Any, truth: Truth, inserts: bool) -> list[str]:
        """What is not as it has to be: in what the contestant says, and in what lies in the stores."""
        wanted = truth.outcome()
        result["cells"] = sorted(result["cells"])
        wrong = [name for name, value in wanted.items() if _plain(result.get(name)) != _plain(value)]
        if inserts:
            found = self._stores.contents()
            wrong += [f"{name} in the store" for name, value in found.items() if _plain(value) != _plain(wanted[name])]
        return wrong


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value))


def _tail(log: Path) -> str:
    return log.read_text("utf-8", "replace")[-2000:]


def chosen(names: str) -> tuple[Contestant, ...]:
    """Contestants by name, in the order of the table."""
    wanted = set(names.split(","))
    if unknown := wanted - {one.name for one in CONTESTANTS}:
        raise argparse.ArgumentTypeError(f"there is no {', '.join(sorted(unknown))}")
    return tuple(one for one in CONTESTANTS if one.name in wanted)


def main() -> None:
    """Run, print, write."""
    arguments = argparse.ArgumentParser(prog="benchmarks.compare", description=__doc__.split("\n")[0])
    arguments.add_argument("--events", type=int, default=1_000_000)
    arguments.add_argument("--people", type=int, default=100_000, help="recipients, of whom half granted rows")
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--only", type=chosen, default=CONTESTANTS, help="names, separated by commas")
    arguments.add_argument("--variant", choices=["work", "inserts", "both"], default="both")
    arguments.add_argument("--results", type=Path, default=report.RESULTS)
    arguments.add_argument("--no-docs", action="store_true", help="leave docs/speed.md and its plot as they are")
    asked = arguments.parse_args()
    if any(one.module == "java" for one in asked.only):
        jars()
    facts = machine.facts() | {"events": asked.events, "people": asked.people, "rounds": asked.rounds}
    print(json.dumps(facts, indent=1))
    asked.results.parent.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="compare-") as scratch,
        Stack(Path(scratch) / "stack", "kafka", die_with_parent=True) as stack,
        Stores(Path(scratch) / "stores") as stores,
        asked.results.open("w") as results,
    ):
        course = Course(Path(scratch), stack, stores, asked)
        truth = course.truths[ALL]
        facts["bytes"] = round(truth.bytes / truth.count, 1)
        _write(results, {"facts": facts})
        warm_up = chosen("aiokafka")[0]
        course.run(warm_up, inserts=True)  # the broker's own JVM and the stores are cold; not counted
        for number in range(asked.rounds):
            _write(results, {"round": number, **machine.load()})
            for who, inserts in order(asked.only, asked.variant, number):
                run = {"round": number, **course.run(who, inserts)}
                _write(results, run)
                print(report.line(run), flush=True)
    if not asked.no_docs:
        report.write(asked.results)
    print(report.tables(report.read(asked.results)))


def order(only: Iterable[Contestant], variant: str, number: int) -> list[tuple[Contestant, bool]]:
    """A round: everybody once without inserts, then once with. Each round begins with another one."""
    turned = list(only)
    turned = turned[number % len(turned) :] + turned[: number % len(turned)]
    return [
        (who, inserts)
        for inserts in (False, True)
        if variant in ("both", "inserts" if inserts else "work")
        for who in turned
        if inserts or who.work
    ]


def _write(file: Any, line: dict[str, Any]) -> None:
    file.write(json.dumps(line) + "\n")
    file.flush()


if __name__ == "__main__":
    main()
