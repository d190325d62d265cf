"""`schleuse verify`."""

from __future__ import annotations

import sys
from collections import Counter

import click
import orjson

from streams.rights.checks import ALL
from streams.rights.verify import Result, Verdict
from streams.rights.verify import verify as run
from streams.settings import Settings

_SIGN = {Verdict.HOLDS: "ok", Verdict.FAILED: "FAILED", Verdict.NOT_SAID: "not said"}
_COLOUR = {Verdict.HOLDS: "green", Verdict.FAILED: "red", Verdict.NOT_SAID: "yellow"}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of text.")
@click.pass_obj
def verify(settings: Settings, as_json: bool) -> None:
    """Check the promises on the running system, from the outside, and print a report to file.

    It changes nothing but for one line in the audit trail and the report that it files for the officer's view, and may
    run while workers do. Exit code 1 if a check has
    failed. What cannot be said (a password that is not here, a claim that no worker finishes) is named, and is no
    failure.
    """
    report = run(
        settings,
        ALL,
        said=lambda result: None if as_json else show(result),
        not_filed=lambda why: click.echo(f"The report is not among the officer's: {why}", err=True),
    )
    if as_json:
        click.echo(orjson.dumps(report.as_json(), option=orjson.OPT_INDENT_2))
    else:
        counts = Counter(result.verdict for result in report.results)
        click.echo(
            f"\n{counts[Verdict.HOLDS]} checks hold, {counts[Verdict.FAILED]} failed, "
            f"{counts[Verdict.NOT_SAID]} cannot be said. Began {report.began}."
        )
        click.echo(f"Head of the audit trail, to be noted elsewhere: {report.head}")
    if report.failed:
        sys.exit(1)


def show(result: Result) -> None:
    """Print one result for a person."""
    sign = click.style(f"{_SIGN[result.verdict]:<9}", fg=_COLOUR[result.verdict], bold=True)
    click.echo(f"{sign}{result.promises:<7} {result.name}: {result.says}")
    looked_at = ", ".join(f"{count:,} {what}" for what, count in result.looked_at.items())
    click.echo(f"{'':17}looked at {looked_at or 'nothing'}")
    for what, times in result.found.items():
        click.echo(f"{'':17}{times:,} {what}")
    for what in result.skipped:
        click.echo(f"{'':17}not looked at: {what}")
    if result.otherwise:
        click.echo(f"{'':17}to do: {result.otherwise}")
