"""What the figures were taken on, and what else the machine is doing."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from deploy.embedded import kafka

PACKAGES = (
    *("schleuse", "faust-streaming", "mode-streaming", "aiokafka", "quixstreams", "bytewax", "confluent-kafka"),
    *("polars", "msgspec", "orjson", "numpy", "pyarrow", "clickhouse-connect", "chdb"),
)
QUIET_CORES = 0.2
POM = Path(__file__).resolve().parent / "java" / "pom.xml"


def facts() -> dict[str, Any]:
    """Processor, memory, system and the versions of everything."""
    cpu = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    said = subprocess.run([kafka.java(), "-version"], capture_output=True, text=True, check=True).stderr
    jars = dict(re.findall(r"<artifactId>([\w-]+)</artifactId><version>([\w.]+)</version>", POM.read_text()))
    return {
        "when": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "processor": cpu[1] if cpu else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        "java": said.splitlines()[0].strip(),
        "versions": dict(_installed()) | {"Apache Kafka (broker)": kafka.VERSION} | jars,
    }


def _installed() -> Iterator[tuple[str, str]]:
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            yield name, version(name)


def load() -> dict[str, Any]:
    """The load average, and how many cores others keep busy while we do nothing. Warns, never refuses.

    The load average still holds what the round before did; the busy cores are what others do now.
    """
    busy = busy_cores(2)
    one, five, _ = os.getloadavg()
    print(f"load average {one:.2f} (1 min) {five:.2f} (5 min), {busy:.2f} cores busy while we wait", flush=True)
    if one > 1:
        print(f"WARNING: the load is {one:.2f}: unless that was this program, others blur the figures", flush=True)
    if busy > QUIET_CORES:
        print(f"WARNING: others keep {busy:.2f} cores busy: the figures are blurred", flush=True)
    return {"load_1": round(one, 2), "load_5": round(five, 2), "busy_cores": round(busy, 2)}


def settle(seconds: float = 6) -> float:
    """Wait, for so long at most, until what the run before has left (merges, a JVM's end) is over: busy cores then."""
    end = time.monotonic() + seconds
    while (busy := busy_cores(1)) > QUIET_CORES and time.monotonic() < end:
        pass
    return round(busy, 2)


def busy_cores(seconds: float) -> float:
    """How many cores the whole machine keeps busy while this process sleeps."""
    before = _busy_ticks()
    time.sleep(seconds)
    return (_busy_ticks() - before) / os.sysconf("SC_CLK_TCK") / seconds


def _busy_ticks() -> int:
    user, nice, system, _idle, _wait, *rest = map(int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9])
    return user + nice + system + sum(rest)
