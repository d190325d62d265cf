"""What is allowed for the recipients of a batch, as columns, so that no event is decided about alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from pseudonymizer.consent import ALWAYS
from pseudonymizer.decisions import NEVER

Array = np.ndarray[Any, Any]


class Stretch(NamedTuple):
    """From when on (epoch ms) an event gets a row under this pseudonym; NEVER: there is none."""

    begins: int
    pseudonym: bytes
    key_version: int


class Allowed(NamedTuple):
    """What one purpose allows for one recipient and kind: from when she is counted, and from when under which
    pseudonym; the later stretch wins."""

    counts_from: int
    early: Stretch
    late: Stretch


NO_STRETCH = Stretch(NEVER, bytes(16), 0)
NOTHING_KNOWN = Allowed(ALWAYS, NO_STRETCH, NO_STRETCH)


class Limits:
    """What one purpose allows, as columns over 2 * person + kind; where nothing is named, the default."""

    def __init__(self, of_purpose: Mapping[int, Allowed], people: int) -> None:
        at = np.fromiter(of_purpose, np.int64, len(of_purpose))

        def spread(column: Array, default: int) -> Array:
            result = np.full((2 * people, *column.shape[1:]), default, column.dtype)
            result[at] = column
            return result

        def columns(stretches: list[Stretch]) -> tuple[Array, Array, Array]:
            pseudonyms = np.frombuffer(b"".join([stretch.pseudonym for stretch in stretches]), np.uint64)
            return (
                spread(np.array([stretch.begins for stretch in stretches], np.int64), NEVER),
                spread(pseudonyms.reshape(-1, 2), 0),
                spread(np.array([stretch.key_version for stretch in stretches], np.uint16), 0),
            )

        allowed = of_purpose.values()
        self.counts_from = spread(np.array([one.counts_from for one in allowed], np.int64), ALWAYS)
        self._stretches = columns([one.early for one in allowed]), columns([one.late for one in allowed])

    def pseudonyms(self, at: Array, times: Array) -> tuple[Array, Array]:
        """The pseudonym (two 64-bit halves; zeros: none) and key version of every event; the later stretch wins."""
        halves, versions = np.zeros((len(at), 2), np.uint64), np.zeros(len(at), np.uint16)
        for begins, of_stretch, of_key in self._stretches:
            holds = times >= begins[at]
            if holds.any():
                halves[holds], versions[holds] = of_stretch[at[holds]], of_key[at[holds]]
        return halves, versions
