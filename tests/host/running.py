"""The host's worker process, started for a test, and a check that its own workers still work."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.host.process import OWN_WORKERS
from tests.support import Running, environment, eventually


@asynccontextmanager
async def host_process(database: str, log: Path, *options: str, **settings: str) -> AsyncIterator[Running]:
    """Run ``python -m tests.host.process`` with these options and settings.

    Yields once all its own workers print beats.
    """
    with log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.host.process",
            database,
            *options,
            env=environment(**settings),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    running = Running(process, log)
    try:
        await eventually(
            lambda: all(heartbeats(running, each) for each in OWN_WORKERS), what="the host's own workers beat"
        )
        yield running
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def heartbeats(running: Running, name: str) -> int:
    """The number of beats that one of the host's own workers has printed."""
    return running.output().count(f"beat {name} ")


async def wait_for_heartbeats(running: Running, times: int = 5) -> None:
    """Wait until each of the host's own workers has printed this many more beats: none of them has stopped."""
    wanted = {name: heartbeats(running, name) + times for name in OWN_WORKERS}
    await eventually(
        lambda: all(heartbeats(running, name) >= count for name, count in wanted.items()),
        what=f"all of {OWN_WORKERS} go on",
    )
    assert running.process.returncode is None


def log_lines(running: Running) -> list[str]:
    """The lines of its log, without the beats."""
    return [line for line in running.output().splitlines() if not line.startswith("beat ")]
