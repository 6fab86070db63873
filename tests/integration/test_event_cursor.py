"""A reader of a campaign's events that continues after the last event it saw sees every event once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from rollwave.domain.campaign import Action
from rollwave.engine import failpoints, operations
from rollwave.engine.failpoints import Failpoint
from rollwave.engine.ingest.commit import Ingest
from rollwave.settings import Settings
from rollwave.store import campaigns, views
from rollwave.store.database import Pool, tenant_transaction
from tests.engine import TENANT, Connection, connect, incoming_report, insert_campaign, mark_sent
from tests.support import end, eventually


@pytest.fixture
async def host(database: str) -> AsyncIterator[Connection]:
    async with connect(database) as connection:
        yield connection


@asynccontextmanager
async def reading(pool: Pool, campaign: int) -> AsyncIterator[list[int]]:
    """The ids of the events that a polling reader has seen."""
    seen: list[int] = []

    async def read() -> None:
        while True:
            rows = await views.events(pool, TENANT, campaign, after=max(seen, default=0), limit=100)
            seen.extend(row["id"] for row in rows)
            await asyncio.sleep(0)

    running = asyncio.create_task(read())
    try:
        yield seen
    finally:
        await end(running)


async def events(host: Connection, campaign: int) -> list[int]:
    rows = await host.fetch("SELECT id FROM ota_campaign_history WHERE campaign_id = $1 ORDER BY id", campaign)
    return [row["id"] for row in rows]


async def campaign_of_two(host: Connection, retry_on: list[str]) -> int:
    campaign = await insert_campaign(host, 2, abort_threshold=1.0, retry_on=retry_on)
    await mark_sent(host, campaign, ["dev-1", "dev-2"])
    return campaign


@pytest.mark.parametrize("retried", [True, False])
async def test_a_failure_that_commits_late_is_not_skipped_by_a_cursor(
    pool: Pool, host: Connection, retried: bool
) -> None:
    """A report's transaction has written its event and not committed when an operator pauses the campaign."""
    campaign = await campaign_of_two(host, retry_on=["reported", "rejected"] if retried else [])
    go_on, written = asyncio.Event(), asyncio.Event()

    async def hold(point: Failpoint) -> None:
        if point is Failpoint.REPORTS_WRITTEN:
            written.set()
            await go_on.wait()

    failpoints.arm(hold)
    try:
        async with reading(pool, campaign) as seen:
            failing = asyncio.create_task(
                Ingest(pool, Settings()).take_in([incoming_report("dev-1", campaign, "FAILED")])
            )
            await asyncio.wait_for(written.wait(), 10)
            pausing = asyncio.create_task(operations.pause_campaign(pool, TENANT, campaign, actor="test"))
            await eventually(lambda: _done_or_waits(pausing, host), what="the operator has paused it, or waits")
            go_on.set()
            await asyncio.gather(failing, pausing)
            await eventually(lambda: _all_seen(host, campaign, seen), timeout=5, what="every event is seen")
    finally:
        failpoints.arm(None)
        go_on.set()
    assert len(seen) == 2


async def test_a_cursor_skips_no_failure_that_comes_during_a_status_change(pool: Pool, host: Connection) -> None:
    """An operator's transaction has written its event and not committed when reports arrive."""
    campaign = await campaign_of_two(host, retry_on=["reported", "rejected"])
    async with reading(pool, campaign) as seen:
        async with tenant_transaction(pool, TENANT) as connection:
            row = await campaigns.lock(connection, TENANT, campaign)
            await campaigns.move(connection, row, Action.PAUSE, tenant_id=TENANT, actor="test")
            failing = asyncio.create_task(
                Ingest(pool, Settings()).take_in([incoming_report(f"dev-{n}", campaign, "FAILED") for n in (1, 2)])
            )
            await eventually(lambda: _done_or_waits(failing, host), what="the reports are committed, or wait")
        await failing
        await eventually(lambda: _all_seen(host, campaign, seen), timeout=5, what="every event is seen")
    assert len(seen) == 3


async def test_a_cursor_skips_no_event_of_many_concurrent_writers(pool: Pool, host: Connection) -> None:
    campaign = await insert_campaign(host, 60, abort_threshold=1.0, retry_on=["reported", "rejected"], max_attempts=100)
    names = [f"dev-{number}" for number in range(1, 61)]
    await mark_sent(host, campaign, names)

    async def fail(some: list[str]) -> None:
        for name in some:
            await Ingest(pool, Settings()).take_in([incoming_report(name, campaign, "FAILED")])

    async def pause_and_start() -> None:
        for _ in range(10):
            await operations.pause_campaign(pool, TENANT, campaign, actor="test")
            await operations.start_campaign(pool, TENANT, campaign, actor="test")

    async with reading(pool, campaign) as seen:
        await asyncio.gather(*(fail(names[n::4]) for n in range(4)), pause_and_start())
        await eventually(lambda: _all_seen(host, campaign, seen), timeout=5, what="every event is seen")
    assert len(seen) == 60 + 20
    assert seen == sorted(set(seen))


async def _all_seen(host: Connection, campaign: int, seen: list[int]) -> bool:
    return sorted(seen) == await events(host, campaign)


async def _done_or_waits(task: asyncio.Task[Any], host: Connection) -> bool:
    waiting: bool = await host.fetchval(
        "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database())"
    )
    return task.done() or waiting
