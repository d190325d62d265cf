"""Who is logged in at the pages: a random cookie for each, in the memory of one process.

A session holds the public half of a reader's key and no more; whether that key still opens anything is asked anew with
every page. A dashboard that is started again has forgotten all sessions: log in again.
"""

from __future__ import annotations

import secrets
import time
from typing import Final, NamedTuple

SESSION_SECONDS: Final = 12 * 3600
MOST: Final = 50
"""Sessions of one reader."""


class Session(NamedTuple):
    """One browser that is logged in. `until`: by the monotonic clock."""

    reader: str
    until: float


class Sessions:
    """Used from one event loop. The repr shows how many there are."""

    def __init__(self) -> None:
        self._all: dict[str, Session] = {}

    def __repr__(self) -> str:
        return f"<{len(self._all)} sessions>"

    def begin(self, reader: str) -> str:
        """A new session's cookie. A reader who has too many loses her oldest; nobody else does."""
        hers = [cookie for cookie, session in self._all.items() if session.reader == reader]
        for cookie in hers[: max(0, len(hers) - MOST + 1)]:
            self.end(cookie)
        cookie = secrets.token_urlsafe(32)
        self._all[cookie] = Session(reader, time.monotonic() + SESSION_SECONDS)
        return cookie

    def reader(self, cookie: str | None) -> str | None:
        """Whose session it is, if it is one."""
        found = self._all.get(cookie or "")
        if found is None:
            return None
        if found.until <= time.monotonic():
            self.end(cookie)
            return None
        return found.reader

    def end(self, cookie: str | None) -> None:
        """Log out."""
        self._all.pop(cookie or "", None)
