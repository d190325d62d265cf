"""ClickHouse's HTTP protocol on loopback, with ClickHouse itself (chDB) behind it: one process a store.

    python -m deploy.embedded.clickhouse_http --path DIR --port PORT --users FILE

For one machine: it listens on 127.0.0.1 only, keeps no sessions (temporary tables, SET and USE are refused, not
forgotten) and holds each answer in memory. Everything else is as a ClickHouse server does it, so a caller cannot
tell: logins and grants, settings and typed parameters in the URL, formats, compression, error codes. A long query takes
one of the threads and holds up neither /ping nor the others.

The log has ClickHouse's error code and name and the login's role; never a statement, a value or an exception's text.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import binascii
import gzip
import logging
import signal
import sys
import uuid
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import lz4.frame
from aiohttp import web

from deploy.embedded import logins
from deploy.embedded.engine import Answer, Engine, EngineError, Request
from deploy.embedded.statements import Refused

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

log = logging.getLogger("schleuse.embedded")

LARGEST_BODY: Final = 1 << 28  # bytes; an insert of 50,000 rows takes about 5 MB
DRAIN_SECONDS: Final = 10.0

# What ClickHouse takes from the URL for itself; every other name is a setting of the query.
# fmt: off
_TRANSPORT: Final = frozenset((
    "query", "database", "user", "password", "quota_key", "session_id", "session_timeout", "session_check", "query_id",
    "role", "default_format", "compress", "decompress", "wait_end_of_query", "buffer_size", "add_http_cors_header",
    "client_protocol_version", "send_progress_in_http_headers", "http_headers_progress_interval_ms",
    "enable_http_compression", "http_write_exception_in_output_format",
))
# fmt: on
# ClickHouse's exceptionCodeToHTTPStatus, as far as a client can tell the difference; all others are 500.
_STATUS: Final = {
    **dict.fromkeys((192, 193, 497, 512, 516), 403),
    **dict.fromkeys((36, 42, 43, 44, 53, 62, 6, 26, 27, 33, 38, 41, 69, 72), 400),
    **dict.fromkeys((46, 47, 50, 56, 60, 81, 115), 404),
    48: 501,
    159: 408,
    241: 503,
}


def _unlz4(body: bytes) -> bytes:
    """One frame after another: clients compress each block of an insert by itself."""
    out = []
    while body:
        frame = lz4.frame.LZ4FrameDecompressor()
        out.append(frame.decompress(body))
        if not frame.eof:
            raise EOFError
        body = frame.unused_data
    return b"".join(out)


_Codecs = dict[str, Callable[[bytes], bytes]]
_DECODE: _Codecs = {
    "lz4": _unlz4,
    "zstd": zstd.decompress,
    "gzip": gzip.decompress,
    "deflate": zlib.decompress,
}
_ENCODE: _Codecs = {
    "zstd": zstd.compress,
    "lz4": lz4.frame.compress,
    "gzip": gzip.compress,
}


@dataclass(frozen=True, slots=True)
class _Parts:
    """A request's parts as they came, before anything was believed."""

    login: str
    password: str
    arguments: dict[str, str]
    body: bytes
    encoding: str


