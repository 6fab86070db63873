"""Statements about campaigns under a policy document cost the same however many segments a campaign has.

Tables have no statistics, or those of another tenant: a new campaign has none. A join of cells with the rows of a batch
reads few pages and still compares each with each, so the test counts the rows that the nodes of a plan handle.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from rollwave.domain.execution import WAVE_BITS, Cell, Place
from rollwave.domain.ids import CampaignId, DeviceId
from rollwave.domain.policy.document.model import GuardrailRule
from rollwave.domain.policy.ended_devices import EndedInCampaign
from rollwave.domain.policy.guardrail import Failure, Trial
from rollwave.domain.retry import Reason
from rollwave.engine import guardrail_changes
from rollwave.store import campaigns, cells, executions, guardrails, retries, segments, standing, views, waves
from rollwave.store.campaign_rows import Campaign
from rollwave.store.database import Connection, Pool, tenant_transaction
from rollwave.store.executions import Claim, ClaimQueue
from rollwave.store.guardrails import Group, labels_text
from rollwave.store.queries import load
from rollwave.store.retries import Retried
from rollwave.store.segment_quarantine import SegmentChanges
from rollwave.store.standing import ClosedSegment
from tests.integration.test_query_plans import explaining

pytestmark = pytest.mark.parametrize("postgres", ["embedded", "debian"], indirect=True)

DEVICES, SEGMENTS, WAVES, ROWS = 6000, 1500, 2, 200
CELLS = SEGMENTS * WAVES

HANDLED_PER_ROW, HANDLED_PER_CELL = 60, 8
"""Maximum number of rows that the nodes of a plan handle for a device of a batch, and for a cell of the campaign."""

NOUNS = (
    "campaigns",
    "cells",
    "executions",
    "guardrails",
    "retries",
    "segment_quarantine",
    "segments",
    "standing",
    "views",
)
OF_A_BATCH = {
    "campaigns.get",
    "cells.next_rooms",
    "segments.described",
    "cells.end",
    "cells.skip",
    "executions.claim",
    "retries.cells",
    "views.claimed_and_pending",
}
OF_ALL_CELLS = {"cells.queue", "cells.queue_by_zone", "cells.counts", "cells.segments", "standing.note"}
"""Statements that read each cell or segment once."""


async def insert(pool: Pool, tenant: str) -> CampaignId:
    """A running campaign of two waves, whose devices are spread over all segments."""
    await pool.execute("INSERT INTO tenants VALUES ($1)", tenant)
    firmware = await pool.fetchval(
        "INSERT INTO firmware_versions (tenant_id, version, file_url) VALUES ($1, '1', 'https://f.invalid')"
        " RETURNING id",
        tenant,
    )
    campaign: CampaignId = await pool.fetchval(
        "INSERT INTO ota_campaigns (tenant_id, name, firmware_version_id, status, policy_revision, placed_revision,"
        " pending, downloading, installing, succeeded, failed, skipped)"
        " VALUES ($1, 'one', $2, 'RUNNING', 1, 1, $3, 0, 0, 0, 0, 0) RETURNING id",
        *(tenant, firmware, DEVICES),
    )
    key = tenant, campaign
    await pool.execute(
        "INSERT INTO ota_campaign_policies (tenant_id, campaign_id, revision, document) VALUES ($1, $2, 1, '{}')", *key
    )
    await pool.execute(
        "INSERT INTO ota_campaign_segments (tenant_id, campaign_id, number, labels, time_zone)"
        " SELECT $1, $2, n, jsonb_build_object('n', n), (ARRAY['UTC', 'Asia/Tokyo'])[1 + n % 2]"
        " FROM generate_series(1, $3) AS n",
        *(*key, SEGMENTS),
    )
    await pool.execute(
        "INSERT INTO ota_campaign_waves (tenant_id, campaign_id, number, name, size, state)"
        " SELECT $1, $2, n, n, $4 / $3, 'open' FROM generate_series(0, $3 - 1) AS n",
        *(*key, WAVES, DEVICES),
    )
    await pool.execute(
        "INSERT INTO ota_device_status (tenant_id, campaign_id, device_id, segment, position)"
        f" SELECT $1, $2, 'device-' || n, 1 + n % $3, ((1 + n / ($4 / {WAVES}))::bigint << {WAVE_BITS}) + n"
        " FROM generate_series(0, $4 - 1) AS n",
        *(*key, SEGMENTS, DEVICES),
    )
    await pool.execute(
        "INSERT INTO ota_campaign_cells (tenant_id, campaign_id, wave, segment, waiting)"
        f" SELECT $1, $2, (position >> {WAVE_BITS}) - 1, segment, count(*) FROM ota_device_status"
        " WHERE tenant_id = $1 GROUP BY 3, 4",
        *key,
    )
    return campaign


@pytest.fixture(params=["never analyzed", "analyzed before the tenant came"])
async def campaign_id(request: pytest.FixtureRequest, pool: Pool) -> CampaignId:
    for table in ("ota_device_status", "ota_campaign_cells", "ota_campaign_segments"):
        await pool.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = off)")
    if request.param != "never analyzed":
        await insert(pool, "south")
        await pool.execute("ANALYZE")
    return await insert(pool, "north")


async def test_no_statement_of_a_batch_handles_each_segment_for_each_device(
    database: str, postgres_log: Path, campaign_id: CampaignId
) -> None:
    before = postgres_log.stat().st_size
    async with explaining(database, postgres_log) as (pool, _):
        for _round in range(2):
            await dispatched_and_ended(pool, campaign_id)
    handled = {name: max(found) for name, found in rows_handled(postgres_log.read_bytes()[before:].decode()).items()}
    assert handled.keys() >= OF_A_BATCH | OF_ALL_CELLS
    allowed = dict.fromkeys(OF_A_BATCH, HANDLED_PER_ROW * ROWS) | dict.fromkeys(OF_ALL_CELLS, HANDLED_PER_CELL * CELLS)
    assert {name: rows for name, rows in handled.items() if rows > allowed.get(name, rows)} == {}


async def dispatched_and_ended(pool: Pool, campaign_id: CampaignId) -> None:
    """A claim, the end of its devices, an operator's retry, the end of the campaign for them, and a second claim."""
    async with tenant_transaction(pool, "north", queues=True) as connection:
        campaign = await campaigns.lock(connection, "north", campaign_id)
        assert len(waves.of(campaign)) == WAVES
        for zoned in (False, True):
            await cells.queue(connection, campaign, zoned=zoned)
        await cells.counts(connection, campaign)
        await cells.segments(connection, campaign)
        closed = [ClosedSegment(each, None) for each in range(1, SEGMENTS, 2)]
        await standing.note(connection, campaign, closed, seen_ago=1, suspended=0)
        rooms = await cells.next_rooms(connection, campaign, up_to_wave=0, zones=["UTC", None], devices=ROWS)
        claim = await claimed(connection, campaign, rooms, fresh=ROWS)
        assert len(claim.commands) == len(tuple(claim.dispatched)) == ROWS
        await segments.read(connection, campaign, claim.segments)
        await views.pending(connection, "north", campaign_id, device_timeout=600, tokens=ROWS)
    async with tenant_transaction(pool, "north", generic_plans=True) as connection:
        await campaigns.lock(connection, "north", campaign_id)
        ended = EndedInCampaign(Trial(each, Failure(Reason.REPORTED)) for each in claim.dispatched)
        await cells.end(connection, "north", {campaign_id: ended})
        again = [Retried(DeviceId(""), 1, each.segment, each.wave) for each in tuple(claim.dispatched)]
        await retries.move_cells(connection, "north", campaign_id, again)
        await cells.skip(connection, "north", campaign_id, sorted(skipped(tuple(claim.dispatched))))
        assert await connection.fetchval("SELECT sum(in_flight) FROM ota_campaign_cells") == 0
    async with tenant_transaction(pool, "north", queues=True) as connection:
        campaign = await campaigns.lock(connection, "north", campaign_id)
        await connection.execute("UPDATE ota_device_status SET due_at = now() WHERE attempt = 1")
        assert len((await claimed(connection, campaign, {}, fresh=0)).commands) == ROWS


