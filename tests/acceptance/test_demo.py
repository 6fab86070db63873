"""`rollwave demo`, run to its end and interrupted: it reports the expected result, and leaves only its data."""

from __future__ import annotations

import re
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

import httpx2
import pytest

from rollwave.client.api import Api
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
    before, story, _ = done.stdout.partition("\nFirmware 2.1.0 is good.")
    assert story
    assert before.splitlines()[-1].startswith("http://127.0.0.1:")  # The link, alone on its line.
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


async def test_a_kept_demo_has_a_link_to_the_console_and_campaigns_to_try_things_on(
    demo_folder: Path, tmp_path: Path
) -> None:
    async with rollwave_running("demo", "--keep", log=tmp_path / "log", env={"TMPDIR": str(demo_folder)}) as demo:
        await eventually(lambda: "\nFirmware 2.1.0 is good." in demo.output(), timeout=60, what="the story")
        link = next(line for line in demo.output().splitlines() if line.startswith("http://"))
        await eventually(lambda: "Ctrl-C stops them." in demo.output(), timeout=120, what="the end of the story")
        assert "The servers and the devices are still running." in demo.output()
        api_key = re.findall(r"ROLLWAVE_API_KEY=(\S+)", demo.output())[0]
        base = link.partition("/console")[0]
        for _ in range(2):  # It may be used again.
            with httpx2.Client(follow_redirects=True, trust_env=False) as browser:
                page = browser.get(link)
                assert (page.status_code, str(page.url)) == (200, f"{base}/console/campaigns")
                assert "Faster start-up, south" in page.text
        with Api(base, api_key) as api:
            waiting, spreading = sorted(
                api.pages("/ota/campaigns", "campaigns", status="RUNNING"), key=lambda each: int(each["id"])
            )
            await eventually(lambda: _failed(api, spreading["id"]) >= 3, timeout=120, what="failures in the south")
            why = api.get(f"/ota/campaigns/{waiting['id']}/devices/pump-17/explain")
            assert next(each["gate"] for each in why["checks"] if not each["open"]) == "window"
            await _a_campaign_of_ones_own_works(api)
        demo.process.send_signal(signal.SIGTERM)
        assert await demo.process.wait() == 0, demo.output()
    await eventually(lambda: processes(demo_folder) == [])


def _failed(api: Api, campaign_id: int) -> int:
    return int(api.get(f"/ota/campaigns/{campaign_id}")["status_breakdown"]["FAILED"])


async def _a_campaign_of_ones_own_works(api: Api) -> None:
    [firmware] = [each for each in api.pages("/firmware", "firmware_versions") if each["version"] == "2.4.0"]
    api.put("/device-groups/mine", {"device_ids": ["pump-1", "pump-2", "pump-3"]})
    made = api.post(
        "/ota/campaigns", {"name": "mine", "firmware_version_id": firmware["id"], "target_group_id": "mine"}
    )
    api.post(f"/ota/campaigns/{made['id']}/start")
    await eventually(
        lambda: api.get(f"/ota/campaigns/{made['id']}")["status_breakdown"]["SUCCESS"] == 3, timeout=60, what="mine"
    )


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
