"""Finding one person: what she decided, under every spelling, and exactly the pseudonyms that her rows stand under."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pseudonymizer.consent import Mode
from streams.errors import SettingsError
from streams.rights.desk import Desk
from streams.rights.person import Person, find
from streams.stores import Store
from tests.lock import Lock, event, now_ms, preference

pytestmark = pytest.mark.stack
HER, NOBODY = "frieda.finde@example.com", "niemand.da@example.com"


@pytest.fixture(scope="module")
def desk(lock: Lock) -> Iterator[Desk]:
    with lock.desk() as opened:
        yield opened


def _wait(lock: Lock, desk: Desk, modes: set[Mode]) -> Person:
    def there() -> Person | None:
        person = find(desk, "acme", HER)
        held = {
            one.mode for kinds in (person.state.purposes if person.state else {}).values() for one in kinds.values()
        }
        return person if held == modes else None

    found = lock.until(there, what="her state")
    assert isinstance(found, Person)
    return found


def test_her_pseudonyms_are_those_of_her_rows(lock: Lock, desk: Desk) -> None:
    at = now_ms() - 60_000
    modes = {"engagement": {"open": "personal", "click": "pseudonymous"}}
    lock.send([preference("acme", HER, modes, at)])
    her = _wait(lock, desk, {Mode.PERSONAL, Mode.PSEUDONYMOUS})
    lock.send([event("acme", HER, mailing="find-1"), event("acme", HER, mailing="find-1", kind="click", link="x")])
    sql = f"SELECT kind, pseudonym, partition FROM engagement WHERE partition = {her.partition} AND mailing = 'find-1'"
    rows = lock.until(lambda: (found := lock.rows(Store.ANALYTICS, sql)) and len(found) == 2 and found, what="rows")
    assert {(p.kind, p.number, her.partition) for p in her.pseudonyms} == {tuple(row) for row in rows}
    assert {(p.kind, p.level, p.since, p.purpose) for p in her.pseudonyms} == {
        ("open", Mode.PERSONAL, at, "engagement"),
        ("click", Mode.PSEUDONYMOUS, at, "engagement"),
    }
    mapped = lock.rows(
        Store.IDENTITY, f"SELECT pseudonym FROM recipients WHERE hex(blind) = '{her.blind.hex().upper()}'"
    )
    assert [row[0] for row in mapped] == [p.number for p in her.pseudonyms if p.level is Mode.PERSONAL]
    assert find(desk, "acme", " Frieda.Finde@Example.COM").state is None  # another local part is another person
    assert find(desk, "acme", f"  {HER.replace('example.com', 'EXAMPLE.com')} ").pseudonyms == her.pseudonyms
    assert find(desk, "beta", HER).state is None
    assert HER not in repr(her)
    assert her.blind.hex() not in repr(her)

    lock.send([preference("acme", HER, "*", mode="anonymous")])
    gone = _wait(lock, desk, {Mode.ANONYMOUS})
    assert gone.pseudonyms == ()
    assert gone.state is not None
    assert her.state is not None
    assert gone.state.version > her.state.version


def test_who_is_unknown_and_what_is_wrong(desk: Desk) -> None:
    nobody = find(desk, "acme", NOBODY)
    assert (nobody.state, nobody.pseudonyms, nobody.is_stub) == (None, (), False)
    with pytest.raises(SettingsError, match="the tenant that --tenant names"):
        find(desk, "nobody", HER)
    with pytest.raises(SettingsError, match="no address or id") as refused:
        find(desk, "acme", "erika@example..com")
    assert "erika" not in str(refused.value)
