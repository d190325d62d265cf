"""Old root key, both, new one primary, old one destroyed: in all pairs of when one agreed, acted and withdrew."""

from __future__ import annotations

import json
from typing import Any

import pytest
from click.testing import CliRunner

from pseudonymizer.keys import KeyKind
from streams.cli import main
from streams.ledger import open_recipient
from streams.rights.audit import Action
from streams.stores import Store
from tests.lock import Lock, Message, event, now_ms, preference

pytestmark = pytest.mark.stack

TENANT, MAILING = "beta", "keys"
ERIKA, NINA, OTTO, MAX, PIA, PAUL = (f"keys.{n}@example.com" for n in ("erika", "nina", "otto", "max", "pia", "paul"))


def decided(lock: Lock, *choices: tuple[str, str]) -> None:
    before = lock.changes()
    at = now_ms() - 500
    lock.send([preference(TENANT, who, {"engagement": {"open": mode}}, decided_at=at) for who, mode in choices])
    lock.settle(changes=before + len(choices))


def acted(lock: Lock, *who: str) -> None:
    messages: list[Message] = [event(TENANT, one, mailing=MAILING, occurred_at=now_ms()) for one in who]
    lock.send(messages)
    lock.settle()


def rows(lock: Lock) -> dict[int, tuple[int, int]]:
    """pseudonym -> (key version, rows)"""
    sql = f"SELECT pseudonym, any(key_version), count() FROM engagement WHERE tenant = '{TENANT}' GROUP BY pseudonym"
    return {row[0]: (row[1], row[2]) for row in lock.rows(Store.ANALYTICS, sql)}


def mapped(lock: Lock) -> dict[str, tuple[int, int]]:
    """recipient -> (pseudonym, key version), opened"""
    sql = f"SELECT pseudonym, key_version, hex(sealed) FROM recipients WHERE tenant = '{TENANT}'"
    found = {}
    with lock.desk() as desk:
        for number, version, sealed in lock.rows(Store.IDENTITY, sql):
            pseudonym = int(number).to_bytes(16, "little")
            key = desk.ring.get(KeyKind.DATA, pseudonym.hex())
            assert key, "a mapping without its data key"
            found[open_recipient(key, bytes.fromhex(sealed), pseudonym)] = (number, version)
    return found


def cells(lock: Lock) -> dict[tuple[Any, ...], tuple[int, int]]:
    return {cell: total for cell, total in lock.totals().items() if cell[1] == MAILING}


def receipts(lock: Lock) -> list[Any]:
    """What went by each of this tenant's receipts; those of access have nothing that went."""
    told = [json.loads(record.value) for record in lock.consume("tracking.receipts")]
    return [one["removed"] for one in told if one["tenant"] == TENANT and one["kind"] != "access"]


def keys(lock: Lock, *command: str, code: int = 0) -> str:
    """What a command says, run in this process: a process each would take as long as all the rest."""
    whole = ["--config", str(lock.stack.settings_file), "keys", *command]
    done = CliRunner(env=lock.environment).invoke(main, whole)
    assert done.exit_code == code, done.output
    return done.output


def data_keys(lock: Lock) -> int:
    counted: int = json.loads(keys(lock, "--json"))["counted"]["data"]
    return counted


