"""P2: with both stores' files and without the key ring, no recipient can be told from a decoy: an attack that tries."""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import math
import secrets
from collections.abc import Mapping

import numpy as np
import pytest

from streams.keyring import KeyRing
from tests.lock import Lock
from tests.promises.p2.attack import Attack, Loot, right
from tests.promises.p2.bodies import MAILING
from tests.promises.p2.evidence import Evidence
from tests.promises.p2.people import TENANT, pairs

pytestmark = pytest.mark.stack

DEAR = 90  # pairs on which the ideas that cost time are tried; choices take turns, so all modes are among them
SIGMA = 4.5  # a coin is as far from the middle once in 150,000 runs


@pytest.fixture(scope="module")
def loot(evidence: Evidence) -> Loot:
    """What whoever steals both disks has; and what the sender's engineers know."""
    return Loot(
        tables={**evidence.identity.binary, **evidence.analytics.binary},
        columns={**evidence.identity.columns, **evidence.analytics.columns},
        tenants=(TENANT, "sendgrid"),
        mailings=(MAILING,),
        event_ids=[f"p{n}-0" for n in range(len(evidence.pairs))],
    )


def told(
    loot: Loot, evidence: Evidence, *ideas: str, strangers: bool = False, count: int = DEAR
) -> tuple[int, int, int]:
    """Pairs told right, pairs whose points differ at all, and pairs."""
    people = evidence.pairs[:count]
    others = [pair.stranger if strangers else pair.decoy for pair in people]
    points = Attack(loot).points([pair.recipient for pair in people] + others, ideas)
    total = sum(points.values())
    assert isinstance(total, np.ndarray)
    mine, theirs = total[: len(people)], total[len(people) :]
    return right(mine, theirs, evidence.seed), int((mine != theirs).sum()), len(people)


def is_a_coin(hits: int, of: int) -> bool:
    return abs(hits - of / 2) <= SIGMA * math.sqrt(of) / 2


def report(what: str, hits: int, differ: int, of: int) -> None:
    print(f"{what:<44} {hits:>4} of {of} pairs right ({hits / of:.0%}; a coin gets 50 %), {differ} with any difference")


# --- without the keys ---


def test_without_the_key_ring_no_recipient_is_told_from_a_decoy(loot: Loot, evidence: Evidence) -> None:
    print(f"\nseed {evidence.seed}, {len(Attack(loot).salts)} salts and keys found in the stores")
    for idea in ("plain", "hashed", "salted", "visitor"):
        hits, differ, of = told(loot, evidence, idea)
        report(idea, hits, differ, of)
        assert differ == 0, "nothing of anybody is found"
        assert is_a_coin(hits, of)
    for idea in ("length", "partition"):  # the decoy lies on the recipient's partition: see the next test
        hits, differ, of = told(loot, evidence, idea, count=len(evidence.pairs))
        report(idea, hits, differ, of)
        assert is_a_coin(hits, of)


def test_what_the_partition_tells_is_small_and_said(loot: Loot, evidence: Evidence) -> None:
    """Rows name the partition that Kafka's public partitioner gives an address: log2(partitions) bits, by design."""
    hits, differ, of = told(loot, evidence, "partition", strangers=True, count=len(evidence.pairs))
    report("partition, decoys from anywhere", hits, differ, of)
    assert differ > of / 2, "the decoys do lie on other partitions"
    assert hits / of < 0.7


def test_lengths_would_tell_if_they_were_not_padded() -> None:
    """Small stores whose mappings are as long as AES-GCM makes them, and as long as ours are: what padding is for."""
    for what, longest, tells in (("if mappings were not padded", 0, True), ("if they are padded", 256, False)):
        hits = differ = of = 0
        for number in range(12):
            people = [pair for pair in pairs(secrets.randbits(32), 240) if pair.mode == "personal"]
            sealed = [bytes(28 + max(longest, len(pair.recipient))) for pair in people] * 2
            store = Loot({"nothing": bytes(16)}, {"identity.recipients.sealed": sealed}, [], [], [])
            points = Attack(store).points([p.recipient for p in people] + [p.decoy for p in people], ["length"])[
                "length"
            ]
            mine, theirs = points[: len(people)], points[len(people) :]
            hits, differ, of = (
                hits + right(mine, theirs, number),
                differ + int((mine != theirs).sum()),
                of + len(people),
            )
        report(f"length, {what}", hits, differ, of)
        assert is_a_coin(hits, of) != tells
        assert (differ > 0) == tells


# --- the attack is a real one ---


def test_with_the_keys_of_the_ring_everybody_is_told(lock: Lock, loot: Loot, evidence: Evidence) -> None:
    ring = KeyRing.open(lock.settings.keyring, lock.settings.keyring_kek, create=False)
    try:
        keys = [ring.get(entry.kind, entry.name, entry.version) for entry in ring.entries() if entry.kind != "data"]
    finally:
        ring.close()
    held = dataclasses.replace(loot, keys=[key for key in keys if key])
    hits, differ, of = told(held, evidence, "salted", "visitor")
    report("with the keys of the ring", hits, differ, of)
    assert hits == differ == of


def _secretless(loot: Loot, evidence: Evidence) -> Mapping[str, Mapping[str, list[bytes]]]:
    """What tables would look like if a hash in them needed no secret: idea -> what it is -> a column."""
    people = [pair.recipient for pair in evidence.pairs[:DEAR]]
    salts = loot.columns["identity.consents.preference_id"][: len(people)]
    claim = loot.columns["identity.consents.blind"][7]
    return {
        "plain": {"UTF-16": [who.encode("utf-16-le") for who in people]},
        "hashed": {
            "MD5 as a number": [hashlib.md5(who.lower().encode()).digest()[::-1] for who in people],
            "SHA-256 cut to 64 bits": [hashlib.sha256(f"{TENANT}\x1f{who}".encode()).digest()[:8] for who in people],
            "BLAKE2b of tenant, address and event id": [
                hashlib.blake2b(
                    len(who.encode()).to_bytes(4, "big") + who.encode() + len(n).to_bytes(4, "big") + n, digest_size=8
                ).digest()
                for who, n in ((who, f"p{i}-0".encode()) for i, who in enumerate(people))
            ],
        },
        "salted": {
            "HMAC under a value of another row": [hmac.digest(claim, who.encode(), "sha256")[:16] for who in people],
            "SHA-256 salted with the id of a preference": [
                hashlib.sha256(salts[n % 30] + who.encode()).digest()[:16] for n, who in enumerate(people)
            ],
        },
    }


def test_every_hash_without_a_secret_would_be_found(loot: Loot, evidence: Evidence) -> None:
    """The same attack on copies of the loot in which one column is hashed without a key."""
    for idea, columns in _secretless(loot, evidence).items():
        for what, column in columns.items():
            planted = dataclasses.replace(loot, tables={**loot.tables, "planted": b"\x07".join([b"", *column, b""])})
            hits, differ, of = told(planted, evidence, idea, count=24)
            report(f"planted: {what}", hits, differ, of)
            assert hits == differ == of
