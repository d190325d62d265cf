"""The checks of `schleuse verify`: what each looks at, and what is wrong if it is wrong."""

from __future__ import annotations

from streams.rights.checks import figures, gates, people
from streams.rights.verify import Sweep

ALL: tuple[Sweep, ...] = (*people.SWEEPS, *gates.SWEEPS, *figures.SWEEPS)
"""Every sweep with its checks, in the order of the report."""
