import json
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregates import actors, rules
from aggregates.actors import Actor, classify
from aggregates.devices import Device, family

FEEDS = Path(__file__).parents[1] / "feeds"
CHROME = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36"
)

Hit = tuple[str, str, str, str | None]  # id, mailing, kind and link, user agent


def _lines(name: str) -> list[Any]:
    return [json.loads(line) for line in (FEEDS / f"{name}.ndjson").read_text("utf-8").splitlines()]


def _links() -> dict[str, str]:
    return {url: link for link, url in _lines("mailings")[0]["links"].items()}


def _sendgrid() -> list[Hit]:
    """Every hit as often as it was sent: the vendor sends whole batches twice."""
    links = _links()
    return [
        (
            hit["sg_event_id"],
            hit["mailing"],
            "open" if hit["event"] == "open" else f"click/{links[hit['url'].partition('?')[0].partition('#')[0]]}",
            hit.get("useragent"),
        )
        for body in _lines("sendgrid")
        for hit in body
        if hit["event"] in ("open", "click")
    ]


def _mailgun() -> list[Hit]:
    links = _links()
    return [
        (
            hit["id"],
            hit["user-variables"]["mailing"],
            "open" if hit["event"] == "opened" else f"click/{links[hit['url'].partition('?')[0].partition('#')[0]]}",
            hit["client-info"].get("user-agent"),
        )
        for body in _lines("mailgun")
        for hit in [body["event-data"]]
        if hit["event"] in ("opened", "clicked")
    ]


@pytest.mark.parametrize("hits", [_sendgrid(), _mailgun()], ids=["sendgrid", "mailgun"])
def test_user_agents_alone_give_the_truth_of_the_feeds(hits: list[Hit]) -> None:
    events: dict[str, int] = {}
    for _, mailing, what, agent in {hit[0]: hit for hit in hits}.values():
        cell = f"{mailing}/{what}/{classify(agent)}"
        events[cell] = events.get(cell, 0) + 1
    truth = json.loads((FEEDS / "truth.json").read_text("utf-8"))
    assert events == {cell: figures["events"] for cell, figures in truth["cells"].items()}


def test_what_mailgun_calls_a_machine_is_one_here_too() -> None:
    for body in _lines("mailgun"):
        client = body["event-data"].get("client-info")
        if client and body["event-data"]["event"] in ("opened", "clicked"):
            assert (classify(client.get("user-agent")) is Actor.MACHINE) == bool(client.get("bot"))


MACHINES = [
    "Mozilla/5.0",
    " mozilla/5.0 ",
    "BarracudaCentral/1.0",
    "Mozilla/5.0 (compatible; Barracuda Sentinel)",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/42.0.2311.135 "
    "Safari/537.36 Edge/12.246 Mozilla/5.0",
    "Microsoft Office Existence Discovery",
    "Mozilla/5.0 (Windows NT 6.1; WOW64) AppleWebKit/534+ (KHTML, like Gecko) BingPreview/1.0b",
    "curl/8.5.0",
    "python-requests/2.32.3",
    "Go-http-client/2.0",
    "okhttp/4.12.0",
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) HeadlessChrome/142.0.0.0 Safari/537.36",
    "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
    "Mozilla/5.0 (compatible; SomethingNew/0.1; +https://something.example)",
    "facebookexternalhit/1.1",  # nothing but ua-parser knows this one
]
PEOPLE = [
    (CHROME, Device.DESKTOP),
    ("Mozilla/5.0 (Windows NT 5.1; rv:11.0) Gecko Firefox/11.0 (via ggpht.com GoogleImageProxy)", Device.OTHER),
    ("YahooMailProxy; https://help.yahoo.com/kb/yahoo-mail-proxy-SLN28749.html", Device.OTHER),
    ("Microsoft Office/16.0 (Windows NT 10.0; Microsoft Outlook 16.0.17928; Pro)", Device.DESKTOP),
    ("Mozilla/4.0 (compatible; ms-office; Microsoft Outlook 16)", Device.DESKTOP),
    ("Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:145.0) Gecko/20100101 Thunderbird/145.0", Device.DESKTOP),
    (
        "Mozilla/5.0 (iPhone; CPU iPhone OS 18_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148",
        Device.PHONE,
    ),
    (
        "Mozilla/5.0 (iPad; CPU OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148",
        Device.TABLET,
    ),
    (
        "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148",
        Device.TABLET,
    ),
    (
        "Mozilla/5.0 (Linux; Android 15; Pixel 9) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 "
        "Mobile Safari/537.36",
        Device.PHONE,
    ),
    (
        "Mozilla/5.0 (Linux; Android 14; SM-X710) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 "
        "Safari/537.36",
        Device.TABLET,
    ),
    (  # a phone whose name holds a robot's
        "Mozilla/5.0 (Linux; Android 11; CUBOT NOTE 7) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 "
        "Mobile Safari/537.36",
        Device.PHONE,
    ),
    ("Outlook-iOS/2.0", Device.PHONE),
    ("", Device.OTHER),
    (None, Device.OTHER),
]


