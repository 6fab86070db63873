"""The devices' side, in processes of its own: one that counts commands, one that sends reports.

``python -m bench.fleet count PORT N`` prints ``ready``, then when the first and the N-th command came.
``python -m bench.fleet report PORT CAMPAIGN N PER_SECOND`` prints when each device's report was sent.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from bench import wire
from rollwave.mqtt.payload import encode_report
from rollwave.mqtt.topics import status_topic

TENANT = "north"


def device_name(number: int) -> str:
    """The n-th device, from 0."""
    return f"device-{number:07}"


@dataclass(frozen=True, slots=True)
class Counted:
    """Times of day at which the first and the last command reached the devices, and how many did."""

    first: float
    last: float
    number: int


@asynccontextmanager
async def counting(port: int, number: int) -> AsyncIterator[Process]:
    """A counter of commands, already subscribed."""
    process = await _start("count", port, number)
    try:
        assert process.stdout
        assert (await process.stdout.readline()).strip() == b"ready"
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def counted(process: Process, timeout: float = 120.0) -> Counted:
    """What the counter says once it has counted to its end."""
    assert process.stdout
    async with asyncio.timeout(timeout):
        return Counted(**json.loads(await process.stdout.readline()))


async def report(port: int, campaign: int, number: int, per_second: float = 0.0) -> list[float]:
    """Have devices 0 to ``number`` report SUCCESS; returns when each one's report was sent."""
    process = await _start("report", port, campaign, number, per_second)
    output, _ = await process.communicate()
    assert process.returncode == 0, "the sender of reports failed"
    handed: list[float] = json.loads(output)
    return handed


async def _start(*words: object) -> Process:
    arguments = [str(word) for word in words]
    # The line that holds every report's time is long.
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.fleet", *arguments, stdout=PIPE, limit=1 << 26
    )


def _count(port: int, number: int) -> None:
    cutter = wire.Frames()
    seen, first = 0, 0.0
    with wire.connected(port, "bench-counter") as line:
        line.sendall(wire.subscribe_frame("tenant/+/device/+/ota"))
        assert line.recv(4096)[:1] == b"\x90"
        print("ready", flush=True)
        while seen < number:
            commands = [body for kind, body in cutter.feed(line.recv(1 << 18)) if kind & 0xF0 == wire.PUBLISH]
            if commands and not seen:
                first = time.time()
            seen += len(commands)
            line.sendall(b"".join(wire.puback_frame(_identifier(body)) for body in commands))
        print(json.dumps({"first": first, "last": time.time(), "number": seen}), flush=True)


def _identifier(body: memoryview) -> bytes:
    cut = 2 + int.from_bytes(body[:2])
    return bytes(body[cut : cut + 2])


def _report(port: int, campaign: int, number: int, per_second: float) -> None:
    payload = encode_report(campaign, "SUCCESS")
    frames = [wire.publish_frame(n, status_topic(TENANT, device_name(n)), payload) for n in range(number)]
    with wire.connected(port, "bench-reports") as line:
        handed = wire.flood(line, frames, per_second=per_second)
    print(json.dumps(handed))


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["count", port, number]:
            _count(int(port), int(number))
        case ["report", port, campaign, number, per_second]:
            _report(int(port), int(campaign), int(number), float(per_second))
