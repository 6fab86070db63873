"""The install hook, as a real process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
from pathlib import Path

import pytest

from rollwave.device.install import Installer, InstallFailed
from rollwave.errors import ConfigurationError
from rollwave.mqtt.payload import Command
from tests.support import eventually

COMMAND = Command(7, "http://host/fw", "2.0.0", "")


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    path = tmp_path / "firm ware.bin"
    path.write_bytes(b"bytes")
    return path


async def test_without_an_installer_an_installation_succeeds(artifact: Path) -> None:
    await Installer().install(artifact, COMMAND)


async def test_the_installer_gets_the_file_and_version(artifact: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    variables = "$ROLLWAVE_FILE $ROLLWAVE_VERSION $ROLLWAVE_CAMPAIGN $HOME"
    hook = f"""sh -c 'cp "$0" {out}; echo {variables} >> {out}' {{path}}"""
    await Installer(hook).install(artifact, COMMAND)
    assert out.read_text() == f"bytes{artifact} 2.0.0 7 {os.environ['HOME']}\n"


async def test_the_version_is_not_interpreted_by_a_shell(artifact: Path, tmp_path: Path) -> None:
    version = f"$(touch {tmp_path}/oops); touch {tmp_path}/oops"
    await Installer("env").install(artifact, Command(7, "http://host/fw", version, ""))
    assert not (tmp_path / "oops").exists()


@pytest.mark.parametrize(
    ("hook", "reason"),
    [
        ("sh -c 'echo flashing; echo bad signature >&2; exit 3'", "install failed (exit 3): bad signature"),
        ("false", "install failed (exit 1)"),
        ("sh -c 'kill -9 $$'", "install failed (exit -9)"),
    ],
)
async def test_a_failing_installer_gives_its_last_line_as_the_reason(artifact: Path, hook: str, reason: str) -> None:
    with pytest.raises(InstallFailed) as caught:
        await Installer(hook).install(artifact, COMMAND)
    assert str(caught.value) == reason


async def test_a_missing_installer_is_a_failed_installation(artifact: Path) -> None:
    with pytest.raises(InstallFailed, match=r"exit 127.*no-such-program"):
        await Installer("no-such-program {path}").install(artifact, COMMAND)


async def test_a_version_with_a_nul_character_is_a_failed_installation(artifact: Path) -> None:
    with pytest.raises(InstallFailed, match="cannot be started"):
        await Installer("true").install(artifact, Command(7, "http://host/fw", "2\x000", ""))


async def test_a_hanging_installer_is_killed_with_its_children(artifact: Path, tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    hook = f"sh -c 'sleep 60 & echo $! > {pid}; wait'"
    with pytest.raises(InstallFailed, match=r"not finished after 2\.5 s"):
        await Installer(hook, timeout=2.5).install(artifact, COMMAND)
    await eventually(lambda: not _alive(int(pid.read_text())))


async def test_a_daemon_started_by_the_installer_does_not_block_the_device(artifact: Path) -> None:
    async with asyncio.timeout(5):
        await Installer("sh -c 'sleep 20 & exit 0'").install(artifact, COMMAND)


async def test_an_installer_that_prints_endlessly_does_not_fill_the_disk(artifact: Path) -> None:
    prints = "head -c 40000000 /dev/zero; sleep 1; echo; stat -L -c %s /proc/self/fd/1"
    with pytest.raises(InstallFailed, match=r"exit 4\): \d+$") as caught:
        await Installer(f"sh -c '{prints}; exit 4'").install(artifact, COMMAND)
    assert int(str(caught.value).split()[-1]) < 1000


async def test_installer_output_that_is_not_utf_8_is_accepted(artifact: Path) -> None:
    with pytest.raises(InstallFailed, match=r"^install failed \(exit 1\): .*\ufffd"):
        await Installer("sh -c 'head -c 5000 /dev/urandom; printf \"\\377x\"; exit 1'").install(artifact, COMMAND)


async def test_an_installer_runs_without_disk_space_for_its_output(
    artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    await Installer("true").install(artifact, COMMAND)
    with pytest.raises(InstallFailed, match=r"^install failed \(exit 3\)$"):
        await Installer("sh -c 'echo why; exit 3'").install(artifact, COMMAND)


def test_unbalanced_quotes_in_the_hook_are_a_configuration_error() -> None:
    with pytest.raises(ConfigurationError):
        Installer("sh -c 'oops")


def _alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    return False
