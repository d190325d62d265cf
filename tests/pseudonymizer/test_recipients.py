"""One mailbox has one canonical form, two mailboxes have two, and nothing that is none gets through."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pseudonymizer.recipients import MAX_CHARS, BadRecipient, canonical

SAME = [
    ("erika@example.com", "erika@example.com"),
    ("  erika@Example.COM\r\n", "erika@example.com"),
    ("Erika@example.com", "Erika@example.com"),
    ("erika@münchen.de", "erika@xn--mnchen-3ya.de"),
    ("erika@MÜNCHEN.DE", "erika@xn--mnchen-3ya.de"),
    ("erika@mu\u0308nchen.de", "erika@xn--mnchen-3ya.de"),  # the same letter in two characters
    ("erika@XN--mnchen-3YA.de", "erika@xn--mnchen-3ya.de"),
    ("erika@straße.de", "erika@xn--strae-oqa.de"),  # not strasse.de: that is another domain since IDNA 2008
    ("erika@\uff45xample.com", "erika@example.com"),  # a full-width e
    ("erika@example。com", "erika@example.com"),
    ("ju\u0308rgen@example.com", "jürgen@example.com"),
    ('"a@b"@example.com', '"a@b"@example.com'),
    ("root@localhost", "root@localhost"),
    ("x@_dmarc.my_host", "x@_dmarc.my_host"),
    ("K-4711", "K-4711"),
    (" Müller 7 ", "Müller 7"),
    ("\u00a0jürgen@example.com\u3000", "jürgen@example.com"),
]
BAD = [
    *(
        "",
        "   ",
        "@",
        "@example.com",
        "erika@",
        "erika@ example.com",
        "erika@example..com",
        "erika@.com",
        "erika@a.com.",
    ),
    *(
        "eri\x00ka@example.com",
        "erika@example.com\x1f",
        "\x7ferika",
        "eri\nka",
        "é\x85",
        "eri\ud800ka",
        "erika@\udc00.com",
    ),
    *("e@" + "a" * 64 + ".com", "e@" + "a." * 126 + "comm", "e" * 321, "e" * 309 + "@example.com", "erika@ex!mple.com"),
    *(
        "erika@xn--ü.de",
        "erika@a\u200db.de",
        "erika@\u0378.de",
        "erika@-ü.de",
        "e@" + "ü" * 64 + ".de",
        "erika@é_ü .de",
    ),
]


@pytest.mark.parametrize(("given_as", "expected"), SAME)
def test_spellings_of_one_mailbox_come_out_the_same(given_as: str, expected: str) -> None:
    assert canonical(given_as) == expected


@pytest.mark.parametrize("recipient", BAD, ids=[f"{number}" for number in range(len(BAD))])
def test_what_names_nobody_is_refused_without_being_repeated(recipient: str) -> None:
    with pytest.raises(BadRecipient) as caught:
        canonical(recipient)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    # Only fixed words: the same text whatever the recipient.
    assert str(caught.value) in {
        *("control characters", "half a surrogate pair", "nothing before the @", "the domain is none"),
        *("IDNA refuses the domain", f"1 to {MAX_CHARS} characters are expected"),
    }


def test_the_local_part_loses_its_case_only_where_the_tenant_says_so() -> None:
    assert canonical("ÉRIKA.Muster@X.de", lower_local=True) == "érika.muster@x.de"
    assert canonical("K-4711", lower_local=True) == "K-4711"  # an id is no local part
    assert canonical("A@x.de") != canonical("a@x.de")


def test_the_limit_counts_what_is_left_after_trimming() -> None:
    longest = "e" * (MAX_CHARS - len("@example.com")) + "@example.com"
    assert canonical(f"   {longest}   ") == longest
    with pytest.raises(BadRecipient):  # 320 before the rule, more after it: a U-label is shorter than its A-label
        canonical("e" * (MAX_CHARS - len("@münchen.de")) + "@münchen.de")


anything = st.text(max_size=40) | st.text(
    alphabet="aAüÜß\u0130\u0131\u03a3\u03c3\u03c2.@_- \t\n\x1f\u0308\u212a\u00a0\u3002-xn", max_size=20
)
addresses = st.builds("{}@{}".format, anything, anything | st.just("Example.com"))


@given(anything | addresses, st.booleans())
def test_the_rule_is_idempotent_and_its_results_are_clean(recipient: str, lower: bool) -> None:
    try:
        once = canonical(recipient, lower)
    except BadRecipient:
        return
    assert canonical(once, lower) == once
    assert canonical(f" {once}\n", lower) == once
    assert 0 < len(once) <= MAX_CHARS
    assert unicodedata.is_normalized("NFC", once)
    assert not any(unicodedata.category(char) in ("Cc", "Cs") for char in once)
    local, at, domain = once.rpartition("@")
    assert not at or (local and domain.isascii() and domain == domain.lower())


@given(st.text(alphabet=st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=30))
def test_local_parts_that_differ_stay_different(local: str) -> None:
    assert canonical(f"{local}@example.com") == f"{local}@example.com"
