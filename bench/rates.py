"""Rollwave's dispatch and ingestion: measured at the database, from commit to commit, and at the devices."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import quantiles

from bench import load
from bench.fleet import Devices, Says, devices, report
from bench.lab import Lab
from bench.load import TABLE, Key, device_name
from bench.machine import Used
from bench.stage import Stage, staged
from rollwave.store.database import Pool
from tests.support import eventually

TIMEOUT_SECONDS = 600.0

AT_MOST = 200_000
"""Devices of a larger campaign that are dispatched while it is measured."""

MOST_REPORTS = 90_000
"""Sent faster than they are taken in, more would overflow Mosquitto's queue, which drops them."""


@dataclass(frozen=True, slots=True)
class Rate:
    """One run. ``seconds`` is from the first to the last commit, by the database's clock; CPU is microseconds each."""

    per_second: float
    seconds: float
    number: int
    microseconds: Used
    peak_memory: float
    wal: float
    """Bytes of WAL each."""


async def dispatch(lab: Lab, broker: str, number: int) -> Rate:
    """Start a campaign with no pace; from its first claim to the last device marked DOWNLOADING."""
    async with lab.database() as database:
        key = await prepared(database.pool, number)
        async with staged(lab, database, broker) as stage, devices(stage.port) as fleet:
            return await dispatched(stage, fleet, [key], min(number, AT_MOST))


async def dispatched(stage: Stage, fleet: Devices, keys: Sequence[Key], number: int) -> Rate:
    """The rate at which the first ``number`` devices of each campaign are sent to."""
    before, wal = stage.used(), await written(stage.pool)
    await run(stage.pool)
    await _until_sent(stage.pool, keys, number)
    used, wal = stage.used(), await written(stage.pool) - wal
    done, seconds = await _marked(stage.pool)
    heard = [await fleet.have_heard(number, key.campaign) for key in keys]
    microseconds = used.since(before, fleet.cpu).each(sum(each.number for each in heard))
    return Rate(done / seconds, seconds, done, microseconds, stage.peak_memory, wal / done)


async def ingest(lab: Lab, broker: str, number: int) -> Rate:
    """Every device reports SUCCESS, as fast as the broker takes it: the reports committed after the first commit."""
    async with lab.database() as database:
        key = await prepared(database.pool, number, sent=True)
        async with staged(lab, database, broker) as stage:
            await run(stage.pool)
            await stage.looked_at()
            return await taken_in(stage, _successes(key, number))


async def taken_in(stage: Stage, says: Sequence[Says]) -> Rate:
    """The rate at which these reports, each of another device, are committed."""
    before, wal = stage.used(), await written(stage.pool)
    sent = await report(stage.port, says)
    await until_succeeded(stage.pool, len(says))
    used, wal = stage.used(), await written(stage.pool) - wal
    committed = sorted(await stage.pool.fetch(_COMMITTED), key=lambda row: row["at"])
    first, last = committed[0]["at"], committed[-1]["at"]
    number = sum(row["at"] > first for row in committed)
    microseconds = used.since(before, sent.cpu).each(len(says))
    return Rate(number / (last - first), last - first, number, microseconds, stage.peak_memory, wal / len(says))


async def latency(lab: Lab, broker: str, number: int, per_second: float, seconds: float) -> tuple[float, float]:
    """Seconds from a report's hand-over to the socket until it is committed, p50 and p99, offered at a steady pace."""
    async with lab.database() as database:
        key = await prepared(database.pool, number, sent=True)
        async with staged(lab, database, broker) as stage:
            await run(stage.pool)
            await stage.looked_at()
            says = _successes(key, min(number, int(per_second * seconds)))
            handed = (await report(stage.port, says, per_second)).handed
            await until_succeeded(stage.pool, len(says))
            committed = {row["device_id"]: row["at"] for row in await stage.pool.fetch(_COMMITTED)}
    cuts = quantiles((committed[device_name(n)] - sent for n, sent in enumerate(handed)), n=100)
    return cuts[49], cuts[98]


def _successes(key: Key, number: int) -> list[Says]:
    return [Says(key.tenant, device_name(n), key.campaign) for n in range(min(number, MOST_REPORTS))]


async def prepared(pool: Pool, number: int, *, sent: bool = False) -> Key:
    """A campaign that is not started. Below a million, PostgreSQL has not analyzed its rows."""
    if number >= 1_000_000:
        return await load.many(pool, number, kind="sent" if sent else "pending", status="CREATED")
    [key] = await load.campaigns(pool, number, sent=sent)
    return key


async def run(pool: Pool) -> None:
    """Start every campaign, as a host does with its own SQL."""
    await pool.execute("UPDATE ota_campaigns SET status = 'RUNNING'")


async def written(pool: Pool) -> float:
    """Bytes of WAL so far."""
    return float(await pool.fetchval("SELECT pg_current_wal_lsn() - '0/0'"))


async def until_succeeded(pool: Pool, number: int) -> None:
    """Wait for the counters."""
    await once_in_a_while(pool, f"SELECT sum(succeeded) >= {number} FROM ota_campaigns")


async def once_in_a_while(pool: Pool, condition: str, *arguments: object, every: float = 0.2) -> None:
    """Wait until a query says true: asking must not slow down what is measured."""

    async def holds() -> bool:
        await asyncio.sleep(every)
        answer: bool = await pool.fetchval(condition, *arguments)
        return answer

    await eventually(holds, timeout=TIMEOUT_SECONDS, what=condition)


async def _until_sent(pool: Pool, keys: Sequence[Key], number: int) -> None:
    """Wait until the first ``number`` of each are claimed, and nothing is on its way any more; no others follow."""
    await once_in_a_while(pool, f"SELECT min(sent) >= {number} FROM ota_campaigns")
    await pool.execute(f"UPDATE ota_campaigns SET status = 'PAUSED' WHERE total_devices > {number}")
    for key in keys:
        leased = f"FROM {TABLE} WHERE tenant_id = $1 AND campaign_id = $2 AND status = 'PENDING' AND due_at > now()"
        await once_in_a_while(pool, f"SELECT NOT EXISTS (SELECT {leased})", *key)


async def _marked(pool: Pool) -> tuple[int, float]:
    row = await pool.fetchrow(
        "SELECT count(*) AS number, EXTRACT(epoch FROM max(pg_xact_commit_timestamp(d.xmin))"
        " - (SELECT min(started_at) FROM ota_campaigns))::float8 AS seconds"
        f" FROM {TABLE} d WHERE status = 'DOWNLOADING'",
        timeout=TIMEOUT_SECONDS,
    )
    assert row
    return row["number"], row["seconds"]


_COMMITTED = (
    f"SELECT device_id, EXTRACT(epoch FROM pg_xact_commit_timestamp(xmin))::float8 AS at FROM {TABLE}"
    " WHERE status = 'SUCCESS'"
)
