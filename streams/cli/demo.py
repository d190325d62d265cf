"""`schleuse demo`: the main job in about a minute, on this machine, with a truth to hold it against."""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import orjson
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from streams.errors import SchleuseError, SettingsError
from streams.processes import running, schleuse, set_up

if TYPE_CHECKING:
    from deploy.embedded.stack import Stack
    from streams.settings import Settings

_SUMS = ("recipients", "openers", "openers_in_truth", "clickers", "clickers_in_truth")
TERMS = ("counted", "off", "duplicates", "rejected")


@click.command()
@click.option("--events", default=500_000, show_default=True, type=click.IntRange(1_000), help="About how many events.")
@click.option("--seed", default=1, show_default=True, help="Another seed, another week.")
@click.option(
    "--keep", "keep", type=click.Path(file_okay=False, path_type=Path), help="Keep everything in this folder."
)
@click.option("--broker", type=click.Choice(["tansu", "kafka"]), help="kafka: Apache Kafka itself (needs Java 17).")
@click.option("--exit", "leave", is_flag=True, help="End after the sum, without the dashboard.")
@click.option("--json", "as_json", is_flag=True, help="The summary as one JSON object; implies --exit.")
def demo(events: int, seed: int, keep: Path | None, broker: Any, leave: bool, as_json: bool) -> None:
    """Play a week of three senders (and a little of the months before) through the lock, and hold what comes out
    against the truth.

    Starts a broker and both stores, feeds the week, runs a worker as a process of its own, and adds it all up. Then it
    publishes figures and stays, with a dashboard to look at, until Ctrl-C. Exit code 1 if any figure differs from the
    truth.
    """
    console = Console(stderr=as_json)
    directory = _folder(keep)
    try:
        summary = _play(events, seed, directory, broker, console, None if leave or as_json else _stay)
    finally:
        if keep is None:
            shutil.rmtree(directory, ignore_errors=True)
    if as_json:
        click.echo(orjson.dumps(summary, option=orjson.OPT_INDENT_2))
    else:
        if leave:
            _show(summary, console)
        if keep:
            console.print(f"\nEverything is kept in {keep}:")
            click.echo(shlex.join([schleuse(), "stack", "start", "--dir", str(keep)]), err=as_json)  # not wrapped
    if not summary["exact"]:
        sys.exit(1)


def _folder(keep: Path | None) -> Path:
    if keep is None:
        return Path(tempfile.mkdtemp(prefix="schleuse-demo-"))
    if (keep / "stack.json").exists():
        raise SettingsError(
            f"{keep} holds a stack already: take another folder, or look at it with schleuse stack start --dir {keep}"
        )
    try:
        keep.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:
        raise SettingsError(f"the folder {keep} cannot be made") from None
    return keep


def _play(
    events: int, seed: int, directory: Path, broker: Any, console: Console, then: Callable[..., None] | None
) -> dict[str, Any]:
    from streams import settings as settings_module  # noqa: PLC0415  what takes long to import comes after --help
    from streams.cli.stack import open_stack, sentences  # noqa: PLC0415
    from streams.demo.story import plan  # noqa: PLC0415

    began = time.monotonic()
    console.print(
        "[bold]Schleuse[/]: everybody counts, nobody shows. Starting a broker and two stores on this machine."
    )
    stack = open_stack(directory, broker, new=True, tied=True)
    with sentences(), stack:
        (directory / "tenants.toml").write_text("")
        story = plan(events, seed, int(time.time() * 1000))
        (directory / "tenants.toml").write_text(story.tenants_toml)
        settings = settings_module.load(stack.settings_file)
        set_up(stack.settings_file)
        ready = time.monotonic()
        environment = {**os.environ, "SCHLEUSE_HTTP_PORT": "0"}  # the usual port may be another worker's
        with running(stack.settings_file, "worker", directory / "logs" / "worker.log", environment) as worker:
            seconds = _feed(story, settings, worker, console)
        summary = _summary(story, settings)
        summary |= {
            "seconds_to_start": round(ready - began, 1),
            "seconds": round(seconds, 1),
            "events_per_second": round(summary["received"] / seconds),
            "broker": stack.broker,
            "seed": seed,
        }
        if then is not None:
            then(summary, settings, stack, console)
        return summary


def _stay(summary: dict[str, Any], settings: Settings, stack: Stack, console: Console) -> None:
    """Show the sum, and then a dashboard until Ctrl-C."""
    from streams.demo.stay import stay  # noqa: PLC0415  what takes long to import comes after --help

    _show(summary, console)
    tenants = list(dict.fromkeys(line["tenant"] for line in summary["mailings"]))
    console.print("\nPublishing figures, and starting the dashboard.")
    stay(settings, stack.settings_file, stack.directory / "logs", tenants, lambda line: print(line, flush=True))


