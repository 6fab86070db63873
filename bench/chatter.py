"""What devices say again and again: how much of it costs a row's write."""

from __future__ import annotations

from bench import load
from bench.fleet import Says, report
from bench.load import TABLE, device_name
from bench.rates import run
from bench.session import Session
from bench.stage import staged
from rollwave.store.database import Pool
from tests.support import eventually

DEVICES, WORDS = 2000, 20


async def measure(session: Session) -> None:
    """Devices that tell each twentieth of their download, as fast as the broker takes it."""
    session.say(f"chatter: {DEVICES * WORDS:,} reports of progress")
    async with session.lab.database() as database:
        [key] = await load.campaigns(database.pool, DEVICES, sent=True)
        async with staged(session.lab, database) as stage:
            await run(stage.pool)
            await stage.looked_at()
            before = await _updates(stage.pool)
            says = [
                Says(key.tenant, device_name(n), key.campaign, "DOWNLOADING", 100 * word // WORDS)
                for word in range(WORDS)
                for n in range(DEVICES)
            ]
            await report(stage.port, says)

            async def taken_in() -> bool:
                return await stage.metric("rollwave_reports_total") >= len(says)

            await eventually(taken_in, timeout=120, what="chatter taken in")
        # A session tells what it has written when it ends: the worker's have.
        written = await _updates(database.pool) - before
        session.report.add(
            "chatter.written", written / len(says), f"{len(says):,} reports in, {written:,} rows written"
        )


async def _updates(pool: Pool) -> int:
    async with pool.acquire() as connection:
        await connection.execute("SELECT pg_stat_force_next_flush()")
        number: int = await connection.fetchval(f"SELECT n_tup_upd FROM pg_stat_user_tables WHERE relname = '{TABLE}'")
    return number
