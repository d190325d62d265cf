"""`schleuse status`."""

from __future__ import annotations

import sys
from typing import Any

import click
import orjson
from rich.console import Console
from rich.table import Table

from streams.settings import Settings
from streams.status import TERMS
from streams.status import status as read_status


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of text.")
@click.pass_obj
def status(settings: Settings, as_json: bool) -> None:
    """Show where every record went, how far each partition is, and what a worker on this machine waits for.

    Exit code 1 if the sum does not add up.
    """
    said = read_status(settings)
    if as_json:
        click.echo(orjson.dumps(said, option=orjson.OPT_INDENT_2))
    else:
        show(said, Console(markup=False, emoji=False))
    if not said["adds_up"]:
        sys.exit(1)


def show(said: dict[str, Any], console: Console) -> None:
    """Print a status for a person."""
    counts = {term: f"{said[term]:,}" for term in TERMS}
    sign = "=" if said["adds_up"] else "≠"
    console.print(
        f"received {counts['received']} {sign} counted {counts['counted']} + off {counts['off']} + "
        f"duplicates {counts['duplicates']} + rejected {counts['rejected']}",
        style="bold" if said["adds_up"] else "bold red",
    )
    for reason, count in said["rejected_by_reason"].items():
        console.print(f"  rejected as {reason}: {count:,}")
    if said["partitions"]:
        table = Table()
        for name in ("partition", "claim", "next event", "next change", "lag"):
            table.add_column(name, justify="right")
        for line in said["partitions"]:
            table.add_row(
                *(
                    "unknown" if line[k] is None else f"{line[k]:,}"
                    for k in ("partition", "claim", "next_event", "next_change", "lag")
                )
            )
        console.print(table)
    worker = said["worker"]
    if worker is None:
        console.print("No worker answers at http_port on this machine (it is asked of one worker only).")
        return
    known = sum(line["preferences_known"] for line in worker["partitions"])
    ages = [age for line in worker["partitions"] if (age := line["oldest_uncommitted_seconds"]) is not None]
    oldest = f"oldest uncommitted event {max(ages):,.0f} s old" if ages else "nothing uncommitted"
    console.print(f"worker {worker['worker']}: {worker['state']}, {known:,} preferences known, {oldest}")
    for wait in worker["waiting_for"]:
        console.print(f"  waiting for {wait['seconds']:.0f} s: {wait['reason']}", style="yellow")
