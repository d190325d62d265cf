"""P2: two stores, two sets of credentials; the analytics store holds nothing of a recipient, in no spelling.

Words that occur nowhere else (canaries) are put wherever a sender could put a recipient. Afterwards every table, every
file, every log and every answer is searched for each of them in every encoding that is not a secret, and the search is
shown to find what is there.
"""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import json
import secrets
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import orjson
import pytest

from deploy.clickhouse.grants import Role, Store, roles_of
from deploy.embedded.stack import Stack
from pseudonymizer.keys import KeyKind
from pseudonymizer.sealing import open_sealed
from streams.keyring import KeyRing
from streams.partitioner import message_key, partition_of
from streams.rejections import Rejection, open_content, parse
from streams.stores import Store as Gate
from tests.lock import PROOF, Lock, event, key, mailing, now_ms, preference, shown

pytestmark = pytest.mark.stack

MODES = ("unknown", "off", "anonymous", "pseudonymous", "personal")
MAILING, LINK, BASE = "herbstbrief", "heldenbild", "https://x.example/produkt"
AGENT = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148"


def word(of: str) -> str:
    """A word that is nowhere else, with both cases in it."""
    return f"Kanarie{of.capitalize()}{secrets.token_hex(5)}"


@dataclass(frozen=True)
class Canaries:
    """What must not be found. `recipients`: by mode, an address and an id; `others`: what else a sender said."""

    recipients: Mapping[str, tuple[str, str]]
    others: Mapping[str, str]

    def words(self) -> dict[str, str]:
        """All of them by name; of an address its local part too."""
        found = dict(self.others)
        for mode, (address, number) in self.recipients.items():
            found |= {f"address {mode}": address, f"local part {mode}": address.partition("@")[0], f"id {mode}": number}
        return found


def encodings(text: str) -> dict[str, bytes]:
    """A text as it might lie somewhere without a secret: spelled otherwise, encoded, or hashed plainly."""
    found: dict[str, bytes] = {}
    keyed = {f"key of {tenant}": message_key(tenant, text) for tenant in ("acme", "beta")}
    for how, raw in {
        "plain": text.encode(),
        "lower": text.lower().encode(),
        "upper": text.upper().encode(),
        **keyed,
    }.items():
        found[how] = raw
        found[f"{how}, hex"] = raw.hex().encode()
        found[f"{how}, HEX"] = raw.hex().upper().encode()
        found[f"{how}, percent"] = "".join(f"%{byte:02x}" for byte in raw).encode()
        found[f"{how}, PERCENT"] = "".join(f"%{byte:02X}" for byte in raw).encode()
        found[f"{how}, quoted"] = quote(raw, safe="").encode()
        found[f"{how}, reversed"] = raw[::-1]
        for shift in range(3):  # base64 of a text in the middle of another: what does not depend on its neighbours
            inner = base64.b64encode(b"\0" * shift + raw)[4 if shift else 0 : -4]
            found[f"{how}, base64 at {shift}"] = inner
            found[f"{how}, URL-safe base64 at {shift}"] = inner.translate(bytes.maketrans(b"+/", b"-_"))
        for name in ("md5", "sha1", "sha256"):
            digest = hashlib.new(name, raw).digest()
            found[f"{how}, {name}"] = digest[:8]  # a hash that was cut to 64 bits is found too
            found[f"{how}, {name} as a number"] = digest[:8][::-1]
            found[f"{how}, {name} of 128 bits as a number"] = digest[8:16][::-1]
            found[f"{how}, {name}, hex"] = digest.hex()[:16].encode()
            found[f"{how}, {name}, HEX"] = digest.hex()[:16].upper().encode()
            found[f"{how}, {name}, base64"] = base64.b64encode(digest)[:10]
    for codec in ("utf-16-le", "utf-16-be", "utf-32-le"):
        found[codec] = text.encode(codec)
    return found