@pytest.mark.parametrize("agent", MACHINES)
def test_machines(agent: str) -> None:
    assert classify(agent, "192.0.2.7") is Actor.MACHINE


@pytest.mark.parametrize(("agent", "device"), PEOPLE)
def test_people_and_what_they_read_on(agent: str | None, device: Device) -> None:
    assert classify(agent, "192.0.2.7") is Actor.HUMAN
    assert family(agent) is device


@given(st.none() | st.text(st.characters(exclude_categories=())), st.none() | st.text())
def test_no_string_raises(agent: str | None, ip: str | None) -> None:
    assert classify(agent, ip) in set(Actor)
    assert family(agent) in set(Device)


def test_what_comes_after_the_part_that_is_looked_at_changes_nothing_and_costs_nothing() -> None:
    assert classify(CHROME + " " * 600 + "curl/8 bot/1 +http") is Actor.HUMAN
    classify("warm up")
    begin = time.process_time()
    for number in range(200):
        for made in ("Mozilla/5.0 (" + "; " * 2048, "(" * 4096, "samsung" * 600, "\ud800" * 4096, "bot" * 1400):
            classify(f"{number}{made}")
            family(f"{number}{made}")
    assert (time.process_time() - begin) / 1000 < 0.002  # seconds each; measured 0.00005


def test_rules_can_name_networks() -> None:
    made = rules.parse(
        'version = 9\nlibrary = ""\nimage_proxies = []\nuser_agent = []\n'
        '[[ip]]\nname = "a"\nsource = "b"\nactor = "machine"\nnetworks = ["198.51.100.0/24", "2001:db8::/32"]'
    )
    assert made.by_ip("198.51.100.7") is Actor.MACHINE
    assert made.by_ip("2001:db8::1") is Actor.MACHINE
    assert [made.by_ip(ip) for ip in ("203.0.113.7", "not an address", "", None)] == [None] * 4


def test_a_misspelt_rule_is_refused() -> None:
    head = 'version = 9\nlibrary = ""\nimage_proxies = []\n[[user_agent]]\nname = "a"\nsource = "b"\n'
    with pytest.raises(ValueError, match="a rule has"):
        rules.parse(head + 'actor = "machine"\ncontain = ["x"]')
    with pytest.raises(ValueError, match="person"):
        rules.parse(head + 'actor = "person"\ncontains = ["x"]')


def test_the_version_of_the_rules_names_the_library_that_is_installed() -> None:
    """Another release of ua-parser's rules may answer differently: then RULES has to move."""
    assert rules.RULES.library == version("ua-parser-builtins")
    page = (Path(__file__).parents[2] / "docs" / "machines.md").read_text("utf-8")
    assert f"version {actors.RULES} of the rules" in page
    assert f"ua-parser-builtins {rules.RULES.library}" in page
