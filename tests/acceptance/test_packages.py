"""The wheel and the sdist: their contents, and what works in an empty environment with each extra."""

from __future__ import annotations

import asyncio
import hashlib
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.servers import Mosquitto
from tests.support import environment, eventually, psql

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")


@dataclass(frozen=True, slots=True)
class Packages:
    """The files that `python -m build` has made. The wheel is built from the sdist."""

    wheel: Path
    sdist: Path


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Packages:
    folder = tmp_path_factory.mktemp("dist")
    _build(folder)
    return Packages(wheel=_only(folder, "*.whl"), sdist=_only(folder, "*.tar.gz"))


def _build(folder: Path, *options: str) -> None:
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), *options, str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def _only(folder: Path, pattern: str) -> Path:
    (found,) = folder.glob(pattern)
    return found


class EmptyEnvironment:
    """A virtual environment without any package, pip included.

    Packages installed into it are those of requirements.txt.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)

    def install(self, wheel: Path, extra: str = "") -> None:
        digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
        wanted = self._folder / "wanted.txt"
        wanted.write_text(f"rollwave{extra} @ {wheel.as_uri()} --hash=sha256:{digest}\n")
        pip = [sys.executable, "-m", "pip", "--python", str(self._program("python")), "--disable-pip-version-check"]
        lists = ["--require-hashes", "-r", str(wanted), "-c", str(ROOT / "requirements.txt")]
        done = subprocess.run([*pip, "install", "--quiet", *lists], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    def packages(self) -> set[str]:
        return {each.name.partition("-")[0] for each in self._folder.glob("lib/python3*/site-packages/*.dist-info")}

    def run(self, program: str, *arguments: str, timeout: float = 60.0) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self._program(program), *arguments],
            env=self._environment(),
            cwd=self._folder,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def run_until(self, line: str, program: str, *arguments: str, timeout: float) -> str:
        """Run a program until it prints a line that begins so, then interrupt it. Returns what it printed."""
        printed = ""
        with subprocess.Popen(
            [self._program(program), *arguments],
            env=self._environment(),
            cwd=self._folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as running:
            giving_up = threading.Timer(timeout, running.kill)
            giving_up.start()
            for each in running.stdout or ():
                printed += each
                if each.startswith(line):
                    running.send_signal(signal.SIGINT)
            giving_up.cancel()
        assert f"\n{line}" in printed, printed
        return printed

    async def start(self, *arguments: str, **settings: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            self._program("python"), *arguments, env=self._environment() | settings, cwd=self._folder
        )

    def _program(self, name: str) -> Path:
        return self._folder / "bin" / name

    def _environment(self) -> dict[str, str]:
        # The sources must not be imported in place of a file that the wheel lacks.
        bare = {name: value for name, value in environment().items() if name != "PYTHONPATH"}
        return bare | {"TMPDIR": str(self._folder)}


@pytest.fixture
def empty() -> Iterator[EmptyEnvironment]:
    folder = Path(tempfile.mkdtemp(prefix="rw-"))
    folder.chmod(0o755)  # PostgreSQL may run as another user.
    yield EmptyEnvironment(folder)
    shutil.rmtree(folder)


def test_the_wheel_contains_the_sql_and_the_sdist_every_file_of_the_repository(
    packages: Packages, tmp_path: Path
) -> None:
    _build(tmp_path, "--wheel")
    built, here = _names(packages.wheel), _names(_only(tmp_path, "*.whl"))
    assert built == here  # In the sdist as in the clone.
    sources = {str(path.relative_to(ROOT / "src")) for path in (ROOT / "src").rglob("*") if path.is_file()}
    assert {name for name in built if ".dist-info/" not in name} == {
        name for name in sources if "__pycache__" not in name
    }
    assert "rollwave/py.typed" in built
    assert sum(name.endswith(".sql") for name in built) > 20
    with tarfile.open(packages.sdist) as sdist:
        inside = {name.partition("/")[2] for name in sdist.getnames()}
    assert inside >= {
        "Makefile", "LICENSE", "CHANGELOG.md", "CONTRIBUTING.md", "requirements.txt", "requirements-server.txt",
        "bench/__main__.py", "deploy/README.md", "docs/howto/install.md", "scripts/system-packages",
        "tests/conftest.py",
    }  # fmt: skip


def _names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


async def test_a_host_needs_no_extra_and_each_command_names_the_extra_that_it_needs(
    packages: Packages, empty: EmptyEnvironment, database: str, mosquitto: Mosquitto, tmp_path: Path
) -> None:
    empty.install(packages.wheel)
    assert not empty.packages() & {"click", "fastapi", "httpx2", "rich", "starlette", "typer", "uvicorn"}
    await _embed(empty, database, mosquitto, tmp_path)
    _says(empty, "--help", extra="cli")

    empty.install(packages.wheel, "[cli]")
    assert empty.run("rollwave", "--help").returncode == 0
    assert "problem  settings" not in empty.run("rollwave", "doctor").stdout
    for command, extra in (("serve", "server"), ("worker", "server"), ("demo", "demo")):
        _says(empty, command, extra=extra)

    empty.install(packages.wheel, "[server]")
    assert "DATABASE_URL is not set" in empty.run("rollwave", "serve").stderr
    _says(empty, "demo", extra="demo")


async def _embed(empty: EmptyEnvironment, database: str, mosquitto: Mosquitto, folder: Path) -> None:
    """Run the README's host code, with the README's campaign and the README's device."""
    (host,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    (sql,) = re.findall(r"```sql\n(.*?)```", README, re.DOTALL)
    (report,) = re.findall(r"^mosquitto_pub .*$", README, re.MULTILINE)
    program, url = re.subn(r'"postgresql://[^"]*"', repr(database), host)
    assert url == 1
    (folder / "host.py").write_text(program)
    psql(database, sql)
    running = await empty.start(str(folder / "host.py"), MQTT_BROKER_URL=mosquitto.url)
    try:
        await eventually(lambda: psql(database, "SELECT status FROM ota_device_status") == "DOWNLOADING")
        here = report.replace("mosquitto_pub", f"mosquitto_pub -p {mosquitto.port}")
        subprocess.run(["sh", "-c", here], env=environment(), check=True)
        await eventually(lambda: psql(database, "SELECT status FROM ota_campaigns") == "COMPLETED")
        assert running.returncode is None
    finally:
        running.kill()
        await running.wait()


def _says(empty: EmptyEnvironment, command: str, *, extra: str) -> None:
    done = empty.run("rollwave", command)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.endswith(f": pip install 'rollwave[{extra}]'")


def test_the_demo_runs_from_a_wheel_in_an_empty_environment(packages: Packages, empty: EmptyEnvironment) -> None:
    empty.install(packages.wheel, "[demo]")
    printed = empty.run_until("  COMPLETED  300 SUCCESS", "rollwave", "demo", timeout=150)
    assert "  created for 300 devices" in printed
