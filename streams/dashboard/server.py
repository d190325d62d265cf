"""`schleuse dashboard`: one process that shows what is published. It logs in as `dashboard` and reads five tables."""

from __future__ import annotations

import asyncio
import errno
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
        response = await _told(request, problem)
    except web.HTTPMethodNotAllowed as error:
        allowed = ", ".join(sorted(error.allowed_methods))
        response = await _told(request, Problem(405, "no-such-method", f"this takes {allowed}"))
        response.headers["Allow"] = allowed
    except web.HTTPException as error:
        name, detail = _HTTP.get(error.status, ("bad-request", "this is not a request that makes sense here"))
        response = await _told(request, Problem(error.status, name, detail))
    except StoreUnavailable as error:
        log.warning("waiting", reason=str(error))
        response = await _told(request, Problem(503, "no-store", "the figures cannot be read for now: try again", 5.0))
    except SchleuseError as error:
        log.error("a question was refused", reason=str(error))  # noqa: TRY400  a sentence, and no traceback
        response = await _told(
            request, Problem(503, "no-store", "the figures cannot be read: the operator's log says why", 60.0)
        )
    except Exception as error:
        log.exception("a fault of its own", error=type(error).__name__)
        response = await _told(
            request, Problem(500, "fault", "something unexpected happened: the operator's log says what")
        )
    response.headers.update(_headers(request.app[SITE].settings))
    response.headers.setdefault("Cache-Control", "no-store")
    return response


async def _told(request: web.Request, problem: Problem) -> web.Response:
    response = _json(problem) if request.path.startswith("/api/") else await pages.problem(request, problem)
    if problem.wait_seconds:
        response.headers["Retry-After"] = str(max(1, round(problem.wait_seconds + 0.5)))
    if problem.status == 401:
        response.headers["WWW-Authenticate"] = 'Bearer realm="schleuse"'
    return response


def _json(problem: Problem) -> web.Response:
    body = shapes.Problem(f"/api#{problem.name}", problem.name.replace("-", " "), problem.status, problem.detail)
    return web.Response(body=msgspec.json.encode(body), status=problem.status, content_type="application/problem+json")


class _Connection(web.RequestHandler):
    """A connection that answers what never becomes a request in our words: aiohttp's own quote what was sent."""

    def __init__(self, server: web.Server, settings: Settings) -> None:
        super().__init__(server, loop=asyncio.get_running_loop(), access_log=None)  # type: ignore[arg-type]  # no log
        self.always = {**_headers(settings), "Cache-Control": "no-store"}

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """What the parser refused, or what went wrong outside of the application."""
        if status < 500:
            return self._say(Problem(status, "bad-request", "this is not an HTTP request that can be read"))
        log.error("a fault of its own", error=type(exc).__name__)
        if request.writer.output_size > 0:
            raise ConnectionError("a part of an answer is sent already")
        return self._say(Problem(status, "fault", "something unexpected happened: the operator's log says what"))

    def log_exception(self, *_args: object, exc_info: object = None, **_named: object) -> None:
        """The kind of an exception, never its text: what breaks a connection off was mostly sent to it."""
        log.warning("a connection broke off", error=type(exc_info).__name__)

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """As aiohttp's, but for what it refuses before the application is asked: an `Expect` that nobody knows."""
        if isinstance(resp, web.HTTPExpectationFailed):
            resp = self._say(Problem(417, "bad-request", "expect: this takes 100-continue"))
        return await super().finish_response(request, resp, start_time)

    def _say(self, problem: Problem) -> web.Response:
        response = _json(problem)
        response.headers.update(self.always)
        response.force_close()
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
    made = app(settings, store)
    runner = web.AppRunner(made, shutdown_timeout=5.0)
    await runner.setup()
    try:
        listening = await _listen(runner, settings)
        host, port = listening.sockets[0].getsockname()[:2]
        made[SITE].listens_at(host, port)
        log.info("dashboard runs", address=f"http://{host}:{port}")
        await stopping.wait()
        listening.close()
    finally:
        await runner.cleanup()
    log.info("dashboard stopped")
    return 0


async def _listen(runner: web.AppRunner, settings: Settings) -> asyncio.Server:
    """Listen, with connections of ours. Raises SettingsError."""
    host, port = settings.dashboard_host, settings.dashboard_port
    server = runner.server
    assert server is not None
    try:
        return await asyncio.get_running_loop().create_server(lambda: _Connection(server, settings), host, port)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            says = f"dashboard_port: {port} at {host} is in use: set another dashboard_port, or end what listens there"
        elif error.errno == errno.EACCES:
            says = f"dashboard_port: {port} may not be listened at by this user: set one from 1024 on"
        else:
            says = f"dashboard_host: {host} cannot be listened at: it has to be an address of this machine"
        raise SettingsError(says) from None
