"""The API: published figures as JSON, one tenant a key.

`ENDPOINTS` is the table from which routes and their description (openapi.py) are made. What an endpoint does not name
is refused, so that no parameter is silently ignored; a mailing of another tenant is as unknown as one that nobody has.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from aiohttp import web

from streams.dashboard import figures, shapes
from streams.dashboard import officer as proof
from streams.dashboard.readers import Reader, ReaderRole
from streams.dashboard.site import SITE, Problem, Site

ROOT: Final = "/api/v1"
_ENCODE: Final = msgspec.json.Encoder().encode
_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Parameter:
    """What may stand in a query or a path. `least` and `most` are of numbers; texts are at most 512 characters."""

    name: str
    means: str
    kind: type = str
    default: Any = None
    least: int = 0
    most: int = 0
    in_path: bool = False


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One line of the table. `sees`: which roles may ask it."""

    path: str
    means: str
    answer: Callable[[Site, Reader, Mapping[str, Any]], Awaitable[Any]]
    shape: Any
    sees: Callable[[ReaderRole], bool]
    parameters: tuple[Parameter, ...] = ()


# --- cursors ---


def cursor(place: Sequence[Any]) -> str:
    """A place in an order, as a text that is nobody's business but ours."""
    return base64.urlsafe_b64encode(_ENCODE(place)).decode().rstrip("=")