async def claimed(connection: Connection, campaign: Campaign, rooms: Mapping[Cell, int], *, fresh: int) -> Claim:
    return await executions.claim(
        connection,
        campaign,
        tokens=ROWS,
        fresh=fresh,
        lease=30,
        device_timeout=600,
        opens_interval=False,
        command="{}",
        queue=ClaimQueue(rooms, zones=["UTC", None]),
    )


async def test_keeping_new_segments_under_quarantine_handles_each_test_and_segment_once(
    database: str, postgres_log: Path, campaign_id: CampaignId
) -> None:
    """Every second segment is new since an edit. A guardrail has tripped for the devices of all of them."""
    rule = {"name": "n", "threshold": "10%", "scope": "segment", "per": ["n"], "action": "quarantine"}
    before = postgres_log.stat().st_size
    async with explaining(database, postgres_log) as (pool, _):
        await pool.execute(
            "UPDATE ota_campaign_policies SET document = $1::text::jsonb", json.dumps({"guardrails": [rule]})
        )
        async with tenant_transaction(pool, "north") as connection:
            campaign = await campaigns.lock(connection, "north", campaign_id)
            groups = [Group("n", labels=labels_text({"n": number})) for number in range(1, SEGMENTS + 1)]
            await guardrails.begin(connection, campaign, groups, {"n": GuardrailRule.model_validate(rule)})
            await connection.execute("UPDATE ota_campaign_tests SET tripped_at = now()")
            await connection.execute("UPDATE ota_campaign_segments SET quarantined_at = now() WHERE number % 2 = 0")
            changes = SegmentChanges(range(1, SEGMENTS, 2), [(number, number - 1) for number in range(2, SEGMENTS, 2)])
            await guardrail_changes.keep_quarantine(connection, campaign, changes)
            assert await connection.fetchval("SELECT bool_and(quarantined_at IS NOT NULL) FROM ota_campaign_segments")
    handled = {name: max(found) for name, found in rows_handled(postgres_log.read_bytes()[before:].decode()).items()}
    assert {name: rows for name, rows in handled.items() if rows > HANDLED_PER_CELL * CELLS} == {}


