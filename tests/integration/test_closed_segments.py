"""Devices of a segment that may not be sent to: their clocks stand, and they leave the head of the queue."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Sequence

import pytest

from rollwave.domain.ids import CampaignId, TenantId
from rollwave.domain.policy.rules import Guardrail, Policy
from rollwave.domain.retry import DeviceTime, RetryPolicy, hold
from rollwave.engine.dispatch import permission
from rollwave.engine.upkeep import deadlines
from rollwave.engine.upkeep.counters import Counters
from rollwave.settings import Settings
from rollwave.store import campaigns, overdue
from rollwave.store.database import Pool, tenant_transaction
from rollwave.store.overdue import ClosedSegment
from tests.engine import TENANT, Connection, campaign_ref, connect, device_row, insert_campaign, make_claims
from tests.in_process import long_subscribed_listener
from tests.integration.test_policy_in_force import follow

PROGRESS, TOTAL = 600.0, 7200.0
POLICY = Policy(Guardrail(1.0), 10, None, PROGRESS, PROGRESS, TOTAL, RetryPolicy(max_attempts=1))
OPENS = [ClosedSegment(1, 1800.0), ClosedSegment(2, None), ClosedSegment(3, 90_000.0)]
WRITE = """
    UPDATE ota_device_status
    SET status = $2, attempt = 2, sent_attempt = $3, failed_attempt = $4, segment = $5, suspended_before = 10,
        due_at = now() - make_interval(secs => $6), started_at = now() - make_interval(secs => $7)
    WHERE device_id = $1
"""


@pytest.fixture
async def host(database: str) -> AsyncIterator[Connection]:
    async with connect(database) as connection:
        yield connection


async def held(pool: Pool, campaign: int, closed: Sequence[ClosedSegment] = OPENS, limit: int = 1000) -> int:
    async with tenant_transaction(pool, TENANT, queues=True) as connection:
        locked = await campaigns.lock(connection, TENANT, campaign)
        return await overdue.hold(
            connection, locked, closed, progress_timeout=PROGRESS, device_timeout=TOTAL, limit=limit
        )


TIMES = """
    SELECT EXTRACT(epoch FROM due_at - now())::float8 AS due_in, suspended_before, segment
    FROM ota_device_status WHERE device_id = $1
"""


async def test_the_statement_holds_devices_by_the_rule(pool: Pool, host: Connection) -> None:
    dice = random.Random(7)
    names = [f"dev-{number}" for number in range(200)]
    campaign = await insert_campaign(host, names)
    rows = [
        (
            name,
            dice.choice(["PENDING", "DOWNLOADING", "INSTALLING"]),
            dice.choice([1, 2, 2]),
            dice.choice([0, 1, 2]),
            dice.randint(0, 4),
            dice.choice([60.0, 1.0, -60.0]),
            dice.choice([None, 5000.0, 7000.0, 7205.0, 7500.0]),
        )
        for name in names
    ]
    await host.executemany(WRITE, rows)
    expected = 0
    await held(pool, campaign)
    for name, status, sent, failed, segment, overdue_by, started_ago in rows:
        found = await host.fetchrow(TIMES, name)
        assert found is not None
        if overdue_by < 0 or segment not in {1, 2, 3}:
            assert (found["due_in"], found["suspended_before"]) == (pytest.approx(-overdue_by, abs=5), 10)
            continue
        expected += 1
        works = status != "PENDING" and sent == 2 and failed < 2
        left = DeviceTime(TOTAL, started_ago, suspended_before=10).left
        rule = hold(opens_in=OPENS[segment - 1].opens_in, works=works, progress_timeout=PROGRESS, left=left)
        assert found["due_in"] == pytest.approx(rule.due_in, abs=5), (name, rule)
        assert found["suspended_before"] == pytest.approx(10 - rule.prolonged, abs=5), (name, rule)
    assert expected
    assert await held(pool, campaign) == 0, "they have left the head of the queue"


async def test_a_hold_is_bounded_and_a_campaign_without_closed_segments_holds_nothing(
    pool: Pool, host: Connection
) -> None:
    campaign = await insert_campaign(host, 5)
    await host.executemany(WRITE, [(f"dev-{n}", "DOWNLOADING", 2, 0, 1, 60.0, 100.0) for n in range(1, 6)])
    assert await held(pool, campaign, closed=[]) == 0
    assert await held(pool, campaign, limit=3) == 3
    assert await held(pool, campaign) == 2


async def test_an_overdue_device_of_a_closed_segment_neither_fails_nor_is_retried(pool: Pool, host: Connection) -> None:
    campaign = await insert_campaign(host, 2)
    await host.executemany(WRITE, [(f"dev-{n}", "DOWNLOADING", 2, 0, n, 60.0, 7500.0) for n in (1, 2)])

    async def sweep(closed: Sequence[ClosedSegment], *, sends_on: bool = True) -> None:
        async with tenant_transaction(pool, TENANT, queues=True) as connection:
            locked = await campaigns.lock(connection, TENANT, campaign)
            if sends_on:
                await deadlines.hold(connection, locked, POLICY, closed)
            await deadlines.sweep(connection, locked, POLICY, sends_on=sends_on, closed=closed)

    await sweep([ClosedSegment(1, 1800.0)])
    assert (await device_row(host, campaign, "dev-1"))["status"] == "DOWNLOADING"
    assert (await device_row(host, campaign, "dev-2"))["status"] == "FAILED", "its segment is open"
    await host.execute(
        "UPDATE ota_device_status SET due_at = due_at - interval '1800 s', started_at = started_at - interval '1800 s'"
    )
    await sweep([])
    row = await device_row(host, campaign, "dev-1")
    assert row["status"] == "DOWNLOADING", "the segment has opened, and the device has its progress timeout"
    left = await host.fetchval(
        "SELECT EXTRACT(epoch FROM due_at - now())::float8 FROM ota_device_status WHERE device_id = 'dev-1'"
    )
    assert left == pytest.approx(PROGRESS, abs=5)
    await host.execute(
        "UPDATE ota_device_status SET due_at = due_at - interval '601 s', started_at = started_at - interval '601 s'"
    )
    await sweep([ClosedSegment(1, 1800.0)], sends_on=False)
    assert (await device_row(host, campaign, "dev-1"))["status"] == "FAILED", "after an abort, clocks run"


async def test_devices_set_back_by_hand_are_not_sent_to_again_under_quarantine_or_before_they_are_placed(
    pool: Pool, host: Connection
) -> None:
    campaign = await insert_campaign(host, 3)
    await follow(host, campaign, {})
    await host.execute(
        "INSERT INTO ota_campaign_segments (tenant_id, campaign_id, number, labels, quarantined_at)"
        " SELECT $1, $2, number, jsonb_build_object('site', number), CASE number WHEN 2 THEN now() END"
        " FROM generate_series(1, 2) AS number",
        *(TENANT, campaign),
    )
    # Nothing of this is in the cells: they count no device in flight in segment 2.
    await host.execute(
        "UPDATE ota_device_status SET attempt = 1, sent_attempt = 1, segment = right(device_id, 1)::int % 3"
    )
    await Counters(pool, Settings()).count(campaign_ref(campaign))
    async with long_subscribed_listener(pool, host):
        batch = await make_claims(pool, Settings()).claim(campaign_ref(campaign))
        async with tenant_transaction(pool, TENANT) as connection:
            closed = await permission.closed_to(
                connection, Settings(), TenantId(TENANT), CampaignId(campaign), {0, 1, 2}
            )
    assert [each.device_id for each in batch.commands] == ["dev-1"]
    assert closed == {0, 2}
