"""`schleuse close`."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import click

from streams.errors import SettingsError, StoreUnavailable
from streams.mailings import Mailing
from streams.rights import closing
from streams.rights.desk import Desk
from streams.settings import Settings

LOOK_SECONDS = 0.3


@click.command()
@click.option("--tenant", required=True, help="Whose mailing.")
@click.option("--mailing", required=True, help="Its id, as it stands in events.")
@click.option("--yes", is_flag=True, help="Close it, now and for good.")
@click.option("--wait", default=120.0, show_default=True, help="How many seconds to wait for the workers.")
@click.pass_obj
def close(settings: Settings, tenant: str, mailing: str, yes: bool, wait: float) -> None:
    """Close the window of a mailing before its time: its figures become final, what identifies recipients in them goes.

    Events that come for it afterwards are rejected as `late`. It cannot be opened again. Without --yes: what would
    happen, and when it closes by itself. Exit code 1 when there is something to close and no --yes.
    """
    one = (tenant, mailing)
    with Desk.open(settings) as desk:
        if closing.is_closed(desk, one):
            click.echo(f"{tenant} / {mailing} is closed: {closing.figures(desk, one):,} figures are final")
            return
        now_ms, window = closing.window(desk, one)
        for line in _plan(now_ms, window):
            click.echo(line)
        if not yes:
            raise SettingsError("it was not closed: --yes does, for good")
        if window.asked_ms is None:
            closing.ask(desk, [one], "schleuse close")
        _wait(desk, one, wait)
        closing.finish(desk, [one])
        click.echo(f"closed: {closing.figures(desk, one):,} figures are final, the sets and their secret are gone")


def _plan(now_ms: int, window: closing.Window) -> list[str]:
    tenant, mailing = window.mailing
    counted_from = "as declared" if window.declared else "from its newest hour: nobody has declared when it was sent"
    over = "its window was over" if window.ends_ms <= now_ms else "its window is over"
    lines = [
        f"{tenant} / {mailing}: {over} at {_time(window.ends_ms)} ({counted_from}); {window.events:,} events counted"
    ]
    if window.asked_ms is not None:
        lines.append(f"its closing was asked for at {_time(window.asked_ms)}")
    else:
        lines.append("by itself it closes when nothing has come for it for a day after that (schleuse rights)")
    if window.unpublished:
        lines.append("not all of its figures are published: it waits for them, a week at most; closed now, none follow")
    lines.append("closed, its recipients are figures only, and whatever comes for it is rejected as late")
    return lines


def _wait(desk: Desk, mailing: Mailing, seconds: float) -> None:
    until = time.monotonic() + seconds
    while True:
        where = closing.carried_out(desk, [mailing])[mailing]
        if not where.missing and where.settled:
            return
        if time.monotonic() > until:
            break
        time.sleep(LOOK_SECONDS)
    if where.missing:
        numbers = ", ".join(map(str, where.missing))
        raise StoreUnavailable(
            f"it is asked for, and partitions {numbers} have not carried it out yet: do workers run? schleuse rights "
            "finishes it, and so does the same command again"
        )
    raise StoreUnavailable(
        "it is carried out, but the topics are new: for a quarter of an hour a worker of before may still be writing. "
        "schleuse rights finishes it, and so does the same command again"
    )


def _time(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
