"""Both languages say everything, and write numbers as people do."""

import re
from importlib import resources

from aggregates.reading import Reading
from streams.dashboard.readers import ReaderRole
from streams.dashboard.words import LANGUAGES, Words, texts

SLOTS = re.compile(r"\{(\w+)\}")


def test_every_sentence_stands_in_every_language_with_the_same_slots() -> None:
    first, *others = (texts(language) for language in LANGUAGES)
    for other in others:
        assert other.keys() == first.keys()
        for key, text in first.items():
            assert sorted(SLOTS.findall(text)) == sorted(SLOTS.findall(other[key])), key


def test_figures_as_people_read_them() -> None:
    german, english = Words("de"), Words("en")
    reading = Reading(9_605, 120, too_few=False, sent=12_000)
    assert german.share(reading).replace("\xa0", " ") == "80 % ± 2"
    assert english.recipients(reading).replace("\xa0", " ") == "9,605 ± 120 recipients"
    assert german.recipients(reading).replace("\xa0", " ") == "9.605 ± 120 Empfänger"
    assert german.share(Reading(40, 20, too_few=False, sent=12_000)).replace("\xa0", " ") == "0,3 % ± 0,2"
    few = Reading(3, 15, too_few=True, sent=300)
    assert (english.share(few), english.at_most(few).replace("\xa0", " ")) == ("too few to say", "at most 6 %")
    assert english.bound(few).replace("\xa0", " ") == "≤ 6 %"
    assert german.bound(Reading(3, 15, too_few=True, sent=0)).replace("\xa0", " ") == "≤ 18 Empfänger"


def test_every_problem_and_every_role_has_its_words() -> None:
    named = set[str]()
    for file in ("pages", "site", "server"):
        source = (resources.files("streams.dashboard") / f"{file}.py").read_text()
        named |= set(re.findall(r'Problem\(\s*(?:\d{3}|status), "([a-z-]+)"', source))
    assert len(named) > 5
    for language in LANGUAGES:
        assert {f"error.{name}" for name in (named | {"bad-parameter"}) - {"bad-request"}} <= texts(language).keys()
        assert {f"role.{role}" for role in ReaderRole} <= texts(language).keys()
