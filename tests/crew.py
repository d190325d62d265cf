"""Workers that are killed, stopped and woken, and started again whenever one has ended, as a supervisor does."""

from __future__ import annotations

import json
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Sequence
from types import TracebackType

from tests.lock import Lock, WorkerProcess


class Crew:
    """So many workers of a lock. A context manager; whatever ends is started again within it."""

    def __init__(self, lock: Lock, size: int) -> None:
        self._lock = lock
        self._slots = [lock.worker() for _ in range(size)]
        self._busy = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._supervise, name="crew", daemon=True)
        self.killed = self.stalled = 0
        self.ended: Counter[int] = Counter()
        """How often a worker ended by itself, by exit code."""

    def __enter__(self) -> Crew:
        self._thread.start()
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self._over.set()
        self._thread.join(30)

    def _supervise(self) -> None:
        while not self._over.wait(0.05):
            with self._busy:
                for slot, worker in enumerate(self._slots):
                    code = worker.process.poll()
                    if code is not None:
                        if code != -signal.SIGKILL:
                            self.ended[code] += 1
                        self._slots[slot] = self._lock.worker()

    def kill(self, slot: int) -> None:
        """SIGKILL, to whoever works in this slot now."""
        with self._busy:
            worker = self._slots[slot]
            if worker.process.poll() is None:
                worker.process.kill()
                worker.process.wait(10)
                self.killed += 1
        while self._slots[slot] is worker:
            time.sleep(0.01)

    def stall(self, slot: int, seconds: float) -> None:
        """SIGSTOP, and SIGCONT later: others have its partitions by then, and it does not know."""
        process = self._slots[slot].process
        process.send_signal(signal.SIGSTOP)
        self.stalled += 1
        time.sleep(seconds)
        process.send_signal(signal.SIGCONT)


def carried_out_again(workers: Sequence[WorkerProcess]) -> list[str]:
    """The kind of every claim that was begun by one worker and carried out again, once for each time."""
    found = []
    for worker in workers:
        for line in worker.text().splitlines():
            if '"carrying out again"' in line:
                found.append(json.loads(line)["kind"])
    return found


def instants(chance: random.Random) -> float:
    """A moment after something has moved: mostly right in the middle of it, sometimes later."""
    return chance.choice((0.0, 0.05, 0.2, 0.5)) * chance.random()
