"""P2: of a recipient nothing is in the analytics store, nor in what is said or kept elsewhere; in no spelling."""

from __future__ import annotations

import base64
import hashlib
import secrets

import orjson
import pytest

from pseudonymizer.keys import KeyKind
from streams.keyring import KeyRing
from streams.ledger import open_proof, open_recipient
from streams.rejections import Rejection, open_content, parse
from streams.stores import Store as Gate
from tests.lock import Lock
from tests.promises.p2.bodies import BASE, LINK, MAILING
from tests.promises.p2.canaries import FEEDS, MODES, Search, encodings, word
from tests.promises.p2.evidence import HOLD_ADDRESSES, Evidence

pytestmark = pytest.mark.stack


@pytest.fixture(scope="module")
def search(evidence: Evidence) -> Search:
    return Search({**evidence.words(), **evidence.declared.words()}, FEEDS)


def values(evidence: Evidence, topic: str) -> bytes:
    """Keys, values and headers of a topic's records."""
    records = evidence.topics[topic]
    return b"\n".join(b" ".join([r.key or b"", r.value or b"", repr(r.headers).encode()]) for r in records)


# --- the search itself ---


def test_the_search_finds_every_encoding_at_every_offset() -> None:
    text = word("search")
    search = Search({"it": text}, FEEDS)
    for number, (how, needle) in enumerate(encodings(text, FEEDS).items()):
        blob = b"\x17" * (number % 9) + needle + b"\x80" * (number % 5)
        assert search.found({"blob": blob}), how
    for blob in (
        base64.b64encode(f"{{{text}}}, more".encode()),
        hashlib.sha256(text.lower().encode()).digest(),
        f"x{text}@example.com".encode("utf-16-le"),
    ):
        assert search.found({"blob": secrets.token_bytes(100_000) + blob})
    assert not search.found({"blob": text[:-1].encode() + b"\0" + secrets.token_bytes(100_000)})
    assert not search.found({"blob": b"", "short": text[:5].encode()})


def test_the_search_finds_them_where_they_were_put(evidence: Evidence) -> None:
    """Everybody was fed in every form that the search claims to know, and is on the topic: so it would be found."""
    search = Search(evidence.words(), FEEDS)
    fed = {(canary, how) for _, canary, how in search.found({"fed": b"".join(evidence.fed)})}
    for who in evidence.canaries:
        if who.mode == "withdrawn":
            continue
        name = f"{who.feed} {who.mode}"
        for form in ("plain", "plain, base64 at 0", "lower, md5, hex"):
            assert (f"{name}: address", form) in fed, (name, form)
        assert {(f"{name}: number", "plain"), (f"{name}: number", "plain, PERCENT")} <= fed, name
    sent = b"".join(values(evidence, topic) for topic in HOLD_ADDRESSES)
    assert {canary for _, canary, _ in search.found({"sent": sent})} == set(evidence.words())
    for feed in FEEDS:
        assert {who.mode for who in evidence.canaries if who.feed == feed} >= set(MODES)
    assert sum(evidence.refused) > 200


# --- what the key ring opens ---


def test_the_key_ring_opens_what_is_sealed_and_everybody_is_in_it(lock: Lock, evidence: Evidence) -> None:
    settings = lock.settings
    ring = KeyRing.open(settings.keyring, settings.keyring_kek, create=False)
    try:
        refused = [parse(record.value) for record in evidence.topics["tracking.rejected"]]
        opened = {}
        for one in refused:
            assert isinstance(one, Rejection)
            if one.sealed is not None:
                day_key = ring.get(KeyKind.DAY, str(one.key_id))
                assert day_key
                opened[one.id] = open_content(day_key, one.sealed, one.id)
        assert evidence.misrouted in {value for _, value in opened.values()}
        said = b" ".join(part or b"" for both in opened.values() for part in both)
        her = evidence.of("native", "personal")
        assert Search(her.words()).found({"opened": said})

        # In `personal` mode, and in no other, her mapping opens with the key of its own; each proof with its tenant's.
        rows = lock.rows(Gate.IDENTITY, "SELECT pseudonym, hex(sealed) FROM recipients")
        names = set()
        for number, content in rows:
            pseudonym = number.to_bytes(16, "little")
            data_key = ring.get(KeyKind.DATA, pseudonym.hex())
            assert data_key
            names.add(open_recipient(data_key, bytes.fromhex(content), pseudonym))
        personal = {name for who in evidence.canaries if who.mode == "personal" for name in (who.address, who.number)}
        for who in evidence.canaries:
            if who.feed != "native":
                personal.discard(who.number)
        assert names == personal | {pair.recipient for pair in evidence.pairs if pair.mode == "personal"}
        rows = lock.rows(Gate.IDENTITY, "SELECT tenant, hex(proof), preference_id FROM consents WHERE proof != ''")
        proofs = b""
        for tenant, proof, preference_id in rows:
            key = ring.get(KeyKind.PROOF, tenant)
            assert key
            proofs += orjson.dumps(open_proof(key, bytes.fromhex(proof), preference_id))
        for who in evidence.canaries:
            if who.mode in ("pseudonymous", "personal"):
                assert f"confirmed by {who.address}".encode() in proofs
    finally:
        ring.close()


