"""Schleuse's own commands as processes, for the commands that bring a whole system with them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from deploy import tied
from streams.errors import SchleuseError

DRAIN_SECONDS: Final = 30


def once(config: Path, *command: str, environment: Mapping[str, str] | None = None) -> None:
    """Run a command to its end. `environment`: this process's own unless given. Raises SchleuseError when it fails."""
    done = subprocess.run(
        _command(config, *command), capture_output=True, text=True, check=False, env=dict(environment or os.environ)
    )
    if done.returncode:
        raise SchleuseError(f"schleuse {' '.join(command)} failed: {(done.stderr or done.stdout).strip()}")


def set_up(config: Path, environment: Mapping[str, str] | None = None) -> None:
    """Make topics and tables, and put the tenants file in force. Raises SchleuseError."""
    for command in (["topics"], ["migrate"], ["tenants", "apply", "--yes"]):
        once(config, *command, environment=environment)


@contextmanager
def running(
    config: Path, command: str, log: Path, environment: Mapping[str, str], apart: bool = False
) -> Iterator[subprocess.Popen[bytes]]:
    """A command that runs for as long as the context does; what it prints is added to `log`.

    It ends with this process, also when that is killed (Linux). `apart`: a Ctrl-C at the terminal does not reach it, so
    that whoever started it ends it in order. The thread that enters must not end before the context does.
    """
    with log.open("ab") as written:
        process = subprocess.Popen(
            _command(config, command),
            stdout=written,
            stderr=subprocess.STDOUT,
            env=dict(environment),
            start_new_session=apart,
            preexec_fn=tied.to_this_process(),  # noqa: PLW1509  two system calls, no lock
        )
    try:
        yield process
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(DRAIN_SECONDS)
        process.kill()
        process.wait()


def schleuse() -> str:
    """How a person starts the command from where she is now: by its name where it is on the PATH, else as she did."""
    started = sys.argv[0]
    return started if Path(started).name == "schleuse" and shutil.which("schleuse") is None else "schleuse"


def _command(config: Path, *command: str) -> list[str]:
    return [sys.executable, "-m", "streams.cli", "--config", str(config), *command]
