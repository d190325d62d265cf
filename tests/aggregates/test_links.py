from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregates.links import OTHER, LinkRules, strip

DECLARED = {
    "hero": "https://shop.example/produkt",
    "hero-2": "https://shop.example/produkt/",
    "pdf": "https://shop.example/Preise.pdf?lang=de",
    "idn": "https://bücher.example/",
}
ANY_TEXT = st.text(st.characters(exclude_categories=()))
URLS = st.builds(
    "".join,
    st.lists(
        st.sampled_from(["https:", "HTTP:", "//", "shop.example", ":443", ":x", "[", "@", "/", "?rid=1", "#a", "%40"])
        | st.text(max_size=4),
        max_size=8,
    ),
)


@pytest.mark.parametrize(
    ("link", "url", "found"),
    [
        ("hero", None, "hero"),
        ("hero-2", "https://shop.example/produkt", "hero-2"),  # the id decides between two of one URL
        (None, "https://shop.example/produkt", "hero"),  # else the first that was declared
        (None, "HTTPS://Shop.Example:443/produkt/?rid=4711&email=erika%40example.com#top", "hero"),
        (" ", "https://shop.example/produkt", "hero"),
        ("undeclared", "https://shop.example/produkt", "hero"),
        ("undeclared", None, OTHER),
        ("undeclared", "https://shop.example/konto/erika", OTHER),
        (None, "http://shop.example/produkt", OTHER),
        (None, "https://shop.example/Produkt", OTHER),  # paths are case-sensitive
        (None, "https://shop.example:8443/produkt", OTHER),
        (None, "https://erika@shop.example/produkt", OTHER),
        (None, "https://shop.example/Preise.pdf?rid=1", "pdf"),
        (None, "https://xn--bcher-kva.example?rid=1", "idn"),
        (None, "mailto:erika@example.com", OTHER),
        (None, "https://[::1", OTHER),
        (None, "https://shop.example:99999/", OTHER),
        (None, "", OTHER),
        (None, None, OTHER),
    ],
)
def test_a_declared_id_else_a_declared_url_else_other(link: str | None, url: str | None, found: str) -> None:
    assert LinkRules(DECLARED).of(link, url) == found


def test_allow_listed_keys_tell_pages_apart_in_any_order() -> None:
    declared = {"a": "https://shop.example/?page=a&lang=de", "b": "https://shop.example/?page=b&lang=de"}
    by_page = LinkRules(declared, ["lang", "page"])
    assert by_page.of(None, "https://shop.example?rid=1&page=b&lang=de&email=e%40example.com") == "b"
    assert by_page.of(None, "https://shop.example/?lang=de&page=a") == "a"
    assert by_page.of(None, "https://shop.example/?lang=de") == OTHER
    assert LinkRules(declared).of(None, "https://shop.example/?page=b&lang=de") == "a"


def test_paths_count_as_themselves_only_where_the_tenant_says_so_and_they_are_clean() -> None:
    paths = LinkRules(DECLARED, paths=True)
    assert paths.of(None, "https://Shop.example/neu/?rid=4711") == "https://shop.example/neu"
    assert paths.of("hero", "https://shop.example/neu") == "hero"
    for url in (
        "https://shop.example/konto/erika@example.com",
        "https://shop.example/konto/erika%40example.com",
        "https://shop.example/konto/erika%2540example.com",
        "https://shop.example/konto/erika%25252540example.com",
        "https://shop.example/konto/erika\ufe6bexample.com",
        "https://shop.example/konto/erika%25ef%25b9%25abexample.com",
        "https://erika:geheim@shop.example/neu",
        "https://shop.example/" + "x" * 200,
        "https://shop.example/a\u0000b",
    ):
        assert paths.of(None, url) == OTHER


@given(st.none() | ANY_TEXT, URLS | ANY_TEXT, st.lists(ANY_TEXT, max_size=3), st.booleans())
def test_no_string_raises_and_nothing_personal_becomes_a_name(
    link: str | None, url: str, keys: list[str], paths: bool
) -> None:
    found = LinkRules(DECLARED, keys, paths).of(link, url)
    assert found in {*DECLARED, OTHER} or (paths and "@" not in found and "#" not in found and len(found) <= 200)


@given(URLS | ANY_TEXT, st.lists(st.sampled_from(["rid", "lang"]), unique=True))
def test_stripping_twice_is_stripping_once(url: str, keys: list[str]) -> None:
    stripped = strip(url, keys)
    assert stripped is None or strip(stripped, keys) == stripped


@given(st.text(min_size=1), st.text())
def test_no_query_and_no_fragment_decides(query: str, fragment: str) -> None:
    try:
        made = f"https://shop.example/produkt?{quote(query)}#{quote(fragment)}"
    except UnicodeEncodeError:
        return
    assert LinkRules(DECLARED).of(None, made) == "hero"
