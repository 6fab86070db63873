"""List the Python files that one device passes through, from the start of its campaign to the campaign's completion.

A real run: an embedded PostgreSQL, an embedded MQTT broker, one worker in this process, and one device in another
process. While the campaign runs, every function of rollwave/{domain,engine,store,mqtt} that is called is recorded.
The files are printed in the order of their first call, each with the first function that ran in it.

Left out, unless --all is given, are the files in SHARED below, which decide nothing about a campaign or a device:
infrastructure that many parts of the program use, how things are written on the wire, and data classes without a rule.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from inspect import CO_OPTIMIZED
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import asyncpg

import rollwave
from rollwave.domain.execution import ExecutionStatus
from rollwave.embedded.broker import EmbeddedBroker
from rollwave.embedded.postgres import EmbeddedPostgres
from rollwave.engine import operations
from rollwave.engine.worker.supervisor import Supervisor
from rollwave.engine.worker.worker import Worker
from rollwave.mqtt.broker import Broker
from rollwave.mqtt.client import Session
from rollwave.mqtt.payload import decode_command, encode_report
from rollwave.mqtt.topics import command_topic, status_topic
from rollwave.settings import Settings
from rollwave.store.database import create_pool
from rollwave.store.migrate import migrate

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

SOURCE = Path(rollwave.__file__).parent
TRACED = "domain", "engine", "store", "mqtt"

SHARED = {
    "domain/event.py": "the base of all events, with no rule",
    "domain/events.py": "the data class of each event, with no rule",
    "domain/policy_events.py": "the same, of policies and brakes",
    "domain/identity.py": "whether this is the database of the installation",
    "domain/ids.py": "what an id may look like",
    "engine/backpressure.py": "lets sending wait while reports wait, whatever the campaign",
    "engine/failpoints.py": "named places where a test can stop the engine; does nothing otherwise",
    "engine/identity.py": "whether this is the database of the installation",
    "engine/watchdog.py": "starts a listener again that shows no sign of life",
    "domain/overview/timeline.py": "the past of a campaign, for charts",
    "domain/overview/plan.py": "the plan of a campaign, for charts",
    "engine/upkeep/timeline.py": "writes the past and the plan of a campaign, for charts",
    "store/timeline.py": "the past and the plan of a campaign, for charts",
    "engine/upkeep/device_fields.py": "stores what devices said last, after their campaign has ended",
    "store/labels.py": "the labels of devices, and what they said last",
    "mqtt/client.py": "a session with the broker",
    "mqtt/library.py": "the MQTT library, under names of ours",
    "mqtt/payload.py": "how a command and a report are written",
    "mqtt/topics.py": "how a topic is written",
    "store/time_limits.py": "no answer of PostgreSQL is waited for without a limit",
    "store/codecs.py": "how PostgreSQL's types become Python's",
    "store/connecting.py": "opening a connection to one of several hosts",
    "store/database.py": "connections, transactions and the tenant of each",
    "store/guarded_pool.py": "stops asking a database that does not answer",
    "store/identity.py": "whether this is the database of the installation",
    "store/moments.py": "how a time that a statement returns is read",
    "store/outage.py": "tells an outage from an error",
    "store/pools.py": "which pools are ours",
    "store/queries.py": "reads the SQL files",
    "store/rejected_values.py": "explains what a column of a host's table does not hold",
}
"""Files that are not listed, and why. None of them decides anything about a campaign or a device."""

TENANT, DEVICE = "demo", "device-1"
TIMEOUT_SECONDS = 60.0
READY, REPORT = "ready", "report"

ROWS = """
WITH tenant AS (INSERT INTO tenants (tenant_id) VALUES ('demo')),
firmware AS (
    INSERT INTO firmware_versions (tenant_id, version, file_url)
    VALUES ('demo', '2.1.0', 'https://files.example/fw.bin') RETURNING id
),
campaign AS (
    INSERT INTO ota_campaigns (tenant_id, name, firmware_version_id, status)
    SELECT 'demo', 'one device', id, 'CREATED' FROM firmware RETURNING id
)
INSERT INTO ota_device_status (tenant_id, campaign_id, device_id)
SELECT 'demo', id, 'device-1' FROM campaign RETURNING campaign_id
"""


def main() -> int:
    """Run the campaign and print the files."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.trace_device", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--all", action="store_true", help="list the shared infrastructure too")
    parser.add_argument("--json", action="store_true", help="print one JSON object: file to first function, in order")
    parser.add_argument("--device", metavar="URL", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.device:
        asyncio.run(_device(arguments.device))
        return 0
    found = _trace()
    listed = {file: function for file, function in found.items() if arguments.all or file not in SHARED}
    if arguments.json:
        print(json.dumps(listed))
        return 0
    for file, function in listed.items():
        print(f"{file:34} {function}")
    left = sorted(found.keys() - listed.keys())
    print(f"\n{len(listed)} files" + (f", and {len(left)} of shared infrastructure:" if left else ""))
    for file in left:
        print(f"{file:34} {SHARED[file]}")
    return 0


def _trace() -> dict[str, str]:
    with tempfile.TemporaryDirectory(prefix="rollwave-trace-") as made:
        folder = Path(made)
        folder.chmod(0o755)  # PostgreSQL may run as another user, who has to get in
        with EmbeddedPostgres(folder / "postgres") as postgres, EmbeddedBroker() as broker:
            return asyncio.run(_run_campaign(postgres.url, broker.url))


async def _run_campaign(database_url: str, broker_url: str) -> dict[str, str]:
    settings = Settings.read({"DATABASE_URL": database_url, "MQTT_BROKER_URL": broker_url, "OTA_TICK_INTERVAL": "1"})
    await migrate(database_url)
    async with (
        asyncio.timeout(TIMEOUT_SECONDS),
        _connected(database_url) as observer,
        create_pool(database_url) as pool,
        _one_device(broker_url) as device,
        _working(Worker(pool, settings)),
    ):
        campaign_id = await observer.fetchval(ROWS)
        with _recording() as found:
            await operations.start_campaign(pool, TENANT, campaign_id, actor="trace")
            await _until(observer, "SELECT status = 'DOWNLOADING' FROM ota_device_status")
            device.write(f"{REPORT}\n".encode())
            await _until(observer, "SELECT status = 'COMPLETED' FROM ota_campaigns")
        return found


@asynccontextmanager
async def _connected(database_url: str) -> AsyncIterator[Connection]:
    """A connection that is none of the engine's, to look on."""
    observer = await asyncpg.connect(database_url)
    try:
        yield observer
    finally:
        await observer.close()


async def _until(observer: Connection, condition: str) -> None:
    while not await observer.fetchval(condition):  # noqa: ASYNC110  there is no event of another process to wait for
        await asyncio.sleep(0.05)


@asynccontextmanager
async def _working(worker: Worker) -> AsyncIterator[None]:
    """Run the worker. The block begins when it can send commands and receives reports."""
    supervisor = Supervisor()
    worker.join(supervisor)
    async with asyncio.TaskGroup() as group:
        group.create_task(supervisor.run())
        while set((await worker.readiness()).values()) != {"ok"}:  # noqa: ASYNC110  a question to the broker
            await asyncio.sleep(0.1)
        try:
            yield
        finally:
            supervisor.stopping.set()


@asynccontextmanager
async def _one_device(broker_url: str) -> AsyncIterator[asyncio.StreamWriter]:
    """A device in a process of its own, subscribed. It reports when the line REPORT is written to it."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "scripts.trace_device", "--device", broker_url),
        cwd=Path(__file__).parent.parent,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert (await process.stdout.readline()).decode().strip() == READY
        yield process.stdin
    finally:
        process.stdin.close()
        await process.wait()


async def _device(broker_url: str) -> None:
    async with Session.connect(Broker.from_url(broker_url)) as session:
        await session.subscribe(command_topic(TENANT, DEVICE))
        print(READY, flush=True)
        command = decode_command((await anext(session.messages())).payload)
        if (await asyncio.to_thread(sys.stdin.readline)).strip() != REPORT:
            return
        for status in (ExecutionStatus.DOWNLOADING, ExecutionStatus.INSTALLING, ExecutionStatus.SUCCESS):
            report = encode_report(command.campaign_id, status)
            await (await session.publish(status_topic(TENANT, DEVICE), report)).acknowledged()


@contextmanager
def _recording() -> Iterator[dict[str, str]]:
    """The files in which a function runs inside the block, each with the first of them, in that order."""
    found: dict[str, str] = {}
    known: set[object] = set()

    def see(frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        # A coroutine that goes on is a call too, in the middle of its lines: only its beginning counts.
        if event != "call" or code in known or frame.f_lineno != code.co_firstlineno:
            return
        known.add(code)
        # Without this flag it is no function: a module or a class that is being defined.
        if code.co_flags & CO_OPTIMIZED and (file := _traced(code.co_filename)):
            found.setdefault(file, code.co_qualname)

    threading.setprofile(see)
    sys.setprofile(see)
    try:
        yield found
    finally:
        sys.setprofile(None)
        threading.setprofile(None)


def _traced(filename: str) -> str | None:
    path = Path(filename)
    if not path.is_relative_to(SOURCE):
        return None
    file = path.relative_to(SOURCE)
    return str(file) if file.parts[0] in TRACED else None


if __name__ == "__main__":
    raise SystemExit(main())
