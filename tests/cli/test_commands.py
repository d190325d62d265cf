"""The commands against real processes: topics, migrations, tenants, and what was refused, from end to end."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib import resources
from typing import Any

import pytest

from deploy.embedded.stack import Stack
from streams import migrate, replay, topics
from streams.errors import StoreRefused
from streams.settings import load
from streams.stores import Role, Store, connect
from tests.lock import Lock, event, iso, mailing, now_ms

pytestmark = pytest.mark.stack


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("commands"), "tansu", die_with_parent=True) as started:
        yield started


@pytest.fixture(scope="module")
def lock(stack: Stack) -> Iterator[Lock]:
    """Entering a lock runs topics, migrate and tenants apply: they have to work at first."""
    with Lock(stack) as running:
        yield running


def test_a_migration_that_was_cut_off_goes_on_and_one_that_changed_is_refused(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut off after any statement, its note written or not in turns, and begun again: every table is there once."""
    settings = load(stack.settings_file, {})
    whole = migrate.files(Store.IDENTITY)
    count = sum(len(one.statements) for one in whole)
    for statement in range(count):
        noted = statement % 2 == 0
        admin = connect(settings, Store.IDENTITY, Role.MIGRATIONS)
        for (name,) in admin.rows("t", "SELECT name FROM system.tables WHERE database = 'identity'"):
            admin.do("t", f"DROP TABLE identity.{name} SYNC")
        admin.close()
        migrations = migrate.Migrations(settings, Store.IDENTITY)
        done: list[int] = []
        note = migrations._note

        def cut(migration: Any, at: int, done: list[int] = done, note: Any = note) -> None:
            if at > 0 and len(done) == statement:  # noqa: B023  called before the loop goes on
                if noted:  # noqa: B023  as above
                    note(migration, at)
                raise KeyboardInterrupt
            note(migration, at)
            done.extend([at] if at else [])

        monkeypatch.setattr(migrations, "_note", cut)
        with pytest.raises(KeyboardInterrupt):
            migrations.apply(migrations.pending(), lambda _: None)
        migrations.close()
        again = migrate.Migrations(settings, Store.IDENTITY)
        again.apply(again.pending(), lambda _: None)
        assert again.pending() == []
        again.close()
    changed = [migrate.Migration(one.number, one.name, "another", one.statements) for one in whole]
    monkeypatch.setattr(migrate, "files", lambda _: changed)
    refusing = migrate.Migrations(settings, Store.IDENTITY)
    with pytest.raises(migrate.MigrationRefused, match="is not the file that was applied"):
        refusing.pending()
    refusing.close()


def test_doing_it_all_again_does_nothing(lock: Lock) -> None:
    assert lock.run("topics").stdout == "all 8 topics are there\n"
    assert lock.run("migrate").stdout == "identity: up to date\nanalytics: up to date\n"
    assert "in force already" in lock.run("tenants", "apply").stdout
    for store in Store:
        expected = {
            one.name.removesuffix(".sql")
            for one in resources.files(f"deploy.clickhouse.{store}").iterdir()
            if one.name.endswith(".sql")
        }
        (rows,) = (
            connect(lock.settings, store, Role.MIGRATIONS).rows(
                "t", f"SELECT DISTINCT number, name FROM {store}.migrations"
            ),
        )
        assert {f"{number:03d}_{name}" for number, name in rows} == expected


def test_topics_that_exist_are_changed_only_with_yes_and_partitions_never(lock: Lock) -> None:
    environment = dict(lock.environment)
    try:
        lock.environment["SCHLEUSE_EVENTS_RETENTION_HOURS"] = "24"
        for options in ([], ["--dry-run"]):
            said = lock.run("topics", *options, check=False)
            assert "~ tracking.events: retention.ms 259200000 -> 86400000" in said.stdout
            assert said.returncode == (0 if options else 1)
        assert "changed 1 topics" in lock.run("topics", "--yes").stdout
        assert lock.run("topics").stdout == "all 8 topics are there\n"
        del lock.environment["SCHLEUSE_EVENTS_RETENTION_HOURS"]
        lock.run("topics", "--yes")
        lock.environment["SCHLEUSE_PARTITIONS"] = "5"
        said = lock.run("topics", "--yes", check=False)
        assert said.returncode == 1
        assert "set partitions = 4" in said.stderr
        assert len(topics.ends(lock.settings, topics.EVENTS)) == 4
    finally:
        lock.environment = environment


