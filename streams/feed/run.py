"""Feeding: bodies in, records out, and every body accounted for: bodies = sent + ignored + refused.

A body is what one webhook call reports about one recipient: a line, but in an array (SendGrid) every element. A line
that cannot be read is one body; an empty array is one body; a blank line is none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import BinaryIO, Protocol

from streams.errors import BadRow
from streams.feed.formats import Read
from streams.feed.items import FeedOptions, Ignored, Message, Refused
from streams.feed.lines import bodies
from streams.feed.records import Record, record
from streams.messages import Tenants

NOT_SENT = "not_sent"
"""The reason of a refusal that is not the body's fault: the broker did not take it. Feed it again."""


@dataclass(slots=True)
class Tally:
    """What became of the bodies of one file. `bodies` = `sent` + all `ignored` + all `refused` once the run is over."""

    file: str
    bodies: int = 0
    sent: int = 0
    ignored: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)

    @property
    def adds_up(self) -> bool:
        """The sum of the class docstring."""
        return self.bodies == self.sent + self.ignored.total() + self.refused.total()


@dataclass(frozen=True, slots=True)
class Place:
    """Where a body stands: a line of a file, and which element of the line (from 1) where there are several."""

    tally: Tally
    line: int
    element: int | None

    def __str__(self) -> str:
        return f"{self.tally.file}:{self.line}" + (f": event {self.element}" if self.element else "")


@dataclass(frozen=True, slots=True)
class Refusal:
    """A body that was not sent, by its place. Never holds a value from the body."""

    place: Place
    reason: str
    field: str | None
    expected: str | None

    def __str__(self) -> str:
        return ": ".join(part for part in (str(self.place), self.reason, self.field, self.expected) if part)


class Sends(Protocol):
    """`send.Sender`, or what stands in for it in a dry run."""

    broken: bool

    def send(self, record: Record, place: Place) -> None:
        """Take a record; `Run.settled` is told sooner or later."""

    def close(self) -> None:
        """Wait until all is settled."""


class Run:
    """One run over some files. `refused` is told every refusal as it happens; `progress` the bytes of every line."""

    def __init__(
        self,
        read: Read,
        options: FeedOptions,
        tenants: Tenants,
        now_ms: Callable[[], int],
        refused: Callable[[Refusal], None],
        progress: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._read, self._options, self._tenants, self._now_ms = read, options, tenants, now_ms
        self._refused, self._progress = refused, progress
        self.tallies: list[Tally] = []

    def feed(self, sources: Iterable[tuple[str, BinaryIO]], sender: Sends) -> None:
        """Feed named streams to the end, or until the sender is broken. Closes the sender, not the streams."""
        try:
            for name, stream in sources:
                self._feed_one(Tally(name), stream, sender)
                if sender.broken:
                    break
        finally:
            sender.close()

    def settled(self, place: Place, sent: bool) -> None:
        """What became of a record that the sender took."""
        if sent:
            place.tally.sent += 1
        else:
            self._refuse(Refusal(place, NOT_SENT, None, "an acknowledgement of the broker"))

    def _feed_one(self, tally: Tally, stream: BinaryIO, sender: Sends) -> None:
        self.tallies.append(tally)
        for line, body in bodies(stream):
            items = self._read(body, self._options)
            for number, item in enumerate(items, 1):
                tally.bodies += 1
                place = Place(tally, line, number if len(items) > 1 else None)
                match item:
                    case Message():
                        self._send(item, place, sender)
                    case Ignored(what):
                        tally.ignored[what] += 1
                    case Refused(why):
                        self._refuse(Refusal(place, why.reason.value, why.field, why.expected))
            self._progress(len(body) + 1)
            if sender.broken:
                return

    def _send(self, message: Message, place: Place, sender: Sends) -> None:
        if sender.broken:  # the rest of a line whose beginning could not be sent
            self.settled(place, False)
            return
        try:
            ready = record(message, self._tenants, self._now_ms())
        except BadRow as why:
            self._refuse(Refusal(place, why.reason.value, why.field, why.expected))
        else:
            sender.send(ready, place)

    def _refuse(self, refusal: Refusal) -> None:
        refusal.place.tally.refused[refusal.reason] += 1
        self._refused(refusal)


class DryRun:
    """Takes the place of the sender: every record counts as sent, and goes nowhere."""

    broken = False

    def __init__(self, settled: Callable[[Place, bool], None]) -> None:
        self._settled = settled

    def send(self, record: Record, place: Place) -> None:
        """Count it."""
        del record
        self._settled(place, True)

    def close(self) -> None:
        """Nothing is on its way."""
