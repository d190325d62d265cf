"""Options that commands about people share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import click

from streams.errors import SettingsError
from streams.messages import format_time
from streams.rights.audit import check_text

FROM_STDIN = "-"
F = TypeVar("F", bound=Callable[..., Any] | click.Command)


class Option(Protocol):
    """What puts an option on a command."""

    def __call__(self, command: F, /) -> F:
        """The command with the option."""


def read(given: str) -> str:
    """A recipient as an option gives her; `-`: the first line of standard input. Raises SettingsError."""
    if given != FROM_STDIN:
        return given
    line = str(click.get_text_stream("stdin").readline()).strip()
    if not line:
        raise SettingsError("--recipient - reads the recipient from standard input, and there was nothing")
    return line


def _recipient(_context: click.Context, _option: click.Parameter, given: str) -> str:
    return read(given)


def _text(_context: click.Context, option: click.Parameter, given: str | None) -> str | None:
    return check_text(given, option.opts[0]) if given is not None else None


tenant: Option = click.option("--tenant", required=True, help="The tenant whose recipient it is.")
recipient: Option = click.option(
    "--recipient",
    required=True,
    callback=_recipient,
    help="The recipient. With - she is read from standard input, so that she is in no shell's history.",
)


def text(name: str, says: str, required: bool = True, default: str | None = None) -> Option:
    """An option for a text that is kept for good in the audit trail: it must name nobody."""
    return click.option(name, required=required, default=default, callback=_text, help=says)


def moment(at_ms: int) -> str:
    """Epoch milliseconds for a person to read."""
    return format_time(at_ms)


def printable(text: str) -> str:
    """A text for a terminal: nothing in it can move its cursor."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
