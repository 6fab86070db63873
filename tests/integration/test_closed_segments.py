"""Devices of a segment that may not be sent to: their clocks stand, and they leave the head of the queue."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Sequence

import pytest

from rollwave.domain.ids import CampaignId, TenantId
from rollwave.domain.policy.flat_guardrail import Guardrail
from rollwave.domain.policy.rules import Policy
from rollwave.domain.retry import RetryPolicy, hold
from rollwave.engine.dispatch import permission
from rollwave.engine.upkeep import deadlines, standing
from rollwave.engine.upkeep.counters import Counters
from rollwave.engine.upkeep.deadlines import Noted
from rollwave.settings import Settings
from rollwave.store import campaigns
from rollwave.store import standing as store
from rollwave.store.database import Pool, tenant_transaction
from rollwave.store.standing import ClosedSegment
from tests.engine import TENANT, Connection, campaign_ref, connect, device_row, insert_campaign, make_claims
from tests.in_process import long_subscribed_listener
from tests.integration.test_policy_in_force import follow

PROGRESS, TOTAL = 600.0, 7200.0
POLICY = Policy(Guardrail(1.0), 10, None, PROGRESS, PROGRESS, TOTAL, RetryPolicy(max_attempts=1))
OPENS = [ClosedSegment(1, 1800.0), ClosedSegment(2, None), ClosedSegment(3, 90_000.0)]
CLOSED: dict[int, list[tuple[int, int | None]]] = {
    1: [(1000, None)],
    2: [(9000, 8000), (500, None)],
    3: [(20_000, None)],
    4: [(5000, 4000), (3000, 1000)],
}
"""When segments were closed: seconds ago, from and to. None: they are closed."""
WRITE = """
    UPDATE ota_device_status
    SET status = $2, attempt = 2, sent_attempt = $3, failed_attempt = $4, segment = $5, suspended_before = 10,
        due_at = now() - make_interval(secs => $6), started_at = now() - make_interval(secs => $7),
        stood_until = now() - make_interval(secs => $8)
    WHERE device_id = $1
"""
TIMES = """
    SELECT EXTRACT(epoch FROM due_at - now())::float8 AS due_in, suspended_before, segment,
           EXTRACT(epoch FROM started_at + make_interval(secs => $2 - suspended_before) - now())::float8 AS total_left
    FROM ota_device_status WHERE device_id = $1
