"""Recipients by number: the columns against the rule read plainly, and what is forgotten when something changes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pseudonymizer.consent import ALWAYS, Consent, Mode
from pseudonymizer.decisions import NEVER
from pseudonymizer.recipients import BadRecipient, canonical
from streams import people as module
from streams import state as state_module
from streams.errors import Reason
from streams.keys import Keys
from streams.partitioner import message_key, partition_of
from streams.people import FLAWS, People
from streams.state import StateIndex
from streams.tenants import TenantSettings
from tests.claims import NOW, make_keys, state, tenants

KEEP, LOWER = tenants("[acme]\n[beta]\n"), tenants('[acme]\n[beta]\nlocal_part = "lower"\n')
PARTITIONS = 3
OFF = {"engagement": {"open": Consent(Mode.OFF, (None, None, None), NOW)}}


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return make_keys(tmp_path_factory.mktemp("ring"))


def numbers(people: People, who: Sequence[tuple[str, str]], of: dict[str, TenantSettings] | None = None) -> np.ndarray:
    settings_ = of or KEEP
    people.begin(settings_)
    index = np.array([list(settings_).index(tenant) for tenant, _ in who], np.int64)
    return people.numbers([f"{tenant}\x1f{recipient}" for tenant, recipient in who], index)


# What looks nearly plain, and what a sender could write at all.
plain = st.from_regex(r"[!-~]{1,8}(@[A-Za-z0-9_.-]{1,20})?", fullmatch=True)
odd = st.sampled_from(
    [
        "a" * 64 + "@x.example",
        "a@" + "b" * 64,
        "a@" + "b" * 63,
        "a@b..c",
        "a@",
        "@b",
        "a@b@c",
        "ü@x",
        "x@ü",
        " a@b ",
        "a b",
    ]
) | st.text(max_size=8).filter(lambda text: "\x1f" not in text)


@given(
    st.lists(st.tuples(st.sampled_from(["acme", "beta"]), plain | odd), min_size=1, max_size=30),
    st.sampled_from([KEEP, LOWER]),
)
@settings(max_examples=60, deadline=None)
def test_columns_say_what_the_rule_says_of_each_recipient(
    keys: Keys, who: list[tuple[str, str]], of: dict[str, TenantSettings]
) -> None:
    people = People(1, PARTITIONS, keys, StateIndex())
    found = numbers(people, who, of)
    flaws = people.flaws(found, np.zeros(len(who), np.int64))
    names = people.canonical(found)
    spelled: dict[bytes, int] = {}
    for at, (tenant, recipient) in enumerate(who):
        try:
            expected = canonical(recipient, of[tenant].lower_local)
        except BadRecipient:
            assert FLAWS[flaws[at]] is Reason.BAD_RECIPIENT
            continue
        key = message_key(tenant, expected)
        assert FLAWS[flaws[at]] is (None if partition_of(key, PARTITIONS) == 1 else Reason.MISROUTED)
        assert names.data[names.starts[at] :][: names.lengths[at]].decode() == expected
        assert spelled.setdefault(key, found[at]) == found[at], "two spellings of one recipient are one"
    assert len(set(spelled.values())) == len(spelled), "and two recipients are two"
    assert (numbers(people, who, of) == found).all(), "whom it has met it knows"


@pytest.mark.parametrize("limit", ["none", "remembered", "watched"])
def test_what_is_allowed_follows_the_state_however_little_is_remembered(
    keys: Keys, limit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if limit == "remembered":
        monkeypatch.setattr(module, "REMEMBERED", 3)
    if limit == "watched":
        monkeypatch.setattr(state_module, "WATCHED", 2)
    index = StateIndex()
    people = People(0, 1, keys, index)
    who = [("acme", f"r{n}@example.com") for n in range(6)]

    def counts_from() -> list[int]:
        found = numbers(people, who)
        kinds = np.zeros(len(who), np.int64)
        assert not people.flaws(found, kinds).any()
        return people.counts_from(2 * found + kinds).tolist()

    assert counts_from() == [ALWAYS] * 6
    for n in (1, 2, 5):
        index.put(message_key(*who[n]), state(n, OFF))
    assert counts_from() == [ALWAYS, NEVER, NEVER, ALWAYS, ALWAYS, NEVER]
    index.put(message_key(*who[2]), state(9, {}))
    assert counts_from() == [ALWAYS, NEVER, ALWAYS, ALWAYS, ALWAYS, NEVER]


def test_nothing_is_kept_by_an_index_that_nobody_watches() -> None:
    index = StateIndex()
    index.put(b"k", state(1, OFF))
    assert len(index.watch()) == 0
