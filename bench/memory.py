"""What a worker needs while it works on a database of many millions."""

from __future__ import annotations

import asyncio

from bench.fleet import devices
from bench.lab import Database
from bench.load import Key
from bench.session import Session
from bench.stage import staged

SECONDS = 8.0


async def at_full_load(session: Session, database: Database, key: Key, size: int) -> None:
    """Dispatch from a campaign of millions at full speed, with devices that answer, for a while."""
    session.say("memory: a worker on the largest database")
    async with staged(session.lab, database) as stage, devices(stage.port, "SUCCESS") as fleet:
        await fleet.have_heard(1, key.campaign)
        await asyncio.sleep(SECONDS)
        session.report.add("memory.large", stage.peak_memory, f"{size:,} devices")