def test_old_both_new_old_destroyed(lock: Lock) -> None:  # noqa: PLR0915  one story, told in order
    everybody = (ERIKA, NINA, OTTO, MAX)
    decided(lock, (ERIKA, "personal"), (NINA, "personal"), (OTTO, "personal"), (MAX, "pseudonymous"))
    acted(lock, *everybody)
    first, names = rows(lock), mapped(lock)
    assert list(first.values()) == [(1, 1)] * 4
    assert {who: version for who, (_, version) in names.items()} == {ERIKA: 1, NINA: 1, OTTO: 1}

    # Both: who agreed before stays where she is, who agrees now is under the new one.
    assert "nothing was done" in keys(lock, "rotate", "--tenant", TENANT)
    keys(lock, "rotate", "--tenant", TENANT, "--yes")
    decided(lock, (PIA, "personal"), (PAUL, "pseudonymous"))
    acted(lock, *everybody, PIA, PAUL)
    both = rows(lock)
    assert {pseudonym: both[pseudonym] for pseudonym in first} == dict.fromkeys(first, (1, 2))
    assert [both[pseudonym] for pseudonym in both.keys() - first.keys()] == [(2, 1)] * 2
    refused = keys(lock, "destroy", "--tenant", TENANT, "--version", "1", "--yes", code=1)
    assert "8 rows, 3 mappings and 4 consents of 4 recipients" in refused
    assert "is the primary one" in keys(lock, "destroy", "--tenant", TENANT, "--version", "2", code=1)

    # A withdrawal of what was agreed to under the old one.
    decided(lock, (OTTO, "anonymous"))
    lock.until(lambda: {"rows": 2, "mappings": 1} in receipts(lock), what="the receipt")
    assert names[OTTO][0] not in rows(lock)

    # Re-keying, while events of hers are on their way.
    totals, keys_before = cells(lock), data_keys(lock)
    assert "2 recipients to version 2" in keys(lock, "rekey", "--tenant", TENANT)
    lock.send([event(TENANT, ERIKA, mailing="keys.busy", occurred_at=now_ms()) for _ in range(50)])
    for said in ("2 recipients are at version 2", "nothing to do"):
        assert said in keys(lock, "rekey", "--tenant", TENANT, "--yes")
    lock.settle()
    moved, now = rows(lock), mapped(lock)
    max_first = next(iter(first.keys() - {pseudonym for pseudonym, _ in names.values()}))
    assert {who: version for who, (_, version) in now.items()} == {ERIKA: 2, NINA: 2, PIA: 2}
    for who in (ERIKA, NINA):
        assert now[who][0] != names[who][0]
        assert names[who][0] not in moved
        assert moved[now[who][0]] == (2, 52 if who == ERIKA else 2), "all her rows, under one pseudonym"
    assert moved[max_first] == (1, 2), "who is only pseudonymous stays"
    assert moved.keys() & both.keys() == both.keys() - {pseudonym for pseudonym, _ in names.values()}
    assert data_keys(lock) == keys_before
    assert cells(lock) == totals
    acted(lock, ERIKA, MAX)
    assert rows(lock)[now[ERIKA][0]] == (2, 53)
    assert rows(lock)[max_first] == (1, 3)

    # The old one is destroyed: what still stood on it is gone, what was agreed to goes on.
    counted = cells(lock)
    destroyed = ("destroy", "--tenant", TENANT, "--version", "1", "--with-rows")
    assert "version 1 is destroyed" in keys(lock, *destroyed, "--yes")
    assert max_first not in rows(lock)
    assert {version for version, _ in rows(lock).values()} == {2}
    assert cells(lock) == counted
    before = rows(lock)
    acted(lock, MAX)
    ((anew, held),) = [(pseudonym, held) for pseudonym, held in rows(lock).items() if pseudonym not in before]
    assert held == (2, 1)
    assert anew not in first

    # A withdrawal after that, of what was agreed to before: all of it is found.
    decided(lock, (NINA, "anonymous"), (MAX, "anonymous"))
    assert now[NINA][0] not in rows(lock)
    assert anew not in rows(lock)
    assert set(mapped(lock)) == {ERIKA, PIA}
    with lock.desk() as desk:
        assert {version for name, version in desk.ring.roots() if name == TENANT} == {2}
        done = [line.action for line in desk.audit.lines(100, tenant=TENANT) if "key" in line.action]
        desk.audit.verify()
    assert done == [Action.KEY_ROTATED, Action.REKEYED, Action.REKEYED, Action.KEY_DESTROYED]


def test_the_kek_is_rotated_under_a_running_worker(lock: Lock) -> None:
    kek = lock.settings.keyring_kek
    before = kek.read_bytes()
    keys(lock, "rotate", "--kek", "--yes")
    assert kek.read_bytes() != before
    decided(lock, ("keys.kek@example.com", "personal"))
    acted(lock, "keys.kek@example.com")
    assert "keys.kek@example.com" in mapped(lock)
