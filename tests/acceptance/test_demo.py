"""`rollwave demo`, run to its end and interrupted: it reports the expected result, and leaves only its data."""

from __future__ import annotations

import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import urlopen

import pytest

from rollwave.demo.artifact import ArtifactServer
from tests.support import eventually, rollwave, rollwave_running


@pytest.fixture
def demo_folder() -> Iterator[Path]:
    """A folder for all temporary files of the demo. Its path identifies every process of the demo."""
    folder = Path(tempfile.mkdtemp(prefix="rw-"))
    folder.chmod(0o755)  # PostgreSQL may run as another user.
    yield folder
    shutil.rmtree(folder)


def processes(demo_folder: Path) -> list[str]:
    """Processes that have the folder in their arguments or their environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            known = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
        except OSError:
            continue  # The process has ended in the meantime.
        if str(demo_folder).encode() in known:
            found.append(known.partition(b"\0\0")[0].decode(errors="replace"))
    return found


async def test_the_demo_completes_one_campaign_aborts_the_other_and_leaves_only_its_data(demo_folder: Path) -> None:
    began = time.monotonic()
    done = rollwave("demo", env={"TMPDIR": str(demo_folder)}, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert time.monotonic() - began < 90  # It takes half of this time on an idle machine.
    assert "✔ 2.1.0 is on all 300 devices." in done.stdout
    assert "✔ The guardrail aborted 2.2.0: it was not sent to " in done.stdout
    assert "\x1b" not in done.stdout
    (data,) = demo_folder.iterdir()
    assert done.stdout.splitlines()[-1] == f"The data is in {data}"
    assert processes(demo_folder) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("moment", ["starting the engine", "DOWNLOADING"])
async def test_a_signal_stops_the_demo_and_all_its_processes(
    demo_folder: Path, tmp_path: Path, moment: str, number: signal.Signals
) -> None:
    async with rollwave_running(
        "demo", log=tmp_path / "log", env={"TMPDIR": str(demo_folder), "PYTHONUNBUFFERED": "1"}
    ) as demo:
        await eventually(lambda: moment in demo.output(), timeout=60)
        assert len(processes(demo_folder)) > 3
        demo.process.send_signal(number)
        assert await demo.process.wait() == 130
    (data,) = demo_folder.iterdir()
    assert demo.output().splitlines()[-1] == f"Stopped. The data is in {data}"
    await eventually(lambda: processes(demo_folder) == [])


INTERRUPTED_IN_A_FINALIZER = """
import signal, sys
from pathlib import Path
from rollwave.demo.main import play

class Interrupts:
    def __del__(self) -> None:
        signal.raise_signal(getattr(signal, sys.argv[2]))

class Folder(type(Path())):
    def mkdir(self, *args: object, **options: object) -> None:
        super().mkdir(*args, **options)
        Interrupts()

play(Folder(sys.argv[1]), stay=False, picture=None)
"""


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM"])
def test_an_interrupt_during_a_finalizer_stops_the_demo(demo_folder: Path, number: str) -> None:
    """Python ignores an exception that is raised while an object is finalized."""
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED_IN_A_FINALIZER, str(demo_folder / "data"), number],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Exception ignored" in done.stderr
    assert done.stderr.endswith("KeyboardInterrupt\n")
    assert done.stdout.splitlines()[-1] == f"Stopped. The data is in {demo_folder / 'data'}"
    assert "wave" not in done.stdout
    assert processes(demo_folder) == []


def test_a_device_that_ends_its_download_leaves_no_trace_on_the_terminal(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with ArtifactServer(tmp_path) as server:
        url = urlsplit(server.make("1.0.0").url)
        assert url.hostname
        for _ in range(10):
            with socket.create_connection((url.hostname, url.port or 0)) as device:
                device.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # closed by a reset
                device.sendall(f"GET {url.path} HTTP/1.1\r\nHost: demo\r\n\r\n".encode())
                device.recv(100)
        with urlopen(url.geturl()) as response:
            assert len(response.read()) == 256 * 1024
    assert capfd.readouterr().err == ""


def test_the_demo_explains_why_it_cannot_use_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = rollwave("demo", "--data", str(tmp_path / "file" / "data"))
    assert (done.returncode, done.stdout) == (1, "")
    assert [line.partition(":")[0] for line in done.stderr.splitlines()] == ["error", "hint"]
