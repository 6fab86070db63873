"""Many tenants in one batch: what their reports cost, beside as many of one tenant."""

from __future__ import annotations

from bench import load
from bench.fleet import Says
from bench.load import device_name
from bench.rates import Rate, run, taken_in
from bench.session import Session
from bench.stage import staged

REPORTS = 20_000


async def measure(session: Session) -> None:
    """One tenant and many, in turn."""
    tenants, each = session.options.tenants, session.options.campaigns
    for number in session.runs(leaving=5.0):
        session.say(f"tenants: run {number}, 1 and {tenants} of {each} campaigns each")
        one, many = await _ingest(session, 1, 1), await _ingest(session, tenants, each)
        session.report.add("tenants.one", one.per_second)
        session.report.add("tenants.many", many.per_second, many.microseconds.told())
        remark = f"{tenants:,} tenants, running campaigns of each: {each}"
        session.report.add("tenants.ratio", many.per_second / one.per_second, remark)


async def _ingest(session: Session, tenants: int, each: int) -> Rate:
    """Every tenant's devices report in turn, so that a batch holds as many tenants as there can be."""
    reporting = max(1, REPORTS // (tenants * each))
    async with session.lab.database() as database:
        # One more than report, so that no campaign ends meanwhile.
        keys = await load.campaigns(database.pool, reporting + 1, tenants=tenants, each=each, sent=True)
        async with staged(session.lab, database) as stage:
            await run(stage.pool)
            await stage.looked_at()
            says = [Says(key.tenant, device_name(n), key.campaign) for n in range(reporting) for key in keys]
            return await taken_in(stage, says)
