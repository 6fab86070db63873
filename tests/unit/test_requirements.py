"""The pinned requirements agree with pyproject.toml: no package is missing or has another version."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from rollwave.extras import BRINGS

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def wanted(*extras: str) -> Iterator[Requirement]:
    """The packages that an installation with these extras needs directly."""
    lines = list(PROJECT["dependencies"])
    for extra in extras:
        lines += PROJECT["optional-dependencies"][extra]
    for line in map(Requirement, lines):
        if line.name == PROJECT["name"]:
            yield from wanted(*line.extras)
        else:
            yield line


def pinned(file: str) -> dict[str, Version]:
    """Versions by canonical name. Packages with a marker are included."""
    lines = re.findall(r"^([\w.-]+)==(\S+)", (ROOT / file).read_text("utf-8"), re.MULTILINE)
    return {canonicalize_name(name): Version(version) for name, version in lines}


@pytest.mark.parametrize(
    ("file", "extras"),
    [
        ("requirements.txt", ["dev"]),
        ("requirements-server.txt", ["server"]),
        ("requirements-lowest.txt", ["demo", "test"]),
    ],
)
def test_every_direct_dependency_is_pinned_to_an_allowed_version(file: str, extras: list[str]) -> None:
    pins = pinned(file)
    for need in wanted(*extras):
        assert need.specifier.contains(pins[canonicalize_name(need.name)]), f"{file}: {need}: run `make lock`"


def test_the_server_requirements_are_the_tested_versions() -> None:
    server, everything = pinned("requirements-server.txt"), pinned("requirements.txt")
    assert server.items() <= everything.items()
    only_elsewhere = {need.name for need in wanted("dev")} - {need.name for need in wanted("server")}
    assert not server.keys() & only_elsewhere


def test_the_lowest_versions_are_the_lower_bounds() -> None:
    pins = pinned("requirements-lowest.txt")
    for need in wanted("demo"):
        (bound,) = need.specifier  # A lower bound without an upper bound, which a host's own pins might exceed.
        assert bound.operator == ">=", need
        assert pins[canonicalize_name(need.name)] == Version(bound.version), f"{need}: run `make lock`"


def test_a_command_checks_for_the_packages_of_its_extra() -> None:
    for extra, modules in BRINGS.items():
        own = {need.name.replace("-", "_") for need in map(Requirement, PROJECT["optional-dependencies"][extra])}
        assert own - {PROJECT["name"]} == set(modules)


@pytest.mark.parametrize(
    "pin", ["asyncpg==0.29.0", "fastapi==0.115.3", "pydantic==2.8.2", "uvicorn==0.30.6", "structlog==24.1.0"]
)
def test_versions_that_hosts_pin_are_allowed(pin: str) -> None:
    name, version = pin.split("==")
    (need,) = {need for need in wanted("server") if need.name == name}
    assert need.specifier.contains(version)


@pytest.mark.parametrize("file", ["requirements.txt", "requirements-server.txt", "requirements-lowest.txt"])
def test_requirement_files_name_no_index_and_hash_every_package(file: str) -> None:
    text = (ROOT / file).read_text("utf-8")
    assert "://" not in text
    assert not re.search(r"^--", text, re.MULTILINE)
    for name, rest in re.findall(r"^([\w.-]+)==\S+(.*(?:\n .*)*)", text, re.MULTILINE):
        assert "--hash=sha256:" in rest, name
