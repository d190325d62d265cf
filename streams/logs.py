"""Logs: structured ones of our own, and of everybody else only what cannot quote a value.

Our own loggers (`structlog.get_logger("schleuse.…")`) are trusted: a field is a number or a fixed word, by habit and by
review. Libraries are not: their texts and their exceptions quote records, keys and SQL. Of theirs, from WARNING on, a
line says who, where in the code, the text as it stands in the source, and the types of what would be put into it. Of an
exception, ours or not, the types and code locations are said; its text only when it is one of our own errors.
"""

from __future__ import annotations

import asyncio
import linecache
import logging
import re
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping, MutableMapping
from types import FrameType
from typing import Any

import structlog

from streams.errors import SchleuseError

OURS = "schleuse"
WITHHELD = "(text withheld: it may quote data)"
_PLACES = 12  # frames of a traceback, the innermost
_SPECIFIER = re.compile(r"%(?:\([^)]*\))?[#0\- +]*(?:\*|\d+)?(?:\.(?:\*|\d+))?[a-zA-Z]")
_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


def configure(level: str = "info") -> None:
    """Send all logs of this process to standard error: JSON lines, or colours where a person is looking.

    `level` is for our own loggers; libraries speak from WARNING on. Also withholds what Python itself would print of an
    exception that nobody caught, in any thread. May be called again.
    """
    person = sys.stderr.isatty()
    last: list[Any] = [structlog.dev.ConsoleRenderer()] if person else [structlog.processors.JSONRenderer()]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_SHARED,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[_foreign, *_SHARED],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        use_get_message=False,  # that would put the values in
        pass_foreign_args=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger(OURS).setLevel(_LEVELS[level])
    logging.captureWarnings(True)
    logging.raiseExceptions = False  # a failing handler would print the record with its arguments
    sys.excepthook = lambda _, error, __: _uncaught(error)
    threading.excepthook = lambda args: _uncaught(args.exc_value)


def describe(error: BaseException | None) -> list[dict[str, Any]]:
    """An exception and what led to it, outermost first: types, code locations, and the text of our own errors only."""
    return [
        {
            "type": type(one).__name__,
            **({"text": str(one)} if isinstance(one, SchleuseError) else {}),
            "at": [
                f"{frame.f_code.co_filename}:{line} {frame.f_code.co_name}"
                for frame, line in list(traceback.walk_tb(one.__traceback__))[-_PLACES:]
            ],
        }
        for one in _chain(error)
    ]


def standing(loop: asyncio.AbstractEventLoop) -> list[str]:
    """Where the tasks of an event loop wait, asked from any thread: code locations, the innermost of each task that is
    not asyncio's own."""
    found: set[str] = set()
    for task in asyncio.all_tasks(loop):
        frames = [
            at for at in map(_frame, _awaited(task.get_coro())) if at and "/asyncio/" not in at.f_code.co_filename
        ]
        found.update(f"{at.f_code.co_filename}:{at.f_lineno} {at.f_code.co_name}" for at in frames[-1:])
    return sorted(found)


def _awaited(waits: Any) -> Iterator[Any]:
    """A coroutine, what it awaits, what that awaits, and so on."""
    while waits is not None:
        yield waits
        waits = (
            getattr(waits, "cr_await", None) or getattr(waits, "ag_await", None) or getattr(waits, "gi_yieldfrom", None)
        )


def _frame(of: Any) -> FrameType | None:
    for name in ("cr_frame", "ag_frame", "gi_frame"):
        if isinstance(frame := getattr(of, name, None), FrameType):
            return frame
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    met: set[int] = set()
    while error is not None and id(error) not in met:
        met.add(id(error))
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _uncaught(error: BaseException | None) -> None:
    if not isinstance(error, KeyboardInterrupt | SystemExit):
        structlog.get_logger(f"{OURS}.uncaught").critical("an error that nobody expected", error=error)


def _types_of_errors(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Turn every exception in an event into its types and places."""
    info = event.pop("exc_info", None)
    if info is True:
        info = sys.exc_info()
    error = info[1] if isinstance(info, tuple) else info
    if isinstance(error, BaseException):
        event["exception"] = describe(error)
    event.pop("stack_info", None)
    for key, value in event.items():
        if isinstance(value, BaseException):
            event[key] = describe(value)
    return event


def _foreign(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A library's record: its text as it stands in the source, with types in the place of values."""
    record: logging.LogRecord = event["_record"]
    event["event"] = foreign_text(event["event"], event.pop("positional_args"), record.pathname)
    event["at"] = f"{record.pathname}:{record.lineno}"
    return event


def foreign_text(template: str, args: Any, pathname: str) -> str:
    """What may be said of a library's record.

    A text that does not stand literally in the file that logged it was put together from values: it is withheld.
    """
    if not _is_literal(template, pathname):
        return WITHHELD
    if not args:
        return template
    values = iter(args if isinstance(args, tuple) else [args])
    named: Mapping[str, Any] = args if isinstance(args, Mapping) else {}

    def type_of(match: re.Match[str]) -> str:
        if match[0].startswith("%("):
            return _shape(named.get(match[0][2:].partition(")")[0]))
        return _shape(next(values, None))

    return _SPECIFIER.sub(type_of, template.replace("%%", "per cent"))


def _shape(value: Any) -> str:
    if isinstance(value, bool | int | float) or value is None:
        return str(value)
    return f"<{type(value).__name__}>"


def _is_literal(text: str, pathname: str) -> bool:
    """Whether a text stands in a source file as it is; quotes and escapes aside, so that a doubt withholds it."""
    source = "".join(linecache.getlines(pathname))
    return bool(text) and any(
        f"{quote}{text}{quote}" in source and f"f{quote}{text}{quote}" not in source for quote in "\"'"
    )


_SHARED: list[Any] = [
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    _types_of_errors,
]
