"""A key ring for targets that need keys: one a process, gone with it."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

from streams.keys import Keys
from tests.claims import make_keys

_DIRECTORY: list[tempfile.TemporaryDirectory[str]] = []


@cache
def keys() -> Keys:
    """Keys with a root key for the tenants `acme` and `beta`."""
    _DIRECTORY.append(tempfile.TemporaryDirectory(prefix="schleuse-fuzz-"))
    return make_keys(Path(_DIRECTORY[0].name))
