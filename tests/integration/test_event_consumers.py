"""A consumer of all events of a tenant that continues after the last event it saw sees every event once."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import pytest

from rollwave.domain.campaign import CampaignStatus
from rollwave.domain.events import CampaignPaused, CampaignRunning
from rollwave.engine import failpoints, operations
from rollwave.engine.failpoints import Failpoint
from rollwave.engine.ingest.commit import Ingest
from rollwave.settings import Settings
from rollwave.store import events
from rollwave.store.database import Connection, Pool, tenant_transaction
from rollwave.store.events import Recorded
from rollwave.store.queries import load
from tests.engine import TENANT, connect, incoming_report, insert_campaign, mark_sent
from tests.engine import Connection as Host
from tests.support import end, eventually

STARTED, STOPPED = CampaignRunning(CampaignStatus.CREATED), CampaignPaused(CampaignStatus.RUNNING, "test")
CONSUMER = "webhooks"


@pytest.fixture
async def host(database: str) -> AsyncIterator[Host]:
    async with connect(database) as connection:
        yield connection


@pytest.fixture
async def two_campaigns(host: Host) -> tuple[int, int]:
    return await insert_campaign(host, 1), await insert_campaign(host, 1)


async def read(pool: Pool, after: int = 0) -> list[Recorded]:
    return await events.read(pool, TENANT, after=after, limit=100)


async def started(connection: Connection, campaign: int) -> None:
    await events.append(connection, TENANT, campaign, STARTED, actor="test")


async def test_events_of_all_campaigns_of_a_tenant_come_in_their_order(
    pool: Pool, host: Host, two_campaigns: tuple[int, int]
) -> None:
    first, second = two_campaigns
    others = await insert_campaign(host, 1, tenant="south")
    for tenant, campaign, event in (
        (TENANT, second, STARTED),
        ("south", others, STARTED),
        (TENANT, first, STARTED),
        (TENANT, second, STOPPED),
    ):
        async with tenant_transaction(pool, tenant) as connection:
            await events.append(connection, tenant, campaign, event, actor="test")
    found = await read(pool)
    assert [(each.campaign_id, each.event, each.actor) for each in found] == [
        (second, STARTED, "test"),
        (first, STARTED, "test"),
        (second, STOPPED, "test"),
    ]
    assert await events.read(pool, TENANT, after=found[0].id, limit=1) == found[1:2]
    assert await read(pool, found[-1].id) == []


@pytest.mark.parametrize("commits", [True, False])
@pytest.mark.parametrize("late", [0, 1])
async def test_an_event_that_commits_late_is_waited_for(
    pool: Pool, two_campaigns: tuple[int, int], late: int, commits: bool
) -> None:
    """The event of one campaign has its id. The event of another campaign has a higher one and commits first."""
    other, slow = two_campaigns[1 - late], two_campaigns[late]
    async with AsyncExitStack() as stack:
        transaction = await stack.enter_async_context(_transaction(pool, commits=commits))
        await started(transaction, slow)
        async with tenant_transaction(pool, TENANT) as connection:
            await started(connection, other)
        assert await read(pool) == [], "the event with the lower id may still be committed"
        reading = asyncio.create_task(read(pool))
    found = await reading or await read(pool)
    assert [each.campaign_id for each in found] == ([slow, other] if commits else [other])


@asynccontextmanager
async def _transaction(pool: Pool, *, commits: bool) -> AsyncIterator[Connection]:
    with suppress(_GivenUp):
        async with tenant_transaction(pool, TENANT) as connection:
            yield connection
            if not commits:
                raise _GivenUp


class _GivenUp(Exception):
    pass


async def test_a_long_transaction_that_writes_no_event_delays_no_reader(
    pool: Pool, host: Host, two_campaigns: tuple[int, int]
) -> None:
    async with host.transaction():
        await host.execute("INSERT INTO devices (tenant_id, device_id) VALUES ('north', 'of the host')")
        async with tenant_transaction(pool, TENANT) as connection:
            await started(connection, two_campaigns[0])
        before = time.monotonic()
        assert len(await read(pool)) == 1
        assert time.monotonic() - before < events.WAIT_SECONDS


async def test_a_consumer_sees_every_event_of_many_concurrent_writers(pool: Pool, host: Host) -> None:
    campaigns = [
        await insert_campaign(host, 20, abort_threshold=1.0, retry_on=["reported", "rejected"], max_attempts=100)
        for _ in range(4)
    ]
    names = [f"dev-{number}" for number in range(1, 21)]
    for campaign in campaigns:
        await mark_sent(host, campaign, names)

    async def fail_one_by_one(campaign: int) -> None:
        for name in names:
            await Ingest(pool, Settings()).take_in([incoming_report(name, campaign, "FAILED")])

    async def pause_and_start(campaign: int) -> None:
        for _ in range(5):
            await operations.pause_campaign(pool, TENANT, campaign, actor="test")
            await operations.start_campaign(pool, TENANT, campaign, actor="test")

    dice = random.Random(7)

    async def take_some_time(point: Failpoint) -> None:
        if point is Failpoint.REPORTS_WRITTEN:
            await asyncio.sleep(dice.uniform(0, 0.02))

    failpoints.arm(take_some_time)
    try:
        async with consuming(pool) as seen:
            await asyncio.gather(*map(fail_one_by_one, campaigns), *map(pause_and_start, campaigns))
            there = await host.fetch("SELECT id FROM ota_campaign_history ORDER BY id")
            assert len(there) == 4 * 20 + 4 * 10
            await eventually(lambda: len(seen) >= len(there), timeout=10, what="the consumer has seen every event")
    finally:
        failpoints.arm(None)
    assert seen == [row["id"] for row in there]


@asynccontextmanager
async def consuming(pool: Pool) -> AsyncIterator[list[int]]:
    """The ids that a consumer sees. Between two pages it keeps only its stored position."""
    seen: list[int] = []

    async def consume() -> None:
        while True:
            async with tenant_transaction(pool, TENANT) as connection:
                after = await events.position(connection, TENANT, CONSUMER)
            found = await events.read(pool, TENANT, after=after, limit=7)
            if found:
                async with tenant_transaction(pool, TENANT) as connection:
                    await events.advance(connection, TENANT, CONSUMER, found[-1].id)
            seen.extend(each.id for each in found)
            await asyncio.sleep(0)

    task = asyncio.create_task(consume())
    try:
        yield seen
    finally:
        await end(task)


async def test_the_position_of_a_consumer_is_stored(pool: Pool, host: Host) -> None:
    await insert_campaign(host, 1)
    await insert_campaign(host, 1, tenant="south")

    async def position(consumer: str = CONSUMER, tenant: str = TENANT) -> int:
        async with tenant_transaction(pool, tenant) as connection:
            return await events.position(connection, tenant, consumer)

    async def advance(event_id: int) -> None:
        async with tenant_transaction(pool, TENANT) as connection:
            await events.advance(connection, TENANT, CONSUMER, event_id)

    assert await position() == 0
    await advance(5)
    assert await position() == 5
    await advance(3)
    assert await position() == 5, "another process of the consumer was further"
    async with _transaction(pool, commits=False) as connection:
        await events.advance(connection, TENANT, CONSUMER, 9)
    assert await position() == 5, "the position commits with what the consumer wrote"
    assert await position("ledger") == 0
    assert await position(tenant="south") == 0


async def test_a_page_of_events_is_found_by_its_index(pool: Pool, host: Host) -> None:
    for tenant in (TENANT, "south"):
        await insert_campaign(host, 1, tenant=tenant)
    await host.execute(
        "INSERT INTO ota_campaign_history (tenant_id, campaign_id, event, actor)"
        " SELECT c.tenant_id, c.id, 'running', 'test' FROM ota_campaigns c, generate_series(1, 20000) ORDER BY random()"
    )
    await host.execute("ANALYZE ota_campaign_history")
    arguments = {"end_of_page": (TENANT, 39_000, 100), "page": (TENANT, 39_000, 39_100, 100)}
    async with tenant_transaction(pool, TENANT) as connection:
        for name, values in arguments.items():
            rows = await connection.fetch(f"EXPLAIN {load('events')[name]}", *values)
            plan = "\n".join(row[0] for row in rows)
            assert "ota_campaign_history_of_tenant" in plan, plan
