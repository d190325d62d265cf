"""A whole lock for tests: the embedded stack, the commands as processes, and a plain reading of what came out."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from kafka import KafkaConsumer, TopicPartition

from deploy.embedded.stack import Stack
from streams import settings as settings_module
from streams.demo.send import send
from streams.errors import StoreRefused, StoreUnavailable
from streams.partitioner import message_key
from streams.rights.desk import Desk
from streams.status import status
from streams.stores import Role, Store, StoreClient, connect
from streams.totals import Total, totals

TENANTS = """
[acme.purposes.engagement]
ceiling = "personal"
[acme.purposes.advice]
ceiling = "pseudonymous"
[acme.feed]
names = ["relay"]
[beta]
local_part = "lower"
"""
PROOF = {"source": "double-opt-in form", "text_version": "2026-05", "evidence": "mail 4711"}
Message = tuple[str, bytes, bytes]


def iso(ms: int) -> str:
    """RFC 3339 in UTC with milliseconds."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(ms / 1000)) + f".{ms % 1000:03d}Z"


def now_ms() -> int:
    """Now, in epoch milliseconds."""
    return int(time.time() * 1000)


def key(tenant: str, recipient: str) -> bytes:
    """The key of a message about a recipient (already canonical)."""
    return message_key(tenant, recipient)


def event(tenant: str, recipient: str, **fields: Any) -> Message:
    """An event; `recipient` has to be canonical unless `key` is given."""
    of_key = fields.pop("key", None)
    value = {
        "event_id": os.urandom(8).hex(),
        "kind": "open",
        "tenant": tenant,
        "mailing": "m1",
        "recipient": recipient,
        "occurred_at": iso(now_ms() - 1000),
        **fields,
    }
    return "tracking.events", of_key or key(tenant, recipient), json.dumps(value, ensure_ascii=False).encode()


def preference(tenant: str, recipient: str, purposes: Any, decided_at: int | None = None, **fields: Any) -> Message:
    """A preference; proof is added unless it only lowers everything."""
    value = {"tenant": tenant, "recipient": recipient, "decided_at": iso(decided_at or now_ms()), "purposes": purposes}
    if purposes != "*":
        value["proof"] = PROOF
    return "tracking.preferences", key(tenant, recipient), json.dumps({**value, **fields}).encode()


def mailing(tenant: str, name: str, links: dict[str, str], sent_at: int | None = None) -> Message:
    """The declaration of a mailing."""
    value = {
        "tenant": tenant,
        "mailing": name,
        "name": name,
        "sent_at": iso(sent_at or now_ms() - 3_600_000),
        "recipients": 1000,
        "links": links,
    }
    return "tracking.mailings", f"{tenant}\x1f{name}".encode(), json.dumps(value).encode()


