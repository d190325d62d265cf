"""docker-compose.yml without a Docker engine: what a reader would check by hand; Docker's own check where it is."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.compose import logins
from deploy.embedded import logins as read_logins
from streams.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]


def volumes(service: str) -> dict[str, str]:
    """Named volumes of a service: name -> mode."""
    found = {}
    for line in SERVICES[service].get("volumes", []):
        name, _, *mode = line.split(":")
        if not name.startswith("."):
            found[name] = mode[0] if mode else "rw"
    return found


def networks(service: str) -> set[str]:
    if SERVICES[service].get("network_mode") == "none":
        return set()
    return set(SERVICES[service].get("networks", ["default"]))


def test_everything_that_is_named_exists() -> None:
    declared = set(COMPOSE["volumes"])
    assert {name for service in SERVICES for name in volumes(service)} == declared
    assert {name for service in SERVICES for name in networks(service)} == {*COMPOSE["networks"], "default"}
    for name, service in SERVICES.items():
        for other, how in service.get("depends_on", {}).items():
            assert other in SERVICES
            condition = how["condition"]
            assert condition != "service_healthy" or "healthcheck" in SERVICES[other], (name, other)
            assert condition != "service_completed_successfully" or "restart" not in SERVICES[other], (name, other)
        if "build" in service:
            assert (ROOT / service["build"]["dockerfile"]).is_file()
            settings = set(service["environment"])
            assert settings <= {f"SCHLEUSE_{field.name.upper()}" for field in fields(Settings)}
        else:
            assert re.fullmatch(r"[a-z/-]+:v?\d+\.\d+(\.\d+)?", service["image"]), "a tag that says its version"
        for line in service.get("volumes", []):
            if line.startswith("./deploy"):
                assert (ROOT / line.split(":")[0]).exists()


def test_the_two_stores_share_nothing_and_only_worker_rights_and_migrations_reach_both() -> None:
    assert not set(volumes("identity")) & set(volumes("analytics"))
    assert not networks("identity") & networks("analytics")
    assert volumes("identity")["identity-logins"] == volumes("analytics")["analytics-logins"] == "ro"
    assert {name for name in SERVICES if {"identity", "analytics"} <= networks(name)} == {"worker", "rights", "migrate"}
    assert not {"credentials-admin"} & {*volumes("worker"), *volumes("rights")}
    assert {name for name in SERVICES if "keys" in volumes(name)} == {"worker", "rights"}
    assert {name for name in SERVICES if "exports" in volumes(name)} == {"rights"}


def test_what_is_to_be_reached_is_only_from_this_machine() -> None:
    ports = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert set(ports) == {"kafka", "dashboard", "prometheus", "grafana"}
    assert all(re.fullmatch(r"127\.0\.0\.1:(\d+):\1", port) for of in ports.values() for port in of)


def test_the_dashboard_holds_one_password_and_reaches_no_identity() -> None:
    assert volumes("dashboard") == {"credentials-dashboard": "ro"}
    assert networks("dashboard") == {"analytics"}


def test_grafana_holds_the_analysts_password_and_reaches_no_identity() -> None:
    assert {name: mode for name, mode in volumes("grafana").items() if name.startswith("credentials")} == {
        "credentials-analyst": "ro"
    }
    assert networks("grafana") == {"analytics", "metrics"}
    assert networks("prometheus") == {"metrics"}
    assert {name for name in SERVICES if "metrics" in networks(name)} == {"worker", "prometheus", "grafana"}
    assert {name for name in SERVICES if "SCHLEUSE_HTTP_HOST" in SERVICES[name].get("environment", {})} == {"worker"}


@pytest.mark.skipif(os.geteuid() != 0, reason="gives files away, as in the container")
def test_each_login_file_has_one_reader(tmp_path: Path) -> None:
    logins.write(tmp_path)
    first = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    logins.write(tmp_path)  # before every start
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == first
    for path in first:
        owner = logins.CLICKHOUSE_UID if path.name == "users.xml" else logins.SCHLEUSE_UID
        owner = logins.GRAFANA_UID if path.parent.name == "analyst" else owner
        assert (stat.S_IMODE(path.stat().st_mode), path.stat().st_uid) == (0o600, owner)
    for role in ("rights", "worker"):
        own = tmp_path / "credentials" / role
        assert sorted(path.name for path in own.iterdir()) == [f"analytics-{role}", f"identity-{role}"]
    grafana = tmp_path / "credentials" / "analyst"
    assert sorted(path.name for path in grafana.iterdir()) == ["analytics-analyst", "grafana-admin"]
    worker = tmp_path / "credentials" / "worker"
    known = read_logins.read(tmp_path / "logins" / "identity" / "users.xml")
    assert known.role_for("worker", (worker / "identity-worker").read_text().strip()) == "schleuse_worker"
    assert known.role_for("worker", (worker / "analytics-worker").read_text().strip()) is None
    assert set(known.roles) == {"worker", "rights", "migrations"}  # nobody without a password: no `default`


def test_docker_itself_finds_it_valid() -> None:
    docker = shutil.which("docker")
    if docker is None or subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode:
        pytest.skip("no docker compose here")
    checked = subprocess.run(
        [docker, "compose", "-f", str(ROOT / "docker-compose.yml"), "--profile", "tools", "config", "--quiet"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stderr
