"""Who takes part, and how each is started."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from deploy.embedded.kafka import java

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True, slots=True)
class Contestant:
    """One line of the table. `few`: it gets a tenth of the events, so that a round stays short."""

    name: str
    label: str
    module: str = ""
    few: bool = False
    work: bool = True

    def command(self, task: Path) -> list[str]:
        """How it is started; `java` is the one that is no Python module."""
        if self.module == "java":
            return [
                java(),
                "-Xmx1g",
                "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
                *("-cp", f"{jars()}/*"),
                "Compare",
                str(task),
            ]
        return [sys.executable, "-m", f"benchmarks.compare.{self.module}", str(task)]


CONTESTANTS = (
    Contestant("faust", "plain Faust agent", "faust_agent", few=True),
    Contestant("quix", "Quix Streams", "quix"),
    Contestant("bytewax", "Bytewax", "bytewax_flow"),
    Contestant("aiokafka", "bare aiokafka loop", "aiokafka_loop"),
    Contestant("confluent", "bare confluent-kafka loop", "confluent_loop"),
    Contestant("kafka-streams", "Kafka Streams (JVM)", "java"),
    Contestant("schleuse", "**Schleuse (same work)**", "schleuse_work"),
    Contestant("lock", "**Schleuse (the whole lock)**", work=False),
)


def jars() -> Path:
    """The folder with Compare and what it needs; built by Maven where its sources have changed (outside the tree)."""
    sources = [HERE / "java" / name for name in ("pom.xml", "Compare.java")]
    version = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:12]
    out = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "schleuse" / f"compare-{version}"
    if not (out / "built").exists():
        maven = shutil.which("mvn")
        if maven is None:
            raise SystemExit("Kafka Streams is built with Maven: install it, or name the others with --only")
        subprocess.run([maven, "-q", "-B", "-f", str(sources[0]), f"-Dout={out}", "package"], check=True)
        (out / "built").touch()
    return out
