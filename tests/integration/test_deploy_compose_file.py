"""The compose file: its schema, the restrictions of each service, and that it contains no secret."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from rollwave.settings import Settings
from tests.compose import Stack, read_compose

SCHEMA = json.loads((Path(__file__).parents[1] / "schemas" / "compose-spec.json").read_text())
COMPOSE = read_compose()
SERVICES: Mapping[str, Mapping[str, Any]] = COMPOSE["services"]
ONCE = {"install-keys", "migrate", "operator"}
"""Services that end by themselves."""


def errors(compose: Mapping[str, Any]) -> list[str]:
    return [error.message for error in jsonschema_rs.validator_for(SCHEMA).iter_errors(compose)]


def test_the_compose_file_is_valid_by_the_compose_schema() -> None:
    assert errors(COMPOSE) == []
    misspelt = {"services": {"serve": {**SERVICES["serve"], "read-only": True}}}
    assert errors(misspelt), "the schema finds no mistake"


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_runs_without_privileges(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory", "pids"}
    assert service["restart"] == ("no" if name in ONCE else "unless-stopped")
    assert re.fullmatch(r"[\w./-]+:v?\d[\w.-]*", service["image"]), "no tag"
    assert ("cap_add" in service) == (name == "install-keys")
    assert "build" in service or service["user"].split(":")[0] != "0" or service["network_mode"] == "none"


def test_read_only_services_have_a_temporary_file_system() -> None:
    # mosquitto_passwd and PostgreSQL fail if the whole root is read-only.
    for name in ("install-keys", "postgres", "grafana"):
        assert "/tmp" in SERVICES[name]["tmpfs"]


@pytest.mark.parametrize("name", SERVICES)
def test_only_the_brokers_port_is_reachable_from_other_machines(name: str) -> None:
    published = SERVICES[name].get("ports", [])
    assert name == "mosquitto" or all(port.startswith("127.0.0.1:") for port in published)
    assert ("database" in SERVICES[name].get("networks", [])) == (name in {"postgres", "migrate", "serve", "worker"})


def test_a_service_that_others_wait_for_has_a_health_check_or_ends() -> None:
    waited_for = {
        (name, each["condition"]) for s in SERVICES.values() for name, each in s.get("depends_on", {}).items()
    }
    for name, condition in waited_for:
        if condition == "service_completed_successfully":
            assert name in ONCE
        else:
            assert condition == "service_healthy"
            assert "test" in SERVICES[name]["healthcheck"]


def test_the_compose_file_contains_no_secret() -> None:
    for service in SERVICES.values():
        assert not {name for name in service.get("environment", {}) if "PASSWORD" in name or name == "DATABASE_URL"}


def test_settings_in_the_compose_file_have_names_that_rollwave_reads(stack: Stack) -> None:
    known = {field.alias for field in Settings.model_fields.values()}
    for name, service in SERVICES.items():
        if service["image"].startswith("rollwave:"):
            assert stack.settings(name).keys() <= known, name


def test_every_file_that_compose_mounts_exists_after_preparation(stack: Stack) -> None:
    files = [config["file"] for config in COMPOSE["configs"].values()]
    files += [f if isinstance(f, str) else f["path"] for s in SERVICES.values() for f in s.get("env_file", ())]
    for file in files:
        path = stack.folder / file
        assert path.is_file(), file
        # Only mounted files are read by the containers' users. Compose itself reads the others.
        assert file.endswith(".env") or path.stat().st_mode & 0o004, file
    used = {each["source"] for service in SERVICES.values() for each in service.get("configs", ())}
    assert used == COMPOSE["configs"].keys()
