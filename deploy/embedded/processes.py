"""Processes that outlive the command that started them: pid files, readiness, and an end that hits nobody else.

A pid alone names nobody: after a reboot it may be another's. So a pid file holds the moment of birth too, and a process
is only ever signalled while both agree.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from deploy import tied


class StackError(Exception):
    """The embedded stack cannot do it. One sentence that says what to do; no values."""


@dataclass(frozen=True, slots=True)
class Part:
    """One process of the stack. `ready` is asked again and again until it says True; it must not block for long."""

    name: str
    command: Sequence[str]
    address: str
    ready: Callable[[], bool] = field(repr=False)
    environment: Mapping[str, str] = field(default_factory=dict)


def birth(pid: int) -> str | None:
    """When the process began, in the system's own words; None if there is none or it has ended and is only unreaped."""
    if sys.platform == "linux":
        try:
            after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return None
        return None if after_name[0] in "ZX" else after_name[19]
    command = ["/bin/ps", "-p", str(pid), "-o", "stat=,lstart="]
    found = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    state, _, began = found.strip().partition(" ")
    return began.strip() if began and "Z" not in state else None


class Keeper:
    """Starts and ends the processes of one directory: pid files in `run/`, what they print in `logs/NAME.log`.

    With `die_with_parent` they get SIGTERM when the *thread* that started them ends (Linux only; elsewhere they stay).
    """

    def __init__(self, directory: Path, die_with_parent: bool = False) -> None:
        self._run, self._logs, self._tied = directory / "run", directory / "logs", die_with_parent
        self._children: dict[int, subprocess.Popen[bytes]] = {}

    def pid(self, name: str) -> int | None:
        """The pid of a part that is running now, else None."""
        try:
            noted = json.loads((self._run / f"{name}.pid").read_text())
        except (OSError, ValueError):
            return None
        pid = int(noted["pid"])
        if child := self._children.get(pid):
            child.poll()  # reap it, should it have ended
        return pid if birth(pid) == noted["born"] else None

    def start(self, part: Part) -> None:
        """Start a part unless it runs already. Does not wait. Raises StackError if there is no such program."""
        if self.pid(part.name) is not None:
            return
        for folder in (self._run, self._logs):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (self._logs / f"{part.name}.log").open("ab") as out:
            try:
                child = subprocess.Popen(
                    part.command,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=out,
                    env={**os.environ, **part.environment},
                    start_new_session=True,  # Ctrl-C is for us, and we end them in order
                    preexec_fn=tied.to_this_process() if self._tied else None,  # noqa: PLW1509  two system calls, no lock
                )
            except OSError as error:
                raise StackError(f"{part.name} cannot be started: {error.strerror}") from None
        self._children[child.pid] = child
        noted = json.dumps({"pid": child.pid, "born": birth(child.pid)})
        (self._run / f"{part.name}.pid").write_text(noted + "\n")

    def wait_ready(self, part: Part, seconds: float) -> None:
        """Wait until the part is ready. Raises StackError if it ends before, or is not ready in time."""
        deadline = time.monotonic() + seconds
        log = self._logs / f"{part.name}.log"
        while not part.ready():
            if self.pid(part.name) is None:
                raise StackError(f"{part.name} stopped while it was starting; its last words are in {log}")
            if time.monotonic() > deadline:
                raise StackError(f"{part.name} was not ready after {seconds:.0f} seconds; see {log}")
            time.sleep(0.05)

    def stop(self, name: str, seconds: float = 15.0) -> bool:
        """End a part: SIGTERM, after `seconds` SIGKILL. False if it was not running."""
        pid = self.pid(name)
        if pid is None:
            return False
        os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + seconds
        while self.pid(name) is not None:
            if time.monotonic() > deadline:
                self.kill(name)
                break
            time.sleep(0.02)
        (self._run / f"{name}.pid").unlink(missing_ok=True)
        return True

    def kill(self, name: str) -> None:
        """End a part at once (SIGKILL), as a power cut would; returns when it is gone."""
        pid = self.pid(name)
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
            while self.pid(name) is not None:
                time.sleep(0.01)
