"""A whole lock into which a careless sender has put recipients wherever one can; then everything that there is.

What is carried out: choices of every mode through every format, events with the recipient in every place, mailings that
name her, rows that are refused, a worker that dies of an exception which quotes what it works on, a store that is away
for a while, commands that fail. Then it is all stopped and read.
"""

from __future__ import annotations

import functools
import itertools
import json
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from kafka import KafkaConsumer

from deploy.clickhouse.grants import Store
from streams.partitioner import partition_of
from tests.lock import Lock, event, key, mailing, now_ms, shown
from tests.promises.p2 import bodies
from tests.promises.p2.canaries import FEEDS, MODES, Canary, word
from tests.promises.p2.people import Pair, pairs
from tests.promises.p2.store_dump import Dump, dump

TENANTS = "".join(f'[{name}.purposes.engagement]\nceiling = "personal"\n' for name in FEEDS)
HOLD_ADDRESSES = {f"tracking.{name}" for name in ("events", "preferences", "requests", "changes", "state")}
PAIRS = 240
COMMANDS = (
    "status", "status --json", "totals", "totals --json", "settings", "settings --json", "keys", "keys --json",
    "rejected list", "rejected list --json", "rejected replay", "audit list --json", "audit verify", "tenants apply",
    "topics", "migrate",
)  # fmt: skip
T = TypeVar("T")
# A worker with a fault in it: what it works on is in the exception's text and in its frames.
_CRASH = """
import streams.events
hashes, decode = streams.events.event_hashes, streams.events.decode
def seen(values, now):
    seen.values = values
    return decode(values, now)
def planted(*what):
    raise ValueError(f"planted {seen.values}") from KeyError(seen.values)
streams.events.decode, streams.events.event_hashes = seen, planted
from streams.cli import main
main()
"""


@dataclass
class Evidence:
    """Everything that was written, said and kept."""

    canaries: list[Canary]
    declared: Canary
    said: dict[str, str]
    passwords: dict[str, str]
    pairs: list[Pair]
    seed: int
    fed: list[bytes] = field(default_factory=list, repr=False)
    identity: Dump = field(default_factory=lambda: Dump({}, {}, {}), repr=False)
    analytics: Dump = field(default_factory=lambda: Dump({}, {}, {}), repr=False)
    files: dict[str, bytes] = field(default_factory=dict, repr=False)
    told: dict[str, bytes] = field(default_factory=dict, repr=False)
    topics: dict[str, list[Any]] = field(default_factory=dict, repr=False)
    misrouted: bytes = b""
    refused: list[int] = field(default_factory=list)

    def words(self) -> dict[str, str]:
        """All that must not be found, by name."""
        found = {name: text for who in self.canaries for name, text in who.words().items()}
        return {**found, **self.said}

    def of(self, feed: str, mode: str) -> Canary:
        """The canary of a format and mode."""
        return next(who for who in self.canaries if (who.feed, who.mode) == (feed, mode))