class WorkerProcess:
    """One `schleuse worker`, and what it printed."""

    def __init__(self, lock: Lock, number: int, environment: Mapping[str, str]) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.log = lock.stack.directory / "logs" / f"worker-{number}.log"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "streams.cli", "--config", str(lock.stack.settings_file), "worker"],
            stdout=self.log.open("wb"),
            stderr=subprocess.STDOUT,
            env={**lock.environment, "SCHLEUSE_HTTP_PORT": str(self.port), **environment},
        )

    def get(self, path: str) -> bytes:
        """What the worker's web server answers."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
            body: bytes = answer.read()
            return body

    def kill(self, number: int = signal.SIGKILL) -> int:
        """Send a signal and wait for the end; the exit code."""
        self.process.send_signal(number)
        return self.process.wait(40)

    def text(self) -> str:
        """Everything it printed."""
        return self.log.read_text("utf-8", "replace")


class Lock:
    """A stack with topics, tables and tenants, and any number of workers. Use as a context manager."""

    def __init__(self, stack: Stack, tenants: str = TENANTS, partitions: int = 4) -> None:
        self.stack, self.partitions = stack, partitions
        self.environment = {
            **os.environ,
            "SCHLEUSE_PARTITIONS": str(partitions),
            "SCHLEUSE_SESSION_TIMEOUT_SECONDS": "6",
            "SCHLEUSE_BATCH_SECONDS": "0.2",
        }
        (stack.directory / "tenants.toml").write_text(tenants)
        self.workers: list[WorkerProcess] = []
        self.sent: dict[str, int] = {}
        self._logins: dict[tuple[Store, Role], StoreClient] = {}
        self._logging_in = threading.Lock()

    def __enter__(self) -> Lock:
        self.run("topics")
        self.run("migrate")
        self.run("tenants", "apply", "--yes")
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self.workers:
            if worker.process.poll() is None:
                worker.process.kill()
                worker.process.wait(10)
        for login in self._logins.values():
            login.close()

    def run(self, *command: str, check: bool = True, given: bytes | None = None) -> subprocess.CompletedProcess[str]:
        """One schleuse command as a process of its own."""
        done = subprocess.run(
            [sys.executable, "-m", "streams.cli", "--config", str(self.stack.settings_file), *command],
            input=given.decode() if given is not None else None,
            capture_output=True,
            text=True,
            env=self.environment,
            timeout=120,
            check=False,
        )
        assert not check or done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done

    def worker(self, **environment: str) -> WorkerProcess:
        """Start one more worker; `environment` is its own alone."""
        started = WorkerProcess(self, len(self.workers), environment)
        self.workers.append(started)
        return started

    @property
    def settings(self) -> settings_module.Settings:
        """The settings that the commands have."""
        return settings_module.load(self.stack.settings_file)

    def desk(self, actor: str = "test") -> Desk:
        """The rights desk, as soon as a worker has made the key ring. To be closed."""
        self.until(self.settings.keyring_kek.exists, what="the key ring")
        return Desk.open(self.settings, actor)

    def send(self, messages: Iterable[Message]) -> None:
        """Send, and wait until the broker has them."""
        messages = list(messages)
        for topic, *_ in messages:
            self.sent[topic] = self.sent.get(topic, 0) + 1
        asyncio.run(send(self.stack.broker_address, self.partitions, messages))

    def status(self) -> dict[str, Any]:
        """What `schleuse status` says."""
        return status(self.settings)

    def changes(self) -> int:
        """How many changes the workers say they have carried out: a claim that is only taken does not count."""
        done = 0
        for worker in self.workers:
            if worker.process.poll() is None:
                with contextlib.suppress(OSError):
                    done += sum(line["next_change"] for line in json.loads(worker.get("/status"))["partitions"])
        return done

    def settle(self, received: int | None = None, changes: int | None = None, seconds: float = 60) -> dict[str, Any]:
        """Wait until all events sent so far (or `received`) and so many changes have been carried out."""
        want = self.sent.get("tracking.events", 0) if received is None else received
        came = "SELECT sum(events) FROM outcomes WHERE outcome = 'received'"

        def there() -> bool:
            if self.rows(Store.ANALYTICS, came, Role.OPERATOR)[0][0] < want:
                return False
            return changes is None or self.changes() >= changes

        self.until(there, seconds, "events or changes to be carried out")
        return self.status()

    def until(self, there: Callable[[], Any], seconds: float = 60, what: str = "it") -> Any:
        """Wait for something to be true; fails with what the workers printed last."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            found = there()
            if found:
                return found
            time.sleep(0.1)
        last = "\n".join(worker.text()[-3000:] for worker in self.workers)
        raise AssertionError(f"waited {seconds} s for {what}: {self.status()}\n{last}")

    def totals(self) -> dict[tuple[Any, ...], tuple[int, int]]:
        """(tenant, mailing, kind, link, actor) -> (events, recipients)."""
        lines: list[Total] = totals(self._login(Store.ANALYTICS, Role.OPERATOR))
        return {tuple(line[:5]): (line.events, line.recipients) for line in lines}

    def rows(self, store: Store, sql: str, role: Role = Role.RIGHTS) -> Sequence[Sequence[Any]]:
        """A SELECT under a role."""
        try:
            return self._login(store, role).rows("a test reading", sql)
        except (StoreUnavailable, StoreRefused):  # it may have been away since, or have another password
            with self._logging_in:
                self._logins.pop((store, role), None)
            return self._login(store, role).rows("a test reading", sql)

    def _login(self, store: Store, role: Role) -> StoreClient:
        """One that is kept: to log in costs more than most questions, and tests ask again and again."""
        with self._logging_in:
            if (store, role) not in self._logins:
                self._logins[store, role] = connect(self.settings, store, role)
            return self._logins[store, role]

    def claimed_events(self) -> int:
        """How many events the claims name."""
        sql = "SELECT sum(last + 1 - first) FROM claims WHERE kind = 'events'"
        return int(self.rows(Store.ANALYTICS, sql, Role.OPERATOR)[0][0])

    def reach(self, events: int, seconds: float = 300) -> None:
        """Wait until so many events are claimed."""
        self.until(lambda: self.claimed_events() >= events, seconds, f"{events:,} events to be claimed")

    def consume(self, topic: str) -> list[Any]:
        """All records of a topic, from its beginning."""
        consumer = KafkaConsumer(bootstrap_servers=self.stack.broker_address, enable_auto_commit=False)
        try:
            partitions = [TopicPartition(topic, p) for p in sorted(consumer.partitions_for_topic(topic) or ())]
            consumer.assign(partitions)
            consumer.seek_to_beginning(*partitions)
            records: list[Any] = []
            quiet = 0
            while quiet < 3:
                got = consumer.poll(timeout_ms=300)
                quiet = 0 if got else quiet + 1
                for run in got.values():
                    records += run
            return records
        finally:
            consumer.close()


def shown(directory: Path) -> str:
    """Everything that any process of the stack printed."""
    return "\n".join(path.read_text("utf-8", "replace") for path in sorted((directory / "logs").glob("*")))
