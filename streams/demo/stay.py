"""The demo after its sum: worker, rights service, publisher and dashboard go on, and keys are handed out."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final

from streams.dashboard.readers import ReaderRole, let_in
from streams.errors import SchleuseError
from streams.processes import once, running, schleuse
from streams.settings import Settings
from streams.stores import Role, Store, connect

PARTS: Final = ("worker", "rights", "publish", "dashboard")
USUAL_PORT: Final = 8080
DAY_MS: Final = 86_400_000


def stay(settings: Settings, config: Path, logs: Path, tenants: Sequence[str], say: Callable[[str], None]) -> None:
    """Run until SIGINT or SIGTERM, or until a part ends by itself. From the main thread only.

    `say` gets the address and the keys, a line each. Raises SchleuseError when a part has ended.
    """
    over = threading.Event()
    before = {number: signal.signal(number, lambda *_: over.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    port = _port()
    environment = {
        **os.environ,
        "SCHLEUSE_HTTP_PORT": "0",  # the usual port may be another worker's
        "SCHLEUSE_DASHBOARD_PORT": str(port),
        "SCHLEUSE_DASHBOARD_URL": f"http://127.0.0.1:{port}",
    }
    try:
        with ExitStack() as open_:
            once(config, "publish", "--once")
            parts = {
                name: open_.enter_context(running(config, name, logs / f"{name}.log", environment, apart=True))
                for name in PARTS
            }
            address = f"http://127.0.0.1:{port}"
            _wait(address, parts, over)
            for line in _invitation(settings, config, address, tenants):
                say(line)
            while not over.wait(0.5):
                _alive(parts)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _invitation(settings: Settings, config: Path, address: str, tenants: Sequence[str]) -> Iterator[str]:
    store = connect(settings, Store.ANALYTICS, Role.OPERATOR, connections=1)
    until = time.time_ns() // 1_000_000 + DAY_MS
    try:
        yield f"The dashboard: {address}"
        for tenant in tenants:
            yield f"  {tenant:<11} analyst   {let_in(store, tenant, ReaderRole.ANALYST, 'demo', until)}"
        for role in (ReaderRole.PRIVACY, ReaderRole.OPERATOR):
            yield f"  {tenants[0]:<11} {role:<9} {let_in(store, tenants[0], role, 'demo', until)}"
    finally:
        store.close()
    command = shlex.join([schleuse(), "--config", str(config), "readers", "add", "--tenant", tenants[0]])
    yield f"More keys: {command} --role analyst"
    yield "Log in with one of these keys; they open for a day. Ctrl-C ends everything."


def _port() -> int:
    """The usual port, or a free one where that is taken."""
    for port in (USUAL_PORT, 0):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            found: int = probe.getsockname()[1]
            return found
    raise SchleuseError("no port on 127.0.0.1 is free for the dashboard")


def _alive(parts: dict[str, subprocess.Popen[bytes]]) -> None:
    ended = [name for name, process in parts.items() if process.poll() is not None]
    if ended:
        raise SchleuseError(f"{', '.join(ended)} ended; its last words are in the folder logs (--keep)")


def _wait(address: str, parts: dict[str, subprocess.Popen[bytes]], over: threading.Event) -> None:
    end = time.monotonic() + 60
    while not over.wait(0.2):
        _alive(parts)
        with suppress(OSError, urllib.error.URLError), urllib.request.urlopen(f"{address}/ready", timeout=5):  # noqa: S310  our own
            return
        if time.monotonic() > end:
            raise SchleuseError("the dashboard does not answer; its last words are in the folder logs (--keep)")
