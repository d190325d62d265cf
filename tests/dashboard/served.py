"""A dashboard as a process of its own over figures that a real worker counted and a real publisher published."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any, NamedTuple

from aggregates.steps import HOUR_MS
from deploy.embedded.stack import Stack
from streams.publish.publisher import Publisher
from streams.stores import Role, Store
from tests.lock import Lock, event, mailing, now_ms

LINKS = {"hero": "https://shop.example/hero", "inxmail.de": "https://inxmail.de"}
OPENED, CLICKED, HERO = 600, 400, 300
CANARY = "erika.canary@example.com"
MAILINGS = ("spring", "summer", "autumn", "winter", "slash/and ünïcode", "={{7*7}}")


class Answer(NamedTuple):
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body."""
        return json.loads(self.body)


class NoRedirect(urllib.request.HTTPRedirectHandler):
    """Redirects are answers too."""

    def redirect_request(self, *_: Any) -> None:
        return None


class Dashboard:
    """Where it listens, and keys by (tenant, role)."""

    def __init__(self, lock: Lock, address: str, process: subprocess.Popen[bytes]) -> None:
        self.lock, self.address, self.process = lock, address, process
        self.keys: dict[tuple[str, str], str] = {}

    def let_in(self) -> None:
        """A reader of each role of acme, and two of beta, by the command."""
        roles = ("sender", "analyst", "privacy", "operator")
        for tenant, role in (*(("acme", role) for role in roles), ("beta", "analyst"), ("beta", "sender")):
            done = self.lock.run("readers", "add", "--tenant", tenant, "--role", role, "--label", "test")
            self.keys[tenant, role] = done.stdout.strip()

    def key(self, tenant: str = "acme", role: str = "analyst") -> str:
        """A reader's key."""
        return self.keys[tenant, role]

    def get(self, path: str, key: str | None = None, data: bytes | None = None, **headers: str) -> Answer:
        """One request."""
        if key:
            headers["Authorization"] = f"Bearer {key}"
        request = urllib.request.Request(self.address + path, data, headers)
        try:
            with urllib.request.build_opener(NoRedirect).open(request, timeout=20) as answer:
                return Answer(answer.status, dict(answer.headers), answer.read())
        except urllib.error.HTTPError as error:
            return Answer(error.code, dict(error.headers), error.read())


def publish(lock: Lock) -> None:
    """Six mailings of acme, three months of them, and one of beta; then the publisher, until nothing is due."""
    lock.worker()
    sent = {name: now_ms() - (26 + 24 * 20 * at) * HOUR_MS for at, name in enumerate(MAILINGS)}
    lock.send(mailing("acme", name, LINKS, at) for name, at in sent.items())
    lock.send([mailing("beta", "spring", LINKS, sent["spring"]), mailing("beta", "secret", LINKS, sent["spring"])])
    lock.until(
        lambda: lock.rows(Store.ANALYTICS, "SELECT uniqExact(tenant, mailing) FROM mailings", Role.OPERATOR)[0][0] == 8,
        what="declarations",
    )
    messages = []
    for name, at in sent.items():
        for number in range(OPENED):
            who = CANARY if number == 0 else f"r{number}@example.com"
            of = {"mailing": name, "occurred_at": at + HOUR_MS // 2}
            messages.append(event("acme", who, user_agent="Mozilla/5.0 (iPhone; CPU iPhone OS 18_0)", **of))
            if number < CLICKED:
                link = "hero" if number < HERO else "inxmail.de"
                messages.append(event("acme", who, kind="click", link=link, **of))
    messages += [event("beta", CANARY, mailing="secret", occurred_at=sent["spring"] + HOUR_MS // 2)]
    lock.send(messages)
    lock.settle()
    with closing(Publisher.open(lock.settings)) as publisher:

        def done() -> bool:
            publisher.run_once()
            sql = "SELECT uniqExact(tenant, mailing) FROM published"
            return bool(lock.rows(Store.ANALYTICS, sql, Role.ANALYST)[0][0] == 8)

        lock.until(done, what="the figures")


@contextmanager
def served(directory: Any) -> Iterator[Dashboard]:
    """All of it, for as long as it is needed."""
    with Stack(directory, "tansu", die_with_parent=True) as stack, Lock(stack, partitions=2) as lock:
        publish(lock)
        log = stack.directory / "logs" / "dashboard.log"
        process = subprocess.Popen(
            [sys.executable, "-m", "streams.cli", "--config", str(stack.settings_file), "dashboard"],
            stdout=log.open("wb"),
            stderr=subprocess.STDOUT,
            env={**os.environ, "SCHLEUSE_DASHBOARD_PORT": "0", "SCHLEUSE_DASHBOARD_REQUESTS_PER_MINUTE": "2000"},
        )
        try:
            line = lock.until(lambda: "address" in log.read_text() and log.read_text(), what="the dashboard")
            dashboard = Dashboard(lock, json.loads(line.splitlines()[0])["address"], process)
            dashboard.let_in()
            yield dashboard
        finally:
            process.terminate()
            assert process.wait(20) == 0
