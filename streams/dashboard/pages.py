"""The pages: HTML made on the server, the same without a script; the script draws the tables as charts and keeps the
figures fresh."""

from __future__ import annotations

import asyncio
import csv
import gzip
import hashlib
import io
import math
import re
import unicodedata
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cache, wraps
from importlib import resources
from typing import Any, Final
from urllib.parse import quote, unquote_plus, urlsplit

import jinja2
import markupsafe
from aiohttp import web

from aggregates.figures import RHO, right_at_most
from aggregates.reading import Reading
from pseudonymizer.consent import Mode
from streams.dashboard import api, figures, openapi, shapes
from streams.dashboard import officer as proof
from streams.dashboard.readers import Reader, ReaderRole
from streams.dashboard.sessions import SESSION_SECONDS
from streams.dashboard.site import SITE, Problem, Site
from streams.dashboard.words import LANGUAGES, Words
from streams.errors import SchleuseError

SESSION: Final = "schleuse_session"
LANGUAGE: Final = "schleuse_language"
A_PAGE: Final = 25
_CODE: Final = re.compile("`([^`]+)`")
_YEAR: Final = 365 * 86400
READER: Final = web.RequestKey("reader", Reader)
"""Who is logged in, once that was asked."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Shown = Callable[[web.Request, Site, Reader], Awaitable[web.StreamResponse]]


@cache
def _templates() -> jinja2.Environment:
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("streams.dashboard"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["code"] = _code
    made.filters["path"] = lambda text: quote(text, safe="")
    made.globals.update(
        moment=shapes.moment, static=_address, languages=LANGUAGES, Words=Words, plotly_styles=_plotly_styles
    )
    return made


def _code(text: str) -> markupsafe.Markup:
    """What stands between backticks as code. All of it is escaped first: as a str, into which tags can be put."""
    return markupsafe.Markup(_CODE.sub(r"<code>\1</code>", str(markupsafe.escape(text))))  # noqa: S704


# --- files that never change under their address ---

_TYPES: Final = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}


@cache
def _file(name: str) -> tuple[bytes, bytes, str]:
    """A file: as it is, gzipped, and a hash of it. Charts come out of the installed plotly."""
    where = (
        resources.files("plotly") / "package_data"
        if name == "plotly.min.js"
        else resources.files(__package__) / "static"
    )
    body = (where / name).read_bytes()
    return body, gzip.compress(body, 9, mtime=0), hashlib.sha256(body).hexdigest()[:16]


FILES: Final = ("style.css", "page.js", "icon.svg", "plotly.min.js")


def _address(name: str) -> str:
    return f"/static/{_file(name)[2]}/{name}"


@cache
def _plotly_styles() -> list[str]:
    """Under which ids plotly's parts look for style sheets of theirs before they write them."""
    found = re.findall(r'getElementById\("([0-9a-f]{64})"\)', _file("plotly.min.js")[0].decode())
    return sorted(set(found))


async def _static(request: web.Request) -> web.StreamResponse:
    name = request.match_info["name"]
    if name not in FILES or request.match_info["hash"] != _file(name)[2]:
        raise Problem(404, "no-such-page", "there is no such file")
    body, small, _ = _file(name)
    response = web.Response(body=body, content_type=_TYPES[name.rpartition(".")[2]], charset="utf-8")
    if "gzip" in request.headers.get("Accept-Encoding", ""):
        response.body = small
        response.headers["Content-Encoding"] = "gzip"
    response.headers["Cache-Control"] = f"public, max-age={_YEAR}, immutable"
    response.headers["Vary"] = "Accept-Encoding"
    return response


# --- what every page has ---


def _words(request: web.Request) -> Words:
    chosen = request.query.get("language")
    if chosen not in LANGUAGES:
        chosen = request.cookies.get(LANGUAGE)
    if chosen not in LANGUAGES:
        wanted = (
            part.split(";")[0].strip()[:2].lower() for part in request.headers.get("Accept-Language", "").split(",")
        )
        chosen = next((one for one in wanted if one in LANGUAGES), LANGUAGES[0])
    return Words(chosen)


def _query(request: web.Request) -> str:
    """The query as it came, but for a language: what is decoded there would be another question when asked again."""
    parts = request.rel_url.raw_query_string.split("&")
    return "&".join(part for part in parts if part and unquote_plus(part.partition("=")[0]) != "language")


def _render(
    request: web.Request, name: str, reader: Reader | None = None, status: int = 200, **values: Any
) -> web.Response:
    here = request.path if request.path.startswith("/") else "/"
    body = (
        _templates()
        .get_template(f"{name}.html")
        .render(t=_words(request), reader=reader, page=name, here=here, query=_query(request), **values)
    )
    tag = hashlib.sha256(body.encode()).hexdigest()[:24]
    headers = {"ETag": f'"{tag}"', "Cache-Control": "private, no-cache", "Vary": "Cookie, Accept-Language"}
    if status == 200 and tag in request.headers.get("If-None-Match", ""):
        return web.Response(status=304, headers=headers)
    return web.Response(text=body, status=status, content_type="text/html", headers=headers)