# --- the stores ---


def test_the_analytics_store_holds_no_recipient_in_any_spelling(evidence: Evidence, search: Search) -> None:
    tables = evidence.analytics.tables()
    text = b"".join(tables.values())
    assert MAILING.encode() in text
    assert LINK.encode() in text
    rows = [orjson.loads(line) for line in evidence.analytics.text["analytics.engagement"].splitlines()]
    by_tenant = {feed: sum(row["tenant"] == feed for row in rows) for feed in FEEDS}
    agreed = sum(pair.mode in ("pseudonymous", "personal") for pair in evidence.pairs)
    # An open and six clicks of each of the two who agreed (natively also under their numbers); one click more of one.
    assert by_tenant == {**dict.fromkeys(FEEDS, 2 * 7), "native": 2 * 7 + agreed + 1}, "and of who withdrew none"
    assert {"analytics.cells_unique", "analytics.seen", "system.mutations"} <= set(tables)
    assert search.found(tables) == []
    files = {name: raw for name, raw in evidence.files.items() if name.startswith("analytics/")}
    assert len(files) > 50
    assert search.found(files) == []


def test_the_identity_store_holds_recipients_sealed_and_no_behaviour(evidence: Evidence, search: Search) -> None:
    assert search.found(evidence.identity.tables()) == []
    about = Search({"mailing": MAILING, "link": LINK, "address of the link": BASE})
    assert about.found(evidence.identity.tables()) == []
    assert about.found(evidence.analytics.tables())
    files = {name: raw for name, raw in evidence.files.items() if name.startswith("identity/")}
    assert len(files) > 50
    assert search.found(files) == about.found(files) == []


# --- what is said ---


def test_neither_logs_nor_answers_nor_errors_hold_any_of_it(evidence: Evidence, search: Search) -> None:
    told = evidence.told
    assert search.found(told) == []
    assert Search(evidence.passwords).found(told) == []
    logs = told["logs"].decode()
    assert "worker ends by a fault of its own" in logs
    assert "waiting" in told["status while waiting"].decode()
    commands = " ".join(told)
    for command in (
        "feed",
        "status",
        "totals",
        "settings",
        "keys",
        "rejected list",
        "rejected show",
        "topics",
        "migrate",
    ):
        assert f"schleuse {command}" in commands
    files = {name: raw for name, raw in evidence.files.items() if not name.startswith(("analytics/", "identity/"))}
    assert {"keys/ring.sqlite", "logs/worker-0.log", "logs/crash.log"} <= set(files)
    said = {name: raw for name, raw in files.items() if not name.startswith("credentials/")}
    assert search.found(said) == []


def test_no_topic_but_those_five_holds_any_of_it(evidence: Evidence, search: Search) -> None:
    others = sorted(set(evidence.topics) - HOLD_ADDRESSES)
    assert {"tracking.mailings", "tracking.receipts", "tracking.rejected"} <= set(others)
    assert len(evidence.topics["tracking.rejected"]) > 15
    found = search.found({name: values(evidence, name) for name in others})
    # What a producer of its own writes to the topic of mailings lies there until it goes; it goes no further.
    own = {f"native declared: {what}" for what in ("address", "local part", "number")}
    assert [hit for hit in found if hit[0] != "tracking.mailings" or hit[1] not in own] == []
    # Changes and states are keyed by the recipient; what she did is in neither.
    did = {
        name: text for name, text in evidence.said.items() if name.split()[-1] in ("event", "link", "field", "value")
    }
    behaviour = Search({**did, "mailing": MAILING, "link": LINK, "base": BASE})
    assert behaviour.found({name: values(evidence, f"tracking.{name}") for name in ("changes", "state")}) == []
