"""The workers of a soak: each in a slot that is filled again when its worker ends, as a supervisor would do it."""

from __future__ import annotations

import json
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.lock import Lock, WorkerProcess

LOOK_SECONDS = 0.5


def clock(directory: Path) -> Path | None:
    """The library that puts a process's wall clock wrong (clock.c), compiled. None without Linux or a C compiler."""
    if sys.platform != "linux":
        return None
    library = directory / "clock.so"
    command = ["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(Path(__file__).with_name("clock.c"))]
    try:
        return library if subprocess.run(command, capture_output=True, check=False).returncode == 0 else None
    except OSError:
        return None


@dataclass
class Slot:
    """A place for one worker. Whoever does something to its worker holds `busy`."""

    environment: Mapping[str, str]
    worker: WorkerProcess
    busy: threading.Lock = field(default_factory=threading.Lock)


class Fleet:
    """So many workers, kept alive. `ended` counts those that ended without being told to, by what they said last.

    Use as a context manager. `environments` has one entry a slot, which a worker that takes another's place inherits;
    `guest` is for those who join for a while.
    """

    def __init__(self, lock: Lock, environments: Sequence[Mapping[str, str]], guest: Mapping[str, str]) -> None:
        self._lock, self._making, self.guest = lock, threading.Lock(), guest
        self.ended: Counter[str] = Counter()
        self.exits: Counter[str] = Counter()  # how those ended that were told to leave
        self.slots = [Slot(environment, self.start(environment)) for environment in environments]
        self._stopping = threading.Event()
        self._keeper = threading.Thread(target=self._keep, daemon=True)
        self._keeper.start()

    def __enter__(self) -> Fleet:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Look after the slots no more: from here on a worker that ends has ended."""
        self._stopping.set()
        self._keeper.join()

    def start(self, environment: Mapping[str, str]) -> WorkerProcess:
        """One more worker."""
        with self._making:
            return self._lock.worker(**environment)

    def leave(self, worker: WorkerProcess) -> None:
        """Tell a worker to leave (SIGTERM), and note how it went."""
        try:
            code = worker.kill(signal.SIGTERM)
            self.exits["with 0" if code == 0 else f"with {code}: {last_words(worker)}"] += 1
        except subprocess.TimeoutExpired:
            self.exits["not within 40 s, and was killed"] += 1
            worker.kill()

    @contextmanager
    def some_slot(self, chance: random.Random) -> Iterator[Slot]:
        """One of the slots to which nothing is being done at this moment; its worker lives."""
        while True:
            for slot in chance.sample(self.slots, len(self.slots)):
                if slot.busy.acquire(blocking=False):
                    try:
                        if slot.worker.process.poll() is None:
                            yield slot
                            return
                    finally:
                        slot.busy.release()
            time.sleep(0.1)

    def _keep(self) -> None:
        while not self._stopping.wait(LOOK_SECONDS):
            for slot in self.slots:
                if slot.busy.acquire(blocking=False):
                    try:
                        if (code := slot.worker.process.poll()) is not None:
                            self.ended[f"{code}: {last_words(slot.worker)}"] += 1
                            slot.worker = self.start(slot.environment)
                    finally:
                        slot.busy.release()


def last_words(worker: WorkerProcess) -> str:
    """Why a worker ended, in its own words."""
    for line in reversed(worker.text().splitlines()):
        try:
            said = json.loads(line)
        except ValueError:
            if line.startswith("schleuse: "):  # it ended before it had begun
                return re.sub(r":\d+ ", " ", line.removeprefix("schleuse: "))
            continue
        if str(said.get("event", "")).startswith("worker ends"):
            return str(said.get("reason") or said.get("error") or said["event"])
    return "(said nothing: it was killed, or did not stop within the worker's own 25 s)"