def place(text: str | None, kinds: tuple[type, ...]) -> tuple[Any, ...] | None:
    """The place that a cursor names; None without one. Raises Problem for one that we have not made."""
    if text is None:
        return None
    try:
        found = msgspec.json.decode(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except (binascii.Error, msgspec.DecodeError, UnicodeDecodeError, ValueError, RecursionError):
        found = None
    if (
        not isinstance(found, list)
        or [type(one) for one in found] != list(kinds)
        or any(isinstance(one, int) and not 0 <= one < 2**62 for one in found)
        or (kinds == _ROW and found[2] > 255)
    ):
        raise Problem(400, "bad-parameter", "cursor: take it from `next` of an earlier answer, unchanged")
    return tuple(found)


_MAILING: Final = (int, str)
_ROW: Final = (int, str, int, str, str, str, str)

# --- answers ---


async def _me(_site: Site, reader: Reader, _given: Mapping[str, Any]) -> shapes.Me:
    return shapes.Me(reader.reader, reader.tenant, str(reader.role), shapes.moment(reader.until_ms))


async def page(site: Site, reader: Reader, limit: int, text: str | None, named: str) -> figures.Page:
    """The mailings that come after a cursor. Raises Problem for a bad one."""
    after = place(text, _MAILING)
    return await site.published(figures.mailings, reader.tenant, limit, (after[0], after[1]) if after else None, named)


def older(found: figures.Page) -> str | None:
    """The cursor of the mailings that come after these; None where there are none."""
    return cursor(found.after) if found.after else None


def listed(found: figures.Page) -> shapes.Mailings:
    """Some mailings as they are answered."""
    return shapes.Mailings([shapes.mailing(one) for one in found.mailings], older(found))


async def _mailings(site: Site, reader: Reader, given: Mapping[str, Any]) -> shapes.Mailings:
    return listed(await page(site, reader, given["limit"], given["cursor"], given["named"] or ""))


async def _mailing(site: Site, reader: Reader, given: Mapping[str, Any]) -> shapes.OneMailing:
    return shapes.one_mailing(await one_mailing(site, reader, given["mailing"]))


async def one_mailing(site: Site, reader: Reader, mailing: str) -> figures.History:
    """Everything published of a mailing. Raises Problem where the reader's tenant has none of that name."""
    found = await site.published(figures.history, reader.tenant, mailing)
    if found is None:
        raise Problem(
            404, "no-such-mailing", "mailing: there is none of this id; the list of mailings has those there are"
        )
    return found


async def _rows(site: Site, reader: Reader, given: Mapping[str, Any]) -> shapes.Rows:
    limit, after = given["limit"], place(given["cursor"], _ROW)
    found = await site.ask(lambda: list(figures.rows(site.store, reader.tenant, limit + 1, after)))
    shown = found[:limit]
    return shapes.Rows(
        [shapes.row(one) for one in shown],
        cursor(figures.place(shown[-1])) if shown else given["cursor"],
        len(found) > limit,
    )


async def _trends(site: Site, reader: Reader, _given: Mapping[str, Any]) -> shapes.Trends:
    return shapes.Trends([shapes.month(one) for one in await site.published(figures.months, reader.tenant)])


async def _officer(site: Site, reader: Reader, _given: Mapping[str, Any]) -> shapes.Officer:
    return shapes.officer(await site.ask(proof.officer, site.store, reader.tenant))


def _sees_figures(role: ReaderRole) -> bool:
    return role.sees_figures


_CURSOR: Final = Parameter("cursor", "`next` of the answer before")
ENDPOINTS: Final = (
    Endpoint("/me", "Whom the key belongs to.", _me, shapes.Me, lambda _: True),
    Endpoint(
        "/mailings",
        "Mailings with their newest figures, the newest first.",
        _mailings,
        shapes.Mailings,
        _sees_figures,
        (
            _CURSOR,
            Parameter("limit", "at most so many", int, 50, 1, 200),
            Parameter("named", "only those whose name or id holds this"),
        ),
    ),
    Endpoint(
        "/mailings/{mailing}",
        "One mailing: links, devices, hour by hour.",
        _mailing,
        shapes.OneMailing,
        _sees_figures,
        (Parameter("mailing", "its id", in_path=True),),
    ),
    Endpoint(
        "/figures",
        "Every published row, in the order of publication: to be kept up with.",
        _rows,
        shapes.Rows,
        _sees_figures,
        (_CURSOR, Parameter("limit", "at most so many", int, 1_000, 1, 10_000)),
    ),
    Endpoint("/trends", "Month by month.", _trends, shapes.Trends, _sees_figures),
    Endpoint("/officer", "Counts by day, reports, budgets.", _officer, shapes.Officer, lambda role: role.sees_proof),
)


# --- from a request to an answer ---


def given(endpoint: Endpoint, request: web.Request) -> dict[str, Any]:
    """The parameters of a request. Raises Problem for one that is unknown, given twice, or out of its limits."""
    known = {one.name for one in endpoint.parameters if not one.in_path}
    if set(request.query) - known:
        named = f"it takes {', '.join(sorted(known))}" if known else "it takes none"
        raise Problem(400, "unknown-parameter", f"there is a parameter that this endpoint does not have: {named}")
    found: dict[str, Any] = {}
    for one in endpoint.parameters:
        texts = [request.match_info[one.name]] if one.in_path else request.query.getall(one.name, [])
        if len(texts) > 1:
            raise Problem(400, "bad-parameter", f"{one.name}: given more than once")
        found[one.name] = _checked(one, texts[0]) if texts else one.default
    return found


def _checked(one: Parameter, text: str) -> Any:
    if one.kind is int:
        if not (text.isascii() and text.isdigit() and len(text) < 10 and one.least <= int(text) <= one.most):
            raise Problem(400, "bad-parameter", f"{one.name}: a whole number from {one.least} to {one.most}")
        return int(text)
    if not text or len(text) > 512 or _CONTROL.search(text):
        raise Problem(400, "bad-parameter", f"{one.name}: a text of 1 to 512 characters, no control characters")
    return text


def handler(endpoint: Endpoint) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """The handler of a line of the table."""

    async def handle(request: web.Request) -> web.StreamResponse:
        site = request.app[SITE]
        reader = await _reader(site, request)
        if not endpoint.sees(reader.role):
            raise Problem(403, "wrong-role", "this key's role does not see this")
        answer = await endpoint.answer(site, reader, given(endpoint, request))
        return web.Response(body=_ENCODE(answer), content_type="application/json")

    return handle


async def _reader(site: Site, request: web.Request) -> Reader:
    scheme, _, key = request.headers.get("Authorization", "").partition(" ")
    reader = await site.by_key(key.strip(), request.remote) if scheme.lower() == "bearer" else None
    if reader is None:
        raise Problem(401, "no-key", "send a key that is in force: Authorization: Bearer schleuse_…")
    site.admit(reader, request.remote)
    return reader


def routes() -> list[web.RouteDef]:
    """The API's routes."""
    return [web.get(ROOT + endpoint.path.replace("}", ":[^/]+}"), handler(endpoint)) for endpoint in ENDPOINTS]
