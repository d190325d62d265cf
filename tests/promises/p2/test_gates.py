"""P2: two stores, two sets of credentials: no login reads more than it may, and no way leads to the other store."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from urllib.parse import urlencode

import pytest

from deploy.clickhouse.grants import Role, Store, roles_of
from deploy.embedded.stack import Stack
from tests.lock import Lock
from tests.promises.p2.canaries import FEEDS, Search
from tests.promises.p2.detours import HARMLESS, detours
from tests.promises.p2.evidence import Evidence

pytestmark = pytest.mark.stack


def ask(stack: Stack, store: Store, role: str, password: str, sql: str) -> tuple[int, str]:
    request = urllib.request.Request(f"{stack.url(store)}/?database={store}", sql.encode(), method="POST")
    request.add_header("X-ClickHouse-User", role)
    request.add_header("X-ClickHouse-Key", password)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, answer.read().decode("utf-8", "replace")
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode("utf-8", "replace")


def columns(lock: Lock, store: Store) -> dict[str, list[str]]:
    """table -> columns, as the login `migrations` sees them."""
    password = lock.stack.password(store, "migrations")
    sql = f"SELECT table, name FROM system.columns WHERE database = '{store}' FORMAT JSONCompactEachRow"
    status, text = ask(lock.stack, store, "migrations", password, sql)
    assert status == 200, text
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        table, name = json.loads(line)
        if not table.endswith("_view"):
            found.setdefault(table, []).append(name)
    return found


COUNTED_BY = {"pseudonym", "incarnation", "claim"}
# What the rights service looks at to close windows and to let go of rows and mappings in time.
LETS_GO = (
    *("cells_hourly", "cells_unique", "cells_closed", "closings", "closing_notes", "published"),
    *("mailings", "incarnations", "claims", "removals"),
)
# What each login may read, and nothing else: whole tables, or columns.
MAY_READ: dict[tuple[Store, Role], dict[str, set[str] | None]] = {
    (Store.ANALYTICS, Role.ANALYST): {"published": None, "mailings": None},
    (Store.ANALYTICS, Role.DASHBOARD): dict.fromkeys(("published", "mailings", "readers", "daily", "reports")),
    (Store.ANALYTICS, Role.PUBLISHER): {
        **dict.fromkeys(
            ("mailings", "cells_unique", "cells_closed", "closing_notes", "draws", "published", "settings")
        ),
        "incarnations": None,
        "claims": {"incarnation", "partition", "next_event"},
    },
    (Store.ANALYTICS, Role.OPERATOR): dict.fromkeys(
        (
            *("claims", "outcomes", "cells_hourly", "cells_unique", "mailings", "settings", "incarnations"),
            *("cells_closed", "readers"),
        )
    ),
    (Store.ANALYTICS, Role.RIGHTS): dict.fromkeys(("engagement", "settings", "daily", *LETS_GO)),
    (Store.ANALYTICS, Role.WORKER): {
        **dict.fromkeys(("claims", "removals", "mailings", "incarnations", "outcomes", "seen", "settings", "closings")),
        "engagement": COUNTED_BY | {"partition"},
        "rekeys": None,
    },
    (Store.IDENTITY, Role.RIGHTS): dict.fromkeys(
        ("recipients", "consents", "requests", "receipts", "audit", "disclosures", "removals")
    ),
    (Store.IDENTITY, Role.WORKER): {
        **dict.fromkeys(("requests", "receipts", "removals", "erasing")),
        "recipients": COUNTED_BY | {"tenant", "blind"},
        "disclosures": {"tenant", "blind", "disclosed_to", "at"},
        "consents": {
            "tenant",
            "blind",
            "purpose",
            "kind",
            "mode",
            "effect",
            "decided_at",
            "recorded_at",
            "incarnation",
            "claim",
        },
    },
    (Store.IDENTITY, Role.MIGRATIONS): {"migrations": None},
}


@pytest.mark.parametrize(("store", "role"), list(MAY_READ), ids=str)
def test_a_login_reads_what_it_may_and_no_column_more(lock: Lock, evidence: Evidence, store: Store, role: Role) -> None:
    password, allowed = lock.stack.password(store, role), MAY_READ[store, role]
    wrong = []
    for table, names in columns(lock, store).items():
        may = set(names) if allowed.get(table, set()) is None else allowed.get(table) or set()
        for name in names:
            status, text = ask(lock.stack, store, role, password, f"SELECT `{name}` FROM {table} LIMIT 1")
            if (status == 200) != (name in may):
                wrong.append((table, name, status, text[:200] if status != 200 else ""))
    assert wrong == []


def test_who_counts_cannot_log_in_where_people_are(lock: Lock) -> None:
    assert set(roles_of(Store.IDENTITY)) == {Role.WORKER, Role.RIGHTS, Role.MIGRATIONS}
    for role in Role:
        for owner, other in ((Store.ANALYTICS, Store.IDENTITY), (Store.IDENTITY, Store.ANALYTICS)):
            if role not in roles_of(owner):
                continue
            password = lock.stack.password(owner, role)
            status, text = ask(lock.stack, owner, role, password, "SELECT currentUser() != ''")
            assert status == 200, text
            for name in {role, *roles_of(other), "default"}:
                status, text = ask(lock.stack, other, name, password, "SELECT 1")
                assert status in (401, 403), (owner, role, name, text)


@pytest.mark.parametrize(
    ("store", "role", "sql"),
    [
        (Store.ANALYTICS, Role.ANALYST, "INSERT INTO mailings SELECT * FROM mailings"),
        (Store.ANALYTICS, Role.ANALYST, "DELETE FROM mailings WHERE 1"),
        (Store.ANALYTICS, Role.OPERATOR, "INSERT INTO outcomes SELECT * FROM outcomes"),
        (Store.ANALYTICS, Role.OPERATOR, "ALTER TABLE claims DELETE WHERE 1"),
        (
            Store.ANALYTICS,
            Role.OPERATOR,
            "CREATE TABLE copy ENGINE = MergeTree ORDER BY () AS SELECT * FROM cells_hourly",
        ),
        (Store.ANALYTICS, Role.WORKER, "DROP TABLE engagement"),
        (Store.ANALYTICS, Role.WORKER, "ALTER TABLE outcomes DELETE WHERE 1"),
        (Store.IDENTITY, Role.WORKER, "ALTER TABLE receipts DELETE WHERE 1"),
        (Store.IDENTITY, Role.WORKER, "SELECT count() FROM recipients WHERE sealed != ''"),
        (Store.IDENTITY, Role.WORKER, "SELECT count() FROM consents WHERE proof LIKE '%a%'"),
        (Store.IDENTITY, Role.RIGHTS, "INSERT INTO consents SELECT * FROM consents"),
        (Store.IDENTITY, Role.RIGHTS, "DELETE FROM audit WHERE 1"),
        (Store.IDENTITY, Role.RIGHTS, "ALTER TABLE audit UPDATE why = '' WHERE 1"),
        (Store.IDENTITY, Role.WORKER, "SELECT count() FROM audit"),
        (Store.IDENTITY, Role.MIGRATIONS, "SELECT * FROM recipients"),
        (
            Store.IDENTITY,
            Role.MIGRATIONS,
            "CREATE TABLE copy ENGINE = MergeTree ORDER BY () AS SELECT * FROM recipients",
        ),
        (Store.IDENTITY, Role.MIGRATIONS, "CREATE VIEW copy SQL SECURITY NONE AS SELECT * FROM recipients"),
    ],
)
def test_a_login_writes_nothing_that_is_not_its_own(
    lock: Lock, evidence: Evidence, store: Store, role: Role, sql: str
) -> None:
    status, text = ask(lock.stack, store, role, lock.stack.password(store, role), sql)
    assert (status, "ACCESS_DENIED" in text) == (403, True), text


# --- the detours ---


@pytest.mark.parametrize(("store", "role"), [(store, role) for store in Store for role in roles_of(store)], ids=str)
def test_no_statement_leads_from_one_store_to_the_other(
    lock: Lock, evidence: Evidence, store: Store, role: Role
) -> None:
    """All that ClickHouse has for reaching out: servers, files, URLs, dictionaries, logs, other logins' rights."""
    password = lock.stack.password(store, role)
    search = Search({**evidence.words(), **evidence.passwords}, FEEDS)
    got = []
    for what, sql in detours(lock, store, role):
        status, text = ask(lock.stack, store, role, password, sql)
        if status == 200:
            got.append((what, text[:120]))
        assert search.found({what: text.replace(password, "").encode()}) == [], what
    assert got == []
    other = "engagement" if store is Store.IDENTITY else "consents"  # names of tables that only the other has
    for sql in HARMLESS:
        status, text = ask(lock.stack, store, role, password, sql)
        assert search.found({sql: text.encode()}) == [], sql
        assert other not in text, sql
    assert not (lock.stack.directory / "detour").exists()


