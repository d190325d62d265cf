"""A whole lock to measure: broker and stores of their own, the commands, workers, and what /proc says of them all."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from deploy.embedded.stack import Stack
from streams import settings as settings_module
from streams.demo.send import send
from streams.stores import Role, Store, connect

TICKS = os.sysconf("SC_CLK_TCK")
TENANTS = '[acme.purposes.engagement]\nceiling = "personal"\n[probe.purposes.engagement]\nceiling = "personal"\n'
Message = tuple[str, bytes, bytes]


class Used(NamedTuple):
    """What a process has used: CPU seconds (user and system, all threads), MB now and at most, open files, threads."""

    cpu_s: float
    rss_mb: float
    peak_mb: float
    files: int
    threads: int


def used(pid: int) -> Used:
    """Read /proc. Raises OSError when the process is gone."""
    home = Path(f"/proc/{pid}")
    stat = (home / "stat").read_text().rpartition(")")[2].split()
    status = dict(line.split(":", 1) for line in (home / "status").read_text().splitlines() if ":" in line)

    def megabytes(name: str) -> float:
        return round(int(status[name].split()[0]) / 1024, 1)

    cpu = (int(stat[11]) + int(stat[12])) / TICKS
    return Used(cpu, megabytes("VmRSS"), megabytes("VmHWM"), len(list((home / "fd").iterdir())), int(stat[17]))


class Worker:
    """One `schleuse worker`."""

    def __init__(self, command: Sequence[str], environment: dict[str, str], log: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self.log, self.began = log, time.monotonic()
        self.process = subprocess.Popen(
            command,
            stdout=log.open("wb"),
            stderr=subprocess.STDOUT,
            env={**environment, "SCHLEUSE_HTTP_PORT": str(self._port)},
        )

    @property
    def pid(self) -> int:
        """Of the process."""
        return self.process.pid

    def get(self, path: str) -> bytes | None:
        """What its web server says; None while it says nothing, or says 503. Raises RuntimeError when it has ended."""
        if self.process.poll() is not None:
            raise RuntimeError(f"the worker ended with {self.process.returncode}: {self.log.read_text()[-2000:]}")
        with (
            contextlib.suppress(OSError),
            urllib.request.urlopen(f"http://127.0.0.1:{self._port}{path}", timeout=30) as a,
        ):
            body: bytes = a.read()
            return body
        return None

    def status(self) -> dict[str, Any] | None:
        """`/status`, or None."""
        said = self.get("/status")
        return json.loads(said) if said is not None else None

    def ready(self, seconds: float = 600) -> float:
        """Wait for `/ready`; seconds since the process was started."""
        end = time.monotonic() + seconds
        while self.get("/ready") is None:
            if time.monotonic() > end:
                raise RuntimeError("the worker did not get ready")
            time.sleep(0.05)
        return time.monotonic() - self.began

    def stages(self) -> dict[str, tuple[float, int]]:
        """Stage of a claim -> seconds and how often, from `/metrics`."""
        sums: dict[str, float] = {}
        counts: dict[str, int] = {}
        for line in (self.get("/metrics") or b"").decode().splitlines():
            for suffix, into in (("sum", sums), ("count", counts)):
                begin = f'schleuse_stage_seconds_{suffix}{{stage="'
                if line.startswith(begin):
                    stage, _, value = line.removeprefix(begin).partition('"} ')
                    into[stage] = float(value)  # type: ignore[assignment]
        return {stage: (round(seconds, 2), int(counts[stage])) for stage, seconds in sums.items()}

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait for the end; the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(60)


class Lock:
    """A stack with topics, tables and tenants, and any number of workers. Use `made`."""

    def __init__(self, stack: Stack, partitions: int, settings: dict[str, str], tenants: str = TENANTS) -> None:
        self.stack, self.partitions = stack, partitions
        self.environment = {**os.environ, "SCHLEUSE_PARTITIONS": str(partitions), **settings}
        self.command = [sys.executable, "-m", "streams.cli", "--config", str(stack.settings_file)]
        self.workers: list[Worker] = []
        (stack.directory / "tenants.toml").write_text(tenants)
        for step in (["topics"], ["migrate"], ["tenants", "apply", "--yes"]):
            done = subprocess.run(
                [*self.command, *step], env=self.environment, capture_output=True, text=True, check=False
            )
            if done.returncode:
                raise RuntimeError(f"{step}: {done.stdout}{done.stderr}")

    @property
    def settings(self) -> settings_module.Settings:
        """As the commands have them."""
        return settings_module.load(self.stack.settings_file)

    def worker(self, **settings: str) -> Worker:
        """Start one more worker."""
        log = self.stack.directory / "logs" / f"worker-{len(self.workers)}.log"
        started = Worker([*self.command, "worker"], {**self.environment, **settings}, log)
        self.workers.append(started)
        return started

    def stop_workers(self) -> None:
        """End all of them, all at once."""
        for worker in self.workers:
            if worker.process.poll() is None:
                worker.process.send_signal(signal.SIGTERM)
        for worker in self.workers:
            worker.stop()

    def send(self, messages: Iterable[Message]) -> int:
        """Send as fast as it goes, and wait until the broker has them."""
        return asyncio.run(send(self.stack.broker_address, self.partitions, messages))

    def pids(self) -> dict[str, int]:
        """Of the broker, the stores and the workers that run."""
        found = {line.name: line.pid for line in self.stack.status() if line.pid is not None}
        return found | {f"worker{n}": w.pid for n, w in enumerate(self.workers) if w.process.poll() is None}

    def used(self) -> dict[str, Used]:
        """Of every process."""
        return {name: used(pid) for name, pid in self.pids().items()}

    def rows(self, store: Store, sql: str, role: Role = Role.OPERATOR) -> Sequence[Sequence[Any]]:
        """A SELECT under a role."""
        client = connect(self.settings, store, role)
        try:
            return client.rows("a benchmark reading", sql)
        finally:
            client.close()

    def received(self) -> int:
        """Events that are counted, off, refused or duplicates by now, in the store's word."""
        ((count,),) = self.rows(Store.ANALYTICS, "SELECT sum(events) FROM outcomes WHERE outcome = 'received'")
        return int(count or 0)

    def changes(self) -> int:
        """Changes that the workers have carried out."""
        said = [w.status() for w in self.workers if w.process.poll() is None]
        return sum(line["next_change"] for one in said if one for line in one["partitions"])

    def until(self, there: Callable[[], bool], seconds: float = 900, every: float = 0.1) -> float:
        """Wait for something; the moment (monotonic) at which it was seen."""
        end = time.monotonic() + seconds
        while not there():
            if time.monotonic() > end:
                raise RuntimeError(f"waited for {seconds} s in vain")
            time.sleep(every)
        return time.monotonic()


@contextlib.contextmanager
def made(
    broker: str = "kafka", partitions: int = 4, keep: Path | None = None, tenants: str = TENANTS, **settings: str
) -> Iterator[Lock]:
    """A lock in a directory of its own (`keep`, or one that is deleted); everything is ended at the end.

    `tenants`: the text of tenants.toml. `settings`: SCHLEUSE_... variables of every command.
    """
    folder = keep or Path(tempfile.mkdtemp(prefix="schleuse-bench-"))
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with Stack(folder, broker, die_with_parent=True) as stack:  # type: ignore[arg-type]  # argparse's choices
            lock = Lock(stack, partitions, settings, tenants)
            try:
                yield lock
            finally:
                for worker in lock.workers:
                    if worker.process.poll() is None:
                        worker.stop(signal.SIGKILL)
    finally:
        if keep is None:
            shutil.rmtree(folder, ignore_errors=True)
