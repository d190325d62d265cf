"""The kept inputs: few, small, and each reaches a line after a line that no smaller one reaches.

Counted with Python's own tracing, so that keeping needs no Atheris and gives the same everywhere.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable
from pathlib import Path
from types import FrameType
from typing import Any

from tests.fuzz.targets import Target

KEPT = Path(__file__).parent / "corpus"
ROOT = Path(__file__).parents[2]
OURS = tuple(f"{ROOT / package}/" for package in ("streams", "pseudonymizer", "aggregates"))
LARGEST = 2_000  # bytes; what is larger shows nothing that a smaller one does not

Arc = tuple[str, int, int]


def kept(name: str) -> list[Path]:
    """The corpus of a target, by name of file."""
    return sorted(path for path in (KEPT / name).glob("*") if path.is_file())


def keep(name: str, data: bytes, prefix: str = "") -> Path:
    """Write an input into the corpus; the same bytes are the same file."""
    path = KEPT / name / f"{prefix}{hashlib.sha256(data).hexdigest()[:16]}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def keep_new(name: str, target: Target, found: Iterable[bytes]) -> int:
    """Keep what reaches something new, smallest first; how many that were. An input that fails is not looked at."""
    reached: set[Arc] = set()
    for path in kept(name):
        reached |= arcs(target, path.read_bytes())
    new = 0
    seeds = list(target.seeds()) if not reached else []
    for data in [*seeds, *sorted(found, key=lambda one: (len(one), one))]:
        if len(data) <= LARGEST or data in seeds:
            more = arcs(target, data)
            if not more <= reached:
                reached |= more
                keep(name, data)
                new += 1
    return new


def arcs(target: Target, data: bytes) -> set[Arc]:
    """Which line of ours follows which while the target looks at the input; nothing if it breaks a promise."""
    found: set[Arc] = set()

    def enter(frame: FrameType, _event: str, _argument: Any) -> Any:
        file = frame.f_code.co_filename
        if not file.startswith(OURS):
            return None
        before = 0

        def line(frame: FrameType, event: str, _argument: Any) -> Any:
            nonlocal before
            if event == "line":
                found.add((file, before, frame.f_lineno))
                before = frame.f_lineno
            return line

        return line

    sys.settrace(enter)
    try:
        target.check(data)
    except Exception:
        return set()
    finally:
        sys.settrace(None)
    return found
