"""The only module that needs Atheris: fuzzes one target in this process until its time is up, then exits.

    python -m tests.fuzz.engine TARGET SECONDS WORK CORPUS...

What is found new goes to the first folder; bytes that break a promise go beside it, named `crash-...`, and end the run.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any

import atheris

from tests.fuzz import targets
from tests.fuzz.mutate import mutate

LONGEST = 4_096  # bytes of an input: what is long and nothing else has its own tests
OURS = ["streams", "pseudonymizer", "aggregates", "idna", "json", "urllib"]


def main(name: str, seconds: str, work: str, *corpus: str) -> None:
    with atheris.instrument_imports(include=OURS):
        target = targets.load(name)
    words = Path(work).with_suffix(".dict")
    words.write_text(
        "".join('"' + "".join(f"\\x{byte:02x}" for byte in word.encode()) + '"\n' for word in target.words or ("\x1f",))
    )

    def mutated(data: bytes, longest: int, seed: int) -> bytes:
        dice = random.Random(seed)
        changed = mutate(data, target.words, dice) if dice.random() < 0.5 else None
        return (changed if changed is not None else bytes(atheris.Mutate(data, len(data))))[:longest]

    options: dict[str, Any] = {
        "max_total_time": seconds,
        "max_len": LONGEST,
        "timeout": 20,
        "rss_limit_mb": 2_000,
        "artifact_prefix": f"{work}/",
        "dict": words,
        "print_final_stats": 1,
        "verbosity": 0,
    }
    arguments = [f"-{key}={value}" for key, value in options.items()]
    atheris.Setup([sys.argv[0], *arguments, work, *corpus], target.check, custom_mutator=mutated)
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