def _feed(story: Any, settings: Settings, worker: subprocess.Popen[bytes], console: Console) -> float:
    """Send the story in its order while the worker works; seconds from the first event to the last one's outcome."""
    from streams.demo.send import send  # noqa: PLC0415
    from streams.status import status  # noqa: PLC0415

    def push(messages: Iterable[tuple[str, bytes, bytes]], sent: Callable[[int], None] = lambda _: None) -> int:
        return asyncio.run(send(settings.broker, settings.partitions, messages, sent))

    def wait(done: Callable[[dict[str, Any]], bool], shown: Callable[[dict[str, Any]], None] = lambda _: None) -> None:
        quiet_since, last = time.monotonic(), None
        while True:
            if worker.poll() is not None:
                raise SchleuseError("the worker ended; its last words are in logs/worker.log of the --keep folder")
            said = status(settings)
            shown(said)
            if done(said):
                return
            if (said["received"], said["partitions"]) != last:
                quiet_since, last = time.monotonic(), (said["received"], said["partitions"])
            if time.monotonic() - quiet_since > 60:
                raise SchleuseError(
                    "the worker has not moved for a minute; look at logs/worker.log of the --keep folder"
                )
            time.sleep(0.25)

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        first = progress.add_task("people say what they agree to", total=len(story.waves))
        push(story.declarations_as_messages())
        push(story.waves, lambda n: progress.advance(first, n))
        wait(lambda said: sum(line["next_change"] for line in said["partitions"]) >= len(story.waves))
        fed = progress.add_task("senders feed their events in", total=story.truth.received)
        counted = progress.add_task("the worker lets them through", total=story.truth.received)
        began = time.monotonic()
        push(story.timeline(), lambda n: progress.advance(fed, n))
        progress.update(fed, completed=story.truth.received)
        wait(
            lambda said: said["received"] >= story.truth.received,
            lambda said: progress.update(counted, completed=said["received"]),
        )
        return time.monotonic() - began


def _summary(story: Any, settings: Settings) -> dict[str, Any]:
    from streams.status import status  # noqa: PLC0415
    from streams.stores import Role, Store, connect  # noqa: PLC0415
    from streams.totals import totals  # noqa: PLC0415

    said = status(settings)
    have = {line[:5]: line[5:] for line in totals(connect(settings, Store.ANALYTICS, Role.OPERATOR))}
    want = story.truth.cells
    outcomes = {"received": story.truth.received, **story.truth.outcomes}
    return {
        "received": said["received"],
        **{term: said[term] for term in TERMS},
        "rejected_by_reason": said["rejected_by_reason"],
        "adds_up": said["adds_up"],
        "mailings": [
            {
                "tenant": declared["tenant"],
                "mailing": declared["mailing"],
                "name": declared["name"],
                "recipients": declared["recipients"],
                "earlier": declared["mailing"] in story.earlier,
                **_figures(declared, have, want),
            }
            for declared in story.declarations
        ],
        "cells": len(want),
        "cells_that_differ": len(
            [cell for cell in {*want, *have} if tuple(want.get(cell, ())) != tuple(have.get(cell, ()))]
        ),
        "exact": have == {cell: tuple(figures) for cell, figures in want.items()}
        and all(said[name] == count for name, count in outcomes.items()),
    }


def _figures(declared: dict[str, Any], have: dict[Any, Any], want: dict[Any, Any]) -> dict[str, int]:
    figures = {}
    for kind, word in (("open", "openers"), ("click", "clickers")):
        cell = (declared["tenant"], declared["mailing"], kind, None, "human")
        figures[word], figures[f"{word}_in_truth"] = have.get(cell, (0, 0))[1], want.get(cell, (0, 0))[1]
    return figures


def _lines(mailings: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The week's mailings; those of the months before as one line a sender."""
    for tenant in dict.fromkeys(line["tenant"] for line in mailings):
        earlier = [line for line in mailings if line["tenant"] == tenant and line["earlier"]]
        if earlier:
            yield {
                "tenant": tenant,
                "name": f"{len(earlier)} months before",
                **{name: sum(line[name] for line in earlier) for name in _SUMS},
            }
        yield from (line for line in mailings if line["tenant"] == tenant and not line["earlier"])


def _show(summary: dict[str, Any], console: Console) -> None:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    table.add_column("sender", no_wrap=True, min_width=10)
    table.add_column("mailing", no_wrap=True, overflow="ellipsis", min_width=8, max_width=21)
    for name, width in (("sent", 6), ("opened", 11), ("clicked", 10), ("exact", 5)):
        table.add_column(name, justify="right", no_wrap=True, min_width=width)
    last = None
    for line in _lines(summary["mailings"]):
        people = max(1, line["recipients"])
        opened, clicked = ((line[word], line[f"{word}_in_truth"]) for word in ("openers", "clickers"))
        table.add_row(
            "" if line["tenant"] == last else line["tenant"],
            line["name"],
            f"{line['recipients']:,}",
            f"{opened[0]:,} [dim]{opened[0] / people:4.0%}[/]",
            f"{clicked[0]:,} [dim]{clicked[0] / people:4.0%}[/]",
            "[green]yes[/]" if opened[0] == opened[1] and clicked[0] == clicked[1] else "[red]no[/]",
        )
        last = line["tenant"]
    console.print(table)
    console.print("People, by what the mailing's messages did; exact: equal to the truth that the generator knows.\n")
    console.print(
        f"[bold]{summary['received']:,}[/] events came in, {summary['events_per_second']:,} a second on this machine, "
        "the feeding included.\nWhere every one of them went:\n"
    )
    refused = ", ".join(f"{count} {reason}" for reason, count in summary["rejected_by_reason"].items())
    explained = {
        "counted": "in the figures above and in every cell",
        "off": "their recipients want no counting at all: nothing is kept",
        "duplicates": "the sender's retries, counted once",
        "rejected": refused,
    }
    rows = Table.grid(padding=(0, 2))
    rows.add_column()
    rows.add_column(justify="right")
    rows.add_column(style="dim")
    for term in TERMS:
        rows.add_row(f"  {term}", f"{summary[term]:,}", explained[term])
    total = " + ".join(f"{summary[term]:,}" for term in TERMS)
    rows.add_row("  [bold]received", f"[bold]{summary['received']:,}", f"{'=' if summary['adds_up'] else '≠'} {total}")
    console.print(rows)
    if summary["exact"]:
        console.print(
            f"\n[green]Exact:[/] all {summary['cells']:,} cells, events and distinct people, equal the truth."
        )
    else:
        console.print(f"\n[red]Not exact:[/] {summary['cells_that_differ']:,} of {summary['cells']:,} cells differ.")
