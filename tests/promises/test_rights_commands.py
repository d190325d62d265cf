"""The commands about one person: what they say and refuse, and that each opening is on record before it is open."""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import pytest

from streams.rights.audit import Action
from streams.rights.desk import Desk
from streams.rights.lookup import LookupRefused, look_up
from streams.rights.person import Person, find
from tests.lock import PROOF, Lock, event, now_ms, preference

pytestmark = pytest.mark.stack
HER, OTHER = "nadja.nachweis@example.com", "olga.ohne@example.com"
WHY = "ticket 4711"


@dataclass(frozen=True, slots=True)
class Scene:
    """Somebody who agreed to be known, and somebody who agreed to a pseudonym."""

    desk: Desk
    her: Person
    other: Person


@pytest.fixture(scope="module")
def scene(lock: Lock) -> Scene:
    desk = lock.desk()
    at = now_ms() - 60_000
    proof = {**PROOF, "age_check": "18 or older, shop account", "recorded_by": "shop/7", "conditional": False}
    lock.send(
        [
            preference("acme", HER, {"engagement": {"open": "personal", "click": "personal"}}, at, proof=proof),
            preference("acme", HER, {"advice": {"open": "pseudonymous"}}, at + 1000),
            preference("acme", OTHER, {"engagement": {"open": "pseudonymous"}}, at),
        ]
    )
    lock.send([event("acme", HER, mailing="rights-1")])

    def known() -> tuple[Person, Person] | None:
        found = find(desk, "acme", HER), find(desk, "acme", OTHER)
        return found if [len(one.pseudonyms) for one in found] == [3, 1] else None

    return Scene(desk, *lock.until(known, what="their states"))


def _newest(lock: Lock, desk: Desk, action: Action) -> dict[str, object]:
    said = json.loads(lock.run("audit", "list", "--action", action, "--limit", "1", "--json").stdout)
    assert len(said) == 1
    line: dict[str, object] = said[0]
    return line


def test_the_proof_of_a_consent_is_shown_whole_and_it_is_on_record(lock: Lock, scene: Scene) -> None:
    hers = ("--tenant", "acme", "--recipient", "-")
    said = json.loads(lock.run("consents", *hers, "--json", given=f"{HER}\n".encode()).stdout)
    assert [(one["purpose"], one["kind"], one["mode"], one["effect"]) for one in said] == [
        ("engagement", "click", "personal", "raised"),
        ("engagement", "open", "personal", "raised"),
        ("advice", "open", "pseudonymous", "raised"),
    ]
    assert said[0]["proof"] == {
        **PROOF,
        "age_check": "18 or older, shop account",
        "recorded_by": "shop/7",
        "conditional": False,
    }
    assert said[2]["proof"] == PROOF
    line = _newest(lock, scene.desk, Action.CONSENTS_SHOWN)
    assert (line["subject"], line["detail"]) == (scene.her.blind.hex(), {"lines": 3})
    assert re.fullmatch(r"rights/\S+", str(line["actor"]))

    text = lock.run("consents", "--tenant", "acme", "--recipient", HER, "--why", WHY).stdout
    for words in (
        "engagement: click",
        "18 or older, shop account",
        "shop/7",
        "2026-05",
        "something else depended on it: no",
    ):
        assert words in text
    assert _newest(lock, scene.desk, Action.CONSENTS_SHOWN)["why"] == WHY
    of_her = lock.run("audit", "list", "--tenant", "acme", "--recipient", HER).stdout
    assert of_her.count("consents_shown") == 2
    assert "nadja" not in of_her
    assert (
        "nothing was ever decided" in lock.run("consents", "--tenant", "acme", "--recipient", "no@example.com").stdout
    )


