"""From the results to docs/speed.md and its plot.

python -m benchmarks.compare.report [FILE]
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.compare.contestants import CONTESTANTS
from benchmarks.results import between

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "compare.jsonl"
README, PAGE, PLOT = ROOT / "README.md", ROOT / "docs" / "speed.md", ROOT / "docs" / "speed.svg"
BEGIN, END = "<!-- compare: begin, written by make bench-compare -->", "<!-- compare: end -->"
VARIANTS = {"work": "The same work", "inserts": "The same work, and the inserts into both stores"}
TITLES = {"work": "the same work", "inserts": "with inserts"}
Lines = Sequence[dict[str, Any]]


def read(path: Path) -> list[dict[str, Any]]:
    """All lines of a results file."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def line(run: dict[str, Any]) -> str:
    """One run, for the terminal."""
    who = f"round {run['round']} {run['variant']:8s} {run['contestant']:14s}"
    if run["wrong"]:
        return f"{who} DISQUALIFIED: wrong {', '.join(run['wrong'])}"
    return (
        f"{who} {run['rate']:10,.0f} events/s {run['cpu_us']:7.2f} us  "
        f"second half {run['second_rate']:10,.0f} at {run['second_cpu_us']:6.2f}  "
        f"{run['peak_mb']:6.0f} MB  broker {run['broker_us']:.2f} stores {run['stores_us']:.2f}"
    )


def runs(lines: Lines, variant: str, name: str) -> list[dict[str, Any]]:
    """The runs of one contestant, by round."""
    return [one for one in lines if one.get("contestant") == name and one["variant"] == variant]


def tables(lines: Lines) -> str:
    """What was measured, as Markdown."""
    facts = lines[0]["facts"]
    parts = [_facts(facts, lines)]
    for variant, title in VARIANTS.items():
        if any(one.get("variant") == variant for one in lines):
            parts.append(f"### {title}\n\n{_table(lines, variant)}")
    return "\n\n".join(parts)


def _facts(facts: dict[str, Any], lines: Lines) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in facts["versions"].items())
    loads = [one for one in lines if "busy_cores" in one]
    busiest = max(one.get("busy_before", 0) for one in lines)
    others = ", ".join(f"{one['busy_cores']:.2f}" for one in loads)
    return (
        f"Measured {facts['when']} on {facts['cores']} cores ({facts['processor']}), {facts['memory_gb']} GB, "
        f"{facts['system']}, Python {facts['python']}, {facts['java']}: {facts['events']:,} events of "
        f"{facts['bytes']:.0f} bytes from {facts['people']:,} recipients on 4 partitions, {facts['rounds']} rounds. "
        f"Cores that others kept busy before each round: {others}; load average before the first: "
        f"{loads[0]['load_1']:.2f}; at most {busiest:.2f} cores were busy right before a run. Versions: {versions}."
    )


HEAD = (
    *("", "events/s, median (range)", "times Faust", "times Kafka Streams", "CPU µs an event (range)"),
    *("second half: events/s", "second half: CPU µs", "CPU by Kafka Streams'", "peak MB", "broker µs", "stores µs"),
)


def _table(lines: Lines, variant: str) -> str:
    rows = [list(HEAD), ["---", *["--:"] * (len(HEAD) - 1)]]
    notes = []
    for who in CONTESTANTS:
        found = runs(lines, variant, who.name)
        if wrong := sorted({name for one in found for name in one["wrong"]}):
            notes.append(f"{who.label} is disqualified: wrong {', '.join(wrong)}.")
        elif found:
            rows.append(_row(lines, variant, who.label, found))
            if who.few:
                notes.append(f"{who.label}: {found[0]['events']:,} events.")
            if who.name == "lock":
                between = median(one["between_batches"] or one["rate"] for one in found)
                notes.append(f"{who.label}, between its first and its last finished batch: {between:,.0f} events/s.")
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return "\n\n".join([table, *([" ".join(notes)] if notes else [])])


def _row(lines: Lines, variant: str, label: str, found: Lines) -> list[str]:
    return [
        label,
        f"{_median(found, 'rate'):,.0f} ({_range(found, 'rate', ',.0f')})",
        _ratio(lines, variant, found, "faust", "rate"),
        _ratio(lines, variant, found, "kafka-streams", "rate"),
        f"{_median(found, 'cpu_us'):.2f} ({_range(found, 'cpu_us', '.2f')})",
        f"{_median(found, 'second_rate'):,.0f}",
        f"{_median(found, 'second_cpu_us'):.2f}",
        _ratio(lines, variant, found, "kafka-streams", "second_cpu_us"),
        f"{_median(found, 'peak_mb'):.0f}",
        f"{_median(found, 'broker_us'):.2f}",
        f"{_median(found, 'stores_us'):.2f}" if variant == "inserts" else "",
    ]


