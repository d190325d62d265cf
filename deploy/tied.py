"""Processes that end with the one that started them, however that ends."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable
from typing import Final

_SET_PDEATHSIG: Final = 1  # prctl(2)
_LIBC: Final = ctypes.CDLL(None) if sys.platform == "linux" else None


def to_this_process() -> Callable[[], None]:
    """For `preexec_fn` of subprocess.Popen: the child gets SIGTERM when the *thread* that starts it ends, also by
    SIGKILL. Linux only; elsewhere it does nothing, and the child stays."""
    parent = os.getpid()

    def tie() -> None:
        if _LIBC is not None:
            _LIBC.prctl(_SET_PDEATHSIG, signal.SIGTERM)
            if os.getppid() != parent:  # it ended before we asked
                os._exit(1)

    return tie
