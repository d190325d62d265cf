"""The whole stack on one machine: a broker, the identity store and the analytics store, each a process of its own.

Everything lies in one directory:

    schleuse.toml        settings for the commands (`schleuse --config DIR/schleuse.toml ...`)
    stack.json           which broker, and the ports: chosen once, so that a restart keeps its addresses
    credentials/         one owner-only password file a login: <store>-<role>
    keys/, kek/          places for the key ring and for the key that seals it; back them up apart from each other
    exports/             sealed answers to access requests
    tenants.toml         the tenants' settings; yours to write
    identity/ analytics/ the stores' data, and users.xml with hashes of the passwords
    kafka/               Kafka's log (with Tansu there is none: it forgets); kafka-2/ … where there are several nodes
    run/ logs/           pid files; what each process printed
"""

from __future__ import annotations

import json
import os
import random
import socket
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, TypedDict, get_args

from deploy.clickhouse.grants import Store, users_xml
from deploy.embedded import credentials, kafka, probes, tansu
from deploy.embedded.processes import Keeper, Part, StackError

Broker = Literal["tansu", "kafka"]
PARTS: Final = ("broker", "identity", "analytics")
READY_SECONDS: Final = 90.0
_PORTS: Final = range(20_000, 30_000)  # below the range that outgoing connections take theirs from


class _Noted(TypedDict):
    broker: Broker
    ports: dict[str, int]


@dataclass(frozen=True, slots=True)
class PartStatus:
    """One line of `schleuse stack status`: `pid` is None when the part is not running."""

    name: str
    address: str
    pid: int | None
    ready: bool


