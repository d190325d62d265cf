"""The consent state machine: what holds whatever is decided, and each move by hand."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pseudonymizer.consent import ALWAYS, DEFAULT, LEVELS, Consent, Effect, Mode, Salt, Step, apply
from tests.pseudonymizer.histories import DECISIONS, MODES, TIMES, Decided, play

A, B, C = b"a" * 16, b"b" * 16, b"c" * 16
OFF, ANONYMOUS, PSEUDONYMOUS, PERSONAL = Mode


def after(*decisions: tuple[Mode, int, bytes | None], ceiling: Mode = PERSONAL) -> Step:
    known = DEFAULT
    step = Step(DEFAULT, Effect.UNCHANGED)
    for mode, at, salt in decisions:
        step = apply(known, mode, at, salt, 1, ceiling)
        known = step.consent
    return step


# --- each move by hand ---


def test_a_grant_holds_from_its_own_time_and_leaves_what_held_before() -> None:
    step = after((PERSONAL, 5, A))
    salt = Salt(PERSONAL, 5, A, 1)
    assert step == Step(Consent(PERSONAL, (ALWAYS, 5, 5), 5, (salt,)), Effect.RAISED, map=salt)
    step = after((PSEUDONYMOUS, 5, A), (PERSONAL, 9, B))
    old, new = Salt(PSEUDONYMOUS, 5, A, 1), Salt(PERSONAL, 9, B, 1)
    assert step == Step(Consent(PERSONAL, (ALWAYS, 5, 9), 9, (old, new)), Effect.RAISED, map=new)


def test_a_withdrawal_drops_every_salt_and_names_what_must_go() -> None:
    step = after((PSEUDONYMOUS, 5, A), (PERSONAL, 6, B), (ANONYMOUS, 7, None))
    old, named = Salt(PSEUDONYMOUS, 5, A, 1), Salt(PERSONAL, 6, B, 1)
    assert step == Step(Consent(ANONYMOUS, (ALWAYS, None, None), 7), Effect.LOWERED, (old, named), (named,))
    assert after((PSEUDONYMOUS, 5, A), (OFF, 7, None)).consent == Consent(OFF, (None, None, None), 7)


def test_a_step_down_from_personal_starts_anew_but_keeps_what_was_never_seen_beside_a_name() -> None:
    step = after((PSEUDONYMOUS, 5, A), (PERSONAL, 6, B), (PSEUDONYMOUS, 7, C))
    old, named, new = Salt(PSEUDONYMOUS, 5, A, 1), Salt(PERSONAL, 6, B, 1), Salt(PSEUDONYMOUS, 5, C, 1)
    assert step == Step(Consent(PSEUDONYMOUS, (ALWAYS, 5, None), 7, (old, new)), Effect.LOWERED, (named,), (named,))


def test_back_from_off_counts_from_then_on_and_needs_no_salt() -> None:
    step = after((OFF, 5, None), (ANONYMOUS, 7, None))
    assert step == Step(Consent(ANONYMOUS, (7, None, None), 7), Effect.RAISED)


def test_the_same_mode_later_keeps_the_salt() -> None:
    step = after((PERSONAL, 5, A), (PERSONAL, 8, B))
    assert step == Step(Consent(PERSONAL, (ALWAYS, 5, 5), 8, (Salt(PERSONAL, 5, A, 1),)), Effect.CONFIRMED)


def test_the_very_decision_that_is_known_is_unchanged_and_an_older_one_out_of_date() -> None:
    known = after((PERSONAL, 5, A))
    assert after((PERSONAL, 5, A), (PERSONAL, 5, B)) == Step(known.consent, Effect.UNCHANGED)
    assert after((PERSONAL, 5, A), (OFF, 4, None)) == Step(known.consent, Effect.OUT_OF_DATE)


def test_at_equal_times_the_lower_mode_wins_in_either_order() -> None:
    lower_last = after((PERSONAL, 5, A), (ANONYMOUS, 5, None))
    lower_first = after((ANONYMOUS, 5, None), (PERSONAL, 5, A))
    assert (lower_last.effect, lower_first.effect) == (Effect.LOWERED, Effect.OUT_OF_DATE)
    assert lower_last.consent == lower_first.consent == Consent(ANONYMOUS, (ALWAYS, None, None), 5)


def test_the_ceiling_bounds_the_salt_but_not_what_is_remembered() -> None:
    step = after((PERSONAL, 5, A), ceiling=PSEUDONYMOUS)
    assert step.consent == Consent(PERSONAL, (ALWAYS, 5, 5), 5, (Salt(PSEUDONYMOUS, 5, A, 1),))
    assert step.map is None
    assert after((PERSONAL, 5, None), ceiling=ANONYMOUS).consent == Consent(PERSONAL, (ALWAYS, 5, 5), 5)


@pytest.mark.parametrize("salt", [None, b"", b"short"])
def test_a_grant_without_its_salt_is_a_programming_error(salt: bytes | None) -> None:
    with pytest.raises(ValueError, match="salt of 16 bytes"):
        after((PSEUDONYMOUS, 5, salt))
    with pytest.raises(ValueError, match="salt of 16 bytes"):
        after((PERSONAL, 5, A), (PSEUDONYMOUS, 6, salt))


def test_words_are_those_of_messages_and_a_wrong_one_is_not_repeated() -> None:
    assert [Mode.parse(mode.word) for mode in Mode] == list(Mode)
    assert [mode.word for mode in Mode] == ["off", "anonymous", "pseudonymous", "personal"]
    for wrong in ("OFF", "erika@example.com", "", "1"):
        with pytest.raises(ValueError, match=r"^a mode is one of off, anonymous, pseudonymous, personal$"):
            Mode.parse(wrong)


def test_no_repr_shows_a_salt() -> None:
    step = after((PERSONAL, 5, b"saltsaltsaltsalt"), (PSEUDONYMOUS, 6, b"saltsaltsaltsalt"))
    assert "saltsalt" not in f"{step!r}{step}{step.consent}{step.remove}{step.consent.salts[0]}"


# --- what holds whatever is decided ---


@given(DECISIONS, MODES, TIMES, MODES)
def test_the_same_decision_twice_changes_nothing(history: list[Decided], mode: Mode, at: int, ceiling: Mode) -> None:
    known, _ = play(history)
    once = apply(known, mode, at, A, 1, ceiling).consent
    twice = apply(once, mode, at, B, 2, ceiling)
    assert twice.effect in (Effect.UNCHANGED, Effect.OUT_OF_DATE)
    assert twice == Step(once, twice.effect)
    assert twice.consent is once


@given(DECISIONS.flatmap(lambda history: st.tuples(st.just(history), st.permutations(history))))
def test_the_final_mode_does_not_depend_on_the_order_of_arrival(two: tuple[list[Decided], list[Decided]]) -> None:
    one, other = (play(history)[0] for history in two)
    assert (one.mode, one.decided_at) == (other.mode, other.decided_at)


@given(DECISIONS)
def test_it_never_says_more_than_the_newest_decision(history: list[Decided]) -> None:
    known, _ = play(history)
    if history:
        newest = max(decided.at for decided in history)
        assert known.decided_at == newest
        assert known.mode == min(decided.mode for decided in history if decided.at == newest)
    else:
        assert known == DEFAULT
    for level in LEVELS:
        since = known.held_since(level)
        assert (since is not None) == (level <= known.mode)
        assert since is None or since <= known.decided_at
    held = [since for since in known.since if since is not None]
    assert held == sorted(held)


@given(DECISIONS)
def test_every_salt_is_either_held_or_was_removed_exactly_once(history: list[Decided]) -> None:
    known, steps = play(history)
    held: tuple[Salt, ...] = ()
    drawn: Counter[bytes] = Counter()
    removed: Counter[bytes] = Counter()
    for step in steps:
        drawn.update(salt.value for salt in step.consent.salts if salt not in held)
        removed.update(salt.value for salt in step.remove)
        held = step.consent.salts
        if step.consent.mode < Mode.PSEUDONYMOUS:
            assert not held
        assert all(salt.is_sound() and salt.level <= step.consent.mode for salt in held)
        assert all(salt.level is Mode.PERSONAL for salt in step.unmap)
        assert {salt for salt in step.remove if salt.level is Mode.PERSONAL} == set(step.unmap)
        if step.effect in (Effect.UNCHANGED, Effect.OUT_OF_DATE, Effect.CONFIRMED):
            assert (step.remove, step.unmap, step.map) == ((), (), None)
    assert drawn == removed + Counter(salt.value for salt in known.salts)
    assert all(times == 1 for times in drawn.values())


@given(DECISIONS)
def test_a_mapping_is_made_for_each_personal_salt_and_for_no_other(history: list[Decided]) -> None:
    _, steps = play(history)
    mapped = [step.map for step in steps if step.map]
    unmapped = [salt for step in steps for salt in step.unmap]
    held = [salt for salt in play(history)[0].salts if salt.level is Mode.PERSONAL]
    assert Counter(mapped) == Counter(unmapped) + Counter(held)