def _credentials(request: web.Request) -> tuple[str, str]:
    """Login and password: headers, then basic authorization, then the URL (ClickHouse's three ways)."""
    if "X-ClickHouse-User" in request.headers:
        return request.headers["X-ClickHouse-User"], request.headers.get("X-ClickHouse-Key", "")
    kind, _, value = request.headers.get("Authorization", "").partition(" ")
    if kind == "Basic":
        try:
            name, _, password = base64.b64decode(value, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return "", ""
        return name, password
    return request.query.get("user", "default"), request.query.get("password", "")


class Server:
    """The request handler. `threads` is how many requests the engine works on at once; more wait in line."""

    def __init__(self, engine: Engine, known: logins.Logins, threads: int = 8) -> None:
        self._engine, self._known = engine, known
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="query")

    def application(self) -> web.Application:
        """The routes: /ping, and / for everything else, as ClickHouse has them."""
        application = web.Application(client_max_size=LARGEST_BODY)
        application.router.add_get("/ping", self._ping)
        application.router.add_get("/", self._handle)
        application.router.add_post("/", self._handle)
        return application

    async def _ping(self, _: web.Request) -> web.Response:
        return web.Response(text="Ok.\n")

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        arguments = {key: value for key, value in request.query.items() if key not in ("user", "password")}
        headers = {
            "X-ClickHouse-Query-Id": arguments.get("query_id") or str(uuid.uuid4()),
            "X-ClickHouse-Timezone": "UTC",
            "X-ClickHouse-Server-Display-Name": "embedded",
        }
        login, password = _credentials(request)
        role = self._known.role_for(login, password)
        if role is None:
            log.warning("code=516 name=AUTHENTICATION_FAILED")
            return self._error(headers, 516, "AUTHENTICATION_FAILED", "Authentication failed")
        if request.content_type == "multipart/form-data":
            form = await request.post()
            if any(not isinstance(value, str) for value in form.values()):
                return self._error(headers, 48, "NOT_IMPLEMENTED", "External data are not taken here")
            arguments |= {key: str(value) for key, value in form.items()}
            body = b""
        else:
            body = await request.read()
        if request.method == "GET":
            if not arguments.get("query"):
                return web.Response(text="Ok.\n", headers=headers)
            arguments.setdefault("readonly", "2")  # as in ClickHouse: a GET changes nothing
        parts = _Parts(login, "", arguments, body, request.headers.get("Content-Encoding", "identity"))
        default_format = request.headers.get("X-ClickHouse-Format", "TabSeparated")
        database = request.headers.get("X-ClickHouse-Database", "")
        accepted = request.headers.get("Accept-Encoding", "") if arguments.get("enable_http_compression") == "1" else ""
        work = asyncio.get_running_loop().run_in_executor(
            self._pool, self._work, role, parts, database, default_format, accepted
        )
        try:
            answer, encoding = await work
        except (EngineError, Refused) as error:
            log.warning("code=%d name=%s role=%s", error.code, error.name, role)
            text = str(error).replace("DB::Exception: default: ", f"DB::Exception: {login}: ")
            headers["X-ClickHouse-Exception-Code"] = str(error.code)
            return web.Response(status=_STATUS.get(error.code, 500), headers=headers, text=text + "\n")
        headers["X-ClickHouse-Summary"] = answer.summary
        if encoding:
            headers["Content-Encoding"] = encoding
        return web.Response(body=answer.body, headers=headers, content_type="application/octet-stream")

    def _work(self, role: str, parts: _Parts, database: str, default_format: str, accepted: str) -> tuple[Answer, str]:
        """In a thread: unpack, run, pack. An insert whose body was cut or spoilt is refused before any of it is run."""
        arguments = parts.arguments
        if arguments.get("decompress") == "1" or arguments.get("compress") == "1":
            raise Refused(48, "NOT_IMPLEMENTED", "use HTTP compression (Content-Encoding)")
        body = parts.body
        if parts.encoding not in ("", "identity"):
            if parts.encoding not in _DECODE:
                raise Refused(89, "UNKNOWN_COMPRESSION_METHOD", "Content-Encoding is lz4, zstd, gzip or deflate here")
            try:
                body = _DECODE[parts.encoding](body)
            except Exception:  # each codec has errors of its own, and their texts may quote the body
                raise Refused(271, "CANNOT_DECOMPRESS", "the body is not what Content-Encoding says") from None
        answer = self._engine.run(
            Request(
                role=role,
                query=arguments.get("query", "").encode(),
                body=body,
                database=arguments.get("database", database).replace("`", "").removeprefix("__default__"),
                format=arguments.get("default_format", default_format),
                settings={k: v for k, v in arguments.items() if k not in _TRANSPORT and not k.startswith("param_")},
                parameters={k.removeprefix("param_"): v for k, v in arguments.items() if k.startswith("param_")},
            )
        )
        if len(answer.body) > 1024:
            for encoding, encode in _ENCODE.items():
                if encoding in accepted:
                    return Answer(encode(answer.body), answer.summary), encoding
        return answer, ""

    @staticmethod
    def _error(headers: dict[str, str], code: int, name: str, why: str) -> web.Response:
        headers["X-ClickHouse-Exception-Code"] = str(code)
        text = f"Code: {code}. DB::Exception: {why}. ({name})\n"
        return web.Response(status=_STATUS.get(code, 500), headers=headers, text=text)


async def serve(server: Server, port: int) -> None:
    """Serve on 127.0.0.1 until SIGTERM or SIGINT, then let what is running finish (10 seconds at most)."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    runner = web.AppRunner(
        server.application(),
        access_log=None,
        auto_decompress=False,
        shutdown_timeout=DRAIN_SECONDS,
    )
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    log.info("listening on 127.0.0.1:%d", port)
    await stop.wait()
    await runner.cleanup()


def main(arguments: list[str] | None = None) -> None:
    """Run one store."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--path", type=Path, required=True, help="the store's own directory")
    parser.add_argument("--port", type=int, required=True, help="port on 127.0.0.1")
    parser.add_argument("--users", type=Path, required=True, help="users.xml with the logins and their grants")
    parser.add_argument("--threads", type=int, default=8, help="requests worked on at once")
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    logging.getLogger("aiohttp").setLevel(logging.CRITICAL)  # its error lines carry tracebacks
    known = logins.read(given.users)
    engine = Engine(given.path, given.users)
    try:
        asyncio.run(serve(Server(engine, known, given.threads), given.port))
    finally:
        engine.close()


if __name__ == "__main__":
    main()