async def problem(request: web.Request, error: Problem) -> web.Response:
    """An error as a page; whoever is logged in stays it."""
    words = _words(request)
    says = words.get(f"error.{error.name}", words("error.fault" if error.status >= 500 else "error.other"))
    reader = request.get(READER)
    if reader is None and error.status < 500:  # with those the store need not be asked again
        with suppress(SchleuseError, TimeoutError):
            reader = await asyncio.wait_for(_reader(request), 1.0)  # an error is told soon, or without navigation
    return _remembered(request, _render(request, "problem", reader, error.status, says=says))


def _remembered(request: web.Request, response: web.Response) -> web.Response:
    """An answer with which a browser keeps the language that it asked for, if it did."""
    if (asked := request.query.get("language")) in LANGUAGES:
        response.set_cookie(LANGUAGE, asked, max_age=_YEAR, samesite="Lax", **_cookie(request))
    return response


def _asked_language(request: web.Request) -> web.Response | None:
    """Where a page was asked for in a language: remember it, and show the page. An error's page is shown at once."""
    if request.query.get("language") not in LANGUAGES:
        return None
    query = _query(request)
    to = request.rel_url.raw_path + (f"?{query}" if query else "")
    return _remembered(request, web.Response(status=303, headers={"Location": to}))


def _cookie(request: web.Request) -> dict[str, Any]:
    return {"httponly": True, "secure": request.app[SITE].settings.dashboard_url.startswith("https://"), "path": "/"}


async def _reader(request: web.Request) -> Reader | None:
    site = request.app[SITE]
    named = site.sessions.reader(request.cookies.get(SESSION))
    if named and (reader := await site.ask(site.readers.by_name, named)):
        request[READER] = reader
        return reader
    return None


async def _anybody(request: web.Request) -> Reader | None:
    """Who is logged in, if anybody is, on a page for everybody. Raises Problem when she asked too often."""
    reader = await _reader(request)
    request.app[SITE].admit(reader, request.remote)
    return reader


def _for(sees: Callable[[ReaderRole], bool]) -> Callable[[Shown], Handler]:
    """A page for whoever is logged in, in a role that sees it."""

    def decorate(shown: Shown) -> Handler:
        @wraps(shown)
        async def handle(request: web.Request) -> web.StreamResponse:
            if (moved := _asked_language(request)) is not None:
                return moved
            reader = await _reader(request)
            if reader is None:
                raise web.HTTPSeeOther(f"/login?to={quote(request.path_qs, safe='')}")
            request.app[SITE].admit(reader, request.remote)
            if not sees(reader.role):
                raise Problem(403, "wrong-role", "this key's role does not see this page")
            return await shown(request, request.app[SITE], reader)

        return handle

    return decorate


_figures = _for(lambda role: role.sees_figures)


# --- logging in ---


def _local(path: str | None) -> str:
    """A path of ours to go on to; anything else is the start."""
    return path if path and path.startswith("/") and not path.startswith(("//", "/\\")) and path.isprintable() else "/"


def _netloc(origin: str | None) -> str | None:
    try:
        return urlsplit(origin or "").netloc.lower()
    except ValueError:  # a bracket too few
        return None


def _same_site(request: web.Request) -> None:
    """Raises Problem for a form that another site has sent: the browser says so (Sec-Fetch-Site; or Origin, RFC 6454).

    What is no browser says neither, and has no cookie that could be abused.
    """
    site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
    own = {request.host.lower(), urlsplit(request.app[SITE].url).netloc.lower()}
    foreign = site not in ("same-origin", "none") if site else bool(origin) and _netloc(origin) not in own
    if foreign:
        raise Problem(403, "foreign-form", "this form was not sent from this site")


async def _login(request: web.Request) -> web.StreamResponse:
    if (moved := _asked_language(request)) is not None:
        return moved
    to = _local(request.query.get("to"))
    if request.method != "POST":
        return _render(request, "login", wrong=False, to=to)
    _same_site(request)
    site, form = request.app[SITE], await _form(request)
    to, key = _local(str(form.get("to", ""))), form.get("key", "")
    reader = await site.by_key(key.strip() if isinstance(key, str) else "", request.remote)
    if reader is None:
        return _render(request, "login", status=401, wrong=True, to=to)
    site.admit(reader, request.remote)
    response = web.Response(status=303, headers={"Location": to})
    cookie = site.sessions.begin(reader.reader)
    response.set_cookie(SESSION, cookie, max_age=SESSION_SECONDS, samesite="Lax", **_cookie(request))
    return response


