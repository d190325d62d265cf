"""Where results go: a JSON file for each benchmark, and its table between two comments of a page."""

from __future__ import annotations

import json
import os
import platform
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "benchmarks" / "results"


def machine() -> dict[str, Any]:
    """Where and when, and what else the machine had to do."""
    return {
        "at": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "cores": os.cpu_count(),
        "load_average": [round(one, 2) for one in os.getloadavg()],
        "python": platform.python_version(),
    }


def write(
    name: str,
    figures: dict[str, Any],
    table: str,
    folder: Path = FOLDER,
    page: Path | None = None,
    word: str = "Measured",
) -> None:
    """Print the table, write NAME.json, and put the table into `page` between `<!-- NAME -->` and `<!-- /NAME -->`."""
    folder.mkdir(parents=True, exist_ok=True)
    said = machine()
    text = (
        f"{table}\n\n{word} {said['at']} on {said['cores']} cores; load average at the end {said['load_average'][0]}."
    )
    (folder / f"{name}.json").write_text(json.dumps({"machine": said, **figures}, indent=1) + "\n")
    print(text, flush=True)
    if page is not None:
        between(page, name, text)


def read(name: str, folder: Path = FOLDER) -> dict[str, Any] | None:
    """The newest result of a benchmark; None: it has not run."""
    path = folder / f"{name}.json"
    found: dict[str, Any] | None = json.loads(path.read_text()) if path.exists() else None
    return found


def between(page: Path, name: str, text: str) -> None:
    """Replace what stands between two comments. Raises ValueError when the page lacks them."""
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    before, found, rest = page.read_text().partition(begin)
    _, also, after = rest.partition(end)
    if not found or not also:
        raise ValueError(f"{page.name} lacks {begin} or {end}")
    page.write_text(f"{before}{begin}\n{text}\n{end}{after}")
