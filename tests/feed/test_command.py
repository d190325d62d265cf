"""`schleuse feed` as it is typed, without a broker."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from streams.cli.feed import feed
from streams.errors import BrokerError, SettingsError
from streams.feed.lines import bodies
from streams.strict_json import MAX_BYTES
from tests.feed.test_truth import FEEDS

NOBODY = "127.0.0.1:1"


@dataclass
class Settings:
    """What the command looks at."""

    broker: str
    tenants: Path
    log_level: str = "error"


@pytest.fixture
def tenants(tmp_path: Path) -> Path:
    path = tmp_path / "tenants.toml"
    path.write_text('[sendgrid]\n[mailgun]\n[postmark]\n[ses]\n[odd.feed]\nmailing = "customer"\n')
    return path


@pytest.fixture(autouse=True)
def feeds_of_today(monkeypatch: pytest.MonkeyPatch) -> None:
    """The feeds are of November 2026, and an event may be 400 days old: the clock stands still."""
    monkeypatch.setattr("time.time_ns", lambda: 1_795_500_000_000_000_000)


def run(tenants: Path, *arguments: str, stdin: bytes = b"", broker: str = NOBODY) -> Result:
    return CliRunner().invoke(feed, arguments, input=stdin, obj=Settings(broker, tenants))


@pytest.mark.parametrize(
    ("vendor", "sentence", "code"),
    [
        ("sendgrid", "559 bodies = 459 would be sent + 100 ignored (99 delivered, 1 group_unsubscribe) + 0 refused", 0),
        ("mailgun", "417 bodies = 417 would be sent + 0 ignored + 0 refused", 0),
        ("postmark", "417 bodies = 416 would be sent + 1 ignored (1 subscription change) + 0 refused", 0),
        ("ses", "415 bodies = 405 would be sent + 0 ignored + 10 refused (10 not_attributable)", 1),
    ],
)
def test_a_dry_run_ends_with_the_sum(tenants: Path, vendor: str, sentence: str, code: int) -> None:
    path = str(FEEDS / f"{vendor}.ndjson")
    result = run(tenants, "--format", vendor, "--tenant", vendor, "--dry-run", path)
    assert (result.stdout, result.exit_code) == (f"{path}: {sentence}\n", code)
    refusals = result.stderr.splitlines()
    assert len(refusals) == (10 if vendor == "ses" else 0)
    if vendor == "ses":
        assert refusals[0] == f"{path}:1: not_attributable: recipient: one destination a mail"
        assert run(tenants, "--format", vendor, "--tenant", vendor, "--dry-run", "--allow-refused", path).exit_code == 0


def test_files_and_standard_input_are_accounted_for_one_by_one(tenants: Path, tmp_path: Path) -> None:
    good = (FEEDS / "mailgun.ndjson").read_bytes().splitlines()[0]
    half = tmp_path / "half.ndjson"
    half.write_bytes(good + b"\n\n" + good[:100])
    result = run(
        tenants, "--format", "mailgun", "--tenant", "mailgun", "--dry-run", "--json", str(half), "-", stdin=good
    )
    account: dict[str, Any] = json.loads(result.stdout)
    assert [(one["file"], one["bodies"], one["sent"], one["refused"]) for one in account["files"]] == [
        (str(half), 2, 1, 1),
        ("standard input", 1, 1, 0),
    ]
    assert (account["bodies"], account["sent"], account["ignored"], account["refused"]) == (3, 2, 0, 1)
    assert result.stderr == f"{half}:3: not_json: one JSON value\n"


def test_the_line_and_the_event_of_an_array_are_named_and_no_value(tenants: Path) -> None:
    events = json.loads((FEEDS / "sendgrid.ndjson").read_bytes().splitlines()[0])
    events[1]["email"] = "geheim@@"
    result = run(
        tenants, "--format", "sendgrid", "--tenant", "sendgrid", "--dry-run", stdin=json.dumps(events).encode()
    )
    assert result.stderr == "standard input:1: event 2: bad_recipient: recipient: an address or an id\n"
    assert "geheim" not in result.output
    assert result.exit_code == 1


def test_the_tenants_file_says_where_the_mailing_is(tenants: Path) -> None:
    body = (FEEDS / "mailgun.ndjson").read_bytes().splitlines()[0]
    arguments = ("--format", "mailgun", "--tenant", "odd", "--dry-run")
    assert run(tenants, *arguments, stdin=body).exit_code == 0
    tagless = json.loads(body)
    del tagless["event-data"]["user-variables"]["customer"], tagless["event-data"]["tags"]
    result = run(tenants, *arguments, stdin=json.dumps(tagless).encode())
    assert "missing_field: mailing: user-variables.customer, or tags" in result.stderr
    assert run(tenants, *arguments, "--mailing", "mailing", stdin=json.dumps(tagless).encode()).exit_code == 0


def test_what_cannot_be_right_is_said_before_anything_is_read(tenants: Path) -> None:
    assert "--tenant is needed" in run(tenants, "--format", "ses").stderr
    unknown = run(tenants, "--format", "ses", "--tenant", "nobody")
    assert isinstance(unknown.exception, SettingsError)
    assert (
        "--topic is for the native" in run(tenants, "--format", "ses", "--tenant", "ses", "--topic", "mailings").stderr
    )


def test_without_a_broker_nothing_is_read(tenants: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.feed.send.CONNECT_MS", 500)
    result = run(tenants, "--topic", "mailings", stdin=b"{}")
    assert isinstance(result.exception, BrokerError)
    assert NOBODY in str(result.exception)


@given(st.lists(st.binary(max_size=12).map(lambda line: line.replace(b"\n", b""))))
def test_lines_are_what_they_look_like(lines: list[bytes]) -> None:
    expected = [(number, line.strip(b" \t\r")) for number, line in enumerate(lines, 1) if line.strip(b" \t\r")]
    assert list(bodies(io.BytesIO(b"\n".join(lines)))) == expected


@pytest.mark.parametrize("excess", [0, 1, 2, 3, 70_000, 3_000_000])
def test_a_line_that_is_too_long_costs_only_itself(excess: int) -> None:
    long = b"x" * (MAX_BYTES + excess)
    (first, cut), (second, rest) = bodies(io.BytesIO(long + b"\n{}\n"))
    assert (first, second, rest) == (1, 2, b"{}")
    assert len(cut) == len(long) if excess <= 2 else MAX_BYTES < len(cut) < len(long)
