"""What a recipient has agreed to for one purpose and kind, as the list of her turns.

The rules: the newest decision wins, and of two of the same time the lower one; a level holds since the earliest turn
from which the mode never was below it; a grant that raises draws a salt (at the lower of mode and ceiling), one at the
same mode keeps it; what falls below pseudonymous drops all salts; a step down from personal to pseudonymous drops the
personal ones and draws a new one. An event gets the highest level that still holds and held when it occurred, and its
row the newest salt that stands at that level or below.
"""

from __future__ import annotations

from dataclasses import dataclass, field

ALWAYS = -(2**63)
NEVER = 2**63
OFF, ANONYMOUS, PSEUDONYMOUS, PERSONAL = range(4)
WORDS = ("off", "anonymous", "pseudonymous", "personal")


@dataclass(slots=True, eq=False)
class Salt:
    """A salt that stands, and the pseudonym that it gives."""

    level: int
    since: int
    text: str
    key_version: int
    pseudonym: int


@dataclass(slots=True)
class Standing:
    """All turns of one recipient, purpose and kind."""

    turns: list[tuple[int, int]] = field(default_factory=lambda: [(ALWAYS, ANONYMOUS)])
    decided_at: int = ALWAYS
    salts: list[Salt] = field(default_factory=list)

    @property
    def mode(self) -> int:
        """The mode of the last turn."""
        return self.turns[-1][1]

    def since(self, level: int) -> int | None:
        """From when on the level has held without a break, or None: it does not hold."""
        found = None
        for at, mode in reversed(self.turns):
            if mode < level:
                break
            found = at
        return found

    def outlives(self, at: int) -> bool:
        """Whether an erasure that was asked for at this time leaves it: it was granted anew after it."""
        begun = self.since(PSEUDONYMOUS)
        return begun is not None and begun > at and self.decided_at > at

    def remnant(self, decided_at: int) -> Standing:
        """What an erasure leaves of the purpose that decides about `off`: that, from when on she counts, and a time."""
        since = self.since(ANONYMOUS)
        turns = [(ALWAYS, ANONYMOUS)]
        if since is None:
            turns.append((decided_at, OFF))
        elif since != ALWAYS:
            turns = [(ALWAYS, OFF), (since, ANONYMOUS)]
        return Standing(turns, decided_at)

    def decide(self, mode: int, at: int, salt: Salt | None, ceiling: int) -> tuple[str, list[Salt], Salt | None]:
        """One more decision: its effect, the salts that it drops, and the one that it draws.

        `salt` is what intake drew, its level and time not yet fixed.
        """
        before = self.mode
        if at < self.decided_at or (at == self.decided_at and mode > before):
            return "out_of_date", [], None
        if mode == before:
            effect = "unchanged" if at == self.decided_at else "confirmed"
            self.decided_at = at
            return effect, [], None
        self.decided_at = at
        self.turns.append((at, mode))
        dropped: list[Salt] = []
        if mode < before:
            dropped = [one for one in self.salts if mode < PSEUDONYMOUS or one.level == PERSONAL]
            self.salts = [one for one in self.salts if one not in dropped]
        drawn = None
        if min(mode, ceiling) >= PSEUDONYMOUS:
            assert salt is not None, "a change for such a mode carries a salt"
            drawn = salt
            drawn.level = min(mode, ceiling)
            drawn.since = at if mode > before else self.since(PSEUDONYMOUS) or at
            self.salts.append(drawn)
        return ("raised" if mode > before else "lowered"), dropped, drawn

    def allows(self, ceiling: int) -> tuple[int, int, Salt | None, int, Salt | None]:
        """Counted from when; pseudonymous from when and under which salt; personal from when and under which."""
        counts = self.since(ANONYMOUS)
        if counts is None or ceiling == OFF:
            return NEVER, NEVER, None, NEVER, None
        limits: list[int | Salt | None] = [counts]
        for level in (PSEUDONYMOUS, PERSONAL):
            since = self.since(level) if level <= ceiling else None
            standing = [one for one in self.salts if one.level <= level]
            usable = since is not None and standing
            limits += [since, standing[-1]] if usable else [NEVER, None]
        return tuple(limits)  # type: ignore[return-value]

    def told(self) -> list[object]:
        """As tracking.state says it."""
        return [
            self.mode,
            [self.since(level) for level in (ANONYMOUS, PSEUDONYMOUS, PERSONAL)],
            self.decided_at,
            [[one.level, one.since, one.text, one.key_version] for one in self.salts],
        ]