"""
WORKS = ("DOWNLOADING", 2, 0)
FAILED = ("DOWNLOADING", 2, 2)


@pytest.fixture
async def host(database: str) -> AsyncIterator[Connection]:
    async with connect(database) as connection:
        yield connection


async def segments(host: Connection, campaign: int) -> None:
    for number, times in CLOSED.items():
        await host.execute(
            "INSERT INTO ota_campaign_segments (tenant_id, campaign_id, number, labels) VALUES ($1, $2, $3, $4)",
            *(TENANT, campaign, number, f'{{"n": "{number}"}}'),
        )
        for since, until in times:
            await host.execute(
                "UPDATE ota_campaign_segments SET closed = closed + tstzmultirange(tstzrange("
                "now() - make_interval(secs => $2), now() - make_interval(secs => $3))) WHERE number = $1",
                *(number, since, until),
            )


def stood(segment: int, since: float) -> float:
    """The seconds for which a segment was closed in the last ``since`` seconds."""
    return sum(max(0.0, min(since, start) - (end or 0)) for start, end in CLOSED.get(segment, []))


async def held(pool: Pool, campaign: int, closed: Sequence[ClosedSegment] = OPENS, limit: int = 1000) -> int:
    async with tenant_transaction(pool, TENANT, queues=True) as connection:
        locked = await campaigns.lock(connection, TENANT, campaign)
        return await store.hold(connection, locked, closed, progress_timeout=PROGRESS, limit=limit)


async def look(pool: Pool, campaign: int, closed: Sequence[ClosedSegment], *, suspended: float = 0.0) -> None:
    async with tenant_transaction(pool, TENANT, queues=True) as connection:
        locked = await campaigns.lock(connection, TENANT, campaign)
        noted = Noted(may_judge=True, seen_ago=1.0, suspended_for=suspended)
        assert not await standing.let_stand(connection, locked, POLICY, closed, noted)
        await deadlines.sweep(connection, locked, POLICY, sends_on=True, closed=closed)


async def times(host: Connection, device: str) -> dict[str, float]:
    row = await host.fetchrow(TIMES, device, TOTAL)
    assert row is not None
    return dict(row)


async def test_the_statement_holds_devices_by_the_rule(pool: Pool, host: Connection) -> None:
    dice = random.Random(7)
    names = [f"dev-{number}" for number in range(200)]
    campaign = await insert_campaign(host, names)
    await segments(host, campaign)
    rows = [
        (
            name,
            dice.choice(["PENDING", "DOWNLOADING", "INSTALLING"]),
            dice.choice([1, 2, 2]),
            dice.choice([0, 1, 2]),
            dice.randint(0, 4),
            dice.choice([60.0, 1.0, -60.0]),
            dice.choice([None, 300.0, 5000.0, 8500.0]),
            dice.choice([None, None, 200.0, 8700.0]),
        )
        for name in names
    ]
    await host.executemany(WRITE, rows)
    expected = 0
    await held(pool, campaign)
    for name, status, sent, failed, segment, overdue_by, started_ago, stood_until in rows:
        found = await times(host, name)
        if overdue_by < 0 or segment not in {1, 2, 3}:
            assert found["due_in"] == pytest.approx(-overdue_by, abs=5)
            assert found["suspended_before"] == 10
            continue
        expected += 1
        works = status != "PENDING" and sent == 2 and failed < 2
        due_in = hold(opens_in=OPENS[segment - 1].opens_in, works=works, progress_timeout=PROGRESS)
        assert found["due_in"] == pytest.approx(due_in, abs=5), name
        since = 0.0 if started_ago is None else min(started_ago, stood_until or started_ago)
        assert found["suspended_before"] == pytest.approx(10 - stood(segment, since), abs=5), name
    assert expected
    assert await held(pool, campaign) == 0, "they have left the head of the queue"


async def test_a_hold_is_bounded_and_a_campaign_without_closed_segments_holds_nothing(
    pool: Pool, host: Connection
) -> None:
    campaign = await insert_campaign(host, 5)
    await segments(host, campaign)
    await host.executemany(WRITE, [(f"dev-{n}", *WORKS, 1, 60.0, 100.0, None) for n in range(1, 6)])
    assert await held(pool, campaign, closed=[]) == 0
    assert await held(pool, campaign, limit=3) == 3
    assert await held(pool, campaign) == 2


async def test_the_device_timeout_stands_for_all_of_the_time_for_which_the_segment_was_closed(
    pool: Pool, host: Connection
) -> None:
    """Also for a device that was never due meanwhile, and for each time that it was closed."""
    campaign = await insert_campaign(host, 4)
    await segments(host, campaign)
    rows = [
        # Segment 4 was closed for 3,000 of the last 8,000 seconds; the device timeout is 7,200 seconds.
        ("dev-1", *WORKS, 4, 1.0, 8000.0, None),
        ("dev-2", *WORKS, 4, 1.0, 10_300.0, None),
        # It got its time when it was due before, while the segment was closed for the first time.
        ("dev-3", *WORKS, 4, 1.0, 8000.0, 4500.0),
        ("dev-4", *WORKS, 0, 1.0, 8000.0, None),
    ]
    await host.executemany(WRITE, rows)
    await look(pool, campaign, [])
    assert (await device_row(host, campaign, "dev-4"))["failed_reason"] == "overdue", "its segment was never closed"
    assert (await times(host, "dev-1"))["suspended_before"] == pytest.approx(10 - 3000, abs=5)
    assert (await times(host, "dev-3"))["suspended_before"] == pytest.approx(10 - 2500, abs=5)
    assert (await device_row(host, campaign, "dev-2"))["failed_reason"] == "overdue"
    await look(pool, campaign, [])
    assert (await times(host, "dev-1"))["suspended_before"] == pytest.approx(10 - 3000, abs=5), "once"


async def test_a_segment_that_opens_early_makes_its_devices_due_with_their_progress_timeout_left(
    pool: Pool, host: Connection
) -> None:
    campaign = await insert_campaign(host, 7)
    await segments(host, campaign)
    rows = [
        ("dev-1", *WORKS, 1, 60.0, 7100.0, None),
        ("dev-2", *FAILED, 1, 60.0, 7100.0, None),
        ("dev-3", *FAILED, 2, 60.0, 100.0, None),
        ("dev-4", *FAILED, 1, -300.0, 100.0, None),  # between two attempts: it was not held
        ("dev-5", *FAILED, 3, 60.0, 100.0, None),
        ("dev-6", *FAILED, 1, 60.0, 7100.0, None),
        ("dev-7", *WORKS, 1, 60.0, 7100.0, None),
    ]
    await host.executemany(WRITE, rows)
    closed = [ClosedSegment(number, 90_000.0) for number in (1, 2, 3)]
    await look(pool, campaign, closed)
    for device in ("dev-1", "dev-2", "dev-3", "dev-5"):
        assert (await times(host, device))["due_in"] == pytest.approx(3600, abs=5)
    # These were held, until a report or a claim set another time: the delay before an attempt, a lease, a deadline.
    await host.execute("UPDATE ota_device_status SET due_at = now() + '1000 s' WHERE device_id IN ('dev-6', 'dev-7')")
    await look(pool, campaign, closed[2:])  # an operator releases, or an edit opens the others
    due = {device: (await times(host, device))["due_in"] for device, *_ in rows}
    assert due == {
        "dev-1": pytest.approx(PROGRESS, abs=5),
        "dev-2": pytest.approx(0, abs=5),
        "dev-3": pytest.approx(0, abs=5),
        "dev-4": pytest.approx(300, abs=5),
        "dev-5": pytest.approx(3600, abs=5),
        "dev-6": pytest.approx(1000, abs=5),
        "dev-7": pytest.approx(1000, abs=5),
    }
    left = (await times(host, "dev-2"))["total_left"]
    assert left >= PROGRESS - 5, "it has at least its progress timeout, or it would not be sent to again"
    assert not await host.fetchval("SELECT count(*) FROM ota_campaign_segments WHERE reopened")


@pytest.mark.parametrize("opens_with_the_start", [True, False])
async def test_a_device_that_was_held_before_a_pause_is_due_when_its_segment_opens(
    pool: Pool, host: Connection, opens_with_the_start: bool
) -> None:
    campaign = await insert_campaign(host, 1)
    await segments(host, campaign)
    await host.execute(WRITE, "dev-1", *FAILED, 2, 60.0, 100.0, None)
    closed = [ClosedSegment(2, None)]
    await look(pool, campaign, closed)
    assert (await times(host, "dev-1"))["due_in"] == pytest.approx(60, abs=5)
    if not opens_with_the_start:
        await look(pool, campaign, closed, suspended=0.001)
    await look(pool, campaign, [], suspended=30.0 if opens_with_the_start else 0.0)
    assert (await times(host, "dev-1"))["due_in"] == pytest.approx(0, abs=5)


async def test_the_time_for_which_a_campaign_was_suspended_does_not_count_twice(pool: Pool, host: Connection) -> None:
    campaign = await insert_campaign(host, 1)
    await segments(host, campaign)
    await host.execute(WRITE, "dev-1", *FAILED, 1, 60.0, 2000.0, None)
    await look(pool, campaign, OPENS, suspended=400.0)
    assert (await times(host, "dev-1"))["suspended_before"] == pytest.approx(10 - 600, abs=5)
    await look(pool, campaign, [])
    assert await host.fetchval("SELECT NOT upper_inf(closed) FROM ota_campaign_segments WHERE number = 1")


async def test_an_overdue_device_of_a_closed_segment_neither_fails_nor_is_retried(pool: Pool, host: Connection) -> None:
    campaign = await insert_campaign(host, 2)
    await segments(host, campaign)
    await host.executemany(WRITE, [(f"dev-{n}", *WORKS, s, 60.0, 7500.0, None) for n, s in ((1, 1), (2, 0))])
    await look(pool, campaign, [ClosedSegment(1, 1800.0)])
    assert (await device_row(host, campaign, "dev-1"))["status"] == "DOWNLOADING"
    assert (await device_row(host, campaign, "dev-2"))["status"] == "FAILED", "its segment is open"
    noted = Noted(may_judge=True, seen_ago=1.0, suspended_for=0.0)
    async with tenant_transaction(pool, TENANT, queues=True) as connection:
        locked = await campaigns.lock(connection, TENANT, campaign)
        await standing.let_stand(connection, locked, POLICY, (), noted)
    assert (await times(host, "dev-1"))["due_in"] == pytest.approx(PROGRESS, abs=5)
    for table, column, moved in (
        ("ota_device_status", "due_at", "due_at - interval '601 s'"),
        (
            "ota_campaign_segments",
            "closed",
            "tstzmultirange(tstzrange(now() - interval '1601 s', now() - interval '601 s'))",
        ),
    ):
        await host.execute(f"UPDATE {table} SET {column} = {moved}")
    async with tenant_transaction(pool, TENANT, queues=True) as connection:
        locked = await campaigns.lock(connection, TENANT, campaign)
        await standing.let_stand(connection, locked, POLICY, (), noted)
        await deadlines.sweep(connection, locked, POLICY, sends_on=False)
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
    await host.execute(
        "INSERT INTO ota_campaign_waves (tenant_id, campaign_id, number, name, state, since)"
        " VALUES ($1, $2, 0, 'all', 'open', now())",
        *(TENANT, campaign),
    )
    await host.execute("UPDATE ota_campaigns SET placed_revision = 1")
    # Nothing of this is in the cells: they count no device in flight in segment 2.
    await host.execute(
        "UPDATE ota_device_status SET attempt = 1, sent_attempt = 1, segment = right(device_id, 1)::int % 3"
    )
    await Counters(pool, Settings()).count(campaign_ref(campaign))
    async with long_subscribed_listener(pool, host):
        batch = await make_claims(pool, Settings()).claim(campaign_ref(campaign))
        async with tenant_transaction(pool, TENANT) as connection:
            asked = connection, Settings(), TenantId(TENANT), CampaignId(campaign), {0, 1, 2}
            closed = await permission.closed_to(*asked, revision=1)
    assert [each.device_id for each in batch.commands] == ["dev-1"]
    assert closed == {0, 2}
