"""The key ring, on real files, with real processes."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pseudonymizer.keys import KeyKind
from streams.errors import StoreUnavailable
from streams.keyring import KeyRetired, KeyRing, KeyRingRefused


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    return tmp_path / "ring" / "keys.sqlite", tmp_path / "kek" / "keys.kek"


def test_the_first_one_to_come_has_made_a_key_for_everybody(files: tuple[Path, Path]) -> None:
    one = KeyRing.open(*files)
    other = KeyRing.open(*files)
    key = one.ensure(KeyKind.MAILING, "acme\x1fherbst")
    assert len(key) == 32
    assert other.ensure(KeyKind.MAILING, "acme\x1fherbst") == key
    assert other.get(KeyKind.MAILING, "acme\x1fherbst") == key
    assert KeyRing.open(*files, create=False).get(KeyKind.MAILING, "acme\x1fherbst") == key
    assert one.get(KeyKind.MAILING, "acme\x1fadvent") is None
    assert one.ensure(KeyKind.SEEN, "acme\x1fherbst") != key  # another kind is another key
    assert one.ensure(KeyKind.MAILING, "acme\x1fherbst", 2) != key  # and so is another version


_PROCESS = """
import sys
from pathlib import Path
from pseudonymizer.keys import KeyKind
from streams.keyring import KeyRing
sys.stdin.readline()
ring = KeyRing.open(Path(sys.argv[1]), Path(sys.argv[2]))
found = ring.ensure_many(KeyKind.MAILING, [f"acme {n}" for n in range(20)])
found |= {f"single {n}": ring.ensure(KeyKind.DAY, f"{n}") for n in range(20)}
found["root"] = ring.primary("acme")[1]
print(sorted((name, key.hex()) for name, key in found.items()))
"""


def test_processes_that_start_at_once_share_one_ring(files: tuple[Path, Path]) -> None:
    command = [sys.executable, "-c", _PROCESS, *map(str, files)]
    processes = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    for process in processes:  # all are waiting by now, or soon are: go
        assert process.stdin
        process.stdin.write("go\n")
        process.stdin.flush()
    answers = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, answers
    assert len({out for out, _ in answers}) == 1
    assert len(KeyRing.open(*files).entries()) == 41


def test_threads_share_one_ring(files: tuple[Path, Path]) -> None:
    ring = KeyRing.open(*files)
    answers: list[dict[str, bytes]] = []
    threads = [
        threading.Thread(target=lambda: answers.append(ring.ensure_many(KeyKind.DATA, map(str, range(1200)))))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 4
    assert all(answer == answers[0] for answer in answers)
    assert len(set(answers[0].values())) == 1200


def test_what_is_destroyed_is_gone_from_the_file_and_comes_back_as_another_key(files: tuple[Path, Path]) -> None:
    ring = KeyRing.open(*files)
    before = ring.ensure_many(KeyKind.DATA, ["a", "b", "c"])
    ring.ensure(KeyKind.DATA, "a", 2)
    with sqlite3.connect(files[0]) as database:
        sealed = [row[0] for row in database.execute("SELECT sealed FROM entries WHERE name IN ('a', 'b')")]
    assert len(sealed) == 3
    assert ring.destroy(KeyKind.DATA, "a", 2) == 1
    assert ring.get(KeyKind.DATA, "a") == before["a"]
    assert ring.destroy_many(KeyKind.DATA, ["a", "b", "never"]) == 2
    assert ring.destroy_many(KeyKind.DATA, []) == 0
    assert ring.names(KeyKind.DATA) == ["c"]
    assert ring.get(KeyKind.DATA, "c") == before["c"]
    ring.close()
    left = files[0].read_bytes()
    assert not any(piece in left for piece in sealed)
    again = KeyRing.open(*files).ensure_many(KeyKind.DATA, ["a", "b", "c"])
    assert [again[name] == before[name] for name in "abc"] == [False, False, True]


def test_a_key_that_is_retired_is_never_made_again(files: tuple[Path, Path]) -> None:
    """Also not by a process that was stopped in the middle, nor beside others that may be made; old rings learn it."""
    ring = KeyRing.open(*files)
    ring.ensure_many(KeyKind.MAILING, ["open", "closed"])
    with sqlite3.connect(files[0]) as older:
        older.execute("DROP TABLE retired")  # as a release that did not know it has left the ring
    ring, other = KeyRing.open(*files), KeyRing.open(*files)
    assert ring.retire_many(KeyKind.MAILING, ["closed", "never made"]) == 1
    assert ring.retire_many(KeyKind.MAILING, ["closed"]) == 0
    for name in ("closed", "never made"):
        assert other.get(KeyKind.MAILING, name) is None
        with pytest.raises(KeyRetired):
            other.ensure(KeyKind.MAILING, name)
        with pytest.raises(KeyRetired):
            other.ensure_many(KeyKind.MAILING, ["open", "new", name])
    assert other.names(KeyKind.MAILING) == ["open"]
    assert other.ensure(KeyKind.DAY, "closed"), "of another kind it is another key"


def test_keys_of_one_kind_are_destroyed_by_their_days(files: tuple[Path, Path]) -> None:
    ring = KeyRing.open(*files)
    for kind in (KeyKind.DAY, KeyKind.ROOT):
        ring.ensure(kind, "2026-11-23")
    assert ring.destroy_before(KeyKind.DAY, "2026-11-23") == 0
    assert ring.destroy_before(KeyKind.DAY, "2026-11-24") == 1
    assert [(entry.kind, entry.name, entry.version) for entry in ring.entries()] == [(KeyKind.ROOT, "2026-11-23", 1)]


def test_the_primary_root_key_is_the_newest(files: tuple[Path, Path]) -> None:
    ring = KeyRing.open(*files)
    version, first = ring.primary("acme")
    assert version == 1
    assert ring.primary("acme") == (1, first)
    second = ring.ensure(KeyKind.ROOT, "acme", 2)
    assert ring.primary("acme") == (2, second)
    assert ring.primary("globex")[0] == 1
    assert ring.get(KeyKind.ROOT, "acme", 1) == first


def test_both_files_are_made_owner_only_even_under_a_lax_umask(files: tuple[Path, Path]) -> None:
    before = os.umask(0)
    try:
        KeyRing.open(*files).ensure(KeyKind.SEEN, "")
    finally:
        os.umask(before)
    assert [file.stat().st_mode & 0o777 for file in files] == [0o600, 0o600]
    assert [len(list(file.parent.iterdir())) for file in files] == [1, 1]  # no temporary file stays


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_a_file_that_others_can_open_is_refused(files: tuple[Path, Path], which: int, mode: int) -> None:
    KeyRing.open(*files).close()
    files[which].chmod(mode)
    with pytest.raises(KeyRingRefused, match=f"chmod 600 {files[which]}$"):
        KeyRing.open(*files)


def test_a_ring_without_its_kek_or_with_another_is_refused(files: tuple[Path, Path], tmp_path: Path) -> None:
    ring, kek = files
    KeyRing.open(ring, kek).ensure(KeyKind.ROOT, "acme")
    with pytest.raises(KeyRingRefused, match="put it back"):
        KeyRing.open(ring, tmp_path / "elsewhere.kek")
    assert not (tmp_path / "elsewhere.kek").exists()
    KeyRing.open(tmp_path / "other.sqlite", tmp_path / "other.kek")
    for wrong in (tmp_path / "other.kek", tmp_path / "short.kek"):
        if not wrong.exists():
            wrong.write_bytes(b"short")
            wrong.chmod(0o600)
        with pytest.raises(KeyRingRefused, match="does not belong to"):
            KeyRing.open(ring, wrong)


def test_a_lost_ring_is_not_replaced_silently(files: tuple[Path, Path]) -> None:
    ring, kek = files
    KeyRing.open(ring, kek).close()
    held = kek.read_bytes()
    ring.unlink()
    for _ in range(2):
        with pytest.raises(KeyRingRefused, match="bring the ring back"):
            KeyRing.open(ring, kek)
    assert kek.read_bytes() == held


def test_what_is_no_ring_is_refused_in_one_sentence(files: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(KeyRingRefused, match="there is no key ring at"):
        KeyRing.open(*files, create=False)
    assert not files[0].exists()
    text = tmp_path / "text"
    text.write_text("not a database, but long enough to look at " * 50)
    text.chmod(0o600)
    with pytest.raises(KeyRingRefused, match="SQLITE_NOTADB"):
        KeyRing.open(text, files[1])
    with pytest.raises(KeyRingRefused, match="is not a file"):
        KeyRing.open(tmp_path, files[1])


def test_an_entry_that_was_moved_or_changed_does_not_open(files: tuple[Path, Path]) -> None:
    ring = KeyRing.open(*files)
    ring.ensure_many(KeyKind.ROOT, ["acme", "globex"])
    with sqlite3.connect(files[0]) as database:
        (sealed,) = database.execute("SELECT sealed FROM entries WHERE name = 'acme'").fetchone()
        database.execute("UPDATE entries SET sealed = ? WHERE name = 'globex'", (sealed,))
    with pytest.raises(KeyRingRefused, match="was changed"):
        ring.get(KeyKind.ROOT, "globex")
    assert ring.get(KeyKind.ROOT, "acme")


def test_a_locked_ring_is_waited_for_and_then_said_to_be_unavailable(
    files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.keyring.BUSY_SECONDS", 0.2)
    ring = KeyRing.open(*files)
    held = ring.ensure(KeyKind.SEEN, "")
    database = sqlite3.connect(files[0], isolation_level=None)
    database.execute("BEGIN IMMEDIATE")
    assert ring.get(KeyKind.SEEN, "") == held
    with pytest.raises(StoreUnavailable, match="SQLITE_BUSY"):
        ring.ensure(KeyKind.BLIND, "")
    database.execute("ROLLBACK")
    assert len(ring.ensure(KeyKind.BLIND, "")) == 32


def test_no_repr_shows_a_key(files: tuple[Path, Path]) -> None:
    ring = KeyRing.open(*files)
    key = ring.ensure(KeyKind.ROOT, "acme")
    kek = files[1].read_bytes()
    shown = repr(ring) + str(ring) + repr(ring.entries())
    assert str(files[0]) in shown
    assert not any(form in shown for secret in (key, kek) for form in (repr(secret)[2:-1], secret.hex()))
