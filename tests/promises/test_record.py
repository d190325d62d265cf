"""The record of processing says what is there: every column of the live stores, and the settings in force."""

from __future__ import annotations

import json
import sqlite3

import pytest

from streams.catalogue import KEYRING, TABLES
from streams.stores import Role, Store
from tests.lock import Lock, mailing, preference

pytestmark = pytest.mark.stack

CONTROLLER = """
[acme.controller]
name = "Acme GmbH, Domplatz 1, 50667 Köln"
contact = "post@acme.example"
dpo = "Dr. Nora Stein, datenschutz@acme.example"
withdraw = "https://acme.example/einstellungen"
counting_basis = "berechtigtes Interesse, Art. 6 Abs. 1 Buchst. f DSGVO"
transfers = "none"
authority = "LDI NRW"
processors = ["Rechenzentrum Nord AG, Kiel: Betrieb"]
[acme.controller.purposes]
advice = { de = "Wir wollen Ihnen passende Ratgeber schicken.", en = "We want to send you guides that suit you." }
"""


@pytest.mark.parametrize("store", list(Store))
def test_every_column_of_a_live_store_is_in_the_catalogue_and_none_besides(lock: Lock, store: Store) -> None:
    rows = lock.rows(
        store,
        "SELECT c.table, c.name FROM system.columns AS c INNER JOIN system.tables AS t "
        f"ON t.database = c.database AND t.name = c.table "
        f"WHERE c.database = '{store}' AND t.engine != 'MaterializedView'",
        Role.MIGRATIONS,
    )
    there = {(str(table), str(name)) for table, name in rows if not str(table).startswith(".inner")}
    said = {(place.name, field.name) for place in TABLES if place.store == store for field in place.fields}
    assert there - said == set(), "columns without a line in streams/catalogue.py"
    assert said - there == set(), "lines of streams/catalogue.py without a column"


def test_every_column_of_the_key_ring_is_in_the_catalogue(lock: Lock) -> None:
    lock.send([preference("acme", "record@example.com", {"engagement": {"open": "personal"}})])
    with lock.desk():
        pass  # the key ring is made, with all its tables
    database = sqlite3.connect(f"file:{lock.settings.keyring}?mode=ro", uri=True)
    try:
        tables = [row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        there = {(name, row[1]) for name in tables for row in database.execute(f"PRAGMA table_info({name})")}
    finally:
        database.close()
    assert there == {(place.name, field.name) for place in KEYRING for field in place.fields}


def test_the_record_and_the_notice_are_of_the_settings_in_force(lock: Lock) -> None:
    lock.send([mailing("acme", "record", {})])
    file = lock.stack.directory / "tenants.toml"
    before = file.read_text()
    bare = lock.run("record", "--tenant", "acme")
    assert "**Not said yet** in `[acme.controller]`: name, contact" in bare.stdout
    try:
        file.write_text(before + CONTROLLER)
        applied = lock.run("tenants", "apply", "--yes")  # what the controller says is put in force nowhere
        found = json.loads(lock.run("record", "--tenant", "acme", "--format", "json").stdout)
        notices = {
            tongue: lock.run("record", "--tenant", "acme", "--notice", "--language", tongue) for tongue in ("de", "en")
        }
    finally:
        file.write_text(before)
    assert "in force already" in applied.stdout
    assert found["missing"] == []
    assert found["controller"]["dpo"] == "Dr. Nora Stein, datenschutz@acme.example"
    assert {one["purpose"]: (one["at_most"], one["retention_days"]) for one in found["purposes"]} == {
        "engagement": ("personal", 390),
        "advice": ("pseudonymous", 390),
    }
    places = {(place["store"], place["name"]): place for place in found["places"]}
    assert places["kafka", "tracking.events"]["kept"].startswith("3 days")
    assert places["analytics", "engagement"]["kept"].startswith("advice: 390 days; engagement: 390 days")
    assert places["identity", "recipients"]["written_by"] == "worker, rights"  # who lets go when its time is over
    sealed = next(one for one in places["identity", "recipients"]["fields"] if one["name"] == "sealed")
    assert (sealed["personal"], sealed["read_by"]) == ("sealed", "rights")
    for tongue, words in {"de": ("390 Tage", "Widerruf"), "en": ("390 days", "Withdrawal")}.items():
        text = notices[tongue].stdout
        assert "[" not in text, text
        assert notices[tongue].stderr == ""
        assert all(word in text for word in (*words, "https://acme.example/einstellungen")), text
    stranger = lock.run("record", "--tenant", "acne", check=False)
    assert stranger.returncode == 1
    assert "not in the settings in force" in stranger.stderr