async def _form(request: web.Request) -> Mapping[str, object]:
    """What was sent by a form. Raises Problem for one that cannot be read, which counts as a wrong key."""
    try:
        return await request.post()
    except web.HTTPException:
        raise
    except Exception:  # no boundary, no such charset, not in it: the parser has no one word for them
        request.app[SITE].wrong_key(request.remote)
        raise Problem(400, "bad-form", "this form cannot be read") from None


async def _logout(request: web.Request) -> web.StreamResponse:
    _same_site(request)
    request.app[SITE].sessions.end(request.cookies.get(SESSION))
    response = web.Response(status=303, headers={"Location": "/login"})
    response.del_cookie(SESSION, path="/")
    return response


# --- the pages ---


@_for(lambda _: True)
async def _start(_request: web.Request, _site: Site, reader: Reader) -> web.StreamResponse:
    raise web.HTTPSeeOther("/mailings" if reader.role.sees_figures else "/publishing")


async def _listed(request: web.Request, site: Site, reader: Reader, name: str, named: str = "") -> web.Response:
    """A page with a list of mailings: those whose name or id holds `named`, and where older ones are."""
    text = request.query.get("cursor")
    found = await api.page(site, reader, A_PAGE, text, named)
    return _render(
        request, name, reader, mailings=found.mailings, named=named, first=text is None, older=api.older(found)
    )


@_figures
async def _mailings(request: web.Request, site: Site, reader: Reader) -> web.StreamResponse:
    named = request.query.get("named", "").strip()[:200]
    return await _listed(request, site, reader, "mailings", named if named.isprintable() else "")


@_figures
async def _mailing(request: web.Request, site: Site, reader: Reader) -> web.StreamResponse:
    of = await api.one_mailing(site, reader, request.match_info["mailing"])
    others = await site.published(figures.usual, reader.tenant, of.mailing.mailing, of.mailing.hours)
    return _render(request, "mailing", reader, of=of, mailing=of.mailing, beside=_beside(of, others))


def _beside(
    of: figures.History, others: dict[str, list[figures.Usual]]
) -> dict[str, list[tuple[int, Any, Reading | None]]]:
    """Kind -> hours, how others did, how this one did: at hours at which others have figures."""
    return {
        kind: [(one.hours, one, dict(of.cells.get((kind, "all", "", "human"), ())).get(one.hours)) for one in found]
        for kind, found in others.items()
    }


@_figures
async def _trends(request: web.Request, site: Site, reader: Reader) -> web.StreamResponse:
    found = await site.published(figures.months, reader.tenant)
    devices = sorted({device for month in found for device in month.devices})
    return _render(request, "trends", reader, months=found, devices=devices)


@_for(lambda role: role.sees_publishing)
async def _publishing(request: web.Request, site: Site, reader: Reader) -> web.StreamResponse:
    return await _listed(request, site, reader, "publishing")


# What of the daily counts is shown together, in this order; of keys there is no curve worth looking at.
_COUNTS: Final = (
    ("requests", ("requests",)),
    ("receipts", ("receipts",)),
    ("choices", ("grants", "withdrawals")),
    ("modes", ("recipients",)),
    ("keys", ("keys",)),
)


_MODES: Final = {mode.word: int(mode) for mode in Mode}


@_for(lambda role: role.sees_proof)
async def _officer(request: web.Request, site: Site, reader: Reader) -> web.StreamResponse:
    found = await site.ask(proof.officer, site.store, reader.tenant)
    ranked = sorted(found.series, key=lambda one: _MODES.get(one.value, 0))
    sections = [(name, [one for one in ranked if one.what in whats]) for name, whats in _COUNTS]
    days = sorted({day for one in found.series for day, _ in one.days})
    return _render(
        request,
        "officer",
        reader,
        sections=sections,
        days=days,
        reports=found.reports,
        results=shapes.results,
        spent=found.spent,
    )


@_for(lambda role: role.sees_proof)
async def _officer_csv(_request: web.Request, site: Site, reader: Reader) -> web.StreamResponse:
    found = await site.ask(proof.officer, site.store, reader.tenant)
    lines = ((day.isoformat(), one.what, one.value, count) for one in found.series for day, count in one.days)
    return _csv("officer", ["day", "what", "value", "count"], lines)


async def _about(request: web.Request) -> web.StreamResponse:
    if (moved := _asked_language(request)) is not None:
        return moved
    site, reader = request.app[SITE], await _anybody(request)
    spent = await site.published(proof.spent, reader.tenant) if reader else {}
    rho = max(spent.values(), default=RHO)
    bound = str(math.ceil(100 * right_at_most(rho) - 1e-6))
    return _render(request, "about", reader, bound=bound, usual=not spent)