def test_passwords_of_one_store_open_nothing_of_the_other_however_they_are_given(lock: Lock) -> None:
    """Header, basic authorization and URL; as every login of the other store, and asking for another's role."""
    for owner, other in ((Store.ANALYTICS, Store.IDENTITY), (Store.IDENTITY, Store.ANALYTICS)):
        for role in roles_of(owner):
            password = lock.stack.password(owner, role)
            for name in roles_of(other):
                query = {"user": str(name), "password": password, "query": "SELECT 1"}
                for form in ({}, {"role": "schleuse_rights"}, {"session_id": "x"}, {"quota_key": "x"}):
                    status = _status(f"{lock.stack.url(other)}/?{urlencode({**query, **form})}")
                    assert status in (401, 403), (owner, role, name, form)
            # Asking for another role brings none: the login keeps its own.
            _, own = ask(lock.stack, owner, role, password, "SELECT currentRoles()")
            wanted = urlencode({"user": role, "password": password, "role": "schleuse_migrations"})
            request = f"{lock.stack.url(owner)}/?{wanted}&{urlencode({'query': 'SELECT currentRoles()'})}"
            with urllib.request.urlopen(request, timeout=20) as answer:
                assert answer.read().decode() == own == f"['schleuse_{role}']\n"


def _status(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=20) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
