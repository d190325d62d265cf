"""`schleuse attack`: somebody who keeps everything that is ever shown guesses what one recipient did."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
import orjson
from rich import box
from rich.console import Console
from rich.table import Table

from streams.errors import SchleuseError
from streams.processes import running, set_up

if TYPE_CHECKING:
    from streams.attack.guesses import Report
    from streams.settings import Settings
    from streams.stores import StoreClient

START_SECONDS: Final = 60.0
_ADDRESS: Final = re.compile(r"http://127\.0\.0\.1:\d+")
_PARTITIONS: Final = 2


@click.command()
@click.option(
    "--tries", default=1_000, show_default=True, type=click.IntRange(100, 10_000), help="Mailings of each tenant."
)
@click.option("--seed", default=1, show_default=True, help="Other coins: in which mailings she acts.")
@click.option(
    "--thorough", is_flag=True, help="Ask about every mailing what takes a request each, not about every fourth: slow."
)
@click.option("--file", "file", is_flag=True, help="Put the report among those that the officer's view shows.")
@click.option("--json", "as_json", is_flag=True, help="The report as one JSON object.")
@click.pass_context
def attack(ctx: click.Context, tries: int, seed: int, thorough: bool, file: bool, as_json: bool) -> None:
    """Attack what is published: who knows what all others did, and keeps all that is ever shown, guesses what she did.

    Starts a broker, both stores, a worker and a dashboard of its own; in half of the mailings, by lot, one recipient
    does everything that a figure can show. Prints how often each attack is right beside the bound and beside a coin.
    Exit code 1 if one is right more often than the bound allows (by more than 4 standard errors). It needs no settings
    and touches no system but, with --file, the table of reports of the one that they name (login `operator`).
    """
    from streams import logs  # noqa: PLC0415  what takes long to import comes after --help

    logs.configure("error")
    logging.getLogger("kafka").setLevel(logging.CRITICAL)  # a connection that is closed early is no news
    console = Console(stderr=True)
    from streams.reports import file_report  # noqa: PLC0415

    with closing(_operator(ctx)) if file else nullcontext() as operator:  # before minutes are spent
        began = time.monotonic()
        few = tries if thorough else max(100, tries // 4)
        report = _play(
            tries, few, seed, lambda what: console.print(f"[dim]{time.monotonic() - began:4.0f} s[/]  {what}")
        )
        seconds = round(time.monotonic() - began)
        found = {**report.as_json(), "seed": seed, "seconds": seconds}
        if operator is not None:
            file_report(operator, "attack", found["held"], found)
    if as_json:
        click.echo(orjson.dumps(found, option=orjson.OPT_INDENT_2))
    else:
        show(report, Console())
        click.echo(f"It took {seconds} s.{' The report is filed.' if file else ''}")
    if not report.held:
        sys.exit(1)


def _operator(ctx: click.Context) -> StoreClient:
    from streams.settings import load  # noqa: PLC0415
    from streams.stores import Role, Store, connect  # noqa: PLC0415

    return connect(load(ctx.find_root().params["config"]), Store.ANALYTICS, Role.OPERATOR, connections=1)


# --- a system of its own ---


def _play(tries: int, few: int, seed: int, said: Callable[[str], object]) -> Report:
    from streams import settings as settings_module  # noqa: PLC0415
    from streams.attack import guesses, play  # noqa: PLC0415
    from streams.attack.tries import TENANTS, Message, plan  # noqa: PLC0415
    from streams.cli.stack import open_stack, sentences  # noqa: PLC0415
    from streams.demo.send import send  # noqa: PLC0415

    directory = Path(tempfile.mkdtemp(prefix="schleuse-attack-"))
    said("a broker and two stores are started")
    with ExitStack() as open_:
        open_.callback(shutil.rmtree, directory, ignore_errors=True)
        open_.enter_context(sentences())
        stack = open_.enter_context(open_stack(directory, "tansu", new=True, tied=True))
        (directory / "tenants.toml").write_text(TENANTS)
        config = stack.settings_file
        environment = clean(os.environ)
        set_up(config, environment)
        settings = settings_module.load(config, environment)
        worker = open_.enter_context(running(config, "worker", directory / "logs" / "worker.log", environment))
        url = open_.enter_context(dashboard(config, environment, directory / "logs" / "dashboard.log"))

        def push(messages: Sequence[Message]) -> None:
            asyncio.run(send(settings.broker, settings.partitions, messages))

        world = play.World(settings, url, keys(settings), push, lambda: worker.poll() is None, said)
        return guesses.report(play.play(world, plan(tries, tries, seed, "attacked"), few))


def clean(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment without a setting of any other system."""
    return {
        **{name: text for name, text in environment.items() if not name.startswith("SCHLEUSE_")},
        "SCHLEUSE_PARTITIONS": str(_PARTITIONS),
        "SCHLEUSE_SESSION_TIMEOUT_SECONDS": "6",
        "SCHLEUSE_BATCH_SECONDS": "0.2",
        "SCHLEUSE_HTTP_PORT": "0",
    }


