"""Who may do what in the two stores: one table, from which both the SQL for a server and a `users.xml` are made.

A login has the name of its role (`worker`, `rights`, ...), and exists only in a store where its role has a grant: there
is no analyst in the identity store to guess a password for. What a line does not give is refused by ClickHouse itself.

What ClickHouse asks for (measured on 26.9):

- A materialized view must say `SQL SECURITY DEFINER`: then whoever inserts into a Null table needs INSERT on that table
  alone. A view that says nothing runs with the inserter's rights and is refused. The definer is the login
  `migrations`: to create a view it must hold SELECT on the source and SELECT and INSERT on the target. In the identity
  store, which has no views, it reads no table but its own list.
- `DELETE FROM t WHERE ...` needs ALTER DELETE on t and no SELECT on it, but SELECT on each column of a subquery.
- A grant on columns allows those columns and `count()`, and refuses `*` and every other column, in WHERE too.
- The names of a table's columns are seen by whoever holds any grant on the table, and by nobody else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from xml.sax.saxutils import escape


class Store(StrEnum):
    """The two gates. The value is the name of the database."""

    IDENTITY = "identity"
    ANALYTICS = "analytics"


class Role(StrEnum):
    """The logins. The value is the name to log in with."""

    WORKER = "worker"
    RIGHTS = "rights"
    ANALYST = "analyst"
    OPERATOR = "operator"
    PUBLISHER = "publisher"
    DASHBOARD = "dashboard"
    MIGRATIONS = "migrations"


@dataclass(frozen=True, slots=True)
class Grant:
    """One line of the table: `role` may do `privilege` on `table` of `store`; with `columns`, on those columns only.

    `table` is "*" for the whole database, tables to come included.
    """

    store: Store
    role: Role
    privilege: str
    table: str
    columns: tuple[str, ...] = ()

    def sql(self) -> str:
        """As it stands in a GRANT: `SELECT(pseudonym) ON identity.recipients`."""
        columns = f"({', '.join(self.columns)})" if self.columns else ""
        return f"{self.privilege}{columns} ON {self.store}.{self.table}"


def _on(store: Store, role: Role, privilege: str, *tables: str) -> tuple[Grant, ...]:
    return tuple(Grant(store, role, privilege, table) for table in tables)


_DDL = (
    "CREATE DATABASE",
    "CREATE TABLE",
    "CREATE VIEW",
    "DROP TABLE",
    "DROP VIEW",
    "ALTER TABLE",
    "ALTER VIEW",
    "SHOW",
)
_I, _A = Store.IDENTITY, Store.ANALYTICS

# What the views read from and write to: their definer's business (see above).
_VIEW_TARGETS = ("engagement", "cells_hourly", "cells_unique", "seen", "outcomes")
# By these columns the worker counts what it removes. It reads no behaviour back, and no recipient.
_COUNTED_BY = ("pseudonym", "incarnation", "claim")
# Who was `off` is restored from the ledger when a state is lost: by blind index, without the proof of consent.
_LEDGER = (
    "tenant", "blind", "purpose", "kind", "mode", "effect", "decided_at", "recorded_at", "incarnation", "claim"
)  # fmt: skip

GRANTS: tuple[Grant, ...] = (
    # worker: writes both stores; reads its own chain, and no person.
    *_on(_A, Role.WORKER, "INSERT", "ingest", "claims", "removals", "mailings", "incarnations", "closings"),
    *_on(_A, Role.WORKER, "SELECT", "claims", "removals", "mailings", "incarnations", "outcomes", "seen", "settings"),
    *_on(_A, Role.WORKER, "SELECT", "closings"),
    Grant(_A, Role.WORKER, "SELECT", "engagement", (*_COUNTED_BY, "partition")),
    *_on(_A, Role.WORKER, "ALTER DELETE", "engagement"),
    *_on(_A, Role.WORKER, "INSERT", "rekeys"),
    *_on(_A, Role.WORKER, "SELECT", "rekeys"),
    Grant(_A, Role.WORKER, "ALTER UPDATE", "engagement", ("pseudonym", "key_version")),
    *_on(_I, Role.WORKER, "INSERT", "recipients", "consents", "requests", "receipts", "removals", "erasing"),
    *_on(_I, Role.WORKER, "SELECT", "requests", "receipts", "removals", "erasing"),
    Grant(_I, Role.WORKER, "SELECT", "recipients", (*_COUNTED_BY, "tenant", "blind")),
    Grant(_I, Role.WORKER, "SELECT", "consents", _LEDGER),
    Grant(_I, Role.WORKER, "SELECT", "disclosures", ("tenant", "blind", "disclosed_to", "at")),
    *_on(_I, Role.WORKER, "ALTER DELETE", "recipients", "consents", "disclosures"),
    # rights: the commands that answer one person about herself (access, erasure), and whoever has to prove it. Nobody
    # changes or removes a line of the audit trail.
    *_on(_I, Role.RIGHTS, "SELECT", "recipients", "consents", "requests", "receipts", "audit", "disclosures"),
    *_on(_I, Role.RIGHTS, "INSERT", "audit", "disclosures"),
    *_on(_A, Role.RIGHTS, "SELECT", "engagement", "settings"),
    *_on(_A, Role.RIGHTS, "ALTER DELETE", "engagement"),
    # ... and those that let go when the time has come: windows close, rows and mappings expire.
    *_on(_A, Role.RIGHTS, "SELECT", "cells_hourly", "cells_unique", "cells_closed", "closings", "closing_notes"),
    *_on(_A, Role.RIGHTS, "SELECT", "published"),
    *_on(_A, Role.RIGHTS, "SELECT", "mailings", "incarnations", "claims"),
    *_on(_A, Role.RIGHTS, "SELECT", "removals"),
    *_on(_A, Role.RIGHTS, "INSERT", "cells_closed", "closing_notes", "removals"),
    *_on(_A, Role.RIGHTS, "ALTER DELETE", "cells_unique"),
    # ... and what the officer sees of them: counts, and reports.
    *_on(_A, Role.RIGHTS, "INSERT", "daily", "reports"),
    *_on(_A, Role.RIGHTS, "SELECT", "daily"),
    *_on(_I, Role.RIGHTS, "SELECT", "removals"),
    *_on(_I, Role.RIGHTS, "INSERT", "removals"),
    *_on(_I, Role.RIGHTS, "ALTER DELETE", "recipients"),
    # operator: sums and positions, never a row about a person; nothing in the identity store.
    *_on(_A, Role.OPERATOR, "SELECT", "claims", "outcomes", "cells_hourly", "cells_unique", "mailings"),
    *_on(_A, Role.OPERATOR, "SELECT", "settings", "incarnations", "cells_closed"),
    *_on(_A, Role.OPERATOR, "INSERT", "settings"),
    # ... who lets readers in, and files the report of an attack.
    *_on(_A, Role.OPERATOR, "SELECT", "readers"),
    *_on(_A, Role.OPERATOR, "INSERT", "readers", "reports"),
    # publisher: from exact cells to published figures, and nothing about rows or people.
    *_on(_A, Role.PUBLISHER, "SELECT", "mailings", "cells_unique", "cells_closed", "draws", "published", "settings"),
    *_on(_A, Role.PUBLISHER, "SELECT", "closing_notes", "incarnations"),
    Grant(_A, Role.PUBLISHER, "SELECT", "claims", ("incarnation", "partition", "next_event")),
    *_on(_A, Role.PUBLISHER, "INSERT", "draws", "published"),
    *_on(_A, Role.PUBLISHER, "ALTER DELETE", "draws"),
    # analyst: what was published, and what a mailing is called.
    *_on(_A, Role.ANALYST, "SELECT", "published", "mailings"),
    # dashboard: the same, who may read it by a key, and counts and reports for the officer.
    *_on(_A, Role.DASHBOARD, "SELECT", "published", "mailings", "readers", "daily", "reports"),
    # migrations: the shape of its own database; rows only of its own list and, as the views' definer, what they move.
    *(Grant(store, Role.MIGRATIONS, privilege, "*") for store in Store for privilege in _DDL),
    *(g for store in Store for p in ("SELECT", "INSERT") for g in _on(store, Role.MIGRATIONS, p, "migrations")),
    *_on(_A, Role.MIGRATIONS, "SELECT", "ingest", *_VIEW_TARGETS),
    *_on(_A, Role.MIGRATIONS, "INSERT", *_VIEW_TARGETS),
)


def role_name(role: Role) -> str:
    """The name of the ClickHouse role, set apart from the login's so that the two are never confused."""
    return f"schleuse_{role}"


