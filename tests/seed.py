"""The seed of a proof that draws by chance: SCHLEUSE_SEED, or another one each time."""

from __future__ import annotations

import os
import random

# Taken out of the environment: the commands refuse variables that are none of their settings.
_GIVEN = os.environ.pop("SCHLEUSE_SEED", None)


def seed() -> int:
    """The seed of this run; whoever uses it prints it."""
    return int(_GIVEN) if _GIVEN else random.SystemRandom().randrange(1_000_000)
