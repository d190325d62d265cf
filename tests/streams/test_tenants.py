"""Tenants: the file's rules, and one canonical form for equal settings."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pseudonymizer.consent import Mode
from streams.errors import SettingsError
from streams.tenants import (
    DAY_MS,
    PurposeSettings,
    TenantSettings,
    Windows,
    changes,
    days,
    fingerprint,
    from_json,
    parse,
    to_json,
)

EXAMPLE = """
[acme]
local_part = "keep"            # or "lower"
links = "declared"
url_keys = []
window = "30 days"
[acme.purposes.engagement]
ceiling = "personal"
retention = "13 months"
[acme.feed]
mailing = "mailing"
names = []
"""
names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,15}", fullmatch=True)
purposes = st.dictionaries(names, st.builds(PurposeSettings, st.sampled_from(Mode), st.integers(1, 3650)), max_size=3)
tenants = st.dictionaries(
    names,
    st.tuples(
        st.booleans(),
        st.sampled_from(["declared", "path"]),
        st.sets(names, max_size=3),
        purposes,
        st.text(min_size=1, max_size=64).filter(lambda text: text.isprintable()),
        st.integers(1, 3650),
        st.sets(names, max_size=3),
        st.one_of(st.just(0.1), st.floats(0.001, 1)),
    ),
    max_size=4,
)


def test_the_documented_example_is_all_defaults() -> None:
    assert parse(EXAMPLE) == parse("[acme]")
    acme = parse("[acme]")["acme"]
    assert acme == TenantSettings(
        "acme", False, "declared", (), {"engagement": PurposeSettings(Mode.PERSONAL, 390)}, "mailing", 30
    )


def test_a_window_that_grows_again_stays_as_short_as_it_was_when_it_was_over() -> None:
    def held(window: str) -> dict[str, TenantSettings]:
        return parse(EXAMPLE.replace("30 days", window))

    windows = Windows([(0, held("30 days")), (10 * DAY_MS, held("7 days")), (20 * DAY_MS, held("30 days"))])
    of = {sent: windows.shortest("acme", sent * DAY_MS) for sent in (1, 8, 13, 14, 15, 25)}
    assert of == {1: 7, 8: 7, 13: 7, 14: 30, 15: 30, 25: 30}
    assert windows.shortest("nobody", 0) == Windows([]).shortest("acme", 0) == 30
    assert Windows([(5, held("7 days"))]).shortest("acme", 0) == 7


@given(tenants)
def test_canonical_json_brings_back_the_same(
    drawn: dict[str, tuple[bool, str, set[str], dict[str, PurposeSettings], str, int, set[str], float]],
) -> None:
    built = {
        name: TenantSettings(
            name,
            lower,
            links,  # type: ignore[arg-type]  # drawn from the two words
            tuple(sorted(keys)),
            {"engagement": PurposeSettings(Mode.OFF, 1), **of},
            mailing,
            window,
            tuple(sorted(feeds)),
            rho,
        )
        for name, (lower, links, keys, of, mailing, window, feeds, rho) in drawn.items()
    }
    body = to_json(built)
    assert from_json(body) == built
    assert to_json(dict(reversed(list(built.items())))) == body
    assert body.isascii()
    assert not changes(built, from_json(body))


def test_a_fingerprint_names_what_matters_and_nothing_else() -> None:
    one = parse('[b]\nurl_keys = ["x", "a"]\n[a]\n[a.purposes.advice]\nceiling = "pseudonymous"\n')
    same = parse('[a.purposes.advice]\nceiling = "pseudonymous"\nretention = "13 months"\n[b]\nurl_keys = ["a", "x"]\n')
    other = parse('[a.purposes.advice]\nceiling = "personal"\n[b]\nurl_keys = ["a", "x"]\n')
    assert fingerprint(to_json(one)) == fingerprint(to_json(same))
    assert fingerprint(to_json(one)) != fingerprint(to_json(other))
    assert len(fingerprint(to_json(one))) == 16
    # The name is stored beside claims: an upgrade must not give the same settings another one.
    assert fingerprint(to_json(parse("[acme]"))) == "1a64420d4dd33945"
    assert fingerprint(to_json(parse("[acme]\n[acme.publishing]\nrho = 0.1"))) == "1a64420d4dd33945"
    assert to_json(parse("[acme.publishing]\nrho = 1")) == to_json(parse("[acme.publishing]\nrho = 1.0"))


def test_changes_say_what_an_operator_agrees_to() -> None:
    before = parse("[acme]\n[gone]\n")
    after = parse('[acme]\nlocal_part = "lower"\n[acme.purposes.engagement]\nceiling = "anonymous"\n[new]\n')
    said = "\n".join(changes(before, after))
    assert "~ acme: local_part keep -> lower" in said
    assert "~ acme: purposes.engagement up to personal for 390 days -> up to anonymous for 390 days" in said
    assert "- gone: goes" in said
    assert "+ new:" in said
    assert len(said.splitlines()) == 4


@pytest.mark.parametrize(
    ("text", "count"), [("1 day", 1), ("13 months", 390), ("400 days", 400), ("2 weeks", 14), ("1 year", 365)]
)
def test_durations_are_never_longer_than_they_say(text: str, count: int) -> None:
    assert days(text) == count


@pytest.mark.parametrize(
    "text", ["", "0 days", "13", "13 Months", "1.5 years", "11 years", "99999 days", "\uff11 day", " 1 day"]
)
def test_durations_that_are_refused(text: str) -> None:
    with pytest.raises(SettingsError):
        days(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[acme", "not TOML"),
        ('acme = "x"', r"\[acme\] must be a table"),
        ('[acme]\nlinkz = "path"', "did you mean links"),
        ('[acme]\nlinks = "all"', "one of declared, path"),
        ("[acme]\nlinks = []", "one of declared, path"),
        ('[acme]\nurl_keys = "id"', "list of query keys"),
        ('[acme.purposes.x]\nceiling = "everything"', "one of personal, pseudonymous, anonymous, off"),
        ('[acme.purposes.x]\nretention = "for ever"', r"\[acme.purposes.x\] retention must be like"),
        ("[acme.purposes.x]\nretention = 13", "must be like"),
        ("[acme.publishing]\nrho = 1.5", r"\[acme.publishing\] rho must be a number from 0.001 to 1"),
        ("[acme.publishing]\nrho = 0.0009", "from 0.001 to 1"),
        ("[acme.publishing]\nrho = nan", "from 0.001 to 1"),
        ("[acme.publishing]\nrho = true", "from 0.001 to 1"),
        ('[acme.publishing]\nrho = "0.1"', "from 0.001 to 1"),
        ("[acme.publishing]\nro = 0.1", "did you mean rho"),
        ('["a b"]', "a tenant's name"),
        ('["' + "a" * 65 + '"]', "a tenant's name"),
        ('["a\\u001fb"]', "a tenant's name"),
        ('[acme.purposes."é"]', "a purpose's name"),
    ],
)
def test_what_is_refused(text: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        parse(text)


def test_what_a_newer_release_wrote_is_refused_not_guessed() -> None:
    body = to_json(parse("[acme]")).replace('"links"', '"linkage"')
    with pytest.raises(SettingsError, match="did you mean links"):
        from_json(body)
    with pytest.raises(SettingsError):
        from_json("[]")
