"""What the attack's report shows, and that its system takes no setting of another."""

from __future__ import annotations

import io

from rich.console import Console

from streams.attack.guesses import ATTACKS, Line, Report
from streams.cli.attack import clean, show


def shown(right: int, differ: int = 0) -> str:
    lines = [Line(attack.name, attack.reads, 1_000, right) for attack in ATTACKS]
    text = io.StringIO()
    show(Report(1_000, 2_000, 10_759, lines, 40_000, differ), Console(file=text, width=80))
    return text.getvalue()


def test_every_line_is_whole_at_80_columns() -> None:
    text = shown(588)
    for attack in ATTACKS:
        named = [line for line in text.splitlines() if line.strip().startswith(attack.name)]
        line = next(one for one in named if f" {attack.reads} " in one)
        assert line.split()[-5:] == ["1,000", "58.8%", "1.6", "58.8%", "50.0%"]
    assert "The bound holds" in text
    assert all(len(line) <= 80 for line in text.splitlines())


def test_the_bound_is_for_rates_and_nothing_may_differ() -> None:
    assert "The bound holds" in shown(650)  # four standard errors above it
    assert "does not hold" in shown(652)
    assert "does not hold" in shown(500, differ=1)


def test_no_setting_of_another_system_gets_in() -> None:
    found = clean({"SCHLEUSE_BROKER": "kafka.example:9092", "SCHLEUSE_CONFIG": "x.toml", "PATH": "/bin"})
    assert found["PATH"] == "/bin"
    assert not {"SCHLEUSE_BROKER", "SCHLEUSE_CONFIG"} & set(found)
