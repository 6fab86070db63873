"""Devices to measure with: some hear commands (and answer), some report. They live in processes of their own."""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import NamedTuple

from tests.support import eventually

_LONGEST_LINE = 1 << 28  # one line holds every report's time


class Says(NamedTuple):
    """One report that a device is to make."""

    tenant: str
    device: str
    campaign: int
    status: str = "SUCCESS"
    progress: int | None = None


@dataclass(frozen=True, slots=True)
class Heard:
    """Commands of one campaign, as they reached the devices: how many, when (times of day), and how many when."""

    campaign: int
    number: int
    first: float
    last: float
    bins: Sequence[tuple[int, int]]
    """Numbers by hundredths of a second."""


@dataclass(frozen=True, slots=True)
class Sent:
    """Times of day at which reports were handed to the socket, and the CPU seconds that sending them took."""

    handed: Sequence[float]
    cpu: float


class Devices:
    """A process that is subscribed to every command."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self.cpu = 0.0
        """Seconds used so far, as of the last :meth:`heard`."""

    async def heard(self) -> dict[int, Heard]:
        """What has come so far, by campaign."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(b"\n")
        told = json.loads(await self._process.stdout.readline())
        self.cpu = told["cpu"]
        return {each["campaign"]: Heard(**each) for each in told["heard"]}

    async def have_heard(self, number: int, campaign: int, timeout: float = 120.0) -> Heard:
        """Wait for so many commands of a campaign."""

        async def enough() -> Heard | None:
            heard = (await self.heard()).get(campaign)
            return heard if heard and heard.number >= number else None

        found = await eventually(enough, timeout=timeout, what=f"{number} commands of campaign {campaign}")
        assert found
        return found


@asynccontextmanager
async def devices(port: int, *answers: str) -> AsyncIterator[Devices]:
    """Every device of every tenant, already subscribed; each answers its command with these statuses."""
    process = await _start("listen", port, *answers)
    try:
        assert process.stdout
        assert (await process.stdout.readline()).strip() == b"ready"
        yield Devices(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def report(port: int, says: Sequence[Says], per_second: float = 0.0) -> Sent:
    """Have devices report, as fast as the broker takes it or at a steady pace; returns when all is acknowledged."""
    process = await _start("report")
    order = {"port": port, "per_second": per_second, "reports": says}
    try:
        output, _ = await process.communicate(json.dumps(order).encode())
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode == 0, "the sender of reports failed"
    told = json.loads(output)
    return Sent(told["handed"], told["cpu"])


async def _start(*words: object) -> Process:
    arguments = [str(word) for word in words]
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.devices", *arguments, stdin=PIPE, stdout=PIPE, limit=_LONGEST_LINE
    )
