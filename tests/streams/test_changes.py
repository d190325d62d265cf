"""What a claim of changes plans: done again it plans the rest only, and never more than was agreed to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pseudonymizer.consent import ALWAYS, Consent, Effect, Mode, Salt
from streams.chain import Kind
from streams.declarations import Declarations
from streams.errors import Reason
from streams.events import EventsWork
from streams.incarnation import WasOff
from streams.keys import Keys
from streams.messages import Erasure, encode_change, encode_state
from streams.partitioner import message_key
from streams.plan import ChangesPlan, plan, states
from streams.seen import Seen
from streams.state import StateIndex
from streams.tenants import TenantSettings
from tests.claims import NOW, Fetched, blind, change, claim, event, make_keys, state, tenants

OFF, ANONYMOUS, PSEUDONYMOUS, PERSONAL = Mode
ERIKA, MAX = "erika@example.com", "max@example.com"
BEGAN = NOW - 3_600_000


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return make_keys(tmp_path_factory.mktemp("ring"))


def planned(
    keys: Keys,
    index: StateIndex,
    records: list[Fetched],
    was_off: WasOff | None = None,
    of: Mapping[str, TenantSettings] | None = None,
) -> ChangesPlan:
    return plan(claim(Kind.CHANGES, records, number=3), list(records), of or tenants(), index, keys, was_off or {})


def carried_out(
    keys: Keys, index: StateIndex, *records: Fetched, was_off: WasOff | None = None, **of: Any
) -> ChangesPlan:
    """Plan, and write the states."""
    result = planned(keys, index, list(records), was_off, **of)
    for key, value in states(result):
        index.put(key, value)
    return result


def modes(index: StateIndex, recipient: str) -> dict[tuple[str, str], Mode]:
    known = index.state(message_key("acme", recipient))
    assert known
    return {(p, kind): consent.mode for p, kinds in known.purposes.items() for kind, consent in kinds.items()}


def effects(result: ChangesPlan) -> list[str]:
    return [row[5] for row in result.consents]


def opens(mode: Mode) -> dict[str, dict[str, Mode]]:
    return {"engagement": {"open": mode}}


# --- done again ---

ASKED = st.sampled_from((OFF, ANONYMOUS)) | st.dictionaries(
    st.sampled_from(("engagement", "advice")),
    st.dictionaries(st.sampled_from(("open", "click")), st.sampled_from(Mode), min_size=1),
    min_size=1,
)
CHANGES = st.lists(st.tuples(st.integers(0, 2), ASKED, st.integers(0, 9)), min_size=1, max_size=8)


def records_of(asked: list[tuple[int, Any, int]], begins: int) -> list[Fetched]:
    return [change(begins + n, f"r{who}@example.com", what, BEGAN + at) for n, (who, what, at) in enumerate(asked)]


@given(CHANGES, CHANGES, st.sets(st.integers(0, 2)))
@settings(max_examples=100, deadline=None)
def test_after_half_of_the_states_are_written_the_rest_is_planned_and_nothing_else(
    keys: Keys, before: list[tuple[int, Any, int]], asked: list[tuple[int, Any, int]], written: set[int]
) -> None:
    """What is left out was carried out already, under tokens that are spent; what is left in must be just the same."""
    index = StateIndex()
    carried_out(keys, index, *records_of(before, 0))
    records = records_of(asked, len(before))
    whole = planned(keys, index, records)
    assert planned(keys, index, records) == whole, "a plan is a function of the claim and the state before it"
    done = {message_key("acme", f"r{who}@example.com") for who in written}
    for key, value in states(whole):
        if key in done:
            index.put(key, value)
    rest = planned(keys, index, records)

    left = [one for one in range(3) if one not in written]
    of_blind = {blind(keys, f"r{who}@example.com") for who in left}
    assert {key: encode_state(of) for key, of in rest.states.items()} == {
        key: value for key, value in states(whole) if key not in done
    }
    assert rest.consents == [row for row in whole.consents if row[1] in of_blind]
    assert rest.mappings == [row for row in whole.mappings if row[5] in of_blind]
    ids = {f"tracking.preferences:0:{record.offset}" for record in records if record.key not in done}
    assert rest.confirmations == [one for one in whole.confirmations if one.id in ids]
    assert set(rest.remove) <= set(whole.remove)
    assert sum((len(one.remove) for one in rest.confirmations), 0) <= len(rest.remove)

    for key, value in states(rest):
        index.put(key, value)
    assert planned(keys, index, records) == ChangesPlan(), "all of it was done"


# --- never more than was agreed to ---


@given(CHANGES, st.sampled_from((OFF, ANONYMOUS)), st.integers(0, 12))
@settings(max_examples=100, deadline=None)
def test_a_mode_for_everything_only_lowers(
    keys: Keys, before: list[tuple[int, Any, int]], mode: Mode, decided: int
) -> None:
    index = StateIndex()
    carried_out(keys, index, *records_of(before, 0))
    for who in range(3):
        recipient = f"r{who}@example.com"
        known = index.state(message_key("acme", recipient))
        held = modes(index, recipient) if known else {}
        result = carried_out(keys, index, change(100 + who, recipient, mode, BEGAN + decided))
        after = modes(index, recipient)
        for cell, now in after.items():
            was = held.get(cell, ANONYMOUS)
            assert now <= was, "it never raises"
            if decided > 9:  # newer than everything before
                assert now == min(was, mode)
        assert "raised" not in effects(result)
        assert result.mappings == []


def test_a_mode_for_everything_reaches_a_purpose_that_the_tenant_gave_up(keys: Keys) -> None:
    """Her rows are still there until their time is over."""
    index = StateIndex()
    granted = carried_out(keys, index, change(0, ERIKA, {"advice": {"open": PSEUDONYMOUS}}, BEGAN))
    assert granted.remove == []
    fewer = tenants("[acme]")
    result = carried_out(keys, index, change(1, ERIKA, OFF, BEGAN + 1), of=fewer)
    assert len(result.remove) == 1
    assert modes(index, ERIKA)["advice", "open"] is OFF
    assert [one.remove for one in result.confirmations] == [result.remove]


def test_a_grant_for_a_purpose_that_the_tenant_gave_up_draws_no_salt(keys: Keys) -> None:
    index = StateIndex()
    carried_out(keys, index, change(0, ERIKA, {"advice": {"open": PERSONAL}}, BEGAN), of=tenants("[acme]"))
    known = index.state(message_key("acme", ERIKA))
    assert known
    assert known.purposes["advice"]["open"].salts == ()


def test_who_was_off_when_a_state_was_lost_is_raised_only_by_a_newer_decision(keys: Keys) -> None:
    was_off = {("acme", blind(keys, ERIKA), "open"): BEGAN}
    stale = opens(PERSONAL)
    for what, at, mode, effect in (
        (ANONYMOUS, BEGAN + 5, OFF, "confirmed"),  # for everything: never raises
        (stale, BEGAN - 1, OFF, "out_of_date"),  # sent again after the loss
        (stale, BEGAN, OFF, "out_of_date"),  # of the same time: the lower one wins
        (stale, BEGAN + 1, PERSONAL, "raised"),
    ):
        index = StateIndex()
        result = carried_out(keys, index, change(0, ERIKA, what, at), was_off=was_off)
        known = index.state(message_key("acme", ERIKA))
        assert known
        consent = known.purposes.get("engagement", {}).get("open")
        assert (effects(result)[0], consent.mode if consent else OFF) == (effect, mode)
        assert bool(result.mappings) == (mode is PERSONAL)
    # Nobody else is meant, and no other kind of hers.
    index = StateIndex()
    carried_out(keys, index, change(0, ERIKA, {"engagement": {"click": PERSONAL}}, BEGAN - 1), was_off=was_off)
    carried_out(keys, index, change(1, MAX, opens(PERSONAL), BEGAN - 1), was_off=was_off)
    assert modes(index, ERIKA)["engagement", "click"] is modes(index, MAX)["engagement", "open"] is PERSONAL


def test_where_a_state_was_lost_the_newer_of_off_and_of_what_holds_for_everything_holds(keys: Keys) -> None:
    """For her events as for her next decision: a decision for everything that is older brings nobody back who was off,
    and a grant from before her erasure does not bring her back though the ledger still knows of an earlier `off`."""
    was_off = {("acme", blind(keys, ERIKA), "open"): BEGAN}
    index = StateIndex(keys.stub_keys)
    carried_out(keys, index, change(0, ERIKA, ANONYMOUS, BEGAN - 1), was_off=was_off)
    assert counted(keys, index, was_off) == 0
    asked = Erasure("r", "acme", ERIKA, BEGAN + 9, "tracking.requests:0:0")
    carried_out(keys, index, Fetched(1, encode_change(asked), message_key("acme", ERIKA)), was_off=was_off)
    assert counted(keys, index, was_off) == 0
    late = carried_out(keys, index, change(2, ERIKA, opens(PERSONAL), BEGAN + 5), was_off=was_off)
    assert (late.consents, late.mappings, counted(keys, index, was_off)) == ([], [], 0)


def counted(keys: Keys, index: StateIndex, was_off: WasOff) -> int:
    """How many of one open of hers count."""
    work = EventsWork(0, 1, keys, index, Seen(), Declarations(), was_off)
    opened = event(0, ERIKA, occurred_at=NOW - 1000)
    return work.build(claim(Kind.EVENTS, [opened]), [opened], tenants()).outcomes["counted"]


def test_a_withdrawal_of_everything_holds_for_a_purpose_that_comes_after_it(keys: Keys) -> None:
    index = StateIndex()
    carried_out(keys, index, change(0, ERIKA, OFF, BEGAN + 3), of=tenants("[acme]"))
    advice = {"advice": {"open": PSEUDONYMOUS}}
    for offset, (at, effect) in enumerate(((1, "out_of_date"), (3, "out_of_date"), (4, "raised")), 1):
        assert effects(carried_out(keys, index, change(offset, ERIKA, advice, BEGAN + at))) == [effect]
    assert modes(index, ERIKA)["advice", "open"] is PSEUDONYMOUS
    carried_out(keys, index, change(4, ERIKA, OFF, BEGAN + 5))
    assert modes(index, ERIKA)["advice", "open"] is OFF


# --- receipts ---


@pytest.mark.parametrize(
    ("asked", "at", "effect", "due"),
    [
        (opens(ANONYMOUS), 5, "lowered", True),
        (opens(OFF), 5, "lowered", True),
        (opens(PSEUDONYMOUS), 5, "lowered", True),  # a step down is one too
        (OFF, 5, "lowered", True),
        (opens(PERSONAL), 5, "confirmed", False),
        (opens(OFF), -5, "out_of_date", False),
        (opens(PERSONAL), 0, "unchanged", False),
        ({"engagement": {"click": OFF}}, 5, "lowered", True),
        ({"engagement": {"click": ANONYMOUS}}, 5, "confirmed", True),  # what holds already is confirmed
        ({"engagement": {"click": PSEUDONYMOUS}}, 5, "raised", False),
        ({"engagement": {"click": PSEUDONYMOUS}, "advice": {"open": ANONYMOUS}}, 5, "raised", False),
    ],
)
def test_a_receipt_where_it_is_due(keys: Keys, asked: Any, at: int, effect: str, due: bool) -> None:
    index = StateIndex()
    assert carried_out(keys, index, change(0, ERIKA, opens(PERSONAL), BEGAN)).confirmations == []
    result = planned(keys, index, [change(1, ERIKA, asked, BEGAN + at)])
    assert effects(result)[0] == effect
    assert [one.id for one in result.confirmations] == (["tracking.preferences:0:1"] if due else [])


def test_a_withdrawal_of_everything_is_confirmed_where_a_part_was_withdrawn_at_the_same_time(keys: Keys) -> None:
    index = StateIndex()
    carried_out(keys, index, change(0, ERIKA, opens(ANONYMOUS), BEGAN))
    result = carried_out(keys, index, change(1, ERIKA, ANONYMOUS, BEGAN))
    assert set(effects(result)) == {"unchanged", "confirmed"}
    assert [one.id for one in result.confirmations] == ["tracking.preferences:0:1"]
    again = carried_out(keys, index, change(2, ERIKA, ANONYMOUS, BEGAN))
    assert again.confirmations == []


def test_one_message_may_raise_and_lower_and_its_receipt_names_what_went(keys: Keys) -> None:
    index = StateIndex()
    carried_out(keys, index, change(0, ERIKA, {"engagement": {"open": PERSONAL, "click": PSEUDONYMOUS}}, BEGAN))
    mixed = {"engagement": {"open": ANONYMOUS, "click": PERSONAL}}
    result = carried_out(keys, index, change(1, ERIKA, mixed, BEGAN + 1))
    assert effects(result) == [Effect.LOWERED, Effect.RAISED]
    (withdrawal,) = result.confirmations
    assert len(withdrawal.remove) == len(withdrawal.unmap) == 1
    assert len(result.mappings) == 1
    assert result.mappings[0][3] not in withdrawal.remove


def test_what_goes_is_what_was_written(keys: Keys) -> None:
    """The rows of her events and her mappings on one side, what a withdrawal names on the other."""
    index = StateIndex()
    grants = carried_out(
        keys,
        index,
        change(0, ERIKA, opens(PSEUDONYMOUS), BEGAN),
        change(1, ERIKA, opens(PERSONAL), BEGAN + 1000),  # within one claim
        change(2, ERIKA, {"advice": {"open": PERSONAL}}, BEGAN),  # ceiling: pseudonymous
        change(3, MAX, opens(PERSONAL), BEGAN),
    )
    work = EventsWork(0, 1, keys, index, Seen(), Declarations())
    who = [(ERIKA, 0), (ERIKA, 1000), (MAX, 0), (MAX, 1000)]
    acts = [event(n, recipient, occurred_at=BEGAN + at) for n, (recipient, at) in enumerate(who)]
    table = work.build(claim(Kind.EVENTS, acts), list(acts), tenants()).table
    written = {row["pseudonym"] for row in table.to_pylist() if any(row["pseudonym"])}
    assert len(written) == 4
    result = carried_out(keys, index, change(4, ERIKA, OFF, NOW), change(5, MAX, opens(ANONYMOUS), NOW))
    assert set(result.remove) == written
    assert set(result.unmap) == {row[3] for row in grants.mappings}
    assert len(grants.mappings) == 2
    assert carried_out(keys, index, change(6, ERIKA, OFF, NOW + 1)).remove == [], "what went is named once"


def test_a_grant_and_its_withdrawal_in_one_claim_name_the_pseudonym_all_the_same(keys: Keys) -> None:
    """The mapping of the grant is written by the same claim (step a), so it has to go (step d)."""
    index = StateIndex()
    result = carried_out(keys, index, change(0, ERIKA, opens(PERSONAL), BEGAN), change(1, ERIKA, opens(OFF), BEGAN + 1))
    assert result.unmap == result.remove == [row[3] for row in result.mappings]
    assert modes(index, ERIKA)["engagement", "open"] is OFF


# --- what cannot be read ---


def test_a_change_or_a_state_that_cannot_be_read_costs_only_itself(keys: Keys) -> None:
    index = StateIndex()
    index.apply([Fetched(0, b'{"version":[1,0],"purposes":{"engagement":{"open":[9]}}}', message_key("acme", ERIKA))])
    whole = change(6, MAX, opens(OFF), BEGAN)
    result = planned(
        keys,
        index,
        [
            change(1, ERIKA, OFF, BEGAN),  # her state was written by a newer release
            Fetched(2, b"{"),
            Fetched(3, None, whole.key),
            change(4, MAX, OFF, BEGAN, tenant="nobody"),
            Fetched(5, whole.value),  # without a key it has no state
            whole,
        ],
    )
    assert {row: flaw.reason for row, flaw in result.bad} == {
        0: Reason.BAD_VALUE,
        1: Reason.NOT_JSON,
        2: Reason.TOMBSTONE,
        3: Reason.UNKNOWN_TENANT,
        4: Reason.MISSING_FIELD,
    }
    assert list(result.states) == [message_key("acme", MAX)]
    assert "example.com" not in "".join(str(flaw) for _, flaw in result.bad)


def test_a_state_of_an_earlier_incarnation_is_built_upon(keys: Keys) -> None:
    """Only tracking.changes was made anew: its offsets begin at 0 again, and are newer all the same."""
    index = StateIndex()
    salt = Salt(PSEUDONYMOUS, BEGAN, b"s" * 16, 1)
    granted = Consent(PSEUDONYMOUS, (ALWAYS, BEGAN, None), BEGAN, (salt,))
    index.put(message_key("acme", ERIKA), state(500, {"engagement": {"open": granted}}, incarnation=1))
    records = [change(0, ERIKA, OFF, NOW)]
    result = plan(claim(Kind.CHANGES, records, incarnation=2), list(records), tenants(), index, keys, {})
    assert result.states[message_key("acme", ERIKA)].version == (2, 0)
    assert len(result.remove) == 1


def test_a_grant_under_a_root_key_that_is_gone_maps_nobody(keys: Keys) -> None:
    """As her events are counted only; and whoever comes after her is carried out."""
    index, of = StateIndex(), tenants("[acme]\n[gamma]")
    records = [
        change(0, ERIKA, opens(PERSONAL), BEGAN, tenant="gamma"),
        change(1, ERIKA, opens(OFF), BEGAN + 1, tenant="gamma"),
        change(2, MAX, opens(PERSONAL), BEGAN),
    ]
    result = carried_out(keys, index, *records, of=of)
    assert [row[0] for row in result.mappings] == ["acme"]
    assert effects(result) == ["raised", "lowered", "raised"]
    assert (result.remove, len(result.confirmations)) == ([], 1)
