"""What a person reads never claims more than what was published."""

from hypothesis import given
from hypothesis import strategies as st

from aggregates.reading import Reading, percent


@given(st.integers(0, 10**6), st.integers(1, 10**5), st.integers(1, 10**6), st.floats(-1, 1))
def test_whatever_is_within_the_published_margin_is_within_the_shown_one(
    recipients: int, margin: int, sent: int, where: float
) -> None:
    reading = Reading(min(recipients, sent), margin, too_few=False, sent=sent)
    assert reading.share is not None
    assert reading.share_margin is not None
    shown = percent(reading.share, reading.share_margin)
    truth = 100 * (reading.share + where * reading.share_margin)
    assert abs(truth - shown.value) <= shown.margin + 1e-6 * max(1.0, shown.margin)


def test_the_missions_own_figure() -> None:
    assert percent(0.8004, 0.009) == (80.0, 1.0, 1)
    assert percent(0.8004, 0.01) == (80.0, 2.0, 0)
    assert percent(0.8, 0.01) == (80.0, 1.0, 0)


def test_too_few_has_no_share_and_a_bound() -> None:
    assert Reading(3, 16, too_few=True, sent=10)[:2] == (3, 16)
    assert Reading(3, 16, too_few=True, sent=10).share is None
    assert Reading(3, 16, too_few=True, sent=10).at_most == 10
    assert Reading(3, 16, too_few=False, sent=0).share is None
