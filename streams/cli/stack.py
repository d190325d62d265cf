"""`schleuse stack`: the embedded broker and stores on one machine. The only module here that knows deploy.embedded."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from streams.errors import SchleuseError, SettingsError

if TYPE_CHECKING:
    from deploy.embedded.stack import Broker, Stack

_directory = click.option(
    "--dir",
    "directory",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(".schleuse"),
    show_default=True,
    help="Where everything of this stack lies: data, passwords, ports, logs.",
)
_broker = click.option(
    "--broker",
    type=click.Choice(["tansu", "kafka"]),
    help="tansu: in memory, at once, no Java (the default of a new --dir). kafka: Apache Kafka, its log on disk.",
)


@contextmanager
def sentences() -> Iterator[None]:
    """Turn the stack's own errors into ours: one sentence, no chain."""
    from deploy.embedded.processes import StackError  # noqa: PLC0415  only where the embedded extra is meant

    try:
        yield
    except StackError as error:
        raise SchleuseError(str(error)) from None


def open_stack(directory: Path, broker: Broker | None = None, *, new: bool = False, tied: bool = False) -> Stack:
    try:
        from deploy.embedded.stack import Stack  # noqa: PLC0415  see above
    except ModuleNotFoundError:
        raise SettingsError("the embedded stack is not installed: pip install 'schleuse[embedded]'") from None
    if not new and not (directory / "stack.json").exists():
        raise SettingsError(f"there is no stack in {directory}: schleuse stack start --dir {directory}")
    with sentences():
        return Stack(directory, broker, die_with_parent=tied)


@click.group()
def stack() -> None:
    """Run a broker and both stores on this machine: no Docker, and without --broker kafka no Java."""


@stack.command()
@_directory
@_broker
def start(directory: Path, broker: Broker | None) -> None:
    """Start what is not running, in the background; return when all of it answers."""
    opened = open_stack(directory, broker, new=True)
    with sentences():
        opened.start()
    _print_addresses(opened)


@stack.command()
@_directory
def stop(directory: Path) -> None:
    """End what this stack started, and nothing else. The data stay (with Tansu the log is in memory and goes)."""
    with sentences():
        stopped = open_stack(directory).stop()
    click.echo(f"stopped: {', '.join(stopped)}" if stopped else "nothing was running")


@stack.command()
@_directory
def status(directory: Path) -> None:
    """Say what runs and what answers. Exit code 1 unless everything answers."""
    parts = open_stack(directory).status()
    for part in parts:
        state = "ready" if part.ready else "not answering" if part.pid else "not running"
        pid = f"pid {part.pid}" if part.pid else ""
        click.echo(f"{part.name:<10} {part.address:<26} {state:<14} {pid}".rstrip())
    if not all(part.ready for part in parts):
        raise click.exceptions.Exit(1)


@stack.command()
@_directory
@click.argument("part", type=click.Choice(["broker", "identity", "analytics"]))
def restart(directory: Path, part: str) -> None:
    """End one part and start it again at the same address; all but Tansu, whose log is in memory, keep their data."""
    opened = open_stack(directory)
    with sentences():
        opened.restart(part)
    click.echo(f"{part} restarted")
    if part == "broker" and opened.broker == "tansu":
        click.echo("its log was in memory and is gone: schleuse topics makes the topics anew")


@stack.command()
@_directory
@_broker
def run(directory: Path, broker: Broker | None) -> None:
    """Start the stack and keep it until Ctrl-C (or SIGTERM); then end it."""
    opened = open_stack(directory, broker, new=True, tied=True)
    over = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: over.set())
    with sentences(), opened:
        _print_addresses(opened)
        click.echo("Ctrl-C ends it")
        while not over.wait(1.0):
            ended = [part.name for part in opened.status() if part.pid is None]
            if ended:
                raise SchleuseError(f"{', '.join(ended)} ended; its last words are in {opened.directory / 'logs'}")


def _print_addresses(opened: Stack) -> None:
    for part in opened.status():
        click.echo(f"{part.name:<10} {part.address}")
    ours = f"schleuse --config {opened.settings_file}"
    click.echo(f"use it with: {ours} COMMAND")
    if not (opened.directory / "tenants.toml").exists():
        click.echo(
            f"new: write {opened.directory / 'tenants.toml'} (docs/tenants.md; [acme] alone will do), then run\n"
            f"  {ours} topics\n  {ours} migrate\n  {ours} tenants apply --yes\n  {ours} worker\n  {ours} rights"
        )