def test_tenants_are_put_in_force_only_with_yes_and_may_come_back(lock: Lock) -> None:
    path = lock.stack.directory / "tenants.toml"
    first = path.read_text()
    before = lock.run("tenants", "show", "--json").stdout
    try:
        path.write_text(first + '[gamma]\nlinks = "path"\n')
        said = lock.run("tenants", "apply", check=False)
        assert (said.returncode, said.stdout.splitlines()[0].split(":")[0]) == (1, "+ gamma")
        assert lock.run("tenants", "show", "--json").stdout == before
        assert "in force: " in lock.run("tenants", "apply", "--yes").stdout
        assert json.loads(lock.run("tenants", "show", "--json").stdout)["gamma"]["links"] == "path"
        path.write_text("")
        assert "names no tenant" in lock.run("tenants", "apply", "--yes", check=False).stderr
        path.write_text(first)
        assert "- gamma: goes" in lock.run("tenants", "apply", "--yes").stdout
        assert lock.run("tenants", "show", "--json").stdout == before
    finally:
        path.write_text(first)
    with pytest.raises(StoreRefused):  # only the operator may
        connect(lock.settings, Store.ANALYTICS, Role.WORKER).do(
            "t", "INSERT INTO settings (hash, body) SELECT 'a', 'b'"
        )


def test_what_was_refused_is_listed_opened_and_sent_again_once(lock: Lock) -> None:
    lock.worker()
    raw = "\x1b[2Jnot json, of erika@example.com"
    lock.send(
        [
            event("acme", "moved@example.com", key=b"a key of another partition than the body's"),
            event("acme", "moved@example.com", key=b"and one more that lies elsewhere, 5"),
            ("tracking.events", b"k", raw.encode()),
            event("nobody", "erika@example.com", occurred_at=iso(now_ms())),
        ]
    )
    refused = lock.settle(4)["rejected"]
    assert refused >= 3, "at least one of the two keys lies on another partition than its body's"
    lock.until(lambda: len(replay.listed(lock.settings.broker)[0]) == refused, what="rejections")
    listed = json.loads(lock.run("rejected", "list", "--json").stdout)
    by_reason = {one["reason"]: one for one in listed}
    misrouted = [one for one in listed if one["reason"] == "misrouted"]
    assert "erika" not in lock.run("rejected", "list").stdout

    shown = lock.run("rejected", "show", by_reason["not_json"]["rejection_id"]).stdout
    assert "value: \\x1b[2Jnot json, of erika@example.com" in shown  # nothing that moves a cursor
    assert lock.run("rejected", "show", "--raw", by_reason["not_json"]["rejection_id"]).stdout == raw
    assert lock.run("rejected", "show", "tracking.events:0:999", check=False).returncode == 1

    counted = lock.totals().get(("acme", "m1", "open", None, "human"), (0, 0))[0]
    plan = lock.run("rejected", "replay").stdout
    assert "1 cannot be sent again: it cannot be read: not_json" in plan
    assert "1 cannot be sent again: its tenant is not in the settings in force" in plan
    assert f"+ {len(misrouted)} to tracking.events, {len(misrouted)} of them to another partition" in plan
    assert f"sent {len(misrouted)} of {len(misrouted)}" in lock.run("rejected", "replay", "--yes").stdout
    lock.settle(4 + len(misrouted))
    assert lock.totals()["acme", "m1", "open", None, "human"][0] == counted + len(misrouted)
    again = lock.run("rejected", "replay", "--reason", "misrouted", "--yes").stdout
    assert "it was sent again before" in again
    assert "nothing to send" in again
    assert lock.status()["adds_up"]

    entries = json.loads(lock.run("keys", "--json").stdout)
    assert {entry["kind"] for entry in entries["keys"]} >= {"day", "seen"}
    ring = (lock.stack.directory / "kek" / "kek").read_bytes().hex()
    assert ring not in json.dumps(entries)


def test_what_a_sender_or_an_operator_writes_is_no_markup(lock: Lock) -> None:
    odd = "[/b] [red]:smile:"
    lock.send([event("acme", "erika@example.com", mailing=odd), mailing("acme", odd, {})])
    lock.run("readers", "add", "--tenant", "acme", "--role", "sender", "--label", odd)
    lock.until(lambda: ("acme", odd, "open", None, "human") in lock.totals(), what="the event to be counted")
    lock.until(lambda: odd in lock.run("figures", "--tenant", "acme", check=False).stdout, what="the mailing")
    for command in (("totals",), ("readers", "list"), ("figures", "--tenant", "acme", "--mailing", odd)):
        assert odd in lock.run(*command).stdout
