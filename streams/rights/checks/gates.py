"""The two gates from the outside (P2, P7): what each login may do, whose password opens what, where an address is.

Every login is asked of by itself (`CHECK GRANT`): what it holds by whatever way counts, not what a list of grants says.
What nobody may have at all is asked of every login; nothing is read for it and nothing is tried.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from deploy.clickhouse.grants import grants_of, roles_of
from streams.broker import read_all
from streams.catalogue import TABLES
from streams.errors import SettingsError, StoreRefused
from streams.rights.verify import About, Look, Sight, Sweep
from streams.stores import Role, Store, StoreClient, connect, lets_in
from streams.topics import RECEIPTS, REJECTED

LOGINS, ANALYST, PASSWORDS, ADDRESSES, TOPICS = "logins", "analyst", "passwords", "addresses", "topics"

ABOUT_LOGINS = {
    LOGINS: About(
        "P2",
        LOGINS,
        "Every login of both stores may do what the table of grants says, column by column, and nothing else; none may "
        "reach out of its store.",
        "an administrator runs what `schleuse migrate --grants` prints, and takes away what was given besides",
    ),
    ANALYST: About(
        "P7",
        ANALYST,
        "Analysts may read what is published and what a mailing is called, and nothing else.",
        "an administrator runs what `schleuse migrate --grants` prints, and takes away what was given besides",
    ),
    PASSWORDS: About(
        "P2",
        PASSWORDS,
        "No password of one store opens the other, under any name.",
        "give every login of both stores a password of its own",
    ),
}
ABOUT_ADDRESSES = {
    ADDRESSES: About(
        "P2",
        ADDRESSES,
        "No text in the analytics store looks like an address.",
        "find the rows (docs/verify.md, addresses) and who sends such names; delete them",
    ),
    TOPICS: About(
        "P2, P8",
        TOPICS,
        "No rejection and no receipt in Kafka holds an address in the clear, and each can be read.",
        "something else writes to these topics, or a release that should not: take its access away",
    ),
}

_ON_TABLES = ("SELECT", "INSERT", "ALTER UPDATE", "ALTER DELETE")
_ON_STORE = ("CREATE TABLE", "CREATE VIEW", "DROP TABLE", "TRUNCATE", "ALTER TABLE")
_IMPLIED = {"ALTER TABLE": ("ALTER UPDATE", "ALTER DELETE")}
# What lets a login out of its store, or lets it give itself more.
_NEVER = (
    *("FILE", "URL", "REMOTE", "S3", "MYSQL", "POSTGRES", "ODBC", "JDBC"),
    *("CREATE USER", "ALTER USER", "ROLE ADMIN", "CREATE DICTIONARY", "CREATE NAMED COLLECTION", "BACKUP", "SYSTEM"),
)


def logins(sight: Sight) -> Mapping[str, Look]:
    """What every login of which there is a password here may do; and the other store's passwords."""
    looks = {name: Look() for name in ABOUT_LOGINS}
    for store in Store:
        for role in roles_of(store):
            look = looks[ANALYST if role is Role.ANALYST else LOGINS]
            try:
                client = connect(sight.settings, store, role, connections=1)
            except SettingsError:
                look.skipped.append(f"{role} at the {store} store: its password is not here")
                continue
            try:
                look.looked_at["logins"] += 1
                _check_login(client, store, role, look)
            finally:
                client.close()
            _check_password(sight, store, role, looks[PASSWORDS])
    return looks


def _check_login(client: StoreClient, store: Store, role: Role, look: Look) -> None:
    seen = client.rows(
        "asking which tables are there", "SELECT name FROM system.tables WHERE database = {db:String}", {"db": store}
    )
    for privilege, target, allowed in _questions(store, role, {str(row[0]) for row in seen}):
        look.looked_at["rights asked for"] += 1
        ((has,),) = client.rows("asking for a right", f"CHECK GRANT {privilege} ON {target}")
        if bool(has) != allowed:
            what = "has more than the table of grants says" if has else "has less than the table of grants says"
            look.flaw(f"{role} at the {store} store {what}: {privilege} on {target}", (store, role))


def _questions(store: Store, role: Role, seen: Collection[str]) -> Iterator[tuple[str, str, bool]]:
    """(privilege, on what, whether the login has it). `seen`: a login that holds anything on a table sees its name."""
    granted: dict[tuple[str, str], set[str] | None] = {}  # (privilege, table) -> columns; None: all of them
    for grant in grants_of(store, role):
        for privilege in (grant.privilege, *_IMPLIED.get(grant.privilege, ())):
            granted[privilege, grant.table] = set(grant.columns) or None
    for place in TABLES:
        if place.store != store:
            continue
        for privilege in _ON_TABLES:
            held = granted.get((privilege, place.name), granted.get((privilege, "*"), set()))
            if place.name in seen and held is not None and privilege == "SELECT":  # nothing, or some columns
                for field in place.fields:
                    yield f"{privilege}({field.name})", f"{store}.{place.name}", field.name in held
            elif place.name in seen or held is None:
                yield privilege, f"{store}.{place.name}", held is None
    for privilege in _ON_STORE:
        yield privilege, f"{store}.*", (privilege, "*") in granted
    other = next(one for one in Store if one is not store)
    yield "SELECT", f"{other}.*", False
    for privilege in _NEVER:
        yield privilege, "*.*", False


def _check_password(sight: Sight, store: Store, role: Role, look: Look) -> None:
    """Try the password of a login at the other store, under each of the other store's names."""
    other = next(one for one in Store if one is not store)
    for name in roles_of(other):
        look.looked_at["passwords tried at the other store"] += 1
        if lets_in(sight.settings, other, name, sight.settings.password(store, role)):
            look.flaw(f"the password of {role} at the {store} store opens {name} at the {other} store", (store, role))


# --- addresses ---

# As streams/messages.py has it: something@something, also percent-encoded; not the /@name of a profile.
_ADDRESS = r"[^\\s/?&=#:;,<>()@](@|%40)[^\\s/?&=#@]"


def addresses(sight: Sight) -> Mapping[str, Look]:
    """Texts of the analytics store, and messages that hold no address by their definition."""
    looks = {name: Look() for name in ABOUT_ADDRESSES}
    for client in (sight.desk.analytics, sight.figures):
        _check_texts(client, looks[ADDRESSES])
    for topic in (REJECTED, RECEIPTS):
        for record in read_all(sight.settings.broker, topic):
            looks[TOPICS].looked_at["messages"] += 1
            if b"@" in (record.value or b"") or b"@" in (record.key or b""):
                looks[TOPICS].flaw(f"messages of {topic} with an address", (record.partition, record.offset))
    return looks


def _check_texts(client: StoreClient, look: Look) -> None:
    """Every text column of every table that a login may read; each value once."""
    columns = client.rows(
        "looking for texts",
        "SELECT table, name FROM system.columns WHERE database = currentDatabase() AND position(type, 'String') > 0",
    )
    for table, name in columns:
        try:
            ((count,),) = client.rows(
                "looking for addresses",
                f"SELECT countIf(match(text, '{_ADDRESS}')) FROM "
                f"(SELECT DISTINCT toString({name}) AS text FROM {table})",
            )
        except StoreRefused:  # its name is seen by whoever holds any grant on the table
            continue
        look.looked_at["columns"] += 1
        if count:
            look.flaw(f"values of {table}.{name} with an address", (table, name), int(count))


SWEEPS = (Sweep(logins, ABOUT_LOGINS, moves=False), Sweep(addresses, ABOUT_ADDRESSES, moves=False))