def where(words: Mapping[str, str], blobs: Mapping[str, bytes]) -> list[tuple[str, str, str]]:
    """(blob, canary, encoding) of everything that is found."""
    return [
        (name, canary, how)
        for canary, text in words.items()
        for how, needle in encodings(text).items()
        for name, blob in blobs.items()
        if needle in blob
    ]


_DUMP = """
import sys, chdb
connection = chdb.connect(sys.argv[1])
ask = lambda sql, form: connection.query(sql, form).bytes() or b""
tables = ask("SELECT concat(database, '.', name) FROM system.tables WHERE NOT is_temporary AND engine NOT LIKE '%View' "
    "AND (database NOT IN ('system', 'INFORMATION_SCHEMA', 'information_schema') "
    "OR database = 'system' AND (name LIKE '%log' OR name IN ('mutations', 'parts_columns')))", "TSVRaw")
for table in tables.decode().split():
    body = b"\\n".join(ask(f"SELECT * FROM {table}", form) for form in ("RowBinary", "JSONEachRow"))
    sys.stdout.buffer.write(table.encode() + b" " + str(len(body)).encode() + b"\\n" + body)
"""


def dump(directory: Path) -> dict[str, bytes]:
    """Every table of a stopped store, as the engine's own master login reads it: in binary and as text."""
    done = subprocess.run(
        [sys.executable, "-c", _DUMP, str(directory / "data")], capture_output=True, timeout=120, check=True
    )
    tables, rest = {}, done.stdout
    while rest:
        head, _, rest = rest.partition(b"\n")
        name, size = head.decode().split()
        tables[name], rest = rest[: int(size)], rest[int(size) :]
    return tables


@dataclass
class Evidence:
    """Everything that was written, said and kept."""

    canaries: Canaries
    identity: dict[str, bytes]
    analytics: dict[str, bytes]
    files: dict[str, bytes]
    told: dict[str, bytes]
    topics: dict[str, list[Any]]
    misrouted: bytes


@pytest.fixture(scope="module")
def lock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lock]:
    with Stack(tmp_path_factory.mktemp("gates"), "tansu", die_with_parent=True) as stack, Lock(stack) as running:
        yield running


