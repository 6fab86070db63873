"""Helpers that all tests share: waiting with a deadline, and the command line and psql as an operator uses them."""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, overload

import pytest

from rollwave.embedded.postgres import wheel_binaries
from tests.ports import free_port

__all__ = [
    "Running",
    "end",
    "environment",
    "eventually",
    "free_port",
    "our_records",
    "psql",
    "rollwave",
    "rollwave_running",
]

T = TypeVar("T")

_OURS = ("DATABASE_URL", "MQTT_", "OTA_", "ROLLWAVE_", "LOG_", "PG")


@overload
async def eventually(check: Callable[[], Awaitable[T]], timeout: float = 30.0, what: str = "") -> T: ...
@overload
async def eventually(check: Callable[[], T], timeout: float = 30.0, what: str = "") -> T: ...
async def eventually(check: Callable[[], Any], timeout: float = 30.0, what: str = "") -> Any:
    """Call ``check`` until it returns a true value, and return that. Fails after ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        value = check()
        if inspect.isawaitable(value):
            value = await value
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout} s: {what or inspect.getsource(check).strip()}")
        await asyncio.sleep(0.02)


async def end(task: asyncio.Task[Any]) -> None:
    """Cancel the task until it has ended. A cancellation may be lost if it meets an error of a task group."""
    while not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=0.5)
    await asyncio.gather(task, return_exceptions=True)


def our_records(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """The engine's own log records. asyncio logs others, also about tasks of an earlier test."""
    return [record for record in caplog.records if record.name.split(".")[0] == "rollwave"]


def environment(**settings: str) -> dict[str, str]:
    """This process's environment, with only these settings of Rollwave, and without the contexts of its user."""
    bare = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
    return bare | {"XDG_CONFIG_HOME": "/nonexistent"} | settings


def rollwave(
    *arguments: str, env: Mapping[str, str] | None = None, timeout: float = 60.0
) -> subprocess.CompletedProcess[str]:
    """Run the installed ``rollwave`` and return its result. ``env`` holds its settings."""
    return subprocess.run(
        [program(), *arguments],
        env=environment(**(env or {})),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


@dataclass(frozen=True, slots=True)
class Running:
    """A running ``rollwave``. Send signals to ``process``."""

    process: asyncio.subprocess.Process
    log: Path

    def output(self) -> str:
        """Its standard output and error so far."""
        return self.log.read_text()


@asynccontextmanager
async def rollwave_running(
    *arguments: str, log: Path, env: Mapping[str, str] | None = None, within: Sequence[str] = ()
) -> AsyncIterator[Running]:
    """Start the installed ``rollwave``, and kill it at the end of the block.

    ``within``: a command prefix, such as one that enters a network namespace.
    """
    with log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            *within,
            program(),
            *arguments,
            env=environment(**(env or {})),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        yield Running(process, log)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def psql(url: str, sql: str) -> str:
    """The output of ``psql`` for ``sql``: rows, with fields separated by ``|``."""
    result = subprocess.run(
        [str(wheel_binaries() / "psql"), "-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-c", sql, url],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def program() -> str:
    """The path of the installed ``rollwave``."""
    return str(Path(sys.executable).with_name("rollwave"))
