"""What a day of mailings does to the lag: a simulation with a seed, no machine is measured.

    python -m benchmarks.bursts [--events 1e9] [--mailings 2000] [--capacity 30000] [--seed 1]

Where the numbers come from:

- When people open after delivery: 27 % of all opens within 1 h, 50 % within 3 h, 61 % within 6 h (25 mailings to 4
  million people, corp.inntopia.com/email-short-tail), 78 % within a day, 95 % within a week (2,000 mailings,
  i-emailer.com/resourcecenter/email_open_velocity.html); the rest within 30 days. Clicks follow the same curve.
- Declared, not measured: a quarter of all events come from machines (prefetching, link checks), five minutes after
  delivery on average; mailings are as unlike in size as a Zipf law with exponent 1 says, the largest a fifth of the day
  at most; seven of ten are scheduled to a full hour, mostly in the morning; one mailing is delivered at ten million
  mails an hour and brings half an event a mail.
- What earlier days left behind arrives too: 30 days of the same kind are laid over each other.

The queue: what arrives in a step of ten seconds waits until `workers * capacity` have taken what was there before; a
share of the capacity is kept for what the figure does not know (`--headroom`).
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import results

Floats = NDArray[np.float64]
PAGE, PLOT = results.ROOT / "docs" / "capacity.md", results.ROOT / "docs" / "bursts.svg"
STEP, DAY = 10, 86_400
HOURS = (0.0, 1.0, 3.0, 6.0, 24.0, 168.0, 720.0)
OPENED = (0.0, 0.27, 0.50, 0.61, 0.78, 0.95, 1.0)
MACHINES, MACHINE_SECONDS, MAILS_AN_HOUR, LARGEST, ON_THE_HOUR, EARLIER_DAYS = 0.25, 300.0, 10e6, 0.2, 0.7, 29
BY_HOUR = (1, 1, 1, 1, 2, 4, 8, 12, 16, 18, 16, 12, 10, 10, 10, 9, 8, 8, 8, 7, 5, 3, 2, 1)
LIMITS = (5, 60, 600)  # seconds of lag
RESPONSE = 0.5  # events a mail


@dataclass(frozen=True, slots=True)
class Day:
    """Events that arrive in each step of one day."""

    arrivals: Floats

    @property
    def peak(self) -> float:
        """Events a second in the fullest ten seconds."""
        return float(self.arrivals.max() / STEP)

    @property
    def mean(self) -> float:
        """Events a second over the day."""
        return float(self.arrivals.sum() / DAY)


def arrived(seconds: Floats) -> Floats:
    """Share of a mailing's events that have come so long after delivery."""
    hours = np.maximum(seconds, 0) / 3600
    # Straight lines over log(1 + 4 h): steep at first, as the first hours are.
    people = np.interp(np.log1p(4 * hours), np.log1p(4 * np.array(HOURS)), OPENED)
    machines = 1 - np.exp(-np.maximum(seconds, 0) / MACHINE_SECONDS)
    return (1 - MACHINES) * people + MACHINES * machines


def curve(delivery_seconds: float) -> Floats:
    """Share of a mailing's events in each step from its start on, for 30 days, delivered evenly over so long."""
    edges = np.arange(0, 30 * DAY + STEP, STEP, dtype=np.float64)
    parts = max(1, round(delivery_seconds / STEP))
    share = np.diff(arrived(edges))
    summed = np.concatenate([[0.0], np.cumsum(share)])
    ends = np.arange(1, len(summed))
    return (summed[ends] - summed[np.maximum(ends - parts, 0)]) / parts


def simulate(events: float, mailings: int, seed: int) -> Day:
    """A day on which `events` arrive, from its own mailings and from those of the days before."""
    chance = np.random.default_rng(seed)
    size = 1 / np.arange(1, mailings + 1)
    size = np.minimum(size / size.sum(), LARGEST)
    size *= events / size.sum()
    hours = chance.choice(24, mailings, p=np.array(BY_HOUR) / sum(BY_HOUR))
    within = np.where(chance.random(mailings) < ON_THE_HOUR, 0.0, chance.random(mailings) * 3600)
    starts = ((hours * 3600 + within) / STEP).astype(int)
    steps, whole = DAY // STEP, np.zeros(31 * DAY // STEP)
    by_parts: dict[int, Floats] = {}  # mailings with equally long deliveries share a curve
    for start, many in zip(starts, size, strict=True):
        seconds = many / RESPONSE / MAILS_AN_HOUR * 3600
        key = round(np.log2(max(1.0, seconds / STEP)) * 4)
        if key not in by_parts:
            by_parts[key] = curve(2 ** (key / 4) * STEP)
        own = by_parts[key]
        end = min(len(whole), start + len(own))
        whole[start:end] += own[: end - start] * many
    return Day(whole[: (EARLIER_DAYS + 1) * steps].reshape(EARLIER_DAYS + 1, steps).sum(axis=0))


def lag(day: Day, capacity: float) -> tuple[Floats, Floats]:
    """Waiting events, and seconds until what arrives now is taken, in each step of the second of two equal days."""
    waiting, seen = 0.0, np.zeros(2 * len(day.arrivals))
    for step, more in enumerate(np.concatenate([day.arrivals, day.arrivals])):
        waiting = max(0.0, waiting + more - capacity * STEP)
        seen[step] = waiting
    second = seen[len(day.arrivals) :]
    return second, second / capacity


def needed(day: Day, limit: float, capacity: float) -> int:
    """The fewest workers with which nothing ever waits for longer than `limit` seconds."""
    workers = max(1, int(np.ceil(day.mean / capacity)))
    while lag(day, workers * capacity)[1].max() > limit:
        workers += 1
    return workers


