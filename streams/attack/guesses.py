"""The table of attacks: each is one way to guess, from what was kept, whether she acted. Pure.

An attack that has to learn something (which answers mean that she acted, how long one takes then) is taught one half
of the tries and guesses the other, both ways round: no try is guessed by what it taught.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from aggregates.continual import Floats, totals
from aggregates.figures import FIGURES, RHO, Figure, right_at_most
from streams.attack.likelihood import cells, deviation, score, undone
from streams.attack.play import Kept, Said
from streams.attack.surfaces import TOTALS
from streams.attack.tries import CROWD, SMALL, STAGES, Try, drawn

BOUND: Final = right_at_most(RHO)
"""How often the best test is right, at most (docs/publishing.md)."""
STANDARD_ERRORS: Final = 4.0
"""By so many a rate may exceed the bound by chance."""
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Attack:
    """One line of the table. `guess`: from what was kept to a guess for each of the first tries of `tenant`."""

    name: str
    reads: str
    guess: Callable[[Kept], Bools]
    tenant: str = CROWD
    of_figures: bool = True
    """Whether it goes by figures, and so succeeds where there is no noise; else it succeeds only where something
    leaks."""


# --- by figures ---


def _others(tries: Sequence[Try]) -> Floats:
    return np.array([float(one.others) for one in tries])


def _sent(tries: Sequence[Try]) -> Floats:
    return np.array([float(one.sent) for one in tries])


def _every(figure: Figure) -> range:
    return range(len(figure.steps))


def _totals(kept: Kept, tenant: str) -> dict[tuple[Figure, str], Floats]:
    """Running totals, try by step, out of what was measured."""
    return {cell: totals(len(cell[0].steps), numbers.T).T for cell, numbers in kept.measured[tenant].items()}


def _as_measured(tenant: str) -> Callable[[Kept], Bools]:
    def guess(kept: Kept) -> Bools:
        tries = kept.tries.of(tenant)
        speaks = np.zeros(len(tries))
        for (figure, _), numbers in _totals(kept, tenant).items():
            speaks += score(figure, numbers, _every(figure), _others(tries))
        return speaks > 0

    return guess


def _last_openers(kept: Kept) -> Bools:
    opened = _totals(kept, CROWD)[FIGURES[0], ""]
    return opened[:, -1] > _others(kept.tries.crowd) + 0.5


def _by_api(tenant: str) -> Callable[[Kept], Bools]:
    def guess(kept: Kept) -> Bools:
        tries = kept.tries.of(tenant)
        others, sent = _others(tries), _sent(tries)
        speaks = np.zeros(len(tries))
        for (figure, _), cell in kept.figures[tenant].items():
            at = _every(figure)
            speaks += score(figure, undone(figure, cell, at, sent, others), at, others)
        return speaks > 0

    return guess


def _by_list(surface: str, differences: bool = False) -> Callable[[Kept], Bools]:
    """The newest totals, stage by stage."""

    def guess(kept: Kept) -> Bools:
        others, sent = _others(kept.tries.crowd), _sent(kept.tries.crowd)
        speaks = np.zeros(len(others))
        for figure in TOTALS:
            name, at = (figure.kind, str(figure.actor)), [drawn(figure, stage) - 1 for stage in range(len(STAGES))]
            stages = [kept.lists[surface][stage][name] for stage in range(len(STAGES))]
            found = np.hstack(
                [undone(figure, cell, [step], sent, others) for cell, step in zip(stages, at, strict=True)]
            )
            speaks += score(figure, found, at, others, differences)
        return speaks > 0

    return guess


def _complements(kept: Kept) -> Bools:
    """Wholes less parts: openers less the sum of devices, clickers less all links but one, those who did nothing."""
    of, others = _totals(kept, CROWD), _others(kept.tries.crowd)
    opened, clicked, links, devices = FIGURES[:4]
    some, *rest = cells(links)
    every: list[dict[tuple[Figure, str], float]] = [
        {(opened, ""): 1.0, **{(devices, value): -1.0 for value in cells(devices)}},
        {(clicked, ""): 1.0, **{(links, value): -1.0 for value in rest}},
        {(links, some): -1.0, (clicked, ""): 2.0},
        {(opened, ""): -1.0, (clicked, ""): -1.0},
    ]
    speaks = np.zeros(len(others))
    for one in every:
        adds = sum(one.values())
        noise = sum((weight * deviation(figure)) ** 2 for (figure, _), weight in one.items())
        found = sum(weight * of[cell][:, -1] for cell, weight in one.items())
        speaks += (found - (others + 0.5) * adds) * adds / noise
    return speaks > 0


def _by_filters(kept: Kept) -> Bools:
    tries = kept.tries.crowd[: len(next(iter(kept.filtered.values())).margin)]
    others, sent = _others(tries), _sent(tries)
    speaks = np.zeros(len(tries))
    for figure in TOTALS:
        at = [len(figure.steps) - 1]
        found = undone(figure, kept.filtered[figure.kind, str(figure.actor)], at, sent, others)
        speaks += score(figure, found, at, others)
    return speaks > 0


# --- by what must not differ ---


def _acted(tries: Sequence[Try]) -> Bools:
    return np.array([one.acted for one in tries], bool)


def learned(said: Sequence[Hashable], acted: Bools) -> Bools:
    """A guess for each try: what most tries did of which the same was said, in the half that it is not in."""
    found = np.zeros(len(said), bool)
    for half in (0, 1):
        taught: defaultdict[Hashable, Counter[bool]] = defaultdict(Counter)
        for number in range(1 - half, len(said), 2):
            taught[said[number]][bool(acted[number])] += 1
        mostly = bool(acted[1 - half :: 2].mean() > 0.5) if len(said) > 1 else False
        for number in range(half, len(said), 2):
            seen = taught.get(said[number])
            found[number] = seen[True] > seen[False] if seen and seen[True] != seen[False] else mostly
    return found


def cut(numbers: Floats, acted: Bools) -> Bools:
    """A guess for each try: on which side of a limit its number is, the limit that was best in the other half."""
    found = np.zeros(len(numbers), bool)
    for half in (0, 1):
        taught, did = numbers[1 - half :: 2], acted[1 - half :: 2]
        limits = np.quantile(taught, np.linspace(0, 1, 41))
        right = ((taught[:, None] > limits) == did[:, None]).mean(axis=0)
        parted = np.abs(right - 0.5)
        best = int(np.median(np.flatnonzero(parted == parted.max())))  # amidst those that part them equally well
        found[half::2] = (numbers[half::2] > limits[best]) == (right[best] >= 0.5)
    return found


def _by_saying(of: Callable[[Kept], Mapping[str, Said]]) -> Callable[[Kept], Bools]:
    """Everything that was said of a try, together. What was not read of it counts as what is usual."""

    def guess(kept: Kept) -> Bools:
        ways = of(kept)
        longest = max(len(said) for said in ways.values())
        full = [[*said, *([_usual(said)] * (longest - len(said)))] for said in ways.values()]
        return learned(list(zip(*full, strict=True)), _acted(kept.tries.crowd[:longest]))

    return guess


def _usual(said: Said) -> Hashable:
    return Counter(said).most_common(1)[0][0]


def _by_time(way: str) -> Callable[[Kept], Bools]:
    def guess(kept: Kept) -> Bools:
        taken = kept.seconds[way]
        return cut(taken.min(axis=1), _acted(kept.tries.crowd[: len(taken)]))

    return guess


def _elsewhere(kept: Kept) -> Bools:
    """She did there what she did here."""
    count = min(len(kept.tries.crowd), len(kept.tries.small))
    return _as_measured(SMALL)(kept)[:count]


# --- the table ---

ATTACKS: Final = (
    Attack("likelihood of all numbers", "SQL", _as_measured(CROWD)),
    Attack("openers of the last step", "SQL", _last_openers),
    Attack("likelihood of all figures", "API", _by_api(CROWD)),
    Attack("exports of three stages", "CSV", _by_list("csv")),
    Attack("shares of three stages", "pages", _by_list("page")),
    Attack("small cells", "SQL", _as_measured(SMALL), SMALL),
    Attack("small cells", "API", _by_api(SMALL), SMALL),
    Attack("complements", "SQL", _complements),
    Attack("nested filters", "API", _by_filters),
    Attack("polling", "API", _by_list("api", differences=True)),
    Attack("re-read after her erasure", "all", _by_saying(lambda kept: kept.moved), of_figures=False),
    Attack("old exports against new", "all", _by_saying(lambda kept: kept.exports), of_figures=False),
    Attack("another tenant's login", "all", _by_saying(lambda kept: kept.foreign), of_figures=False),
    Attack("what she does elsewhere", "SQL", _elsewhere, of_figures=False),
    Attack("errors, unknown filters", "all", _by_saying(lambda kept: kept.refused), of_figures=False),
    Attack("timing of a mailing", "API", _by_time("api"), of_figures=False),
    Attack("timing of a mailing", "pages", _by_time("page"), of_figures=False),
    Attack("timing of a query", "SQL", _by_time("sql"), of_figures=False),
    Attack("timing of a refusal", "SQL", _by_time("sql, refused"), of_figures=False),
    Attack("timing for another tenant", "API", _by_time("another tenant"), of_figures=False),
)


@dataclass(frozen=True, slots=True)
class Line:
    """What an attack came to."""

    name: str
    reads: str
    tries: int
    right: int

    @property
    def rate(self) -> float:
        """How often it was right."""
        return self.right / self.tries

    @property
    def standard_error(self) -> float:
        """Of `rate`, were it the bound."""
        return math.sqrt(BOUND * (1 - BOUND) / self.tries)

    @property
    def within(self) -> bool:
        """Whether it is no more than chance above the bound."""
        return self.rate <= BOUND + STANDARD_ERRORS * self.standard_error


@dataclass(frozen=True, slots=True)
class Report:
    """All attacks of a game."""

    tries: int
    mailings: int
    removed: int
    """Rows about her that her withdrawal and erasure took away."""
    lines: Sequence[Line]
    compared: int
    """Answers that were held against others which they must equal: before and after her erasure, in an earlier stage
    and now, of a mailing and of one that nobody has."""
    differ: int
    """How many of them do not, whatever she did: what differs for a few only would move no rate."""

    @property
    def held(self) -> bool:
        """Whether the bound held against all of them, and nothing differs that must not."""
        return not self.differ and all(line.within for line in self.lines)

    def as_json(self) -> dict[str, Any]:
        """As plain objects; names are stable."""
        return {
            "tries": self.tries,
            "mailings": self.mailings,
            "rho": RHO,
            "bound": round(BOUND, 6),
            "standard_errors": STANDARD_ERRORS,
            "guessing": 0.5,
            "held": self.held,
            "rows_removed_by_erasure": self.removed,
            "answers_compared": self.compared,
            "answers_that_differ": self.differ,
            "attacks": [
                {
                    "name": line.name,
                    "reads": line.reads,
                    "tries": line.tries,
                    "right": round(line.rate, 4),
                    "standard_error": round(line.standard_error, 4),
                    "within": line.within,
                }
                for line in self.lines
            ],
        }


def report(kept: Kept) -> Report:
    """Every attack, and one who takes the best of them: that which was right most often in the other half."""
    lines, hits = [], []
    for attack in ATTACKS:
        guessed = attack.guess(kept)
        right = guessed == _acted(kept.tries.of(attack.tenant)[: len(guessed)])
        lines.append(Line(attack.name, attack.reads, len(right), int(right.sum())))
        if attack.tenant == CROWD and len(right) == len(kept.tries.crowd):
            hits.append(right)
    together = 0
    for half in (0, 1):
        best = max(hits, key=lambda right: int(right[1 - half :: 2].sum()))
        together += int(best[half::2].sum())
    lines.append(Line("the best of these", "all", len(kept.tries.crowd), together))
    same = [said for ways in (kept.moved, kept.exports, kept.foreign) for said in ways.values()]
    differ = sum(not one for said in same for one in said)
    for said in kept.refused.values():
        same.append(said)
        differ += len(said) - Counter(said)[_usual(said)]
    return Report(
        len(kept.tries.crowd), len(kept.tries.all), kept.removed, lines, sum(len(said) for said in same), differ
    )
