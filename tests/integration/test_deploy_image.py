"""The Dockerfile: checked by a linter and against its neighbours. `scripts/replay_image.py` runs its steps."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import yaml

from tests.compose import read_compose
from tests.shipped import DEPLOY
from tests.tools import Tool

ROOT = DEPLOY.parent
DOCKERFILE = (ROOT / "Dockerfile").read_text()


def test_the_dockerfile_passes_its_linter(tmp_path: Path) -> None:
    hadolint = Tool("hadolint")
    assert hadolint.run("--no-color", ROOT / "Dockerfile") == ""
    bad = tmp_path / "Dockerfile"
    bad.write_text("FROM debian:latest\nRUN cd /tmp && sudo apt-get install gcc\n")
    assert hadolint.tried(bad).returncode != 0


def test_the_image_contains_only_what_runs() -> None:
    build, _, result = DOCKERFILE.partition("\nFROM ")[2].partition("\nFROM ")
    assert "--require-hashes" in build
    for word in ("pip", "python3-venv", "gcc", "build-essential"):
        assert word not in result.replace("# ", "")
    assert re.search(r"^USER [1-9]\d*:[1-9]\d*$", result, re.MULTILINE)
    assert 'ENTRYPOINT ["rollwave"]' in result
    assert "STOPSIGNAL SIGTERM" in result
    assert "HEALTHCHECK" in result


def test_every_copied_file_is_in_the_build_context() -> None:
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {
        name for line in re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE, re.MULTILINE) for name in line.split()
    }
    assert copied == sent
    assert all((ROOT / name).exists() for name in sent)


def test_the_image_installs_all_build_tools_that_the_wheel_needs() -> None:
    listed = re.search(r"/\^\(([\w|-]+)\)==/", DOCKERFILE)
    assert listed
    locked = (ROOT / "requirements.txt").read_text()
    for name in listed[1].split("|"):
        assert re.search(rf"^{name}==", locked, re.MULTILINE), name


def test_the_version_of_the_image_is_the_same_everywhere() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f"ARG VERSION={version}\n" in DOCKERFILE
    images = {service["image"] for service in read_compose()["services"].values()}
    for file in (DEPLOY / "kubernetes" / "base").glob("*.yaml"):
        images |= set(re.findall(r"image: (\S+)", file.read_text()))
    assert {image for image in images if image.startswith("rollwave:")} == {f"rollwave:{version}"}
    [image] = yaml.safe_load((DEPLOY / "kubernetes/overlays/example/kustomization.yaml").read_text())["images"]
    assert image["newTag"] == version