def table(day: Day, capacity: float, figures: dict[str, Any]) -> str:
    """For people."""
    lines = [
        f"{day.mean * DAY:,.0f} events in a day of {figures['mailings']:,} mailings: {day.mean:,.0f} a second, "
        f"{day.peak:,.0f} in the fullest ten seconds ({day.peak / day.mean:.1f} times). One worker is taken to carry "
        f"{capacity:,.0f} a second ({figures['from']}, {figures['headroom']:.0%} kept back). Seed {figures['seed']}.",
        "",
        "| workers | busy on average | longest wait | events waiting at most | minutes a day above 5 s |",
        "| ---: | ---: | ---: | ---: | ---: |",
    ]
    for one in figures["lines"]:
        longest = f"{one['longest_s']:,.0f} s" if one["longest_s"] < 600 else f"{one['longest_s'] / 60:,.0f} min"
        lines.append(
            f"| {one['workers']} | {one['busy']:.0%} | {longest} | {one['waiting']:,.0f} | {one['minutes']:,.0f} |"
        )
    words = ", ".join(f"{workers} for {limit}" for limit, workers in figures["needed"].items())
    lines += ["", f"Workers needed so that nothing waits for longer than so many seconds: {words}."]
    return "\n".join(lines)


def plot(day: Day, capacity: float, workers: list[int]) -> str:
    """An SVG: arrivals a second over the day, what so many workers carry, and below how long each would wait."""
    width, height, left, colours = 860, 240, 70, ("#b3541e", "#2f6f4f", "#31558a")
    minutes = day.arrivals.reshape(-1, 6).sum(axis=1) / 60
    top = max(minutes.max(), capacity * workers[-1]) * 1.05

    def line(values: Floats, most: float, begin: int, colour: str) -> str:
        x = left + np.arange(len(values)) / len(values) * (width - left - 10)
        y = begin + height - values / most * height
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x[::2], y[::2], strict=True))
        return f'<polyline fill="none" stroke="{colour}" stroke-width="1.4" points="{points}"/>'

    def text(x: float, y: float, words: str, colour: str = "#333") -> str:
        return f'<text x="{x:.0f}" y="{y:.0f}" fill="{colour}">{words}</text>'

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} 580" font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="#fff"/>',
        text(left, 18, "Events a second, by minute, and what so many workers carry"),
        line(minutes, top, 28, "#444"),
        text(4, 40, f"{top:,.0f}"),
        text(left, 318, "Seconds that an event waits"),
    ]
    delays = [lag(day, capacity * count)[1].reshape(-1, 6).max(axis=1) for count in workers]
    most = max(1.0, *(delay.max() for delay in delays)) * 1.05
    parts.append(text(4, 340, f"{most:,.0f} s"))
    for count, delay, colour in zip(workers, delays, colours, strict=False):
        y = 28 + height - capacity * count / top * height
        ends = f'x1="{left}" x2="{width - 10}" y1="{y:.1f}" y2="{y:.1f}"'
        parts.append(f'<line {ends} stroke="{colour}" stroke-dasharray="5"/>')
        parts += [text(width - 90, y - 4, f"{count} workers", colour), line(delay, most, 328, colour)]
    for hour in range(0, 25, 3):
        x = left + hour / 24 * (width - left - 10)
        parts += [text(x - 8, 284, f"{hour}:00"), text(x - 8, 576, f"{hour}:00")]
    return "\n".join([*parts, "</svg>"]) + "\n"


def figures(events: float, mailings: int, seed: int, capacity: float | None, headroom: float) -> tuple[Day, Any]:
    """The whole simulation; the capacity of a worker comes from the newest result of benchmarks.worker if not given."""
    source = "as asked for"
    if capacity is None:
        measured = results.read("worker")
        if measured is None:
            raise SystemExit("benchmarks.worker has not run yet: give --capacity")
        capacity, source = measured["median"]["rate"], "measured"
    each, day = capacity * (1 - headroom), simulate(events, mailings, seed)
    wanted = {limit: needed(day, limit, each) for limit in LIMITS}
    least = max(1, int(np.ceil(day.mean / each)))
    shown = sorted({least, *wanted.values(), least + 1})
    lines = []
    for count in shown:
        waiting, delay = lag(day, count * each)
        lines.append(
            {
                "workers": count,
                "busy": day.mean / (count * each),
                "longest_s": float(delay.max()),
                "waiting": float(waiting.max()),
                "minutes": float((delay > 5).sum() * STEP / 60),
            }
        )
    return day, {
        "events": events,
        "mailings": mailings,
        "seed": seed,
        "mean": day.mean,
        "peak": day.peak,
        "capacity": each,
        "headroom": headroom,
        "from": source,
        "needed": wanted,
        "lines": lines,
    }


def main() -> None:
    """Print a table; write bursts.json, docs/bursts.svg and docs/capacity.md."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--events", type=float, default=1e9, help="in the day")
    arguments.add_argument("--mailings", type=int, default=2000, help="in the day")
    arguments.add_argument("--capacity", type=float, help="events a second of one worker")
    arguments.add_argument("--headroom", type=float, default=0.3, help="share of the capacity that is kept back")
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--out", type=Path, default=results.FOLDER)
    asked = arguments.parse_args()
    day, said = figures(asked.events, asked.mailings, asked.seed, asked.capacity, asked.headroom)
    ours = asked.out == results.FOLDER
    results.write("bursts", said, table(day, said["capacity"], said), asked.out, PAGE if ours else None, "Simulated")
    shown = [said["needed"][LIMITS[2]], said["needed"][LIMITS[0]]]
    (PLOT if ours else asked.out / "bursts.svg").write_text(plot(day, said["capacity"], sorted(set(shown))))


if __name__ == "__main__":
    main()
