"""A store's HTTP port that misbehaves on demand: a proxy on loopback, one request of a store at a time.

A *fault* is a function of one `Exchange`: it does with the request what a bad network or a store in trouble would do.
`proxy.fault = lost_answer` switches it for all requests from then on, `proxy.fault = None` passes everything on.
"""

from __future__ import annotations

import contextlib
import random
import re
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import BinaryIO, NoReturn
from urllib.parse import unquote_plus, urlsplit

_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close() sends RST
_WRITE = re.compile(rb"^\s*(INSERT|DELETE|ALTER)\b", re.IGNORECASE)


def read_message(stream: BinaryIO) -> tuple[bytes, bytes] | None:
    """One HTTP message, as (head, body) to the byte; None where the other side has closed."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        line = stream.readline()
        if not line:
            return None
        head += line
    lower = head.lower()
    if b"transfer-encoding: chunked" in lower:
        body = b""
        while True:
            size = stream.readline()
            chunk = stream.read(int(size.split(b";")[0], 16) + 2)
            body += size + chunk
            if chunk == b"\r\n":
                return head, body
    length = re.search(rb"content-length: (\d+)", lower)
    return head, stream.read(int(length[1])) if length else b""


class Exchange:
    """One request that has been read whole, and what may be done about it."""

    def __init__(self, proxy: Proxy, client: socket.socket, head: bytes, body: bytes) -> None:
        self.head, self.body, self._client, self._proxy = head, body, client, proxy

    @property
    def statement(self) -> bytes:
        """The SQL: from the URL, or the body where the URL has none."""
        query = re.search(rb"[?&]query=([^& ]*)", self.head.partition(b"\r\n")[0])
        return unquote_plus(query[1].decode()).encode() if query else self.body

    @property
    def writes(self) -> bool:
        """Whether it changes something: INSERT, DELETE, ALTER."""
        return bool(_WRITE.match(self.statement))

    def ask(self, request: bytes | None = None) -> bytes:
        """Send the request to the store and read all of its answer; b"" when the store is gone."""
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._proxy.upstream)) as store:
            store.sendall(self.head + self.body if request is None else request)
            if request is not None:  # a part only: no answer comes
                store.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                return b""
            answer = b"".join(read_message(store.makefile("rb")) or ())
            if code := re.search(rb"X-ClickHouse-Exception-Code: (\d+)", answer):
                self._proxy.said[code[1].decode()] += 1
            return answer
        return b""

    def answer(self, whole: bytes) -> None:
        """Send bytes to the client."""
        if whole:
            self._client.sendall(whole)
        else:
            self.reset()

    def close(self) -> NoReturn:
        """End the connection in order: what was sent arrives, and then the end."""
        self._client.shutdown(socket.SHUT_RDWR)
        raise ConnectionAbortedError

    def reset(self) -> NoReturn:
        """End the connection by a reset."""
        self._client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        raise ConnectionAbortedError


Fault = Callable[[Exchange], None]

# --- faults ---


def passed_on(exchange: Exchange) -> None:
    """No fault."""
    exchange.answer(exchange.ask())


def reset_before(exchange: Exchange) -> None:
    """The request never arrives."""
    exchange.reset()


def lost_answer(exchange: Exchange) -> None:
    """The store has done it, and nobody hears of it."""
    exchange.ask()
    exchange.reset()


def half_request(exchange: Exchange) -> None:
    """Half of the body arrives at the store, then both sides are reset."""
    exchange.ask(exchange.head + exchange.body[: len(exchange.body) // 2])
    exchange.reset()


def cut(at: float) -> Fault:
    """The answer ends after this share of its bytes, the connection in order."""

    def cut_answer(exchange: Exchange) -> None:
        whole = exchange.ask()
        exchange.answer(whole[: int(len(whole) * at)])
        exchange.close()

    return cut_answer


def stalled(seconds: float) -> Fault:
    """Nothing happens for a while; then it is passed on."""

    def stalled_request(exchange: Exchange) -> None:
        time.sleep(seconds)
        passed_on(exchange)

    return stalled_request


def says(code: int, name: str, status: int = 500) -> Fault:
    """ClickHouse refuses with an error of its own; the statement is not done."""

    def error_answer(exchange: Exchange) -> None:
        text = f"Code: {code}. DB::Exception: something with 'a value' in it. ({name}) (version 26.2.1.1)\n".encode()
        exchange.answer(
            f"HTTP/1.1 {status} No\r\nX-ClickHouse-Exception-Code: {code}\r\nContent-Type: text/plain\r\n"
            f"Content-Length: {len(text)}\r\n\r\n".encode()
            + text
        )

    return error_answer


def bad_gateway(exchange: Exchange) -> None:
    """What stands between refuses, in words of its own."""
    text = b"<html>Bad Gateway</html>"
    exchange.answer(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: %d\r\n\r\n%b" % (len(text), text))


def sometimes(chance: float, seed: int, *faults: Fault) -> Fault:
    """One of the faults, at random; else passed on."""
    draw = random.Random(seed)
    lock = threading.Lock()

    def drawn(exchange: Exchange) -> None:
        with lock:
            fault = draw.choice(faults) if draw.random() < chance else passed_on
        fault(exchange)

    return drawn


class EachWrite:
    """A fault: every statement that changes something meets these faults, one a try, and is then passed on.

    `met` is what has met all of them: the first words of the statements and how often.
    """

    _UNSTEADY = re.compile(rb"&?(?:query_id|param_deadline)=[^& ]*")

    def __init__(self, *faults: Fault) -> None:
        self._faults, self._tries, self._lock = faults, Counter[bytes](), threading.Lock()
        self.met: Counter[str] = Counter()

    def __call__(self, exchange: Exchange) -> None:
        if not exchange.writes:
            passed_on(exchange)
            return
        words = re.findall(rb"\w+", exchange.statement[:80])[:3]
        same = self._UNSTEADY.sub(b"", exchange.head.partition(b"\r\n")[0]) + b" ".join(words)
        with self._lock:
            tried = self._tries[same]
            self._tries[same] += 1
            if tried == len(self._faults):
                self.met[b" ".join(words).decode()] += 1
        (self._faults[tried] if tried < len(self._faults) else passed_on)(exchange)


class Held:
    """A fault: the first request that `which` picks is kept back until `release`, all others are passed on.

    `held` is set when it is there, `since` when that was (monotonic seconds).
    """

    def __init__(self, which: Callable[[Exchange], bool]) -> None:
        self._which, self._first = which, threading.Lock()
        self.held, self._released, self._answered = threading.Event(), threading.Event(), threading.Event()
        self._answer, self.since = b"", 0.0

    def __call__(self, exchange: Exchange) -> None:
        if not self._which(exchange) or not self._first.acquire(blocking=False):
            passed_on(exchange)
            return
        self.since = time.monotonic()
        self.held.set()
        self._released.wait(120)
        self._answer = exchange.ask()
        self._answered.set()
        exchange.answer(self._answer)

    def release(self) -> bytes:
        """Let it through; what the store answered."""
        self._released.set()
        assert self._answered.wait(60), "the store answers"
        return self._answer


class Proxy:
    """Listens on a port of its own and speaks for the store at `url`. Use as a context manager."""

    def __init__(self, url: str) -> None:
        upstream = urlsplit(url).port
        assert upstream
        self.upstream = upstream
        self.fault: Fault | None = None
        self.said: Counter[str] = Counter()  # ClickHouse's error codes in what the store has answered
        self._open: set[socket.socket] = set()
        self._listener = self._bound(0)
        self.port: int = self._listener.getsockname()[1]
        self.up()

    @property
    def url(self) -> str:
        """What the worker is told."""
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        self.down()
        self._listener.close()

    @staticmethod
    def _bound(port: int) -> socket.socket:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        return listener

    def up(self) -> None:
        """Take connections."""
        self._listener.listen(64)
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def down(self) -> None:
        """Refuse connections and reset those that are there. The port stays ours: bound, but nobody listens."""
        self._listener.shutdown(socket.SHUT_RDWR)  # wakes accept()
        self._listener.close()
        self._listener = self._bound(self.port)
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                connection.shutdown(socket.SHUT_RDWR)

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                self._open.add(connection)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        # What ends it, a fault or one of the two sides, ends it as an OSError; the stream has to be closed first.
        with connection, connection.makefile("rb") as stream, contextlib.suppress(OSError, ValueError):
            while message := read_message(stream):
                fault = self.fault or passed_on
                fault(Exchange(self, connection, *message))
        self._open.discard(connection)