class Collector:
    """Drives a lock and keeps what its commands print."""

    def __init__(self, lock: Lock, scratch: Path) -> None:
        self.lock, self.scratch, self._number = lock, scratch, itertools.count()
        canaries = [Canary.of(feed, mode) for feed in FEEDS for mode in MODES]
        canaries.append(Canary.of("sendgrid", "withdrawn"))
        names = ("event", "field", "value", "link", "tenant", "unreadable", "deep", "large", "tombstone", "grant")
        self.seed = secrets.randbits(32)
        self.found = Evidence(
            canaries,
            Canary.of("native", "declared"),
            {f"said: {name}": word(name) for name in names},
            {
                f"password {path.name}": path.read_text().strip()
                for path in sorted((lock.stack.directory / "credentials").iterdir())
            },
            pairs(self.seed, PAIRS),
            self.seed,
        )

    # --- sending ---

    def run(self, *command: str, code: int | None = 0) -> str:
        """A command; what it printed is kept. `code` None: any. Several may run at once."""
        done = self.lock.run(*command, check=False)
        assert code in (None, done.returncode), f"{command}: {done.stdout}{done.stderr}"
        said = done.stdout + done.stderr
        self.found.told[f"{next(self._number)}: schleuse {' '.join(command[:4])}"] = said.encode()
        return said

    def feed(self, lines: list[str], *options: str, refused: int = 0) -> int:
        """Feed lines from a file that is no part of the evidence; how many were sent. So many have to be refused.

        Several may run at once: what is kept is appended, since `+=` would lose what another thread added meanwhile.
        """
        path = self.scratch / f"feed-{next(self._number)}.ndjson"
        path.write_text("".join(f"{line}\n" for line in lines))
        self.found.fed.append(path.read_bytes())
        said = self.run("feed", *options, "--json", str(path), code=1 if refused else 0)
        account = json.loads(said[said.index("{") : said.rindex("}") + 1])
        assert (account["sent"], account["refused"]) == (len(lines) - refused, refused), said
        assert said.count(f"{path.name}:") >= refused, "what is refused is told by file and line"
        self.found.refused.append(refused)
        return int(account["sent"])

    def choices(self) -> int:
        """Everybody's choice, through `schleuse feed`; how many changes that makes."""
        at = now_ms() - 60_000
        lines = [
            bodies.preference(who, at, name)
            for who in self.found.canaries
            if who.mode != "unknown"
            for name in ((who.address, who.number) if who.feed == "native" else (who.address,))
        ]
        for pair in self.found.pairs:
            if pair.mode != "unknown":
                lines.append(bodies.preference(Canary("native", pair.mode, pair.recipient, "number"), at))
        return self.feed(lines, "--topic", "preferences")

    def acts(self) -> int:
        """Everybody's events, through `schleuse feed` in every format, and among them bodies that it refuses."""

        def act(feed: str) -> int:
            mine = [who for who in self.found.canaries if who.feed == feed]
            lines = [line for who in mine for line in bodies.good(who, now_ms() - 30_000)]
            if feed == "native":
                people = [Canary(feed, pair.mode, pair.recipient, f"p{n}") for n, pair in enumerate(self.found.pairs)]
                lines += [json.dumps(bodies.native(who, now_ms() - 20_000, 0, None)) for who in people]
            bad = [line for who in mine for line in bodies.bad(who, now_ms() - 30_000)]
            options = () if feed == "native" else ("--format", feed, "--tenant", feed)
            return self.feed(bad + lines, *options, refused=len(bad))

        def declare(_: str) -> int:
            bad = bodies.declarations(self.found.declared, "native")
            self.feed(bad, "--topic", "mailings", refused=len(bad))
            return 0

        return sum(at_once([functools.partial(act, feed) for feed in FEEDS] + [functools.partial(declare, "")]))

    def bad_rows(self) -> int:
        """What other producers send: rows that the worker refuses, some with nobody's key. How many events."""
        said, her = self.found.said, self.found.of("native", "personal")
        more = {"user_agent": bodies.agent(her), said["said: field"]: said["said: value"]}
        other = next(
            name
            for name in (key("native", str(n)) for n in range(99))
            if partition_of(name, 4) != partition_of(key("native", her.address), 4)
        )
        misrouted = event("native", her.address, mailing=bodies.MAILING, key=other, **more)
        self.found.misrouted = misrouted[2]
        hers = key("native", her.address)
        topic = "tracking.events"
        rows = [
            misrouted,
            (topic, hers, f"{{{her.address} {said['said: unreadable']}".encode()),
            (topic, hers, b'{"a":' * 80 + json.dumps(said["said: deep"]).encode() + b"}" * 80),
            (topic, hers, json.dumps({"x": f"{said['said: large']} {her.address}" * 9_000}).encode()),
            event("native", her.address, mailing=her.address, **more),
            event("native", her.address, mailing=her.address.replace("@", "%2540"), **more),
            event(said["said: tenant"], her.address, **more),
            event("native", her.address, kind=her.number, **more),
            (topic, key("native", said["said: tombstone"]), None),
            event(
                "native",
                her.address,
                mailing=bodies.MAILING,
                event_id=said["said: event"],
                kind="click",
                link=said["said: link"],
            ),
        ]
        self.lock.send(rows)
        ungranted = json.loads(bodies.preference(her, now_ms()))
        ungranted["proof"] = {"evidence": f"{said['said: grant']} {her.address}"}
        self.lock.send(
            [("tracking.preferences", hers, json.dumps(ungranted).encode())]
            + [
                ("tracking.mailings", b"native", line.encode())
                for line in bodies.declarations(self.found.declared, "native")
            ]
        )
        return len(rows)

    # --- faults ---

    def crash(self) -> None:
        """A worker dies of a fault of its own in the middle of her events."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        with (self.lock.stack.directory / "logs" / "crash.log").open("wb") as log:
            done = subprocess.run(
                [sys.executable, "-c", _CRASH, "--config", str(self.lock.stack.settings_file), "--debug", "worker"],
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**self.lock.environment, "SCHLEUSE_HTTP_PORT": str(port)},
                timeout=60,
                check=False,
            )
        text = (self.lock.stack.directory / "logs" / "crash.log").read_text()
        assert done.returncode == 1, text
        assert '"ValueError"' in text, text
        assert "planted [" not in text, text

    def rights(self) -> None:
        """Commands about one person. What they print is meant to name her: it is no part of the evidence."""
        her = self.found.of("native", "personal").address.encode()
        hers = ("--tenant", "native", "--recipient", "-")
        assert self.lock.run("consents", *hers, given=her).stdout
        self.found.told["schleuse erase: the plan"] = self.lock.run("erase", *hers, given=her).stdout.encode()

    def complain(self) -> None:
        """Commands with wrong settings or wrong words: each says what is wrong."""
        for name, value, command in (
            ("SESSION_TIMEOUT_SECONDS", "soon", ("settings",)),
            ("PARTITIONS", "3", ("topics",)),
            ("KEYRING", str(self.scratch / "none"), ("rejected", "show", "tracking.events:0:0")),
            ("CREDENTIALS", str(self.scratch), ("status",)),
        ):
            before = dict(self.lock.environment)
            self.lock.environment[f"SCHLEUSE_{name}"] = value
            self.run(*command, code=None)
            self.lock.environment = before
        self.run("rejected", "show", "no such id", code=1)
        self.run("feed", "--format", "ses", "/dev/null", code=2)

    # --- reading ---

    def topics(self) -> None:
        """Every topic that the broker has, whatever its name."""
        consumer = KafkaConsumer(bootstrap_servers=self.lock.stack.broker_address)
        names = sorted(consumer.topics())
        consumer.close()
        assert set(names) >= HOLD_ADDRESSES
        records = at_once([functools.partial(self.lock.consume, name) for name in names])
        self.found.topics = dict(zip(names, records, strict=True))

    def stores(self) -> None:
        """Stop the stores as a power cut would, and read all that is on the disk."""
        for store in Store:
            self.lock.stack.kill(store)
        home = self.lock.stack.directory
        self.found.identity, self.found.analytics = dump(home / "identity"), dump(home / "analytics")
        files = (path for path in sorted(home.rglob("*")) if path.is_file())
        self.found.files = {str(path.relative_to(home)): path.read_bytes() for path in files}
        self.found.told["logs"] = shown(home).encode()


def collect(lock: Lock, scratch: Path) -> Evidence:
    """Send it all, have it carried out, stop, read. Leaves the broker and both stores running, and no worker."""
    lock.environment["SCHLEUSE_LOG_LEVEL"] = "debug"
    it = Collector(lock, scratch)
    first = lock.worker()
    lock.send([mailing(feed, bodies.MAILING, {bodies.LINK: bodies.BASE}) for feed in FEEDS])
    changes = it.choices()
    lock.settle(changes=changes)
    assert first.kill(signal.SIGTERM) == 0

    sent = it.acts() + it.bad_rows()
    it.crash()
    worker = lock.worker()
    lock.settle(received=sent, seconds=90)

    lock.stack.kill("identity")
    gone = it.found.of("sendgrid", "withdrawn")
    it.feed([bodies.withdrawal(gone, now_ms())], "--format", "sendgrid", "--tenant", "sendgrid", "--withdraw")
    lock.until(lambda: json.loads(worker.get("/status"))["waiting_for"], what="the worker to wait for the store")
    it.found.told["status while waiting"] = worker.get("/status") + worker.get("/metrics")
    lock.stack.start()
    lock.until(lambda: lock.consume("tracking.receipts"), what="the receipt")

    for path in ("/status", "/metrics", "/health", "/ready"):
        it.found.told[path] = worker.get(path)
    it.rights()
    at_once([functools.partial(it.run, *command.split()) for command in COMMANDS])
    it.complain()
    it.topics()
    assert worker.kill(signal.SIGTERM) == 0
    it.stores()
    lock.stack.start()
    return it.found


def at_once(calls: Sequence[Callable[[], T]]) -> list[T]:
    """Their answers, in order; commands are processes, and a machine has more than one core."""
    with ThreadPoolExecutor(3) as pool:
        return list(pool.map(lambda call: call(), calls))
