"""`schleuse verify`: looks at a running system from the outside and says which promises hold.

A check looks at the stores, the topics and the key ring and names what is wrong there (its *flaws*). Workers write
meanwhile, and no two looks at different places are of one moment; so a flaw counts only if it stays:

 1  look; without a flaw the check holds
 2  look again after a pause, some times: what is not there every time was in motion
 3  let every claim finish that had been taken before the first look, and look once more
 4  what is still there has failed; if a claim did not finish (no worker owns its partition), nothing can be said

A check may be cut off or run as often as one likes: it changes nothing that it looks at. A run writes one line in the
audit trail before it looks, and files its report for the officer when it has looked. It opens nothing that is sealed.
What it reports names no recipient and holds no value: kinds of flaws, and how many.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import TracebackType
from typing import TYPE_CHECKING, Any

from streams.errors import SchleuseError
from streams.messages import format_time
from streams.reports import file_report
from streams.rights.audit import Action
from streams.rights.desk import Desk
from streams.stores import Role, Store, StoreClient, connect
from streams.tenants import in_force
from streams.topics import CHANGES, EVENTS, committed

if TYPE_CHECKING:
    from typing import Self

    from streams.settings import Settings
    from streams.tenants import TenantSettings

PAUSES = (1.0, 3.0)
DONE_SECONDS = 60.0  # how long claims may take to finish before nothing can be said


class Verdict(StrEnum):
    """What a check came to."""

    HOLDS = "holds"
    FAILED = "failed"
    NOT_SAID = "cannot be said"


@dataclass(frozen=True, slots=True)
class About:
    """A check: which promises it is about, what holds if it holds, and what to do if it does not."""

    promises: str
    name: str
    says: str
    otherwise: str


@dataclass(frozen=True, slots=True)
class Flaw:
    """How often something is wrong, and where: a claim of this partition that is not done may explain it.

    `ANYWHERE`: one of any partition; `SURELY`: none does.
    """

    times: int
    partition: int


ANYWHERE, SURELY = -1, -2


@dataclass(slots=True)
class Look:
    """What one look found. `flaws`: (what is wrong in a few fixed words, what it is wrong of) -> how often and where.

    What it is wrong of is never shown; it tells flaws apart. `skipped` says what could not be looked at and why.
    """

    looked_at: Counter[str] = field(default_factory=Counter)
    flaws: dict[tuple[str, Hashable], Flaw] = field(default_factory=dict, repr=False)
    skipped: list[str] = field(default_factory=list)
    partition: int = ANYWHERE
    """Where flaws are from here on."""

    def flaw(self, what: str, of: Hashable, times: int = 1, partition: int | None = None) -> None:
        """Note one; `partition` None: where this look is."""
        self.flaws[what, of] = Flaw(times, self.partition if partition is None else partition)


@dataclass(frozen=True, slots=True)
class Result:
    """What a check came to, for the report."""

    promises: str
    name: str
    says: str
    verdict: Verdict
    looked_at: Mapping[str, int]
    """What -> how many."""
    found: Mapping[str, int]
    """What is wrong -> how often."""
    skipped: Sequence[str]
    otherwise: str
    """What to do; empty where it holds."""


@dataclass(frozen=True, slots=True)
class Position:
    """The newest claim of a partition."""

    incarnation: int
    number: int
    kind: str
    next_event: int
    next_change: int


class Sight:
    """What checks look through: the rights desk, the operator's figures, and where the chain stands. A context manager.

    Raises what `Desk.open` raises.
    """

    def __init__(self, settings: Settings, actor: str | None = None, done_seconds: float = DONE_SECONDS) -> None:
        """Log in. `done_seconds`: how long claims may take to finish before nothing can be said."""
        with ExitStack() as opened:
            self.desk = Desk.open(settings, actor)
            opened.callback(self.desk.close)
            self.figures: StoreClient = connect(settings, Store.ANALYTICS, Role.OPERATOR, connections=4)
            opened.callback(self.figures.close)
            self._opened = opened.pop_all()
        self.settings, self._done_seconds = settings, done_seconds
        self._waited_for: set[tuple[int, Position]] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._opened.close()

    def tenants(self) -> Mapping[str, TenantSettings]:
        """The settings in force now."""
        return in_force(self.desk.analytics)

    def positions(self) -> dict[int, Position]:
        """The newest claim of every partition that has one, in the current incarnation."""
        rows = self.figures.rows(
            "reading the newest claims",
            "SELECT partition, incarnation, number, toString(kind), next_event, next_change FROM claims "
            "WHERE incarnation = (SELECT max(number) FROM incarnations) "
            "ORDER BY partition, number DESC LIMIT 1 BY partition",
        )
        return {int(row[0]): Position(*row[1:]) for row in rows}

    def done_below(self) -> dict[int, Position]:
        """Of every partition a position below whose number all claims are done: `positions`, and one more where the
        newest claim is done too."""
        now = self.positions()
        still = set(self._open(now))
        return {
            partition: newest if partition in still else replace(newest, number=newest.number + 1)
            for partition, newest in now.items()
        }

    def undone(self, before: Mapping[int, Position], seconds: float | None = None) -> list[int]:
        """Wait until the claims that `before` names are done; the partitions whose claim is not after a time.

        A claim is done when there is a later one, or when its end was committed. What was waited for in vain is not
        waited for again.
        """
        until = time.monotonic() + (self._done_seconds if seconds is None else seconds)
        while True:
            open_ones = self._open(before)
            if time.monotonic() > until or {(number, before[number]) for number in open_ones} <= self._waited_for:
                self._waited_for |= {(number, before[number]) for number in open_ones}
                return open_ones
            time.sleep(0.3)

    def _open(self, before: Mapping[int, Position]) -> list[int]:
        now = self.positions()
        same = {number for number, position in before.items() if now.get(number) == position}
        if not same:
            return []
        events, changes = (committed(self.settings, topic, same) for topic in (EVENTS, CHANGES))
        return sorted(number for number in same if not _is_done(number, before[number], events, changes))


def _is_done(number: int, claim: Position, events: Mapping[int, int], changes: Mapping[int, int]) -> bool:
    if claim.kind == "events":
        return events.get(number, -1) >= claim.next_event
    return changes.get(number, -1) >= claim.next_change


@dataclass(frozen=True, slots=True)
class Sweep:
    """One look at one place, by several checks at once (by name)."""

    look: Callable[[Sight], Mapping[str, Look]]
    abouts: Mapping[str, About]
    moves: bool = True
    """Whether workers change what is looked at; else one look is enough."""


def judge(sight: Sight, sweep: Sweep, pauses: Sequence[float] = PAUSES) -> list[Result]:
    """The steps 1 to 4 above, for the checks of one sweep."""
    before = sight.positions()
    looks = dict(sweep.look(sight))  # 1
    undone: list[int] = []
    for pause in [*pauses, None] if sweep.moves else []:
        if not any(look.flaws for look in looks.values()):
            break
        if pause is not None:  # 2
            time.sleep(pause)
        else:  # 3
            undone = sight.undone(before)
        for name, again in sweep.look(sight).items():
            known = looks[name]
            known.flaws = {which: again.flaws[which] for which in known.flaws if which in again.flaws}
            known.looked_at, known.skipped = again.looked_at, again.skipped
    return [_result(sweep.abouts[name], look, undone) for name, look in looks.items()]


def _result(about: About, look: Look, undone: Sequence[int]) -> Result:
    found: Counter[str] = Counter()
    for (what, _), flaw in look.flaws.items():
        found[what] += flaw.times
    skipped, verdict = list(look.skipped), Verdict.HOLDS
    if found:  # 4
        explained = [
            flaw.partition in undone or (undone and flaw.partition == ANYWHERE) for flaw in look.flaws.values()
        ]
        verdict = Verdict.NOT_SAID if all(explained) else Verdict.FAILED
        if any(explained):
            skipped.append(f"the newest claim of partition {', '.join(map(str, undone))} is not done: start a worker")
    elif skipped and not look.looked_at:
        verdict = Verdict.NOT_SAID
    otherwise = about.otherwise if verdict is Verdict.FAILED else ""
    return Result(
        about.promises, about.name, about.says, verdict, dict(look.looked_at), dict(found), skipped, otherwise
    )


@dataclass(frozen=True, slots=True)
class Report:
    """What a run of all checks found."""

    began: str
    """By the stores' clock, as RFC 3339."""
    results: Sequence[Result]
    head: str
    """The head of the audit trail (NUMBER:MAC): note it where whoever runs the stores cannot change it."""

    @property
    def failed(self) -> bool:
        """Whether any check has failed."""
        return any(result.verdict is Verdict.FAILED for result in self.results)

    @property
    def held(self) -> bool:
        """Whether every check holds: none has failed, and of none nothing could be said."""
        return all(result.verdict is Verdict.HOLDS for result in self.results)

    def as_json(self) -> dict[str, Any]:
        """As plain objects; names are stable."""
        return {
            "began": self.began,
            "failed": self.failed,
            "audit_head": self.head,
            "checks": [
                {
                    "promises": result.promises,
                    "name": result.name,
                    "says": result.says,
                    "verdict": str(result.verdict),
                    "looked_at": dict(result.looked_at),
                    "found": dict(result.found),
                    "not_looked_at": list(result.skipped),
                    "do": result.otherwise or None,
                }
                for result in self.results
            ],
        }