@pytest.fixture(scope="module")
def evidence(lock: Lock) -> Evidence:
    """Send what a careless sender could send, let it be carried out, stop, and read everything there is."""
    network = ipaddress.ip_network("2001:db8::/32")
    canaries = Canaries(
        {mode: (f"{word(mode)}@example.com", word(f"id{mode}")) for mode in MODES},
        {
            "query": word("query"),
            "path": word("path"),
            "fragment": word("fragment"),
            "user": word("user"),
            "agent": word("agent"),
            "ip": str(network[secrets.randbits(90)]),
            "event id": word("event"),
            "feed": word("feed"),
            "unknown field": word("field"),
            "unknown value": word("value"),
            "link": word("link"),
            "proof": word("proof"),
        },
    )
    said = canaries.others
    worker = lock.worker()
    proof = {**PROOF, "evidence": said["proof"]}
    changes = 0
    lock.send([mailing("acme", MAILING, {LINK: BASE})])
    for mode in MODES[1:]:
        asked = "*" if mode == "off" else {"engagement": {"open": mode, "click": mode}}
        extra: dict[str, Any] = {"mode": "off"} if mode == "off" else {"proof": proof}
        lock.send([preference("acme", who, asked, now_ms() - 60_000, **extra) for who in canaries.recipients[mode]])
        changes += 2
    lock.settle(changes=changes)
    urls = [
        f"{BASE}?rid={said['query']}#{said['fragment']}",
        f"https://x.example/{said['path']}",
        f"https://{said['user']}:x@x.example/produkt",
    ]
    more = {
        "user_agent": f"{AGENT} {said['agent']}",
        "ip": said["ip"],
        "feed": said["feed"],
        said["unknown field"]: said["unknown value"],
    }
    recipients = [(mode, who) for mode, both in canaries.recipients.items() for who in both]
    messages = []
    for index, (_, who) in enumerate(recipients):
        acts: list[dict[str, Any]] = [{"kind": "open"}, *({"kind": "click", "url": url} for url in urls)]
        acts.append({"kind": "click", "link": said["link"]})
        messages += [
            event("acme", who, mailing=MAILING, event_id=f"{said['event id']}-{index}-{n}", **act, **more)
            for n, act in enumerate(acts)
        ]
        messages.append(event("acme", who, mailing=MAILING, event_id=who, **more))
    lock.send(messages)
    her = canaries.recipients["personal"][0]
    other = next(
        k for k in (key("acme", str(n)) for n in range(99)) if partition_of(k, 4) != partition_of(key("acme", her), 4)
    )
    misrouted = event("acme", her, mailing=MAILING, key=other, url=urls[0], kind="click", **more)
    lock.send([misrouted])
    lock.send([preference("acme", canaries.recipients["pseudonymous"][1], "*", mode="anonymous")])
    lock.settle(changes=changes + 1)
    lock.until(lambda: lock.consume("tracking.receipts"), what="the receipt")

    told = {path: worker.get(path) for path in ("/status", "/metrics", "/health", "/ready")}
    for command in ("status", "totals", "settings", "keys", "rejected list", "rejected list --json", "status --json"):
        done = lock.run(*command.split())
        told[f"schleuse {command}"] = (done.stdout + done.stderr).encode()
    names = ("events", "changes", "state", "rejected", "receipts", "mailings")
    topics = {name: lock.consume(f"tracking.{name}") for name in names}
    assert worker.kill(15) == 0
    for store in Store:
        lock.stack.kill(store)
    home = lock.stack.directory
    found = Evidence(
        canaries,
        dump(home / "identity"),
        dump(home / "analytics"),
        {str(path.relative_to(home)): path.read_bytes() for path in sorted(home.rglob("*")) if path.is_file()},
        {**told, "logs": shown(home).encode()},
        topics,
        misrouted[2],
    )
    lock.stack.start()
    return found


def values(records: list[Any]) -> bytes:
    return b"\n".join((record.key or b"") + b" " + (record.value or b"") for record in records)


# --- the search itself ---


def test_the_search_finds_every_encoding() -> None:
    text = word("search")
    for how, needle in encodings(text).items():
        assert where({"it": text}, {"blob": b"\x17" + needle + b"\x80"}), how
    assert where({"it": text}, {"blob": base64.b64encode(f"{{{text}}}, more".encode())})
    assert where({"it": text}, {"blob": hashlib.sha256(text.lower().encode()).digest()})
    assert not where({"it": text}, {"blob": text[:-1].encode() + secrets.token_bytes(10_000)})


def test_the_search_finds_what_is_in_kafka_and_behind_the_key_ring(lock: Lock, evidence: Evidence) -> None:
    blob = values(evidence.topics["events"])
    said = evidence.canaries.words()
    del said["proof"]
    assert {canary for _, canary, _ in where(said, {"events": blob})} == set(said)

    settings = lock.settings
    ring = KeyRing.open(settings.keyring, settings.keyring_kek, create=False)
    try:
        (refused,) = [parse(record.value) for record in evidence.topics["rejected"]]
        assert isinstance(refused, Rejection)
        assert refused.sealed
        day_key = ring.get(KeyKind.DAY, str(refused.key_id))
        assert day_key
        assert open_content(day_key, refused.sealed, refused.id)[1] == evidence.misrouted

        # In `personal` mode, and in no other, her mapping opens with the key of its own.
        rows = lock.rows(Gate.IDENTITY, "SELECT pseudonym, hex(sealed) FROM recipients")
        names = []
        for number, content in rows:
            pseudonym = number.to_bytes(16, "little")
            data_key = ring.get(KeyKind.DATA, pseudonym.hex())
            assert data_key
            names.append(open_sealed(data_key, bytes.fromhex(content), pseudonym).decode())
        assert sorted(names) == sorted(2 * evidence.canaries.recipients["personal"]), "opens and clicks"
    finally:
        ring.close()