def test_a_pseudonym_is_looked_up_for_a_reason_and_only_so_often(lock: Lock, scene: Scene) -> None:
    (hers,) = (one for one in scene.her.pseudonyms if (one.purpose, one.kind) == ("engagement", "open"))
    (other,) = scene.other.pseudonyms
    ask = ("lookup", "--tenant", "acme", "--why", WHY, "--pseudonym")
    lock.environment["SCHLEUSE_LOOKUPS_PER_HOUR"] = "4"
    try:
        assert lock.run(*ask, hers.value.hex()).stdout == f"{HER}  (engagement, open)\n"
        line = _newest(lock, scene.desk, Action.LOOKED_UP)
        assert (line["subject"], line["why"]) == (scene.her.blind.hex(), WHY)
        assert line["detail"] == {"purpose": "engagement", "kind": "open", "found": 1, "limit": 4}
        nobody = lock.run(*ask, other.value.hex(), check=False)  # pseudonymous: it leads back to nobody
        assert (nobody.returncode, nobody.stdout) == (1, "no mapping has this pseudonym\n")
        assert lock.run("lookup", "--tenant", "beta", *ask[3:], hers.value.hex(), check=False).returncode == 1
        assert lock.run(*ask[:3], "--why", f"who is {OTHER}", "--pseudonym", "0" * 32, check=False).returncode == 1

        with ThreadPoolExecutor(3) as pool:  # at once: one is left of four
            done = list(pool.map(lambda _: lock.run(*ask, hers.value.hex(), check=False), range(3)))
        assert sorted(one.returncode for one in done) == [0, 1, 1]
        refused = next(one for one in done if one.returncode)
        assert "there were 4 look-ups within the last hour" in refused.stderr
        assert HER not in refused.stdout + refused.stderr
        line = _newest(lock, scene.desk, Action.LOOKUP_REFUSED)
        assert (line["subject"], line["detail"]["because"]) == (scene.her.blind.hex(), "rate")  # type: ignore[index]
        lock.environment["SCHLEUSE_LOOKUPS_PER_HOUR"] = "5"  # those that were refused did not count
        assert lock.run(*ask, hers.value.hex()).stdout.startswith(HER)
    finally:
        del lock.environment["SCHLEUSE_LOOKUPS_PER_HOUR"]


def test_nobody_is_named_whose_consent_no_longer_holds(
    lock: Lock, scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between a withdrawal's state and its removal, or the other way round, her mapping is there for some seconds."""
    (hers,) = (one for one in scene.her.pseudonyms if (one.purpose, one.kind) == ("engagement", "click"))
    desk = lock.desk()
    monkeypatch.setattr("streams.rights.lookup.find", lambda *of: replace(find(*of), pseudonyms=()))
    with pytest.raises(LookupRefused, match="no longer holds") as refused:
        look_up(desk, "acme", hers.value, WHY)
    assert HER not in str(refused.value)
    line = _newest(lock, scene.desk, Action.LOOKUP_REFUSED)
    assert (line["subject"], line["detail"]["because"]) == (scene.her.blind.hex(), "consent")  # type: ignore[index]
    desk.close()


def test_what_was_refused_is_opened_on_record_only(lock: Lock, scene: Scene) -> None:
    lock.send([("tracking.events", b"acme\x1fx", b'{"broken": "rights-canary"')])

    def refused() -> str | None:
        for one in json.loads(lock.run("rejected", "list", "--json", "--limit", "5000").stdout):
            if one["size"] == len(b'{"broken": "rights-canary"') and one["reason"] == "not_json":
                return str(one["rejection_id"])
        return None

    number = lock.until(refused, what="a rejection")
    assert "rights-canary" in lock.run("rejected", "show", number, "--why", WHY).stdout
    line = _newest(lock, scene.desk, Action.REJECTED_OPENED)
    assert (line["detail"], line["why"], line["subject"]) == ({"rejection": number, "records": 1}, WHY, None)
    lock.run("rejected", "replay", number)
    line = _newest(lock, scene.desk, Action.REJECTED_OPENED)
    assert line["detail"] == {"records": 1}


def test_the_trail_is_whole(lock: Lock, scene: Scene) -> None:
    said = lock.run("audit", "verify").stdout
    head = said.rsplit("head: ", 1)[1].strip()
    lock.run("consents", "--tenant", "acme", "--recipient", HER)
    assert "the audit trail is whole" in lock.run("audit", "verify", "--since", head).stdout
    number, _, code = head.partition(":")
    ahead = lock.run("audit", "verify", "--since", f"{int(number) + 5}:{code}", check=False)
    assert ahead.returncode == 1
    assert "was noted before" in ahead.stderr
