"""What the demo shows: every figure whole at 80 columns, and a folder that is in use is left alone."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from streams.cli.demo import _show


def summary() -> dict[str, object]:
    line = {
        "tenant": "stadtwerke",
        "mailing": "m",
        "name": "Wartung am Wochenende und noch mehr Text",
        "recipients": 36_064,
        "earlier": False,
        "openers": 12_345,
        "openers_in_truth": 12_345,
        "clickers": 1_234,
        "clickers_in_truth": 1_234,
    }
    return {
        "received": 496_175,
        "counted": 479_713,
        "off": 8_830,
        "duplicates": 7_136,
        "rejected": 496,
        "rejected_by_reason": {"bad_time": 496},
        "adds_up": True,
        "events_per_second": 61_234,
        "mailings": [
            *({**line, "earlier": True, "recipients": count} for count in (100, 23)),
            line,
            {**line, "clickers_in_truth": 1},
        ],
        "cells": 126,
        "cells_that_differ": 1,
        "exact": False,
    }


@pytest.mark.parametrize("columns", [80, 120])
def test_every_figure_is_whole(columns: int) -> None:
    out = io.StringIO()
    _show(summary(), Console(file=out, width=columns, color_system=None))
    text = out.getvalue()
    figures = ("36,064", "12,345  34%", "1,234   3%", "496,175", "1 of 126")
    for whole in ("stadtwerke", "2 months before", "123", *figures, "yes", "no"):
        assert whole in text
    assert max(len(line) for line in text.splitlines()) <= columns


def test_a_folder_with_a_stack_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "stack.json").write_text("{}")
    done = subprocess.run(
        [sys.executable, "-m", "streams.cli", "demo", "--events", "1000", "--keep", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "holds a stack already" in done.stderr
    assert json.loads((tmp_path / "stack.json").read_text()) == {}
