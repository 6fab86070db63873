"""A campaign over a million devices: created over the API, then played to its end by the engine's statements."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from statistics import quantiles
from typing import NamedTuple

import httpx2

from bench import load
from bench.engine import Engine
from bench.lab import Database
from bench.load import TABLE, TENANT, Key
from bench.rates import TIMEOUT_SECONDS, run, written
from bench.session import Session
from rollwave.domain.role import Role
from rollwave.store import access
from rollwave.store.database import Pool
from rollwave.store.executions import Claimed
from tests.engine import subscribed_listener
from tests.support import eventually, free_port, rollwave_running

MILLION = 1_000_000
GROUP = "all"
CAMPAIGNS = "/ota/campaigns"

LANES, BATCH = 3, 1000
BEHIND = 10
"""Batches that a lane is ahead with, from one word of its devices to their next."""

_WORDS = ("DOWNLOADING", "INSTALLING", "SUCCESS")


class Size(NamedTuple):
    """Bytes on disk."""

    heap: int
    indexes: int


async def measure(session: Session) -> None:
    """Create the campaign, then wear its table."""
    session.say(f"create: registering {MILLION:,} devices")
    async with session.lab.database() as database:
        firmware = await load.registry(database.pool, MILLION, GROUP)
        key = await _create(session, database, firmware)
        await _wear(session, database.pool, key)


async def _create(session: Session, database: Database, firmware: int) -> Key:
    session.say("create: over the API, while others ask it too")
    body = {"name": "large", "firmware_version_id": firmware, "target_group_id": GROUP}
    async with serving(session, database) as client:
        others: list[float] = []
        asking = asyncio.create_task(_ask(client, others))
        started = time.perf_counter()
        answer = await client.post(CAMPAIGNS, json=body)
        assert answer.status_code in {201, 202}, answer.text
        path = f"{CAMPAIGNS}/{answer.json()['id']}"

        async def whole() -> bool:
            await asyncio.sleep(0.1)
            campaign = (await client.get(path)).json()
            return bool(campaign["targeted_devices"] is None and campaign["status_breakdown"]["PENDING"] == MILLION)

        await eventually(whole, timeout=TIMEOUT_SECONDS, what="the campaign has all its devices")
        took = time.perf_counter() - started
        asking.cancel()
        with suppress(asyncio.CancelledError):
            await asking
    session.report.add("create.seconds", took)
    session.report.add("create.others", quantiles(others, n=100)[98] * 1000, f"{len(others)} requests")
    return Key(TENANT, answer.json()["id"])


async def _ask(client: httpx2.AsyncClient, took: list[float]) -> None:
    """What other operators do: look at their campaigns and firmware, over and over."""
    for path in (CAMPAIGNS, "/firmware") * 1_000_000:
        started = time.perf_counter()
        answer = await client.get(path)
        assert answer.status_code == 200, answer.text
        took.append(time.perf_counter() - started)
        await asyncio.sleep(0.02)


@asynccontextmanager
async def serving(session: Session, database: Database) -> AsyncIterator[httpx2.AsyncClient]:
    """Run `rollwave serve` over the database and a broker; yields a client of its API."""
    key = await access.create(database.pool, TENANT, Role.OPERATOR)
    port = free_port()
    log = session.lab.folder / f"serve-{port}.log"
    with session.lab.broker() as at:
        env = {"DATABASE_URL": database.url, "MQTT_BROKER_URL": f"mqtt://127.0.0.1:{at.port}"}
        async with (
            rollwave_running("serve", "--port", str(port), log=log, env=env) as running,
            httpx2.AsyncClient(
                base_url=f"http://127.0.0.1:{port}/customer",
                headers={"Authorization": f"Bearer {key}"},
                timeout=TIMEOUT_SECONDS,
            ) as client,
        ):
            await eventually(lambda: "ota_status_listener_subscribed" in running.output(), timeout=60)
            yield client


async def _wear(session: Session, pool: Pool, key: Key) -> None:
    session.say("bloat: every device is claimed, marked, and reports three times")
    await pool.execute("CHECKPOINT")
    before, wal, started = await _size(pool), await written(pool), time.perf_counter()
    await pool.execute("UPDATE ota_campaigns SET rollout_rate = $1", load.NO_PACE)
    await run(pool)
    async with subscribed_listener(pool):
        await asyncio.gather(*(_lane(Engine(pool, key, BATCH)) for _ in range(LANES)))
    assert await pool.fetchval(f"SELECT count(*) FROM {TABLE} WHERE status = 'SUCCESS'") == MILLION
    took, wal, after = time.perf_counter() - started, await written(pool) - wal, await _size(pool)
    heap, indexes = after.heap / before.heap, after.indexes / before.indexes
    session.report.add("bloat.heap", heap, _sizes(before.heap, after.heap))
    session.report.add("bloat.indexes", indexes, _sizes(before.indexes, after.indexes))
    row = (after.heap + after.indexes) / MILLION
    session.report.note(
        "bloat", {"row": row, "row_before": sum(before) / MILLION, "wal": wal / MILLION, "seconds": took}
    )


async def _lane(engine: Engine) -> None:
    """Batches of devices in several states at a time, as in a rollout: each word comes a while after the last."""
    said: list[deque[Sequence[Claimed]]] = [deque() for _ in _WORDS]
    while claimed := await engine.claim():
        await engine.mark(claimed)
        said[0].append(claimed)
        await _speak(engine, said, BEHIND)
    while any(said):
        await _speak(engine, said, 0)


async def _speak(engine: Engine, said: Sequence[deque[Sequence[Claimed]]], behind: int) -> None:
    for number, status in reversed(list(enumerate(_WORDS))):
        if len(said[number]) > behind:
            batch = said[number].popleft()
            await engine.apply(batch, status)
            if number + 1 < len(said):
                said[number + 1].append(batch)


async def _size(pool: Pool) -> Size:
    row = await pool.fetchrow(f"SELECT pg_relation_size('{TABLE}') AS heap, pg_indexes_size('{TABLE}') AS indexes")
    assert row
    return Size(row["heap"], row["indexes"])


def _sizes(before: int, after: int) -> str:
    return f"{before / 2**20:.0f} MB, then {after / 2**20:.0f} MB"
