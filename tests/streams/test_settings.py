"""Settings: what wins, what is refused, and that no text shows a secret."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from streams.cli.settings import page
from streams.errors import SettingsError
from streams.settings import FIELDS, Settings, load, rows

ROOT = Path(__file__).parents[2]


def test_the_page_is_in_step() -> None:
    assert (ROOT / "docs" / "settings.md").read_text() == page(), "schleuse settings --page > docs/settings.md"


def test_environment_over_file_over_default(tmp_path: Path) -> None:
    config = tmp_path / "s.toml"
    config.write_text('broker = "kafka-1:9092"\npartitions = 4\nkeyring = "keys/ring"\nbatch_seconds = 2\n')
    environment = {"SCHLEUSE_PARTITIONS": "16", "SCHLEUSE_KEYRING_KEK": "here/kek", "PATH": "/bin"}
    settings = load(config, environment)
    assert (settings.broker, settings.partitions, settings.group) == ("kafka-1:9092", 16, "schleuse")
    assert settings.batch_seconds == 2.0
    assert isinstance(settings.batch_seconds, float)
    assert settings.keyring == tmp_path / "keys" / "ring"  # of the file: beside the file
    assert settings.keyring_kek == Path("here/kek")  # of the environment: where one stands
    assert load(None, {**environment, "SCHLEUSE_CONFIG": str(config)}) == settings
    origins = {row.name: row.origin for row in rows(config, environment)}
    assert (origins["broker"], origins["partitions"], origins["group"]) == ("file", "environment", "default")
    assert list(origins) == list(FIELDS)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("partition = 4", "did you mean partitions"),
        ("xyzzy = 4", "there is no setting 'xyzzy'"),
        ('partitions = "4"', "partitions in .* must be a whole number"),
        ("partitions = true", "must be a whole number"),
        ("partitions = 0", "from 1 to 1000 partitions"),
        ("batch_seconds = nan", "must be a number"),
        ("events_retention_hours = 0", "from 1 to 72 hours"),
        ("events_retention_hours = 73", "from 1 to 72 hours"),
        ('log_level = "loud"', "one of debug, info, warning, error"),
        ('broker = "kafka"', "host:port"),
        ('broker = "a:1, b:2"', "host:port"),
        ('identity_url = "ftp://x"', "http://host:port"),
        ('identity_url = "http://host:99999"', "http://host:port"),
        ('keyring = ""', "must be a path"),
        ("broker =", "is not TOML"),
    ],
)
def test_what_is_refused(tmp_path: Path, line: str, said: str) -> None:
    config = tmp_path / "s.toml"
    config.write_text(line + "\n")
    with pytest.raises(SettingsError, match=said):
        load(config, {})


def test_variables_are_refused_with_their_own_names() -> None:
    with pytest.raises(SettingsError, match="no setting SCHLEUSE_BROKR; did you mean SCHLEUSE_BROKER"):
        load(None, {"SCHLEUSE_BROKR": "x:1"})
    with pytest.raises(SettingsError, match="SCHLEUSE_PARTITIONS must be a whole number"):
        load(None, {"SCHLEUSE_PARTITIONS": "many"})
    with pytest.raises(SettingsError, match=r"SCHLEUSE_DASHBOARD_PORT must be from 0 to 65535$"):
        load(None, {"SCHLEUSE_DASHBOARD_PORT": "65536"})


def test_a_password_in_an_address_is_refused_and_not_quoted() -> None:
    for name in ("SCHLEUSE_IDENTITY_URL", "SCHLEUSE_ANALYTICS_URL", "SCHLEUSE_BROKER"):
        for value in ("http://worker:s3cret@host:8123", "worker:s3cret@host:9092"):
            with pytest.raises(SettingsError) as caught:
                load(None, {name: value})
            assert "s3cret" not in str(caught.value)


def test_passwords_are_read_at_the_moment_of_use_from_owner_only_files(tmp_path: Path) -> None:
    settings = Settings(credentials=tmp_path)
    file = tmp_path / "identity-worker"
    with pytest.raises(SettingsError, match=r"cannot be read .*--config"):
        settings.password("identity", "worker")
    file.write_text("s3cret\n")
    for mode in (0o640, 0o604, 0o620, 0o666):
        file.chmod(mode)
        with pytest.raises(SettingsError, match="chmod 600"):
            settings.password("identity", "worker")
    file.chmod(0o600)
    assert settings.password("identity", "worker") == "s3cret"
    assert "s3cret" not in repr(settings)
    file.write_text("another\n")
    assert settings.password("identity", "worker") == "another"
    file.write_text("\n")
    with pytest.raises(SettingsError, match="is empty"):
        settings.password("identity", "worker")
    os.symlink(tmp_path, tmp_path / "identity-rights")
    with pytest.raises(SettingsError, match="not a file"):
        settings.password("identity", "rights")