def roles_of(store: Store) -> tuple[Role, ...]:
    """The roles that have a login in this store, in the order of `Role`."""
    present = {grant.role for grant in GRANTS if grant.store is store}
    return tuple(role for role in Role if role in present)


def grants_of(store: Store, role: Role) -> tuple[Grant, ...]:
    """All that `role` may do in `store`; empty when it has no business there."""
    return tuple(grant for grant in GRANTS if grant.store is store and grant.role is role)


def sql(store: Store, password_sha256: Mapping[Role, str] | None = None) -> list[str]:
    """The statements that bring a ClickHouse server to exactly this table; they may be run again at any time.

    `password_sha256` (hex, by role) adds the logins; without it only the roles are made, and who gets them is the
    server's own business. Each role is set in one statement (`WITH REPLACE OPTION`): it never holds less than the
    table says while this runs, and afterwards never more. Logins that are not in the table are not touched.
    """
    statements = []
    for role in roles_of(store):
        statements.append(f"CREATE ROLE IF NOT EXISTS {role_name(role)}")
        granted = ", ".join(grant.sql() for grant in grants_of(store, role))
        statements.append(f"GRANT {granted} TO {role_name(role)} WITH REPLACE OPTION")
        if password_sha256 is not None:
            digest = _checked_digest(role, password_sha256)
            statements.append(f"CREATE USER IF NOT EXISTS {role}")
            statements.append(f"ALTER USER {role} IDENTIFIED WITH sha256_hash BY '{digest}'")
            statements.append(f"GRANT {role_name(role)} TO {role}")
    return statements


