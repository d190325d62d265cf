"""What a dashboard asks its store, and how often: of a store that answers nothing but that."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import markupsafe
import pytest
from aiohttp.test_utils import TestClient, TestServer
from yarl import URL

from aggregates.reading import Reading
from streams.dashboard import api, server, sessions, site
from streams.dashboard.figures import History, Mailing, Page
from streams.dashboard.pages import LANGUAGE, SESSION
from streams.dashboard.site import Problem
from streams.errors import StoreUnavailable
from streams.settings import Settings
from streams.stores import StoreClient

AT_ONCE = 4
Client = TestClient[Any, Any]


class Answers(StoreClient):
    """A store with one reader and one mailing, which has spent more than is usual.

    `asked`, `statements`: all that it was asked.
    """

    def __init__(self) -> None:
        super().__init__("nowhere", None)
        self.asked: list[str] = []
        self.statements: list[str] = []
        self.down = False
        self.found: dict[str, Sequence[Sequence[Any]]] = {
            "reading the clock": [(1,)],
            "reading what is newest": [(1, 1, 1)],
            "reading what is spent": [("spring", 0.5)],
            "reading who may read": [("0123456789ab", "acme", "analyst", "", "", 4_102_444_800_000, False)],
        }

    def rows(self, doing: str, sql: str, parameters: Mapping[str, Any] | None = None) -> Sequence[Sequence[Any]]:
        """As it was told."""
        self.asked.append(doing)
        self.statements.append(sql)
        if self.down:
            raise StoreUnavailable("it does not answer")
        return self.found[doing]

    def close(self) -> None:
        """Nothing is open."""


def served(use: Callable[[Client, Answers], Awaitable[None]]) -> None:
    """A dashboard that anybody may ask `AT_ONCE` times, then four times a minute each."""

    async def run() -> None:
        store = Answers()
        made = server.app(Settings(dashboard_requests_per_minute=4 * AT_ONCE), store)
        async with TestClient(TestServer(made)) as client:
            await use(client, store)

    asyncio.run(run())


async def statuses(client: Client, path: str, **named: Any) -> list[int]:
    return [(await client.get(path, **named)).status for _ in range(AT_ONCE + 1)]


def logged_in(client: Client) -> dict[str, str]:
    assert client.app is not None
    return {"Cookie": f"{SESSION}={client.app[site.SITE].sessions.begin('0123456789ab')}"}


@pytest.mark.parametrize("path", ["/about", "/api"])
def test_pages_for_everybody_are_counted_by_address_or_by_reader(path: str) -> None:
    async def use(client: Client, _: Answers) -> None:
        assert await statuses(client, path) == [200] * AT_ONCE + [429]
        assert await statuses(client, path, headers=logged_in(client)) == [200] * AT_ONCE + [429]
        assert int((await client.get(path)).headers["Retry-After"]) >= 1

    served(use)


def test_about_says_whose_budget_it_tells_of_and_asks_once() -> None:
    async def use(client: Client, store: Answers) -> None:
        nobody = await (await client.get("/about")).text()
        assert "in at most 59 of 100 cases" in nobody
        assert "usual privacy budget" in nobody
        for _ in range(2):
            hers = await (await client.get("/about", headers=logged_in(client))).text()
            assert "in at most 70 of 100 cases" in hers
            assert "usual privacy budget" not in hers
        assert store.asked.count("reading what is spent") == 1

    served(use)


def test_the_store_is_asked_once_whoever_wants_to_know_whether_it_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    async def use(client: Client, store: Answers) -> None:
        found = await asyncio.gather(*(client.get("/ready") for _ in range(10 * AT_ONCE)))
        assert {one.status for one in found} == {200}
        assert store.asked == ["reading the clock"]
        store.down = True
        monkeypatch.setattr(site, "EDITION_SECONDS", 0.0)
        await asyncio.sleep(0.3)
        assert (await client.get("/ready")).status == 503
        store.down = False
        assert (await client.get("/ready")).status == 200

    monkeypatch.setattr(site, "EDITION_SECONDS", 0.2)
    served(use)


def test_what_is_remembered_is_bounded_by_what_it_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 30 lines: 20 and 5 are known; with 10 more only those are.

    40 are asked for each time, and nothing is forgotten for them.
    """

    def listed(store: StoreClient, count: int) -> list[int]:
        store.rows("reading the clock", str(count))
        return [0] * (count - 1)

    async def run() -> None:
        store = Answers()
        of = site.Site(Settings(), store)
        for count in (20, 5, 20, 5, 10, 10, 20, 40, 40, 20):
            assert len(await of.published(listed, count)) == count - 1
        assert [sql for sql in store.statements if sql.isdigit()] == ["20", "5", "10", "20", "40", "40"]
        of.close()

    monkeypatch.setattr(site, "KNOWN_LINES", 30)
    asyncio.run(run())


