"""`schleuse erase`: says what is held, erases nothing without --yes, and comes back with the receipt."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from streams.errors import SettingsError
from streams.rights import barrier
from streams.rights.audit import Action
from streams.rights.consents import history
from streams.rights.erase import ask, held
from streams.rights.person import find
from streams.stores import Store
from tests.lock import Lock, event, now_ms, preference

pytestmark = pytest.mark.stack
HER = "emma.ende@example.com"
COMMAND = ("erase", "--tenant", "acme", "--recipient", "-")


def test_she_is_erased_with_all_that_was_held_of_her(lock: Lock, tmp_path: Path) -> None:
    at = now_ms() - 60_000
    modes = {"engagement": {"open": "personal", "click": "personal"}, "advice": {"open": "pseudonymous"}}
    with lock.desk() as desk:
        lock.send([preference("acme", HER, modes, at)])
        barrier.decided(desk.settings)
        lock.send(
            [event("acme", HER, mailing="erase-1"), event("acme", HER, mailing="erase-1", kind="click", link="x")]
        )
        who = find(desk, "acme", HER)
        hers = ", ".join(f"toUInt128('{one.number}')" for one in who.pseudonyms)
        rows = f"SELECT count() FROM engagement WHERE pseudonym IN ({hers})"
        lock.until(lambda: lock.rows(Store.ANALYTICS, rows)[0][0] == 3, what="her rows")
        out = tmp_path / "engaged.csv"
        asked = ("engaged", "--tenant", "acme", "--purpose", "engagement", "--mailing", "erase-1", "--out", str(out))
        lock.run(*asked, "--to-whom", "Agentur Nord", "--why", "ticket 4711", "--yes")

        her = f"{HER}\n".encode()
        plan = lock.run(*COMMAND, given=her).stdout
        for line in (
            "- 1 rows of opens for advice",
            "- 1 rows of clicks for engagement",
            "- 1 rows of opens for engagement",
            "- 2 mappings",
            "- 3 lines of the consent ledger",
            "- 2 lines that say to whom",
            "to be passed on to: Agentur Nord",
            "nothing was erased",
        ):
            assert line in plan
        assert lock.rows(Store.ANALYTICS, rows)[0][0] == 3

        done = lock.run(*COMMAND, "--yes", "--request-id", "ticket-4712", given=her).stdout
        assert "3 rows, 2 mappings, 3 consents, 2 disclosures" in done
        assert done.count("to be passed on to: Agentur Nord") == 2
        assert re.search(r"gone by 20\d\d-", done)
        assert "emma" not in plan + done
        assert lock.rows(Store.ANALYTICS, rows)[0][0] == 0
        gone = find(desk, "acme", HER)
        assert (gone.is_stub, gone.pseudonyms) == (True, ())
        receipts = [json.loads(one.value) for one in lock.consume("tracking.receipts")]
        (receipt,) = (one for one in receipts if one.get("request_id") == "ticket-4712")
        assert (receipt["kind"], receipt["disclosed_to"]) == ("erasure", ["Agentur Nord"])
        actions = [line.action for line in desk.audit.lines(10, "acme", who.blind)]
        assert actions == [Action.ERASURE_PLANNED, Action.ERASURE_PLANNED, Action.ERASURE_ASKED]

        # The ledger says when, and nothing of what she had agreed to; another time nothing is found.
        said = history(desk, "acme", HER, "a test")
        assert [(one.effect, one.purpose, one.proof) for one in said] == [("erased", "*", None)] * 2
        again = held(desk, "acme", HER, "a test")
        assert (again.is_nothing, again.person.is_stub) == (True, True)
        with pytest.raises(SettingsError, match="was answered before"):
            ask(desk, who, "ticket-4712", "a test")


def test_who_is_unknown_gets_a_receipt_that_says_so(lock: Lock) -> None:
    done = lock.run("erase", "--tenant", "acme", "--recipient", "nie.da@example.com", "--yes").stdout
    assert "nothing is held of this recipient\n" in done
    assert "0 rows, 0 mappings, 0 consents, 0 disclosures" in done
    empty = lock.run(*COMMAND, given=b"", check=False)
    assert (empty.returncode, "there was nothing" in empty.stderr) == (1, True)