@contextmanager
def dashboard(config: Path, environment: Mapping[str, str], log: Path) -> Iterator[str]:
    """A dashboard on a free port that lets an attacker ask as fast as it can; its address. Raises SchleuseError."""
    more = {"SCHLEUSE_DASHBOARD_PORT": "0", "SCHLEUSE_DASHBOARD_REQUESTS_PER_MINUTE": "100000"}
    with running(config, "dashboard", log, {**environment, **more}) as process:
        until = time.monotonic() + START_SECONDS
        while not (found := _ADDRESS.findall(log.read_text("utf-8", "replace"))):
            if process.poll() is not None or time.monotonic() > until:
                raise SchleuseError("the dashboard did not start")
            time.sleep(0.1)
        yield found[-1]


def keys(settings: Settings) -> dict[str, str]:
    """An analyst's key for each tenant of a game."""
    from streams.attack.tries import CROWD, SMALL  # noqa: PLC0415
    from streams.dashboard.readers import ReaderRole, let_in  # noqa: PLC0415
    from streams.stores import Role, Store, connect  # noqa: PLC0415

    with closing(connect(settings, Store.ANALYTICS, Role.OPERATOR, connections=1)) as operator:
        until = time.time_ns() // 1_000_000 + 86_400_000
        return {tenant: let_in(operator, tenant, ReaderRole.ANALYST, "attack", until) for tenant in (CROWD, SMALL)}


def show(report: Report, console: Console) -> None:
    """The report as a table."""
    from streams.attack.guesses import BOUND  # noqa: PLC0415

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    table.add_column("attack", no_wrap=True)
    table.add_column("reads", no_wrap=True)
    for name in ("tries", "right", "±", "bound", "a coin"):
        table.add_column(name, justify="right", no_wrap=True)
    for line in report.lines:
        rate = f"{line.rate:.1%}" if line.within else f"[red]{line.rate:.1%}[/]"
        error = f"{100 * line.standard_error:.1f}"
        table.add_row(line.name, line.reads, f"{line.tries:,}", rate, error, f"{BOUND:.1%}", "50.0%")
    console.print(table)
    console.print(
        f"{report.mailings:,} mailings of two tenants, 40 steps each, published in three stages; between the second\n"
        f"and the third she withdraws and is erased ({report.removed:,} rows and mappings about her go).\n"
        f"{report.compared:,} answers that must equal others were compared (before and after that, in an earlier\n"
        f"stage, of a mailing that nobody has, to nonsense): {report.differ:,} differ.\n"
        "±: one standard error of a rate at the bound."
    )
    held = "[green]The bound holds[/]" if report.held else "[red]The bound does not hold[/]"
    console.print(f"{held}: no rate may exceed it by more than four of them.")