def file(desk: Desk, report: Report) -> str:
    """Put a report among `reports`, where the officer's view finds it; why that was not possible, or nothing.

    A report that cannot be filed is as true as one that can: no error is raised, and the exit code of the command is
    that of the checks.
    """
    try:
        file_report(desk.analytics, "verify", report.held, report.as_json())
    except SchleuseError as error:
        return str(error)
    return ""


def verify(
    settings: Settings,
    sweeps: Sequence[Sweep],
    pauses: Sequence[float] = PAUSES,
    said: Callable[[Result], None] = lambda _: None,
    not_filed: Callable[[str], None] = lambda _: None,
) -> Report:
    """Run all checks, and say each result as soon as it is there; file the report, or say why it is not. Blocking.

    Raises StoreUnavailable, StoreRefused, BrokerError, SettingsError: then nothing was found either way.
    """
    with Sight(settings) as sight:
        line = sight.desk.audit.record(Action.VERIFIED, "", None, "schleuse verify", {})
        results = []
        for sweep in sweeps:
            for result in judge(sight, sweep, pauses):
                said(result)
                results.append(result)
        newest = sight.desk.audit.head()
        report = Report(format_time(line.at_ms), results, newest.head if newest is not None else "")
        if why := file(sight.desk, report):
            not_filed(why)
        return report
