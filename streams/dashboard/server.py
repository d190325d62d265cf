"""`schleuse dashboard`: one process that shows what is published. It logs in as `dashboard` and reads five tables."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

import msgspec
import structlog
from aiohttp import web

from streams.dashboard import api, openapi, pages, shapes
from streams.dashboard.site import SITE, Problem, Site
from streams.errors import SchleuseError, SettingsError, StoreUnavailable
from streams.stores import Role, Store, StoreClient, connect

if TYPE_CHECKING:
    from streams.settings import Settings

log = structlog.get_logger("schleuse.dashboard")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

HEADERS: Final = {
    "Server": "schleuse",
    # Nothing but what this process serves: no inline script or style, no other host, in no frame.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), browsing-topics=()",
}
_HTTP: Final = {
    404: ("no-such-page", "there is no such page"),
    405: ("no-such-method", "this is read with GET"),
    413: ("too-large", "the request is too large"),
}
READY_SECONDS: Final = 4.0
"""For so long `/ready` waits for the store: a probe has to be told while it still listens."""


def _headers(settings: Settings) -> dict[str, str]:
    if not settings.dashboard_url.startswith("https://"):
        return HEADERS
    return {**HEADERS, "Strict-Transport-Security": "max-age=31536000"}


@web.middleware
async def _guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Errors become answers, and every answer gets its headers."""
    try:
        response = await handler(request)
    except web.HTTPRedirection as moved:
        response = moved
    except Problem as problem:
        response = _told(request, problem)
    except web.HTTPException as error:
        name, detail = _HTTP.get(error.status, ("bad-request", "this is not a request that makes sense here"))
        response = _told(request, Problem(error.status, name, detail))
    except StoreUnavailable as error:
        log.warning("waiting", reason=str(error))
        response = _told(request, Problem(503, "no-store", "the figures cannot be read for now: try again", 5.0))
    except SchleuseError as error:
        log.error("a question was refused", reason=str(error))  # noqa: TRY400  a sentence, and no traceback
        response = _told(
            request, Problem(503, "no-store", "the figures cannot be read: the operator's log says why", 60.0)
        )
    except Exception as error:
        log.exception("a fault of its own", error=type(error).__name__)
        response = _told(request, Problem(500, "fault", "something unexpected happened: the operator's log says what"))
    response.headers.update(HEADERS)
    response.headers.setdefault("Cache-Control", "no-store")
    if request.app[SITE].settings.dashboard_url.startswith("https://"):
        response.headers["Strict-Transport-Security"] = "max-age=31536000"
    return response


def _told(request: web.Request, problem: Problem) -> web.Response:
    if not request.path.startswith("/api/"):
        response = pages.problem(request, problem)
    else:
        body = shapes.Problem(f"/api#{problem.name}", problem.name.replace("-", " "), problem.status, problem.detail)
        response = web.Response(
            body=msgspec.json.encode(body), status=problem.status, content_type="application/problem+json"
        )
    if problem.wait_seconds:
        response.headers["Retry-After"] = str(max(1, round(problem.wait_seconds + 0.5)))
    if problem.status == 401:
        response.headers["WWW-Authenticate"] = 'Bearer realm="schleuse"'
    return response


async def _health(_request: web.Request) -> web.Response:
    return web.Response(text="ok\n")


async def _ready(request: web.Request) -> web.Response:
    if await request.app[SITE].answers(READY_SECONDS):
        return web.Response(text="ok\n")
    return web.Response(text="the store does not answer\n", status=503, headers={"Retry-After": "5"})


async def _openapi(_request: web.Request) -> web.Response:
    return web.json_response(openapi.description())


def app(settings: Settings, store: StoreClient) -> web.Application:
    """The application. `store`: the analytics store under the login `dashboard`; it is closed with the application."""
    made = web.Application(middlewares=[_guarded], client_max_size=16_384)
    made[SITE] = Site(settings, store)
    made.add_routes(
        [
            web.get("/health", _health),
            web.get("/ready", _ready),
            web.get(f"{api.ROOT}/openapi.json", _openapi),
            *api.routes(),
            *pages.routes(),
        ]
    )

    async def close(application: web.Application) -> None:
        application[SITE].close()

    made.on_cleanup.append(close)
    return made


def run(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT; the exit code. Raises SchleuseError before it began."""
    store = connect(settings, Store.ANALYTICS, Role.DASHBOARD)
    store.rows("looking at readers", "SELECT count() FROM readers")
    return asyncio.run(_serve(settings, store))


async def _serve(settings: Settings, store: StoreClient) -> int:
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    runner = web.AppRunner(app(settings, store), access_log=None, shutdown_timeout=5.0)
    await runner.setup()
    try:
        where = web.TCPSite(runner, settings.dashboard_host, settings.dashboard_port)
        try:
            await where.start()
        except OSError:
            raise SettingsError(
                f"dashboard_port: {settings.dashboard_port} at {settings.dashboard_host} cannot be listened at"
            ) from None
        host, port = runner.addresses[0][:2]
        log.info("dashboard runs", address=f"http://{host}:{port}")
        await stopping.wait()
    finally:
        await runner.cleanup()
    log.info("dashboard stopped")
    return 0
