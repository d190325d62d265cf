"""What pages and API share: the store, who may read it, and how an error is told."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Concatenate, Final, ParamSpec, TypeVar

import structlog
from aiohttp import web

from streams.dashboard.figures import History, Mailing, Page
from streams.dashboard.figures import edition as edition_of
from streams.dashboard.limits import Limits
from streams.dashboard.readers import Reader, Readers
from streams.dashboard.sessions import Sessions
from streams.errors import SchleuseError, StoreUnavailable
from streams.settings import FIELDS

if TYPE_CHECKING:
    from streams.settings import Settings
    from streams.stores import StoreClient

log = structlog.get_logger("schleuse.dashboard")

P = ParamSpec("P")
T = TypeVar("T")
QUESTIONS_AT_ONCE: Final = 8
ANSWER_SECONDS: Final = 20.0
"""For so long a reader waits for an answer of the store."""
EDITION_SECONDS: Final = 2.0
KNOWN_ANSWERS: Final = 2_000
KNOWN_LINES: Final = 300_000
"""Of all answers that are known, together (`lines`): some 90 MB of figures."""
TRIES_PER_MINUTE: Final = 20
"""Wrong keys that one address may try."""


class Problem(SchleuseError):
    """An answer that is none: what the reader is told. No text of it was sent by her."""

    def __init__(self, status: int, name: str, detail: str, wait_seconds: float = 0.0) -> None:
        """`name`: a slug that stays the same for this kind of problem."""
        super().__init__(detail)
        self.status, self.name, self.detail, self.wait_seconds = status, name, detail, wait_seconds


def lines(answer: object) -> int:
    """Of how many figures, mailings and links an answer is made: how much memory it takes goes by that."""
    if isinstance(answer, History):
        return lines(answer.mailing) + sum(len(steps) for steps in answer.cells.values())
    if isinstance(answer, Mailing):
        return 1 + len(answer.totals) + len(answer.links)
    parts = answer.mailings if isinstance(answer, Page) else answer
    if isinstance(parts, dict):
        parts = list(parts.values())
    return 1 + sum(lines(one) for one in parts) if isinstance(parts, list) else 1


class Site:
    """One running dashboard. Made and used in one event loop."""

    def __init__(self, settings: Settings, store: StoreClient) -> None:
        """`store`: the analytics store under the login `dashboard`."""
        self.settings, self.store = settings, store
        self.url = settings.dashboard_url.rstrip("/")
        self.readers, self.sessions = Readers(store), Sessions()
        per_minute = settings.dashboard_requests_per_minute
        self.limits = Limits(per_minute, max(1, per_minute // 4))
        self.tries = Limits(TRIES_PER_MINUTE, TRIES_PER_MINUTE)
        self._edition: tuple[int, ...] = ()
        self._edition_until = 0.0
        self._known: dict[object, Any] = {}
        self._known_lines = 0
        self._threads = ThreadPoolExecutor(QUESTIONS_AT_ONCE, "question")
        self._clock: asyncio.Task[bool] | None = None
        self._clock_until = 0.0

    def listens_at(self, host: str, port: int) -> None:
        """Readers are told this address where nobody has set `dashboard_url`."""
        if self.settings.dashboard_url == FIELDS["dashboard_url"].default:
            here = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
            self.url = f"http://{here}:{port}"

    async def ask(self, question: Callable[P, T], *args: P.args, **named: P.kwargs) -> T:
        """Ask the store, in a thread. Raises what the question raises, and StoreUnavailable after `ANSWER_SECONDS`."""
        asked = asyncio.get_running_loop().run_in_executor(self._threads, lambda: question(*args, **named))
        try:
            return await asyncio.wait_for(asked, ANSWER_SECONDS)
        except TimeoutError:
            raise StoreUnavailable(f"the analytics store has not answered in {ANSWER_SECONDS:g} s") from None

    async def answers(self, seconds: float) -> bool:
        """Whether the store answers in time. It is asked once in `EDITION_SECONDS`, however many want to know.

        Nobody is refused: a balancer takes for down what refuses it, and may ask from the address of everybody.
        """
        if self._clock is None or (self._clock.done() and time.monotonic() > self._clock_until):
            self._clock = asyncio.create_task(self._answers())
            self._clock_until = time.monotonic() + EDITION_SECONDS
        done, _ = await asyncio.wait([self._clock], timeout=seconds)
        return bool(done) and self._clock.result()

    async def _answers(self) -> bool:
        try:
            await self.ask(self.store.now_ms)
        except SchleuseError as error:
            log.warning("waiting", reason=str(error))
            return False
        return True

    async def published(
        self, question: Callable[Concatenate[StoreClient, P], T], *args: P.args, **named: P.kwargs
    ) -> T:
        """Ask about figures: what was asked before is known until something new is published or declared.

        An answer is at most `EDITION_SECONDS` behind the store. A caller may not change what it gets.
        """
        if time.monotonic() > self._edition_until:
            edition = await self.ask(edition_of, self.store)
            if edition != self._edition:
                self._edition = edition
                self._forget()
            self._edition_until = time.monotonic() + EDITION_SECONDS
        known, asked = self._known, (question.__name__, args, tuple(sorted(named.items())))
        if asked in known:
            answer: T = known[asked]
            return answer
        answer = await self.ask(question, self.store, *args, **named)
        if known is self._known and asked not in known:  # while it was asked, all may have been forgotten
            self._remember(asked, answer)
        return answer

    def _remember(self, asked: object, answer: object) -> None:
        more = lines(answer)
        if more > KNOWN_LINES:
            return
        if len(self._known) >= KNOWN_ANSWERS or self._known_lines + more > KNOWN_LINES:
            self._forget()
        self._known[asked] = answer
        self._known_lines += more

    def _forget(self) -> None:
        self._known, self._known_lines = {}, 0

    async def by_key(self, key: str, remote: str | None) -> Reader | None:
        """Whom a key belongs to; None for a wrong one. Raises Problem when too many wrong ones came from an address."""
        reader = await self.ask(self.readers.by_key, key)
        if reader is None:
            self.wrong_key(remote)
        return reader

    def wrong_key(self, remote: str | None) -> None:
        """Count an attempt to get in. Raises Problem when there were too many from an address."""
        if seconds := self.tries.wait(remote or ""):
            raise Problem(429, "too-many-keys", "too many wrong keys came from this address: wait", seconds)

    def admit(self, reader: Reader | None, remote: str | None) -> None:
        """Count a request: a reader's, or where nobody is logged in that of an address. Raises Problem when there were
        too many."""
        who, said = (reader.reader, "with this key") if reader else (f"from {remote}", "from this address")
        if seconds := self.limits.wait(who):
            raise Problem(429, "too-many-requests", f"too many requests {said}: wait, then go on", seconds)

    def close(self) -> None:
        """Wait for what is being asked, and close the connections."""
        self._threads.shutdown()
        self.store.close()


SITE: Final = web.AppKey("site", Site)
