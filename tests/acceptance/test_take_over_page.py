"""Every command of the page about taking over a host is run, in order, against a host with a running campaign."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from difflib import unified_diff
from pathlib import Path

import pytest

from rollwave.embedded.postgres import wheel_binaries
from tests.engine import (
    Command,
    Connection,
    Devices,
    always_succeeds,
    breakdown,
    campaign_row,
    connect,
    devices,
    wait_until_ended,
)
from tests.host.platform import RUNNING, Host, make_host
from tests.servers import Mosquitto
from tests.support import environment, eventually

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "howto" / "take-over-a-host.md").read_text("utf-8")

DONE = "-- the end of a block --"


@dataclass(frozen=True, slots=True)
class Block:
    """A code block: ``sh``, ``python`` or ``sql``, or (``""``) the output that the page shows for the block before."""

    language: str
    text: str


def blocks() -> Iterator[Block]:
    for indent, language, text in re.findall(r"^( *)```(\w*)\n(.*?)^ *```$", PAGE, re.DOTALL | re.MULTILINE):
        yield Block(language, re.sub(f"^{indent}", "", text, flags=re.MULTILINE))


@dataclass
class Terminal:
    """The reader's shell. Variables, processes and exports of one block are there in the next."""

    process: asyncio.subprocess.Process
    seen: list[str] = field(default_factory=list)

    async def run(self, commands: str) -> str:
        """Paste a block and return what it printed. The block and its last command must succeed."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{commands}\nended=$?; echo; echo '{DONE}' $ended\n".encode())
        lines: list[str] = []
        while not (lines and lines[-1].startswith(DONE)):
            line = await asyncio.wait_for(self.process.stdout.readline(), 60)
            assert line, f"the shell has ended in {commands}: {lines}"
            lines.append(line.decode().rstrip("\n"))
        output = "\n".join(lines[:-1]).rstrip("\n")
        self.seen.append(f"$ {commands}{output}")
        assert lines[-1] == f"{DONE} 0", self.seen[-1]
        return output


@asynccontextmanager
async def terminal(folder: Path, **exported: str) -> AsyncIterator[Terminal]:
    """A shell in an empty folder, with the page's first block in its environment."""
    path = os.pathsep.join([str(Path(sys.executable).parent), str(wheel_binaries()), os.environ["PATH"]])
    process = await asyncio.create_subprocess_exec(
        "bash",
        cwd=folder,
        env=environment(**exported) | {"PATH": path},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        yield Terminal(process)
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # This ends the processes that the shell has started, too.
        await process.wait()


@asynccontextmanager
async def old_worker(host: Host, broker: Mosquitto, log: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    with log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.host.old_worker",
            host.service,
            broker.url,
            cwd=ROOT,
            env=environment(),
            stdout=output,
            stderr=output,
        )
    try:
        await eventually(lambda: "is listening" in log.read_text(), what="the old worker listens")
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def schema(host: Host) -> list[str]:
    """Tables, indexes, policies and rights as `pg_dump` writes them, without the dump's random token."""
    dump = subprocess.run(
        [str(wheel_binaries() / "pg_dump"), "--schema-only", host.root], capture_output=True, text=True, check=True
    ).stdout
    return [line for line in dump.splitlines() if not re.match(r"\\(un)?restrict ", line)]


async def test_every_command_on_the_take_over_page_works(
    empty_database: str, mosquitto: Mosquitto, tmp_path: Path
) -> None:
    host = await make_host(empty_database)
    before = schema(host)
    folder = tmp_path / "reader"
    folder.mkdir()
    exports, *steps = blocks()
    exported = {
        "DATABASE_URL": host.root,
        "SERVICE_URL": host.service,
        "SERVICE_LOGIN": "host_service",
        "MQTT_BROKER_URL": mosquitto.url,
    }
    assert set(re.findall(r"export (\w+)=", exports.text)) == exported.keys()
    async with (
        connect(host.root) as root,
        devices(mosquitto.url, other_devices_answer) as fleet,
        old_worker(host, mosquitto, tmp_path / "old") as old,
    ):
        await eventually(lambda: len(fleet.commands_of(RUNNING)) >= 5, what="the old worker sends")
        async with terminal(
            folder, **exported, OLD_WORKER=str(old.pid), OTA_TICK_INTERVAL="0.5", PYTHONUNBUFFERED="1"
        ) as reader:
            printed, waiting = "", None
            for number, step in enumerate(steps):
                if step.language == "sh":
                    printed = await reader.run(step.text)
                elif step.language == "":
                    await expect(reader, steps[number - 1].text, printed, step.text)
                else:
                    name = {"python": "worker.py", "sql": "remove-rollwave.sql"}[step.language]
                    (folder / name).write_text(step.text)
                if 'kill "$OLD_WORKER"' in step.text:
                    await old.wait()
                if "worker.py &" in step.text:
                    await finish_what_the_old_worker_began(root, fleet)
                if "worker.pid)" in step.text:
                    waiting = await campaign_between_two_attempts(root)
                if "SET status = 'PENDING'" in step.text:
                    await check_that_the_old_worker_still_works(host, mosquitto, root, tmp_path / "old", waiting)
                if "remove-rollwave.sql" in step.text and step.language == "sh":
                    await check_that_the_old_worker_still_works(host, mosquitto, root, tmp_path / "old")
    assert list(unified_diff(before, schema(host), "before", "afterwards", n=1)) == []


def other_devices_answer(command: Command) -> Sequence[bytes]:
    """Let every device answer but ``bench-1``, which the page's reader plays."""
    return () if command.device == "bench-1" else always_succeeds(command)


async def finish_what_the_old_worker_began(root: Connection, fleet: Devices) -> None:
    """Let devices in progress report. Pending devices are sent to, and none fails."""
    await eventually(lambda: listened_to(root), what="a worker listens")
    for row in await root.fetch(
        "SELECT device_id FROM ota_device_status WHERE campaign_id = $1 AND completed_at IS NULL"
        " AND status IN ('DOWNLOADING', 'INSTALLING')",
        RUNNING,
    ):
        fleet.report(row["device_id"], RUNNING, "SUCCESS")
    await wait_until_ended(root, RUNNING)
    assert await campaign_row(root, RUNNING) == ("COMPLETED", 24, 0)
    assert await breakdown(root, RUNNING) == {"SUCCESS": 24}


async def listened_to(root: Connection) -> bool:
    return bool(
        await root.fetchval("SELECT EXISTS (SELECT FROM rollwave_listener_slots WHERE subscribed_at IS NOT NULL)")
    )


async def campaign_between_two_attempts(root: Connection) -> int:
    """A campaign of one device that waits for its next attempt, as the new worker leaves it."""
    campaign: int = await root.fetchval(
        "INSERT INTO ota_campaigns (tenant_id, name, firmware_version_id, rollout_rate, status, total_devices)"
        " VALUES ('south', 'waits', 3, 10, 'RUNNING', 1) RETURNING id"
    )
    await root.execute(
        "INSERT INTO ota_device_status (tenant_id, campaign_id, device_id, status, started_at, attempt, sent_attempt,"
        " failed_attempt, failed_reason, due_at) VALUES ('south', $1, 'dev-1', 'DOWNLOADING', now(), 1, 1, 1,"
        " 'no_answer', now() + interval '1 minute')",
        campaign,
    )
    return campaign


async def check_that_the_old_worker_still_works(
    host: Host, mosquitto: Mosquitto, root: Connection, log: Path, waiting: int | None = None
) -> None:
    """The old worker completes a campaign of its own, and one in which a device is ``waiting``."""
    log.unlink()
    campaign = await root.fetchval(
        "INSERT INTO ota_campaigns (tenant_id, name, firmware_version_id, rollout_rate, status, total_devices)"
        " VALUES ('south', 'as before', 3, 10, 'RUNNING', 3) RETURNING id"
    )
    await root.execute(
        "INSERT INTO ota_device_status (tenant_id, campaign_id, device_id) SELECT 'south', $1, 'dev-' || n"
        " FROM generate_series(1, 3) AS n",
        campaign,
    )
    async with old_worker(host, mosquitto, log) as old:
        await eventually(lambda: all_have_succeeded(root, campaign), what="the old worker sends, and counts")
        if waiting is not None:
            await eventually(lambda: has_ended(root, waiting), what="the old worker sends to the device that waited")
        assert old.returncode is None, log.read_text()


async def has_ended(root: Connection, campaign: int) -> bool:
    """Wait until the device's report is counted, whatever the old worker has written over its row."""
    return (await campaign_row(root, campaign, "south"))[1] == 1


async def all_have_succeeded(root: Connection, campaign: int) -> bool:
    return (await campaign_row(root, campaign, "south"))[1:] == (3, 0)


async def expect(reader: Terminal, commands: str, printed: str, expected: str) -> None:
    """Check the output that the page shows. A query is repeated for a moment."""
    pattern = re.sub(r"\d+", r"\\d+", re.escape(expected.strip()))
    for _ in range(100):
        if re.search(pattern, printed):
            return
        assert "SELECT" in commands, printed
        await asyncio.sleep(0.1)
        printed = await reader.run(commands)
    pytest.fail(f"{printed!r} is not {expected!r}")
