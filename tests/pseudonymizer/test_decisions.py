"""What becomes of an event, against a plain replay of the whole history."""

from __future__ import annotations

from typing import assert_never

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pseudonymizer.consent import ALWAYS, DEFAULT, Effect, Mode, apply
from pseudonymizer.decisions import NEVER, Counted, Decision, Off, Row, Thresholds, decide, thresholds
from tests.pseudonymizer.histories import DECISIONS, MODES, TIMES, Decided, play

OFF, ANONYMOUS, PSEUDONYMOUS, PERSONAL = Mode


def by_replay(history: list[Decided], ceiling: Mode, occurred: int) -> tuple[str, bytes | None]:
    """The same from first principles: which decisions stood, what mode each moment had, which salts are still whole.

    A level is allowed for an event if the mode was at it or above at every moment from the event to the end.
    """
    stood: list[tuple[Decided, int]] = []  # with its number, which is its salt
    for number, decided in enumerate(history, 1):
        if not stood or decided.at > stood[-1][0].at or (
            decided.at == stood[-1][0].at and decided.mode <= stood[-1][0].mode
        ):  # fmt: skip
            stood.append((decided, number))

    def mode_at(moment: int) -> Mode:
        modes = [decided.mode for decided, _ in stood if decided.at <= moment]
        return modes[-1] if modes else ANONYMOUS

    lowest = min([mode_at(moment) for moment in range(occurred, 14)], default=mode_at(occurred))
    level = min(lowest, ceiling)
    if level is OFF:
        return "off", None
    # A salt is drawn by a change of mode that ends at pseudonymous or above; it is whole if nothing later dropped it.
    usable = []
    for index, (decided, number) in enumerate(stood):
        before = stood[index - 1][0].mode if index else ANONYMOUS
        of_salt = min(decided.mode, decided.ceiling)
        later = [following.mode for following, _ in stood[index + 1 :]]
        if decided.mode == before or of_salt < PSEUDONYMOUS or of_salt > level:
            continue
        if all(mode >= (PERSONAL if of_salt is PERSONAL else PSEUDONYMOUS) for mode in later):
            usable.append(number)
    return ("row", usable[-1].to_bytes(16, "big")) if level >= PSEUDONYMOUS and usable else ("counted", None)


def named(decision: Decision) -> tuple[str, bytes | None]:
    match decision:
        case Off():
            return "off", None
        case Counted():
            return "counted", None
        case Row(salt):
            return "row", salt.value
        case _:
            assert_never(decision)


@given(DECISIONS, MODES, st.integers(-1, 13))
def test_it_agrees_with_a_replay_of_the_whole_history(history: list[Decided], ceiling: Mode, occurred: int) -> None:
    known, _ = play(history)
    assert named(decide(thresholds(known, ceiling), occurred)) == by_replay(history, ceiling, occurred)


@given(DECISIONS, MODES)
def test_thresholds_are_as_the_columns_need_them(history: list[Decided], ceiling: Mode) -> None:
    allowed = thresholds(play(history)[0], ceiling)
    begins = [begin for begin, _ in allowed.rows]
    assert len(begins) <= 2
    assert begins == sorted(begins)
    assert all(begin >= allowed.counts_from for begin in begins)  # what is a row is also counted
    assert all(salt.level <= ceiling for _, salt in allowed.rows)


@given(DECISIONS, MODES, TIMES)
def test_a_withdrawal_leaves_no_row_at_any_time(history: list[Decided], ceiling: Mode, occurred: int) -> None:
    known, _ = play(history)
    step = apply(known, ANONYMOUS, 100, None, 1, ceiling)
    assert step.effect in (Effect.LOWERED, Effect.CONFIRMED, Effect.RAISED)
    for moment in (occurred, 99, 100, 101):
        assert not isinstance(decide(thresholds(step.consent, PERSONAL), moment), Row)


def test_by_default_everybody_is_counted_and_nobody_has_a_row() -> None:
    assert thresholds(None, PERSONAL) == thresholds(DEFAULT, PERSONAL) == Thresholds(ALWAYS, ())
    assert decide(thresholds(None, PERSONAL), ALWAYS) == Counted()


@pytest.mark.parametrize("mode", Mode)
def test_a_ceiling_of_off_counts_nobody(mode: Mode) -> None:
    known, _ = play([Decided(mode, 1, PERSONAL)])
    assert thresholds(known, OFF) == Thresholds(NEVER, ())
    assert decide(thresholds(known, OFF), NEVER - 1) == Off()


def test_an_event_gets_the_highest_level_that_held_when_it_occurred() -> None:
    known, _ = play([Decided(PSEUDONYMOUS, 3, PERSONAL), Decided(PERSONAL, 6, PERSONAL)])
    first, second = known.salts
    allowed = thresholds(known, PERSONAL)
    assert allowed == Thresholds(ALWAYS, ((3, first), (6, second)))
    assert [decide(allowed, moment) for moment in (2, 3, 5, 6)] == [Counted(), Row(first), Row(first), Row(second)]
    # A ceiling that came down since: what was seen beside a name is not used any more.
    assert thresholds(known, PSEUDONYMOUS) == Thresholds(ALWAYS, ((3, first),))
