"""The dashboard in a real Chromium: by keyboard, on a phone, in the dark, in two languages, and axe finds nothing."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect, sync_playwright

from streams.dashboard.site import EDITION_SECONDS
from streams.stores import Role, Store, connect
from tests.dashboard.served import Dashboard, served

pytestmark = [pytest.mark.browser, pytest.mark.stack]
CHROMIUM = shutil.which(os.environ.get("CHROMIUM", "chromium"))
FLAGS = ["--disable-quic", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
PAGES = ("/mailings", "/mailings/spring", "/trends", "/officer", "/about", "/api", "/no-such-page")
LATER = (
    "INSERT INTO published (tenant, mailing, step, hours, kind, dimension, value, actor, recipients, margin, too_few, "
    "sent, measured, sigma, rho, batch, deadline) SELECT tenant, mailing, 39, 720, kind, dimension, value, actor, "
    "{recipients:UInt32}, {margin:UInt32}, false, {sent:UInt32}, 0, 0, rho, batch, now64(3) + 60 FROM published "
    "WHERE tenant = 'acme' AND mailing = {mailing:String} AND kind = 'open' AND dimension = 'all' AND actor = 'human' "
    "LIMIT 1"
)
WIDE = {"recipients": 31_730, "margin": 60, "sent": 100_000}
SIDEWAYS = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dashboard]:
    with served(tmp_path_factory.mktemp("browser")) as running:
        running.lock.run("rights", "--once")
        client = connect(running.lock.settings, Store.ANALYTICS, Role.PUBLISHER)
        client.do("a test publishing a share with two decimals", LATER, {"mailing": "spring", **WIDE})
        client.close()
        yield running


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    assert CHROMIUM, "no Chromium on the PATH: CHROMIUM names another"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS, chromium_sandbox=os.getuid() != 0)
        yield browser
        browser.close()


@contextmanager
def reading(site: Dashboard, chromium: Browser, **options: Any) -> Iterator[tuple[Page, list[str]]]:
    """A page that an officer is logged in at, and what went wrong on it: errors of the console, requests to others."""
    context = chromium.new_context(**options)
    page, wrong = context.new_page(), []
    page.on("console", lambda said: wrong.append(said.text) if said.type in ("error", "warning", "trace") else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda one: wrong.append(one.url) if not one.url.startswith((site.address, "data:")) else None)
    try:
        page.goto(site.address)
        page.fill("#key", site.key("acme", "privacy"))
        page.press("#key", "Enter")
        page.wait_for_url("**/mailings")
        yield page, wrong
    finally:
        context.close()


LOOKS: dict[str, dict[str, Any]] = {
    "light": {"viewport": {"width": 1280, "height": 900}},
    "dark, German": {"color_scheme": "dark", "locale": "de-DE"},
    "phone": {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True},
    "small phone": {"viewport": {"width": 320, "height": 640}, "is_mobile": True},
    "phone, dark": {"viewport": {"width": 360, "height": 740}, "is_mobile": True, "color_scheme": "dark"},
}


@pytest.mark.parametrize("look", LOOKS)
def test_nobody_is_kept_out_and_nothing_is_refused(site: Dashboard, chromium: Browser, look: str) -> None:
    """axe finds nothing, the policy refuses nothing, nobody else is asked for anything, no phone scrolls sideways."""
    with reading(site, chromium, **LOOKS[look]) as (page, wrong):
        for path in PAGES:
            page.goto(site.address + path)
            page.wait_for_load_state("networkidle")
            found = Axe().run(page).response["violations"]
            assert [(one["id"], [node["html"][:200] for node in one["nodes"]]) for one in found] == [], path
            page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
            assert page.evaluate(SIDEWAYS) <= 0, path
            if look == "dark, German":
                assert page.get_attribute("html", "lang") == "de"
        assert [text for text in wrong if "404" not in text] == []
    context = chromium.new_context(**LOOKS[look])
    page = context.new_page()
    page.goto(f"{site.address}/login")
    assert Axe().run(page).response["violations"] == []
    context.close()


@pytest.mark.parametrize("look", ["small phone", "phone, dark"])
def test_a_phone_shows_the_main_figure_in_one_line_and_the_words_of_every_bar(
    site: Dashboard, chromium: Browser, look: str
) -> None:
    for locale in ("en-US", "de-DE"):
        with reading(site, chromium, **LOOKS[look], locale=locale) as (page, _):
            page.goto(f"{site.address}/mailings/spring")
            expect(page.locator(".plot .main-svg").first).to_be_visible()
            tile = page.locator(".tiles .big").first
            expect(tile).to_have_text("31.73\xa0%\xa0±\xa00.06" if locale == "en-US" else "31,73\xa0%\xa0±\xa00,06")
            wide, lines = tile.evaluate("""tile => {
                const range = document.createRange();
                range.selectNodeContents(tile.querySelector('strong'));
                return [range.getBoundingClientRect().right - tile.getBoundingClientRect().right,
                    range.getClientRects().length];
            }""")
            assert (wide <= 0, lines) == (True, 1)
            ink = page.evaluate("getComputedStyle(document.body).color")
            said = page.locator("figure[data-chart=bars] .textpoint text").evaluate_all(
                """texts => texts.map((text) => [text.textContent, getComputedStyle(text).fill,
                text.getBoundingClientRect().right < text.closest('svg').getBoundingClientRect().right])"""
            )
            few = "too few to say,at most" if locale == "en-US" else "zu wenige für eine Aussage,höchstens"
            assert [(text.startswith(few), fill, fits) for text, fill, fits in said] == [(True, ink, True)] * 3


def test_charts_are_drawn_from_the_tables_behind_them(site: Dashboard, chromium: Browser) -> None:
    with reading(site, chromium) as (page, _):
        page.goto(f"{site.address}/mailings/spring")
        expect(page.locator(".plot .main-svg").first).to_be_visible()
        drawn = page.evaluate("""[...document.querySelectorAll('figure[data-chart]')].map((figure) => {
            const traces = figure.querySelector('.plot').data.filter((one) => one.name && one.hoverinfo !== 'skip');
            return [figure.dataset.chart, traces.map((one) => [one.name, one.type === 'bar' ? one.x : one.y])];
        })""")
        assert [kind for kind, _ in drawn] == ["lines", "bars", "beside", "beside"]
        for figure, (_, traces) in zip(page.locator("figure[data-chart]").all(), drawn, strict=True):
            cells = figure.locator("td[data-y]").evaluate_all("cells => cells.map((cell) => Number(cell.dataset.y))")
            assert sorted(cells) == sorted(value for _, values in traces for value in values if value is not None)
        figure = page.locator("figure[data-chart=lines]")
        figure.locator("summary").press("Enter")
        expect(figure.locator("table")).to_be_visible()


def test_by_keyboard_alone(site: Dashboard, chromium: Browser) -> None:
    with reading(site, chromium) as (page, _):
        page.goto(f"{site.address}/mailings")
        page.keyboard.press("Tab")
        expect(page.locator(".skip")).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.locator("#main")).to_be_focused()
        for _ in range(8):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.getAttribute('href')") == "/mailings/spring":
                break
        page.keyboard.press("Enter")
        page.wait_for_url("**/mailings/spring")
        expect(page.locator("h1")).to_have_text("spring")


def test_a_csv_comes_by_its_button(site: Dashboard, chromium: Browser) -> None:
    with reading(site, chromium, accept_downloads=True) as (page, _):
        with page.expect_download() as download:
            page.click("a.button[download]")
        assert download.value.path().read_text().startswith("mailing,name,sent_at,sent,hours,open_human_recipients")


def test_fresh_figures_arrive_without_reloading(site: Dashboard, chromium: Browser) -> None:
    with reading(site, chromium) as (page, wrong):
        page.clock.install()
        page.goto(f"{site.address}/mailings/summer")
        page.locator("#hourly-table summary").click()
        page.evaluate("window.unchanged = true")
        page.clock.run_for(16_000)
        client = connect(site.lock.settings, Store.ANALYTICS, Role.PUBLISHER)
        later = {"mailing": "summer", "recipients": 777, "margin": 7, "sent": 1_000}
        client.do("a test publishing a later step", LATER, later)
        client.close()
        time.sleep(2 * EDITION_SECONDS)  # for so long the dashboard may answer what it knows
        page.clock.run_for(16_000)
        expect(page.locator(".tiles .big").first).to_have_text("77.7\xa0%\xa0±\xa00.7")
        assert page.evaluate("window.unchanged")  # the page was not loaded anew
        expect(page.locator("#hourly-table")).to_have_attribute("open", "")
        expect(page.locator("#news")).not_to_be_empty()
        assert wrong == []
