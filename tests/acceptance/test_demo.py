"""The demo, to its end and broken off: the story comes out right, and only the data stays."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import eventually, rollwave, rollwave_running


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder for all temporary files of the demo; its path marks every process of it."""
    folder = Path(tempfile.mkdtemp(prefix="rw-"))
    folder.chmod(0o755)  # PostgreSQL may run as another user
    yield folder
    shutil.rmtree(folder)


def processes(place: Path) -> list[str]:
    """Whoever has the folder in its arguments or its environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            known = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
        except OSError:
            continue  # it has ended meanwhile
        if str(place).encode() in known:
            found.append(known.partition(b"\0\0")[0].decode(errors="replace"))
    return found


async def test_the_story_comes_out_right_and_only_the_data_stays(place: Path) -> None:
    began = time.monotonic()
    done = rollwave("demo", env={"TMPDIR": str(place)}, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert time.monotonic() - began < 90  # half of it on a machine that does nothing else
    assert "✔ 2.1.0 is on all 300 devices." in done.stdout
    assert "✔ 2.2.0 stopped itself and spared " in done.stdout
    assert "\x1b" not in done.stdout
    (data,) = place.iterdir()
    assert done.stdout.splitlines()[-1] == f"The data is in {data}"
    assert processes(place) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("moment", ["starting the engine", "DOWNLOADING"])
async def test_broken_off_it_stops_everything(place: Path, tmp_path: Path, moment: str, number: signal.Signals) -> None:
    async with rollwave_running(
        "demo", log=tmp_path / "log", env={"TMPDIR": str(place), "PYTHONUNBUFFERED": "1"}
    ) as demo:
        await eventually(lambda: moment in demo.output(), timeout=60)
        assert len(processes(place)) > 3
        demo.process.send_signal(number)
        assert await demo.process.wait() == 130
    (data,) = place.iterdir()
    assert demo.output().splitlines()[-1] == f"Stopped. The data is in {data}"
    await eventually(lambda: processes(place) == [])


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
def test_an_interrupt_that_python_ignores_stops_it_all_the_same(place: Path, number: str) -> None:
    """Raised while an object is finalized, an exception goes nowhere: the demo went on to its end, exit code 0."""
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED_IN_A_FINALIZER, str(place / "data"), number],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Exception ignored" in done.stderr
    assert done.stderr.endswith("KeyboardInterrupt\n")
    assert done.stdout.splitlines()[-1] == f"Stopped. The data is in {place / 'data'}"
    assert "wave" not in done.stdout
    assert processes(place) == []


def test_a_folder_that_cannot_be_used_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = rollwave("demo", "--data", str(tmp_path / "file" / "data"))
    assert (done.returncode, done.stdout) == (1, "")
    assert [line.partition(":")[0] for line in done.stderr.splitlines()] == ["error", "hint"]
