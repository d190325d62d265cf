"""A stream of bodies, one a line, read in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from streams.strict_json import MAX_BYTES

_LONGEST = MAX_BYTES + 2  # one byte more than is allowed, and the line's end: enough to see that it is too long
_PIECE = 1 << 16


def bodies(stream: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Line numbers, from 1, and bodies. Blank lines are counted as lines and not handed out.

    A line that is too long comes cut off, still longer than `MAX_BYTES`, and the next one is the next line. Half a line
    at the end comes as it is.
    """
    number = 0
    while line := stream.readline(_LONGEST):
        number += 1
        if len(line) == _LONGEST and not line.endswith(b"\n"):
            _skip_line(stream)
            yield number, line
        elif body := line.strip(b" \t\r\n"):
            yield number, body


def _skip_line(stream: BinaryIO) -> None:
    while (piece := stream.readline(_PIECE)) and not piece.endswith(b"\n"):
        pass