async def _api(request: web.Request) -> web.StreamResponse:
    if (moved := _asked_language(request)) is not None:
        return moved
    return _render(
        request,
        "api",
        await _anybody(request),
        description=openapi.description(),
        endpoints=api.ENDPOINTS,
        roles=openapi.roles,
        root=api.ROOT,
        url=request.app[SITE].url,
        per_minute=request.app[SITE].settings.dashboard_requests_per_minute,
    )


# --- the same as CSV ---


def _csv(name: str, header: Sequence[str], lines: Iterable[Sequence[Any]]) -> web.Response:
    """A CSV file. No cell is one that a spreadsheet would carry out: senders name mailings and links."""
    written = io.StringIO()
    writer = csv.writer(written)
    writer.writerow(header)
    writer.writerows([_harmless(value) for value in line] for line in lines)
    headers = {"Content-Disposition": f'attachment; filename="{name}.csv"', "Cache-Control": "private, no-cache"}
    return web.Response(text=written.getvalue(), content_type="text/csv", charset="utf-8", headers=headers)


def _harmless(value: Any) -> Any:
    """A full-width = and others of its kind count too: some spreadsheets take them for it."""
    if not isinstance(value, str):
        return value
    first = unicodedata.normalize("NFKC", value[:1])
    return f"'{value}" if first in ("=", "+", "-", "@", "\t", "\r") else value


_FIGURE: Final = ("recipients", "margin", "at_most", "share", "share_margin", "too_few")


def _cells(reading: Reading | None) -> tuple[Any, ...]:
    if reading is None:
        return ("",) * len(_FIGURE)
    shares = ("" if one is None else f"{one:.6f}" for one in (reading.share, reading.share_margin))
    few = "yes" if reading.too_few else "no"
    return "" if reading.too_few else reading.recipients, reading.margin, reading.at_most, *shares, few


@_figures
async def _mailings_csv(request: web.Request, site: Site, reader: Reader) -> web.StreamResponse:
    found, after = [], None
    while True:
        page = await site.published(figures.mailings, reader.tenant, 1_000, after)
        found += page.mailings
        if (after := page.after) is None:
            break
    kinds = [(kind, actor) for actor in figures.ACTORS for kind in figures.KINDS]
    header = [f"{kind}_{actor}_{name}" for kind, actor in kinds for name in _FIGURE]
    return _csv(
        "mailings",
        ["mailing", "name", "sent_at", "sent", "hours", *header],
        (
            (
                one.mailing,
                one.name,
                shapes.moment(one.sent_ms).isoformat(),
                one.recipients or "",
                one.hours or "",
                *(cell for kind in kinds for cell in _cells(one.totals.get(kind))),
            )
            for one in found
        ),
    )


@_figures
async def _mailing_csv(request: web.Request, site: Site, reader: Reader) -> web.StreamResponse:
    of = await api.one_mailing(site, reader, request.match_info["mailing"])
    return _csv(
        "mailing",
        ["mailing", "hours", "kind", "dimension", "value", "actor", "sent", *_FIGURE],
        (
            (of.mailing.mailing, hours, kind, dimension, value, actor, reading.sent or "", *_cells(reading))
            for (kind, dimension, value, actor), history in of.cells.items()
            for hours, reading in history
        ),
    )


@_figures
async def _trends_csv(request: web.Request, site: Site, reader: Reader) -> web.StreamResponse:
    found = await site.published(figures.months, reader.tenant)
    return _csv(
        "trends",
        ["month", "mailings", "unfinished", "kind", "device", "sent", *_FIGURE],
        (
            (month.month.isoformat(), month.mailings, month.unfinished, kind, device, reading.sent, *_cells(reading))
            for month in found
            for kind, device, reading in (
                *((kind, "", reading) for kind, reading in month.totals.items()),
                *(("open", device, reading) for device, reading in month.devices.items()),
            )
        ),
    )


def routes() -> list[web.RouteDef]:
    """The pages' routes."""
    return [
        web.get("/", _start),
        web.get("/login", _login),
        web.post("/login", _login),
        web.post("/logout", _logout),
        web.get("/mailings", _mailings),
        web.get("/mailings.csv", _mailings_csv),
        web.get("/mailings/{mailing:[^/]+}", _mailing),
        web.get("/mailings/{mailing:[^/]+}/figures.csv", _mailing_csv),
        web.get("/trends", _trends),
        web.get("/trends.csv", _trends_csv),
        web.get("/publishing", _publishing),
        web.get("/officer", _officer),
        web.get("/officer.csv", _officer_csv),
        web.get("/about", _about),
        web.get("/api", _api),
        web.get("/static/{hash}/{name}", _static),
    ]
