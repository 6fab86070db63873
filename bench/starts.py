"""How soon it starts, and how evenly it goes on."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from statistics import median

from bench import load
from bench.devices import BINS
from bench.fleet import devices
from bench.session import Session
from bench.stage import staged
from rollwave.engine import operations

SIZES, EACH = (1, 10, 100, 1000, 10_000), 5
"""Campaigns of so many devices, and so many of each."""

TICK = 10.0
RATES = {"pace.slow": 1_000, "pace.fast": 10_000}
WATCHED = 2.3
"""Ticks that pacing is watched for."""


async def start(session: Session) -> None:
    """From an operator's start to the first command on the wire; the worker is idle before each."""
    session.say(f"start: {EACH * len(SIZES)} campaigns are started, one after the other")
    luck = random.Random(4)
    waits = []
    async with session.lab.database() as database:
        keys = [(key, size) for size in SIZES for key in await load.campaigns(database.pool, size, each=EACH)]
        luck.shuffle(keys)
        async with staged(session.lab, database) as stage, devices(stage.port) as fleet:
            for key, size in keys:
                await asyncio.sleep(luck.uniform(0.2, 0.7))
                asked = time.time()
                await operations.start_campaign(stage.pool, *key, actor="bench")
                heard = await fleet.have_heard(size, key.campaign)
                waits.append((heard.first - asked) * 1000)
    session.report.add("start.median", median(waits))
    session.report.add("start.max", max(waits))
    session.report.note("start.max", sorted(waits))


async def pace(session: Session) -> None:
    """How much of a tick's devices goes at once, where the rate would let them be spread."""
    session.say(f"pace: watching {WATCHED} ticks of {TICK:.0f} s")
    async with session.lab.database() as database:
        keys = {name: (await load.campaigns(database.pool, 3 * rate, rate=rate))[0] for name, rate in RATES.items()}
        settings = {"OTA_TICK_INTERVAL": str(TICK)}
        async with staged(session.lab, database, settings=settings) as stage, devices(stage.port) as fleet:
            for key in keys.values():
                await operations.start_campaign(stage.pool, *key, actor="bench")
            await asyncio.sleep(WATCHED * TICK)
            heard = await fleet.heard()
    for name, key in keys.items():
        bins = heard[key.campaign].bins
        share = largest_share(bins, width=int(TICK * BINS / 10), of=RATES[name])
        session.report.add(name, share, "0.1 is even, 1 a burst")
        session.report.note(name, bins)


def largest_share(bins: Sequence[tuple[int, int]], *, width: int, of: int) -> float:
    """The most that came within any ``width`` slices of time, as a share ``of`` so many. ``bins``: (slice, number)."""
    most, within, first = 0, 0, 0
    for at, number in bins:
        within += number
        while bins[first][0] <= at - width:
            within -= bins[first][1]
            first += 1
        most = max(most, within)
    return most / of
