"""One page about one soak, in Markdown."""

from __future__ import annotations

import os
import platform
from collections import defaultdict
from collections.abc import Iterable

from tests.soak.faults import Done
from tests.soak.run import BROKERS, Outcome


def page(outcome: Outcome, command: str) -> str:
    """The whole report. No key, recipient or content of a record is in it."""
    scale, comparison = outcome.scale, outcome.comparison
    lines = [
        f"# Soak of {outcome.began:%Y-%m-%d %H:%M %Z}: {'it holds' if outcome.holds else 'IT DOES NOT HOLD'}",
        "",
        f"Seed {outcome.seed}; again with `{command}` (the same story, the same faults at the same "
        "places in it; what the machine does in between is chance).",
        f"{BROKERS} brokers (Apache Kafka, a process each, replication 3, min in-sync 2), {scale.partitions} "
        f"partitions, {scale.workers} workers, two stores behind a proxy each; {os.cpu_count()} cores, "
        f"{platform.system()}, Python {platform.python_version()}.",
        "",
        "## Verdict",
        "",
    ]
    if comparison is None:
        lines.append("There was nothing to compare.")
    else:
        lines.append(f"lost = {comparison.lost}, doubled = {comparison.doubled}, ignored = {comparison.ignored}")
        lines += ["", "```", comparison.summary(f"seed {outcome.seed}"), "```"]
        if comparison.lines:
            lines += ["", "```", comparison.text(), "```"]
    lines += [f"- seen after its receipt: {what}" for what in outcome.after_receipts[:10]]
    lines += [f"- not done: {what}" for what in outcome.missing]
    lines += [f"- skipped: {what}" for what in outcome.skipped]
    lines += ["", "## What was done to it", "", "| fault | times | seconds into the run |", "| --- | ---: | --- |"]
    by_name: dict[str, list[Done]] = defaultdict(list)
    for one in outcome.done:
        by_name[one.name].append(one)
    for name in scale.faults:
        times = by_name[name]
        failed = [one for one in times if one.failed]
        when = ", ".join(f"{one.began:.0f}-{one.ended:.0f}" for one in times)
        lines.append(f"| {name}{f' ({len(failed)} FAILED)' if failed else ''} | {len(times)} | {when} |")
    clocks = "" if outcome.skipped else "the first worker's clock a day ahead, the second's a day behind; "
    lines += [
        "",
        "What exactly each did is in soak-faults.txt beside this page.",
        "",
        f"All the time: {clocks}tracking.state compacted every few seconds. Workers by how far their clocks were off, "
        f"measured by the times in their logs: {_counted(outcome.clocks.items())}.",
        "",
        "## Figures",
        "",
        "| what | |",
        "| --- | --- |",
        *(
            f"| {name} | {value:,} |" if isinstance(value, int) else f"| {name} | {value} |"
            for name, value in outcome.figures.items()
        ),
        f"| workers told to leave, ended | {_counted(outcome.exits.items()) or 'none'} |",
        f"| workers that ended by themselves, and were started again | {_counted(outcome.ended.items()) or 'none'} |",
        "",
        f"What the lock's own lines in the workers' logs say: {_counted(outcome.said.most_common())}.",
    ]
    return "\n".join(lines) + "\n"


def details(outcome: Outcome) -> str:
    """A line a fault: when it was planned, when it began and ended (seconds), what it was."""
    lines = (
        f"{one.planned:8.1f} {one.began:8.1f} {one.ended:8.1f}  {one.name}: {'FAILED: ' * one.failed}{one.what}"
        for one in sorted(outcome.done, key=lambda one: one.began)
    )
    return " planned    began    ended\n" + "\n".join(lines) + "\n"


def _counted(pairs: Iterable[tuple[str, int]]) -> str:
    return "; ".join(f"{count} x {what}" for what, count in pairs)
