"""More workers on one machine: what they add, and where the time goes."""

from __future__ import annotations

from bench import load
from bench.fleet import Says, devices
from bench.load import device_name
from bench.rates import Rate, dispatched, run, taken_in
from bench.session import Session
from bench.stage import staged

WORKERS = (1, 2, 4)
CAMPAIGNS, DEVICES = 4, 10_000
REPORTS = 30_000


async def measure(session: Session) -> None:
    """Dispatch of several campaigns, and ingestion with a listener slot for each worker."""
    for number in WORKERS:
        session.say(f"workers: {number}")
        for what, rate in (("dispatch", await _dispatch(session, number)), ("ingest", await _ingest(session, number))):
            session.report.add(f"scale.{what}.{number}", rate.per_second, rate.microseconds.as_cores(rate.per_second))
            session.report.note(f"scale.{what}.{number}", rate)


async def _dispatch(session: Session, workers: int) -> Rate:
    async with session.lab.database() as database:
        keys = await load.campaigns(database.pool, DEVICES, each=CAMPAIGNS)
        async with staged(session.lab, database, workers=workers) as stage, devices(stage.port) as fleet:
            return await dispatched(stage, fleet, keys, DEVICES)


async def _ingest(session: Session, workers: int) -> Rate:
    settings = {"ROLLWAVE_LISTENER_SLOTS": str(workers)}
    async with session.lab.database() as database:
        # One more than report: the campaign does not end meanwhile.
        [key] = await load.campaigns(database.pool, REPORTS + 1, sent=True)
        async with staged(session.lab, database, workers=workers, settings=settings) as stage:
            await run(stage.pool)
            await stage.looked_at()
            return await taken_in(stage, [Says(key.tenant, device_name(n), key.campaign) for n in range(REPORTS)])