def test_lines_are_figures_mailings_and_links() -> None:
    figure = Reading(10, 5, too_few=False, sent=100)
    links = {f"link{n}": "https://x.example" for n in range(1_000)}
    mailing = Mailing("spring", "", 0, 100, links, 720, 720, 720, 0, {("open", "human"): figure})
    cells = {("click", "link", link, "human"): [(hours, figure) for hours in range(10)] for link in links}
    assert site.lines(mailing) == 1_002
    assert site.lines(Page([mailing] * 3, (1, "spring"))) == 3_007
    assert site.lines(History(mailing, cells, 0.1)) == 11_002
    assert site.lines({"open": [1, 2], "click": [3]}) == 6
    assert site.lines(None) == 1


def test_a_reader_who_has_too_many_sessions_loses_her_own() -> None:
    found = sessions.Sessions()
    other = found.begin("other")
    hers = [found.begin("hers") for _ in range(sessions.MOST + 3)]
    assert found.reader(other) == "other"
    assert [found.reader(cookie) for cookie in hers] == [None] * 3 + ["hers"] * sessions.MOST


def test_a_cursor_that_nobody_made_is_refused_however_deep() -> None:
    for text in ("[" * 1_500, "[" * 100_000, "[]", '[1,"a",2]', "9" * 5_000):
        with pytest.raises(Problem, match="unchanged"):
            api.place(base64.urlsafe_b64encode(text.encode()).decode(), (int, str))


def asked(address: str) -> URL:
    """An address that is sent as it is."""
    return URL(address, encoded=True)


@pytest.mark.parametrize(
    ("query", "kept"),
    [
        ("", ""),
        ("named=%23x", "named=%23x"),
        ("named=100%2541", "named=100%2541"),
        ("cursor=%00&named=a%26b+c", "cursor=%00&named=a%26b+c"),
        ('named="><script>', 'named="><script>'),
        ("%6Canguage=xx&named=%C3%A4", "named=%C3%A4"),
    ],
)
def test_another_language_shows_the_same_question(query: str, kept: str) -> None:
    async def use(client: Client, _: Answers) -> None:
        for path in ("/login", "/no-such-page"):
            page = await (await client.get(asked(f"{path}?{query}"))).text()
            link = f"?{kept}&language=de" if kept else "?language=de"
            assert f'href="{markupsafe.escape(link)}"' in page
        moved = await client.get(asked(f"/login{link}"), allow_redirects=False)
        assert (moved.status, moved.headers["Location"]) == (303, f"/login?{kept}" if kept else "/login")
        assert moved.cookies[LANGUAGE].value == "de"

    served(use)


def test_an_error_is_told_in_the_language_asked_for_and_leads_nowhere_else() -> None:
    async def use(client: Client, _: Answers) -> None:
        for path in ("/no-such-page", "//evil.example/x", "/mailings.csv/x"):
            address = asked(f"{client.make_url('/')}{path[1:]}?language=de")
            page = await client.session.get(address, allow_redirects=False)
            assert (page.status, page.cookies[LANGUAGE].value) == (404, "de")
            text = await page.text()
            assert "Diese Seite gibt es nicht." in text
            assert 'href="?language=en"' in text
        assert "Diese Seite gibt es nicht." in await (await client.get("/no-such-page")).text()  # it is remembered

    served(use)


def test_an_error_says_whose_fault_it_is_and_what_to_do() -> None:
    async def use(client: Client, _: Answers) -> None:
        hers = logged_in(client)
        bad = await client.get("/mailings?cursor=erika", headers=hers)
        assert (bad.status, "Go back to the start" in await bad.text()) == (400, True)
        fault = await client.get("/trends", headers=hers)  # of this the store knows no answer
        assert (fault.status, "not with your request" in await fault.text()) == (500, True)

    served(use)
