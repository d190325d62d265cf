"""The command line itself: quick, one sentence an error, and no value of a foreign exception."""

from __future__ import annotations

import subprocess
import sys
import types
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from streams import cli
from streams.cli import COMMANDS, Lazy, main
from streams.errors import SchleuseError

CANARY = "erika.mustermann@example.com"


def test_help_imports_no_command() -> None:
    program = (
        "import sys\nfrom streams.cli import main\n"
        "main(['--help'], standalone_mode=False)\n"
        "heavy = {'faust', 'kafka', 'aiokafka', 'polars', 'clickhouse_connect', 'pyarrow', 'rich', 'structlog'}\n"
        "sys.exit(', '.join(sorted(heavy & set(sys.modules))) or 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name, lazy in COMMANDS.items():
        assert f"  {name} " in done.stdout
        assert lazy.says in done.stdout


@pytest.mark.parametrize("name", list(COMMANDS))
def test_each_command_is_there_and_has_help_without_any_settings(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCHLEUSE_CONFIG", "/nowhere/at/all.toml")
    said = CliRunner().invoke(main, [name, "--help"])
    assert said.exit_code == 0, said.output
    assert said.output.startswith(f"Usage: main {name}")


def test_the_module_runs_as_the_script_does() -> None:
    for program in ([sys.executable, "-m", "streams.cli"], [str(Path(sys.executable).with_name("schleuse"))]):
        done = subprocess.run([*program, "--version"], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout.split()[0]) == (0, "schleuse")


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """Commands that fail in every way there is."""
    module = types.ModuleType("failing")

    def known() -> None:
        raise SchleuseError("this cannot be")

    def chained() -> None:
        try:
            raise KeyError(CANARY)
        except KeyError as error:
            raise SchleuseError("this cannot be") from error

    def unknown() -> None:
        raise ValueError(CANARY)

    for function in (known, chained, unknown):
        setattr(module, function.__name__, click.command()(function))
        monkeypatch.setitem(COMMANDS, function.__name__, Lazy(f"failing:{function.__name__}", "", False))
    monkeypatch.setitem(sys.modules, "failing", module)
    monkeypatch.setitem(COMMANDS, "absent", Lazy("streams.cli.not_there:absent", "", False))
    return module


@pytest.mark.parametrize("debug", [[], ["--debug"]])
@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("known", "schleuse: this cannot be"),
        ("chained", "schleuse: this cannot be"),
        ("unknown", "schleuse: something unexpected happened (ValueError); --debug says where"),
        ("absent", "schleuse: schleuse absent needs streams.cli.not_there, which is not installed"),
    ],
)
def test_an_error_is_one_sentence_and_exit_code_1(
    failing: types.ModuleType, name: str, sentence: str, debug: list[str]
) -> None:
    said = CliRunner().invoke(main, [*debug, name])
    assert said.exit_code == 1
    assert said.stdout == ""
    assert said.stderr.splitlines()[0] == sentence
    assert CANARY not in said.stderr
    assert "Traceback" not in said.stderr
    if debug:
        assert "invoke" in said.stderr
        if name == "chained":
            assert "KeyError" in said.stderr
    else:
        assert len(said.stderr.splitlines()) == 1


def test_a_wrong_setting_or_command_is_said_before_anything_is_done(tmp_path: Path) -> None:
    config = tmp_path / "s.toml"
    config.write_text("brokr = 'x'\n")
    said = CliRunner().invoke(main, ["--config", str(config), "topics"])
    assert (said.exit_code, said.stdout) == (1, "")
    assert "did you mean broker" in said.stderr
    assert CliRunner().invoke(main, ["tropics"]).exit_code == 2


def test_settings_are_printed_masked(tmp_path: Path) -> None:
    config = tmp_path / "s.toml"
    config.write_text('credentials = "c"\npartitions = 3\n')
    (tmp_path / "c").mkdir()
    for name, mode in (("identity-worker", 0o600), ("analytics-worker", 0o644)):
        (tmp_path / "c" / name).write_text("s3cret\n")
        (tmp_path / "c" / name).chmod(mode)
    for form in ([], ["--json"]):
        said = CliRunner().invoke(main, ["--config", str(config), "settings", *form])
        assert said.exit_code == 0
        assert "s3cret" not in said.output
        assert "********" in said.output
        assert "refused" in said.output
        assert "missing" in said.output
    plain = CliRunner().invoke(main, ["--config", str(config), "settings"]).output
    assert "partitions = 3  (file; partitions)" in plain


def test_libraries_do_not_speak_on_a_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    program = (
        "import logging, warnings\nfrom streams.cli import main\n"
        "main(['settings'], standalone_mode=False)\n"
        f"logging.getLogger('kafka').error('%s', '{CANARY}')\nwarnings.warn('{CANARY}')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert cli.__doc__
