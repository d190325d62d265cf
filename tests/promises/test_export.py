"""P5, access: everything held about one recipient, as files, asked for by a command or by a message."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pseudonymizer.keys import KeyKind
from streams.messages import Request
from streams.rights.audit import Action
from streams.rights.export import bundle, gather, held, sealed
from streams.rights.export.requests import answer
from tests.lock import PROOF, Lock, event, iso, key, mailing, now_ms, preference

pytestmark = pytest.mark.stack
HER = "franka.export@example.com"
CANARIES = ("franka.export", "spring canary")


def request(recipient: str, request_id: str, kind: str = "access", **fields: Any) -> tuple[str, bytes, bytes]:
    value = {"tenant": "acme", "recipient": recipient, "request_id": request_id, "kind": kind}
    value["requested_at"] = iso(now_ms())
    return "tracking.requests", key("acme", recipient), json.dumps({**value, **fields}).encode()


def exported(lock: Lock, folder: Path, recipient: str = HER, tenant: str = "acme") -> held.Export:
    lock.run("export", "--tenant", tenant, "--recipient", "-", "--to", str(folder), given=f"{recipient}\n".encode())
    return held.decode((folder / "export.json").read_bytes())


@pytest.fixture(scope="module")
def her(lock: Lock, tmp_path_factory: pytest.TempPathFactory) -> held.Export:
    """Someone with rows of two purposes, a withdrawal and a proof, as `schleuse export` tells of her."""
    at = now_ms() - 60_000
    proof = {**PROOF, "evidence": f"mail to {HER}", "age_check": "=1+1"}
    lock.send(
        [
            preference("acme", HER, {"engagement": {"open": "personal", "click": "personal"}}, at, proof=proof),
            preference("acme", HER, {"advice": {"open": "pseudonymous"}}, at + 1),
            mailing("acme", "export-1", {"hero": "https://x.example/hero"}),
        ]
    )
    desk = lock.desk()

    def until(good: Callable[[held.Export], object]) -> held.Export:
        found: held.Export = lock.until(
            lambda: said if good(said := gather.of(desk, "acme", HER, "a test")) else None, what="her export"
        )
        return found

    until(lambda said: len(said.purposes) == 2)
    lock.send(
        [
            event("acme", HER, mailing="export-1", feed="relay"),
            event("acme", HER, mailing="export-1", kind="click", link="hero", user_agent="Mozilla/5.0 (iPhone)"),
            event("acme", "someone-else@example.com", mailing="export-1"),
        ]
    )
    until(lambda said: sum(len(purpose.rows) for purpose in said.purposes) == 3)
    lock.send([preference("acme", HER, {"engagement": {"click": "anonymous"}}, at + 2)])
    until(lambda said: said.receipts)
    desk.close()
    return exported(lock, tmp_path_factory.mktemp("exports") / "hers")


def test_it_says_per_purpose_what_is_held_from_where_and_for_how_long(lock: Lock, her: held.Export) -> None:
    assert (her.tenant, her.recipient, her.nothing_held, her.erasure) == ("acme", HER, False, None)
    advice, engagement = her.purposes
    assert (advice.purpose, advice.ceiling, engagement.retention_days) == ("advice", "pseudonymous", 390)
    assert [(one.kind, one.mode, one.in_force) for one in engagement.choices] == [
        ("open", "personal", "personal"),
        ("click", "anonymous", "anonymous"),
    ]
    assert [(one.kind, one.effect) for one in engagement.decisions] == [
        *(("click", "raised"), ("open", "raised"), ("click", "lowered"))
    ]
    proof = engagement.decisions[0].proof
    assert proof is not None
    assert (proof.evidence, proof.age_check, proof.conditional) == (f"mail to {HER}", "=1+1", None)
    (mapping,), (row,), (other,) = engagement.mappings, engagement.rows, advice.rows
    assert (mapping.kind, mapping.opens, mapping.pseudonym) == ("open", True, row.pseudonym)
    assert (row.mailing, row.kind, row.feed, row.actor, other.feed) == (
        *("export-1", "open", "relay", "human", "relay"),
    )
    assert row.kept_until > her.made_at[:10]
    assert other.pseudonym != row.pseudonym
    (receipt,) = her.receipts
    assert (receipt.kind, receipt.rows, receipt.mappings, receipt.id) == (
        *("withdrawal", 1, 1, engagement.decisions[2].preference_id),
    )
    assert {look.action for look in her.looks} == {Action.EXPORTED}
    places = {one.place: one for one in her.elsewhere}
    assert places["tracking.events"].until is not None
    assert places["tracking.events"].until > her.made_at
    assert {"tracking.state", "tracking.requests", "seen", "cells_unique", "backups"} <= places.keys()


def test_nobody_elses_and_of_the_unknown_nothing(lock: Lock, her: held.Export, tmp_path: Path) -> None:
    nobody = exported(lock, tmp_path / "nobody", "nobody@example.com")
    assert (nobody.nothing_held, nobody.purposes, nobody.receipts) == (True, [], [])
    assert "nichts gespeichert" in (tmp_path / "nobody" / "export.html").read_text("utf-8")
    assert exported(lock, tmp_path / "beta", HER, "beta").nothing_held, "another sender's are not hers"
    refused = lock.run("export", "--tenant", "acme", "--recipient", HER, "--to", str(tmp_path / "beta"), check=False)
    assert (refused.returncode, "is not empty" in refused.stderr) == (1, True)
    assert lock.run("export", "--to", str(tmp_path / "x"), check=False).returncode == 2
    assert not (tmp_path / "x").exists()


# --- by message ---


@contextmanager
def service(lock: Lock, log: Path, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """`schleuse rights` as a process; killed at the end if it still runs."""
    process = subprocess.Popen(
        [sys.executable, "-m", "streams.cli", "--config", str(lock.stack.settings_file), "rights"],
        stdout=log.open("ab"),
        stderr=subprocess.STDOUT,
        env={**lock.environment, **environment},
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(10)


def receipts(lock: Lock, request_id: str) -> list[dict[str, Any]]:
    told = [json.loads(record.value) for record in lock.consume("tracking.receipts")]
    return [one for one in told if one.get("request_id") == request_id]


def test_a_request_is_answered_by_a_sealed_export_and_a_receipt(lock: Lock, her: held.Export, tmp_path: Path) -> None:
    log = lock.stack.directory / "logs" / "rights.log"
    with lock.desk() as desk:  # a process that was killed between file and receipt
        before = answer(desk, Request("access", "export-r1", "acme", HER, now_ms()))
    folder = lock.settings.exports
    lock.send(
        [
            request(HER, "export-r1"),
            request(HER, "export-r1"),
            ("tracking.requests", b"acme\x1fspring canary", b'{"spring canary": 1}'),
            request("nobody@example.com", "export-r2"),
        ]
    )
    with service(lock, log) as running:
        lock.until(lambda: receipts(lock, "export-r2") and len(receipts(lock, "export-r1")) == 2, what="the receipts")
        running.send_signal(signal.SIGTERM)
        assert running.wait(40) == 0
    told = receipts(lock, "export-r1")
    assert len({json.dumps(one) for one in told}) == 1, "however often it was asked and sent"
    receipt = told[0]
    assert (receipt["kind"], receipt["tenant"]) == ("access", "acme")
    path = Path(receipt["export"]["file"])
    raw = path.read_bytes()
    assert hashlib.sha256(raw).hexdigest() == receipt["export"]["sha256"]
    assert path == before.path
    assert iso(now_ms()) < receipt["export"]["until"]
    assert (stat.S_IMODE(folder.stat().st_mode), stat.S_IMODE(path.stat().st_mode)) == (0o700, 0o600)
    assert len(list(folder.iterdir())) == 2

    opened = lock.run("export", "--open", str(path), "--to", str(tmp_path / "hers"))
    assert "to be read by their owner only" in opened.stdout
    said = held.decode((tmp_path / "hers" / "export.json").read_bytes())
    assert said.recipient == HER
    assert [purpose.rows for purpose in said.purposes] == [purpose.rows for purpose in her.purposes]
    with lock.desk() as desk:
        hers = desk.blind("acme", HER)
        actions = [line.action for line in desk.audit.lines(100, "acme", hers)]
    assert actions.count(Action.EXPORT_OPENED) == 1

    shown = log.read_text("utf-8", "replace") + opened.stdout + opened.stderr
    assert "rights service runs" in shown
    assert "rights service stopped" in shown
    assert not [canary for canary in CANARIES if canary in shown]
    for name in (HER, hers.hex(), her.purposes[1].rows[0].pseudonym):
        assert name not in shown
        assert name not in json.dumps(told)
    assert not re.search(rb"franka|export-1|canary", raw), "sealed"


def test_an_export_dies_with_its_key(lock: Lock, her: held.Export, tmp_path: Path) -> None:
    """By an erasure at any moment, and by its time; and what lies broken in its place is made anew."""
    with lock.desk() as desk:
        asked = Request("access", "export-r3", "acme", HER, now_ms())
        name = sealed.key_name(desk.blind("acme", HER), "export-r3")
        made = answer(desk, asked)
        assert answer(desk, asked) == made, "the one that is there"
        copy = tmp_path / "copy.sealed"
        copy.write_bytes(made.path.read_bytes())

        made.path.write_bytes(b"schleuse-export 1\n{}")
        again = answer(desk, asked)
        assert again.sha256 != made.sha256
        assert bundle.unpack(sealed.open_file(desk, copy, "a test"))["export.json"]

        erased: list[int] = []

        def make() -> tuple[str, bytes]:  # an erasure comes after everything was read
            if not erased:
                erased.append(desk.ring.destroy(KeyKind.EXPORT, name))
                return "2026-11-23T09:14:05.120Z", b"what was there before"
            return "2026-11-23T09:14:06.120Z", b"what is left"

        again.path.unlink()
        last = sealed.ensure(desk, "acme", name, make)
        assert erased == [1]
        assert sealed.open_file(desk, last.path, "a test") == b"what is left"
        with pytest.raises(sealed.CannotOpen, match="does not open"):
            sealed.open_file(desk, copy, "a test")  # its key was destroyed, and this is another

        assert sealed.expire_once(desk) == 0
        desk.ring.destroy(KeyKind.EXPORT, name)
        with pytest.raises(sealed.CannotOpen, match="destroyed"):
            sealed.open_file(desk, last.path, "a test")
        assert sealed.expire_once(desk) == 1
        assert not last.path.exists()

        made = answer(desk, asked)
        desk.settings = dataclasses.replace(desk.settings, exports_days=-1)  # so that all of them are over
        assert sealed.expire_once(desk) >= 2
        assert desk.ring.made(KeyKind.EXPORT) == {}
        assert not list(desk.settings.exports.glob("*.sealed"))


def test_erase_then_export_is_empty(lock: Lock, her: held.Export, tmp_path: Path) -> None:
    """And what was exported before opens no longer; that something was handed out before is told once, before it."""
    with lock.desk() as desk:
        made = answer(desk, Request("access", "export-r4", "acme", HER, now_ms()))
        lock.send([request(HER, "export-e1", "erasure")])
        lock.until(lambda: receipts(lock, "export-e1"), what="the receipt of her erasure")
        with pytest.raises(sealed.CannotOpen, match="destroyed"):
            sealed.open_file(desk, made.path, "a test")
    said = exported(lock, tmp_path / "erased")
    assert (said.nothing_held, said.purposes, said.receipts) == (True, [], [])
    assert said.erasure is not None
    assert said.erasure.counted
    assert said.erasure.at is not None
    assert "Ihre Daten wurden gelöscht" in (tmp_path / "erased" / "export.html").read_text("utf-8")
    left = b"".join(path.read_bytes() for path in (tmp_path / "erased").iterdir())
    assert b"export-1" not in left
    assert her.purposes[1].rows[0].pseudonym.encode() not in left

    lock.send([preference("acme", HER, {"advice": {"open": "pseudonymous"}})])  # and a new grant begins anew
    with lock.desk() as desk:
        again = lock.until(
            lambda: said if (said := gather.of(desk, "acme", HER, "a test")).purposes else None, what="her new grant"
        )
    assert [(one.purpose, [line.effect for line in one.decisions], one.rows) for one in again.purposes] == [
        ("advice", ["raised"], [])
    ]


def test_without_its_stores_it_says_so_and_ends_and_without_kafka_it_waits(lock: Lock, tmp_path: Path) -> None:
    lock.desk().close()  # the key ring has to be there
    log = tmp_path / "waiting"
    with service(lock, log, SCHLEUSE_BROKER="127.0.0.1:1") as waiting:
        lock.until(lambda: '"waiting"' in log.read_text(), what="its word that it waits")
        waiting.send_signal(signal.SIGTERM)
        assert waiting.wait(40) == 0
    assert "Kafka at 127.0.0.1:1 did not answer" in log.read_text()
    log = tmp_path / "log"
    with service(lock, log, SCHLEUSE_IDENTITY_URL="http://127.0.0.1:1") as alone:
        assert alone.wait(40) == 1
    assert log.read_text().endswith(
        "schleuse: the identity store at 127.0.0.1:1 (login rights) did not answer (logging in)\n"
    )