def skipped(places: tuple[Place, ...]) -> Iterator[cells.Skipped]:
    for cell in {(each.wave, each.segment) for each in places}:
        devices = sum((each.wave, each.segment) == cell for each in places)
        yield cells.Skipped(*cell, devices, 0, devices, 0)


_PLAN = re.compile(r"plan:\n((?:\t.*\n)+)")


def rows_handled(log: str) -> dict[str, list[int]]:
    """The number of rows that the plans of each statement handled, by its name, as auto_explain logs them."""
    names = {sql: f"{noun}.{name}" for noun in NOUNS for name, sql in load(noun).items()}
    found: dict[str, list[int]] = {}
    for plan in _PLAN.findall(log):
        explained = json.loads(plan)
        if (name := names.get(explained["Query Text"].strip())) is not None:
            found.setdefault(name, []).append(round(_handled(explained["Plan"])))
    return found


def _handled(plan: dict[str, Any]) -> float:
    """The rows of a node, those that its filters removed included, and of the nodes below it."""
    removed = sum(plan.get(f"Rows Removed by {kind}", 0) for kind in ("Filter", "Join Filter", "Index Recheck"))
    own: float = plan["Actual Loops"] * (plan["Actual Rows"] + removed)
    return own + sum(_handled(each) for each in plan.get("Plans", ()))
