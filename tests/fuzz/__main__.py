"""`python -m tests.fuzz [TARGET...] --seconds N`: fuzz targets one after the other, and keep what was found.

Ends with 1 if a promise was broken; the bytes that did it are in the corpus then, and the default suite fails on them
until it is mended.
"""

from __future__ import annotations

import argparse
import importlib.util
import re
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path

from tests.fuzz import corpus, targets


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument(
        "targets", nargs="*", metavar="TARGET", help=f"of {', '.join(targets.NAMES)}; all of them if none"
    )
    parser.add_argument("--seconds", type=int, default=60, help="for each target (default: 60)")
    asked = parser.parse_args()
    unknown = set(asked.targets) - set(targets.NAMES)
    if unknown:
        parser.error(f"no such target: {', '.join(sorted(unknown))}")
    if importlib.util.find_spec("atheris") is None:
        parser.error("Atheris is not here: `make fuzz` installs it (Linux, Python 3.11 to 3.13)")
    broken = [name for name in asked.targets or targets.NAMES if not fuzz(name, asked.seconds)]
    if broken:
        print(f"A promise was broken: {', '.join(broken)}. The bytes are in tests/fuzz/corpus/*/crash-*")
    return 1 if broken else 0


def fuzz(name: str, seconds: int) -> bool:
    """Fuzz one target and keep what was found; whether it held."""
    target = targets.load(name)
    with tempfile.TemporaryDirectory(prefix="schleuse-fuzz-") as directory:
        work, begin = Path(directory) / "work", Path(directory) / "seeds"
        for folder in (work, begin, corpus.KEPT / name):
            folder.mkdir(exist_ok=True, parents=True)
        for number, seed in enumerate(target.seeds()):
            (begin / str(number)).write_bytes(seed)
        command = [sys.executable, "-m", "tests.fuzz.engine", name, str(seconds), str(work)]
        done = subprocess.run(
            [*command, str(begin), str(corpus.KEPT / name)], capture_output=True, text=True, check=False
        )
        found = [path.read_bytes() for path in work.iterdir() if not _bad(path)]
        bad = [path for path in work.iterdir() if _bad(path)]
        new = corpus.keep_new(name, target, found)
        runs = re.search(r"number_of_executed_units: *(\d+)", done.stderr)
        print(
            f"{name}: {runs[1] if runs else 'an unknown number of'} inputs in {seconds} s, {len(found)} of interest,"
            f" {new} kept, {len(bad)} broke a promise",
            flush=True,
        )
        for path in bad:
            print(f"  {corpus.keep(name, path.read_bytes(), 'crash-')}")
            try:
                target.check(path.read_bytes())
            except Exception:
                traceback.print_exc(file=sys.stdout)
        if done.returncode and not bad:
            print(done.stderr[-3_000:])
        return not bad and not done.returncode


def _bad(path: Path) -> bool:
    return path.name.startswith(("crash-", "timeout-", "oom-", "slow-unit-"))


if __name__ == "__main__":
    sys.exit(main())