def summary(lines: Lines) -> str:
    """The README's table: medians, a line a contestant, whoever is disqualified left out."""
    facts = lines[0]["facts"]
    rows = [
        ["", "events/s", "CPU µs an event", "with inserts: events/s", "CPU µs an event", "times Faust"],
        ["---", *["--:"] * 5],
    ]
    for who in CONTESTANTS:
        row, found = [who.label], []
        for variant in VARIANTS:
            found = runs(lines, variant, who.name)
            right = found and not any(one["wrong"] for one in found)
            row += [f"{_median(found, 'rate'):,.0f}", f"{_median(found, 'cpu_us'):.1f}"] if right else ["", ""]
        rows.append([*row, _ratio(lines, "inserts", found, "faust", "rate")])
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    said = f"Measured {facts['when']} on {facts['cores']} cores; medians of {facts['rounds']} rounds."
    if lock := runs(lines, "inserts", "lock"):
        steady = median(one["between_batches"] or one["rate"] for one in lock)
        said += f" The whole lock, start and last wait left out: {steady:,.0f} events/s."
    return f"{table}\n\n{said}"


def _median(found: Lines, name: str) -> float:
    return float(median(one[name] for one in found))


def _range(found: Lines, name: str, form: str) -> str:
    values = [one[name] for one in found]
    return f"{min(values):{form}} to {max(values):{form}}"


def _ratio(lines: Lines, variant: str, found: Lines, other: str, figure: str) -> str:
    """Median of the rounds' ratios: what changes from round to round hits both."""
    base = {one["round"]: one[figure] for one in runs(lines, variant, other) if not one["wrong"]}
    ratios = [one[figure] / base[one["round"]] for one in found if one["round"] in base]
    return f"{median(ratios):.2f}" if ratios else ""


def plot(lines: Lines, path: Path) -> None:
    """Bars of the medians with their ranges; readable on a light and on a dark page."""
    import matplotlib as mpl  # noqa: PLC0415  a second to import, and only here

    mpl.use("svg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    grey, ours, theirs = "#808080", "#2a9d8f", "#9aa5b1"
    plt.rcParams.update(
        {"text.color": grey, "axes.labelcolor": grey, "axes.edgecolor": grey, "xtick.color": grey, "ytick.color": grey}
        | {"font.size": 9, "svg.hashsalt": "compare", "svg.fonttype": "none"}
    )
    variants = [variant for variant in VARIANTS if any(one.get("variant") == variant for one in lines)]
    figure, axes = plt.subplots(len(variants), 2, figsize=(10, 3.1 * len(variants)), squeeze=False)
    for row, variant in zip(axes, variants, strict=True):
        ran = [(who, runs(lines, variant, who.name)) for who in reversed(CONTESTANTS)]
        shown = [(who, found) for who, found in ran if found and not any(one["wrong"] for one in found)]
        names = [who.label.strip("*") for who, _ in shown]
        colours = [ours if who.name in ("schleuse", "lock") else theirs for who, _ in shown]
        for axis, name, title in ((row[0], "rate", "events/s"), (row[1], "cpu_us", "CPU µs an event (log scale)")):
            values = [_median(found, name) for _, found in shown]
            spread = [
                [value - min(one[name] for one in found) for value, (_, found) in zip(values, shown, strict=True)],
                [max(one[name] for one in found) - value for value, (_, found) in zip(values, shown, strict=True)],
            ]
            bars = axis.barh(names, values, xerr=spread, color=colours, ecolor=grey, error_kw={"lw": 1})
            labels = [f"{value:,.0f}" if name == "rate" else f"{value:.1f}" for value in values]
            axis.bar_label(bars, labels, padding=6, color=grey, fontsize=8)
            axis.set_title(f"{TITLES[variant]}: {title}", fontsize=9, color=grey)
            axis.spines[["top", "right"]].set_visible(False)
            axis.patch.set_alpha(0)
            if name == "cpu_us":
                axis.set_xscale("log")
                axis.set_yticklabels([])
                axis.set_xlim(1, max(values) * 3)
            else:
                axis.set_xlim(0, max(values) * 1.25)
                axis.xaxis.set_major_formatter(lambda value, _: f"{value / 1000:.0f}k")
    figure.tight_layout()
    figure.savefig(path, transparent=True, metadata={"Date": None})
    plt.close(figure)


def write(results: Path) -> None:
    """Put tables and plot where the pages have them."""
    lines = read(results)
    page = PAGE.read_text()
    marked = re.compile(f"{re.escape(BEGIN)}.*{re.escape(END)}", re.DOTALL)
    if not marked.search(page):
        raise SystemExit(f"{PAGE} lacks its two marks")
    PAGE.write_text(marked.sub(lambda _: f"{BEGIN}\n\n{tables(lines)}\n\n{END}", page))
    between(README, "speed", summary(lines))
    plot(lines, PLOT)


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else RESULTS)
