"""Schleuse, the whole lock: the real `schleuse worker` process, doing everything that it does.

Beyond THE WORK: strict decoding with sealed rejections, duplicates by event id over 24 h, consent as it was when the
event occurred (not a plain look-up), actors and devices, exact sets of distinct recipients in the store, the chain of
claims, one insert a batch under a token through a Null table into five views, synced to disk, exactly once.

Its log is filled before each run, with other event ids each time (the same ones would be duplicates), so its memory of
ids and its chain go on from run to run as they would in service. Its clock starts when `/ready` says that all
partitions are loaded, before anything is fetched, and stops when `/status` has received everything: the last second, in
which a worker waits for its last batch to fill up, is in it.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.compare.data import PARTITIONS, Truth, events, grants
from benchmarks.compare.stores import free_port
from benchmarks.compare.work import DidNotFinish, peak_kb
from deploy.embedded.stack import Stack
from streams import settings as settings_module
from streams.demo.send import send
from streams.stores import Role, Store, connect
from streams.totals import totals

EVENTS = "tracking.events"
PATIENCE_SECONDS = 300.0


def cpu_seconds(pid: int) -> float:
    """Processor time of a process so far, user and system, all threads."""
    spent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(spent[11]) + int(spent[12])) / os.sysconf("SC_CLK_TCK")


class Lock:
    """The topics, tables, tenants and preferences of the lock, made once; then run by run."""

    def __init__(self, stack: Stack, people: int) -> None:
        self._stack, self._people, self._lots, self._port = stack, people, 0, free_port()
        self._environment = {
            **os.environ,
            "SCHLEUSE_PARTITIONS": str(PARTITIONS),
            "SCHLEUSE_HTTP_PORT": str(self._port),
        }
        # What a link is, as in THE WORK; without it every link would be "other" (nobody declared any).
        (stack.directory / "tenants.toml").write_text('[acme]\nlinks = "path"\n')
        self._command = [sys.executable, "-m", "streams.cli", "--config", str(stack.settings_file)]
        for step in (["topics"], ["migrate"], ["tenants", "apply", "--yes"]):
            subprocess.run([*self._command, *step], env=self._environment, check=True, stdout=subprocess.DEVNULL)
        sent = asyncio.run(send(stack.broker_address, PARTITIONS, grants(people)))
        worker = self._start()
        try:
            self._until(worker, lambda said: sum(line["next_change"] for line in said["partitions"]) >= sent)
        finally:
            self._end(worker)

    def fill(self, count: int) -> None:
        """Put one more lot of events into the log."""
        self._lots += 1
        lot = events(EVENTS, count, self._people, lot=self._lots)
        asyncio.run(send(self._stack.broker_address, PARTITIONS, lot))

    def run(self, count: int) -> dict[str, Any]:
        """Start a worker, let it do all of the lot, end it: its figures, as a contestant gives them."""
        worker = self._start()
        try:
            self._until(worker, lambda _: self._get("/ready") is not None, 0.02)
            marks = [(time.monotonic(), cpu_seconds(worker.pid), 0)]
            first = 0.0
            for least in (1, count // 2, count):
                got = self._until(worker, lambda said, least=least: said["outcomes"]["received"] >= least)  # type: ignore[misc]
                marks.append((time.monotonic(), cpu_seconds(worker.pid), got["outcomes"]["received"]))
                first = first or marks[-1][0]
            peak = peak_kb(worker.pid)
        finally:
            self._end(worker)
        (start, cpu, _), (begun, _, done), (middle, half_cpu, half), (end, last_cpu, last) = marks
        if half >= last:  # so few events that one look saw them all done
            middle, half_cpu, half = start, cpu, 0
        return {
            "seconds": end - start,
            "cpu_seconds": last_cpu - cpu,
            "second_events": last - half,
            "second_seconds": end - middle,
            "second_cpu_seconds": last_cpu - half_cpu,
            "between_batches": (last - done) / (end - begun) if end > begun else None,
            "peak_kb": peak,
        }

    def wrong(self, truth: Truth) -> list[str]:
        """What differs from the truth after all lots so far; empty when nothing does."""
        settings = settings_module.load(self._stack.settings_file)
        analytics = connect(settings, Store.ANALYTICS, Role.OPERATOR)
        found: dict[tuple[str, str, str], int] = {}
        for line in totals(analytics):
            if line.kind == "open" or line.link is not None:
                cell = (line.mailing, line.kind, line.link or "")
                found[cell] = found.get(cell, 0) + line.events
        analytics.close()
        wanted: dict[tuple[str, str, str], int] = {}
        for (mailing, kind, link, _), number in truth.cells.items():
            wanted[mailing, kind, link] = wanted.get((mailing, kind, link), 0) + number * self._lots
        rights = connect(settings, Store.ANALYTICS, Role.RIGHTS)
        ((rows,),) = rights.rows("counting rows", "SELECT count() FROM engagement")
        rights.close()
        # The lock names a link by its path in its own way, so links are compared by their figures.
        same = sorted((*cell[:2], number) for cell, number in found.items()) == sorted(
            (*cell[:2], number) for cell, number in wanted.items()
        )
        return [*([] if same else ["cells"]), *([] if rows == truth.rows * self._lots else ["rows"])]

    def _start(self) -> subprocess.Popen[bytes]:
        with (self._stack.directory / "logs" / "worker.log").open("ab") as out:
            return subprocess.Popen([*self._command, "worker"], env=self._environment, stdout=out, stderr=out)

    @staticmethod
    def _end(worker: subprocess.Popen[bytes]) -> None:
        worker.terminate()
        try:
            worker.wait(60)
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.wait()

    def _get(self, path: str) -> bytes | None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}{path}", timeout=5) as answer:
                body: bytes = answer.read()
                return body
        except (OSError, urllib.error.HTTPError):
            return None

    def _until(
        self, worker: subprocess.Popen[bytes], there: Callable[[Any], bool], every: float = 0.1
    ) -> dict[str, Any]:
        end = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < end and worker.poll() is None:
            body = self._get("/status")
            said: dict[str, Any] | None = json.loads(body) if body else None
            if said is not None and there(said):
                return said
            time.sleep(every)
        log = self._stack.directory / "logs" / "worker.log"
        raise DidNotFinish(f"the worker ended or did not get on: {log.read_text('utf-8', 'replace')[-2000:]}")