# --- the stores ---


def test_the_analytics_store_holds_no_recipient_in_any_spelling(evidence: Evidence) -> None:
    tables = evidence.analytics
    text = b"".join(tables.values())
    assert MAILING.encode() in text
    assert LINK.encode() in text
    rows = [orjson.loads(line) for line in tables["analytics.engagement"].splitlines() if line.startswith(b'{"inc')]
    assert len(rows) == 2 * 6 + 6, "rows of all who agreed are there; of the one who withdrew none"
    assert {"analytics.cells_unique", "analytics.seen", "system.mutations"} <= set(tables)
    assert where(evidence.canaries.words(), tables) == []
    files = {name: raw for name, raw in evidence.files.items() if name.startswith("analytics/")}
    assert where(evidence.canaries.words(), files) == []


def test_the_identity_store_holds_recipients_sealed_and_no_behaviour(evidence: Evidence) -> None:
    words = {name: text for name, text in evidence.canaries.words().items() if name != "proof"}
    assert where(words, evidence.identity) == []
    assert where({"proof": evidence.canaries.others["proof"]}, evidence.identity), "the ledger keeps the proof"
    about = {"mailing": MAILING, "link": LINK, "address of the link": BASE}
    assert where(about, evidence.identity) == []
    assert where(about, evidence.analytics)
    files = {name: raw for name, raw in evidence.files.items() if name.startswith("identity/")}
    assert where({**words, **about}, files) == []


def test_neither_logs_nor_answers_nor_other_topics_hold_any_of_it(evidence: Evidence) -> None:
    words = evidence.canaries.words()
    assert where(words, evidence.told) == []
    files = {name: raw for name, raw in evidence.files.items() if not name.startswith(("analytics/", "identity/"))}
    assert {"keys/ring.sqlite", "logs/worker-0.log"} <= set(files)
    assert where(words, files) == []
    topics = {name: values(records) for name, records in evidence.topics.items()}
    assert where(words, {name: topics[name] for name in ("rejected", "receipts", "mailings")}) == []
    # Changes and states are keyed by the recipient; what she did is in neither.
    behaviour = {name: text for name, text in evidence.canaries.others.items() if name != "proof"}
    assert where({**behaviour, "mailing": MAILING, "link": LINK}, {n: topics[n] for n in ("changes", "state")}) == []


# --- the logins ---


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
# What each login may read, and nothing else: whole tables, or columns.
MAY_READ: dict[tuple[Store, Role], dict[str, set[str] | None]] = {
    (Store.ANALYTICS, Role.ANALYST): {"published": None, "mailings": None},
    (Store.ANALYTICS, Role.OPERATOR): dict.fromkeys(
        ("claims", "outcomes", "cells_hourly", "cells_unique", "mailings", "settings", "incarnations")
    ),
    (Store.ANALYTICS, Role.RIGHTS): {"engagement": None},
    (Store.ANALYTICS, Role.WORKER): {
        **dict.fromkeys(("claims", "removals", "mailings", "incarnations", "outcomes", "seen", "settings")),
        "engagement": COUNTED_BY,
    },
    (Store.IDENTITY, Role.RIGHTS): dict.fromkeys(("recipients", "consents", "requests", "receipts")),
    (Store.IDENTITY, Role.WORKER): {
        **dict.fromkeys(("requests", "receipts", "removals")),
        "recipients": COUNTED_BY,
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
        (Store.IDENTITY, Role.WORKER, "ALTER TABLE consents DELETE WHERE 1"),
        (Store.IDENTITY, Role.WORKER, "SELECT count() FROM recipients WHERE sealed != ''"),
        (Store.IDENTITY, Role.WORKER, "SELECT count() FROM consents WHERE proof LIKE '%a%'"),
        (Store.IDENTITY, Role.RIGHTS, "INSERT INTO consents SELECT * FROM consents"),
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