def users_xml(store: Store, password_sha256: Mapping[Role, str], inner: bool = False) -> str:
    """A `users.xml` with exactly this table's roles and logins. ClickHouse itself reads and enforces it.

    `inner` adds the login `default`, without a password, that holds nothing but the roles: the embedded engine runs in
    its own process under that name and takes on one role for each request. Never for a server that listens.
    """
    parts = ["<clickhouse>", "<profiles><default/></profiles>", "<quotas><default/></quotas>", "<roles>"]
    for role in roles_of(store):
        parts += [f"<{role_name(role)}><grants>", *_queries(g.sql() for g in grants_of(store, role))]
        parts.append(f"</grants></{role_name(role)}>")
    parts += ["</roles>", "<users>"]
    rest = "<profile>default</profile><quota>default</quota>"
    for role in roles_of(store):
        digest = _checked_digest(role, password_sha256)
        parts.append(f"<{role}><password_sha256_hex>{digest}</password_sha256_hex>")
        parts.append(f"<networks><ip>::/0</ip></networks>{rest}")
        parts += ["<grants>", *_queries([role_name(role)]), f"</grants></{role}>"]
    if inner:
        parts.append(f"<default><password/><networks><ip>::1</ip><ip>127.0.0.1</ip></networks>{rest}<grants>")
        parts += [*_queries(role_name(role) for role in roles_of(store)), "</grants></default>"]
    parts += ["</users>", "</clickhouse>"]
    return "\n".join(parts) + "\n"


def _queries(granted: Iterable[str]) -> list[str]:
    return [f"<query>GRANT {escape(one)}</query>" for one in granted]


def _checked_digest(role: Role, digests: Mapping[Role, str]) -> str:
    digest = digests.get(role, "")
    if len(digest) != 64 or set(digest) - set("0123456789abcdef"):
        raise ValueError(f"the SHA-256 of the password of {role} must be 64 lower-case hex digits")
    return digest