class Stack:
    """The embedded stack of one directory. Making one starts nothing; it only fixes the broker and the ports.

    Not thread-safe. Two commands may not start or stop the same directory at once (a lock refuses the second).
    """

    def __init__(
        self, directory: Path, broker: Broker | None = None, *, nodes: int = 1, die_with_parent: bool = False
    ) -> None:
        """`broker` None takes the one of the directory, or Tansu in a new one. A new directory may have several `nodes`
        of Kafka: parts `broker`, `broker-2` and so on, and `replication` in the settings.

        Raises StackError when the directory was made with another broker: its log would seem lost.
        """
        self.directory = directory.resolve()
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        noted = self._noted(broker, nodes)
        self.broker, self._ports = noted["broker"], noted["ports"]
        self.brokers = tuple(name for name in self._ports if name.startswith("broker"))
        self.parts = (*self.brokers, *PARTS[1:])
        self._keeper = Keeper(self.directory, die_with_parent)

    @property
    def settings_file(self) -> Path:
        """What to pass to `schleuse --config`."""
        return self.directory / "schleuse.toml"

    @property
    def broker_address(self) -> str:
        """host:port for Kafka clients, of every node."""
        return ",".join(f"127.0.0.1:{self._ports[name]}" for name in self.brokers)

    def url(self, store: Store) -> str:
        """ClickHouse's HTTP address of a store."""
        return f"http://127.0.0.1:{self._ports[store]}"

    def password(self, store: Store, role: str) -> str:
        """The password of a login, from its file. For tests and tools; the commands read the files themselves."""
        return (self.directory / "credentials" / f"{store}-{role}").read_text().strip()

    def start(self, only: Collection[str] | None = None) -> None:
        """Start what is not running and return when all of it answers. Raises StackError; what had started stays.

        `only` starts some of the parts, for those who need no more.
        """
        for name in only or ():
            self._check_part(name)
        with self._lock():
            parts = [self._part(name) for name in self.parts if only is None or name in only]
            self._write_settings()
            for part in parts:
                self._keeper.start(part)
            for part in parts:
                self._keeper.wait_ready(part, READY_SECONDS)

    def stop(self) -> list[str]:
        """End everything, the stores last. Names of what was running. Never touches a process that is not ours."""
        with self._lock():
            return [name for name in self.parts if self._keeper.stop(name)]

    def restart(self, name: str) -> None:
        """End one part and start it again at the same address and with the same data. Raises StackError."""
        self._check_part(name)
        with self._lock():
            self._keeper.stop(name)
            part = self._part(name)
            self._keeper.start(part)
            self._keeper.wait_ready(part, READY_SECONDS)

    def kill(self, name: str) -> None:
        """End one part at once (SIGKILL), as a power cut would."""
        self._check_part(name)
        self._keeper.kill(name)

    def status(self) -> list[PartStatus]:
        """What runs and what answers, now."""
        ready = {
            **{name: probes.broker("127.0.0.1", self._ports[name]) for name in self.brokers},
            **{store.value: probes.store(self.url(store)) for store in Store},
        }
        brokers = {name: f"127.0.0.1:{self._ports[name]}" for name in self.brokers}
        addresses = {**brokers, **{store.value: self.url(store) for store in Store}}
        found = {name: self._keeper.pid(name) for name in self.parts}
        return [
            PartStatus(name, addresses[name], pid, pid is not None and ready[name]()) for name, pid in found.items()
        ]

    def __enter__(self) -> Stack:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _part(self, name: str) -> Part:
        if name in self.brokers:
            if self.broker == "tansu":
                return tansu.part(self._ports["broker"])
            nodes = [kafka.Node(self._ports[one], self._ports[_controller(one)]) for one in self.brokers]
            folder = self.directory / name.replace("broker", "kafka")
            return kafka.part(folder, nodes, self.brokers.index(name) + 1)
        return self._store_part(Store(name))

    def _store_part(self, store: Store) -> Part:
        home, port = self.directory / store, str(self._ports[store])
        home.mkdir(mode=0o700, exist_ok=True)
        users = home / "users.xml"
        digests = credentials.ensure(self.directory / "credentials", store)
        _write_private(users, users_xml(store, digests, inner=True))
        module = [sys.executable, "-m", "deploy.embedded.clickhouse_http"]
        return Part(
            name=store,
            command=[*module, "--path", str(home), "--port", port, "--users", str(users)],
            address=self.url(store),
            ready=probes.store(self.url(store)),
            # From a checkout that is not installed, the child must find this package too.
            environment={"PYTHONPATH": os.pathsep.join(filter(None, [_root(), os.environ.get("PYTHONPATH")]))},
        )

    def _write_settings(self) -> None:
        for folder in ("keys", "kek"):
            (self.directory / folder).mkdir(mode=0o700, exist_ok=True)
        settings: dict[str, str | int] = {
            "broker": self.broker_address,
            "identity_url": self.url(Store.IDENTITY),
            "analytics_url": self.url(Store.ANALYTICS),
            "credentials": str(self.directory / "credentials"),
            "keyring": str(self.directory / "keys" / "ring.sqlite"),
            "keyring_kek": str(self.directory / "kek" / "kek"),
            "exports": str(self.directory / "exports"),
            "tenants": str(self.directory / "tenants.toml"),
        }
        if self.broker == "tansu":
            settings["session_timeout_seconds"] = 6  # a worker's first join takes half of it there
        if len(self.brokers) > 1:
            settings["replication"] = min(3, len(self.brokers))
        lines = [f"{key} = {json.dumps(value)}" for key, value in settings.items()]
        _write_private(self.settings_file, "# Written by schleuse stack.\n" + "\n".join(lines) + "\n")

    def _noted(self, broker: Broker | None, nodes: int) -> _Noted:
        path = self.directory / "stack.json"
        if not path.exists():
            brokers = ["broker", *(f"broker-{number}" for number in range(2, nodes + 1))]
            ports = _free_ports(*brokers, *map(_controller, brokers), *(store.value for store in Store))
            _write_private(path, json.dumps({"broker": broker or "tansu", "ports": ports}) + "\n")
        noted: _Noted = json.loads(path.read_text())
        if noted["broker"] not in get_args(Broker):
            raise StackError(f"{path} names an unknown broker; it is written by schleuse and not to be edited")
        if broker is not None and broker != noted["broker"]:
            raise StackError(
                f"{self.directory} was made with --broker {noted['broker']}; use another --dir for {broker}"
            )
        return noted

    def _check_part(self, name: str) -> None:
        if name not in self.parts:
            raise StackError(f"there is no such part; the parts are {', '.join(self.parts)}")

    @contextmanager
    def _lock(self) -> Iterator[None]:
        import fcntl  # noqa: PLC0415  not there on Windows, where the rest of this module can still be imported

        with (self.directory / "lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise StackError("another command is starting or stopping this stack at this moment") from None
            yield


def _controller(broker: str) -> str:
    return broker.replace("broker", "controller")


def _free_ports(*names: str) -> dict[str, int]:
    ports: dict[str, int] = {}
    for candidate in random.SystemRandom().sample(_PORTS, 200):
        if len(ports) == len(names):
            break
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", candidate))
            except OSError:
                continue
        ports[names[len(ports)]] = candidate
    return ports


def _root() -> str:
    return str(Path(__file__).resolve().parents[2])


def _write_private(path: Path, text: str) -> None:
    """Write whole or not at all, readable by the owner only."""
    scratch = path.with_name(path.name + ".new")
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    scratch.replace(path)
