"""The document that a campaign follows: read from its revision, and what its columns say then counts for nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rollwave.domain.campaign import CampaignRef, CampaignStatus
from rollwave.domain.execution import ExecutionStatus
from rollwave.domain.ids import CampaignId, DeviceId, TenantId
from rollwave.domain.reports.parse import DeviceReport, Report
from rollwave.domain.retry import SILENCE, Reason, RetryPolicy
from rollwave.engine.locked_campaign import CampaignUnderPolicy, lock_campaign
from rollwave.settings import Settings
from rollwave.store import campaigns, executions
from rollwave.store.database import Pool, tenant_transaction
from rollwave.store.executions import Times
from tests.engine import TENANT, Connection, connect, insert_campaign

TIMES = Times(1800, 1800, 86_400)


async def follow(host: Connection, campaign: int, document: Any, revision: int = 1) -> None:
    """Let a campaign follow a document, as a host's SQL does."""
    await host.execute(
        "INSERT INTO ota_campaign_policies (tenant_id, campaign_id, revision, document)"
        " VALUES ($1, $2, $3, $4::text::jsonb)",
        *(TENANT, campaign, revision, json.dumps(document)),
    )
    await host.execute("UPDATE ota_campaigns SET policy_revision = $2 WHERE id = $1", campaign, revision)


async def lock(pool: Pool, campaign: int, settings: Settings | None = None) -> CampaignUnderPolicy:
    async with tenant_transaction(pool, TENANT) as connection:
        ref = CampaignRef(TenantId(TENANT), CampaignId(campaign), CampaignStatus.RUNNING)
        return await lock_campaign(connection, ref, settings or Settings())


async def test_the_document_replaces_the_columns_and_the_settings_stand_in_for_what_it_does_not_say(
    database: str, pool: Pool
) -> None:
    async with connect(database) as host:
        campaign = await insert_campaign(host, 1, progress_timeout=60.0, max_attempts=9, rollout_rate=1)
        await follow(host, campaign, {"deadlines": {"progress": "2m"}, "pace": {"start_jitter": "10s"}})
        policy = (await lock(pool, campaign, Settings(max_attempts=5, device_timeout=7200))).policy
        assert policy.document is not None
        assert (policy.progress_timeout, policy.answer_timeout, policy.device_timeout) == (120.0, 130.0, 7200.0)
        assert policy.retry == RetryPolicy(SILENCE, 5, 4.0, 3600.0)

        await follow(host, campaign, {"retry": {"on": ["reported"], "max_attempts": 2, "delay": "5s"}}, revision=2)
        retry = (await lock(pool, campaign)).policy.retry
        assert retry == RetryPolicy(frozenset({Reason.REPORTED}), 2, 5.0, 3600.0)

        await host.execute("UPDATE ota_campaigns SET policy_revision = NULL WHERE id = $1", campaign)
        assert (await lock(pool, campaign)).policy.progress_timeout == 60.0


async def test_reports_are_applied_by_the_revision_in_force(database: str, pool: Pool) -> None:
    async with connect(database) as host:
        campaign = await insert_campaign(host, 0, retry_on=["rejected"], progress_timeout=7.0)
        await follow(
            host, campaign, {"retry": {"on": ["reported"], "max_attempts": 2}, "deadlines": {"progress": "2m"}}
        )
        await lock(pool, campaign)  # stores the timeouts and retries beside the document
        for device, attempt, heard in (("first", 1, 1), ("last", 2, 2), ("silent", 1, 0)):
            await host.execute(
                "INSERT INTO ota_device_status (tenant_id, campaign_id, device_id, status, attempt, sent_attempt,"
                " heard_attempt, due_at, started_at) VALUES ($1, $2, $3, 'DOWNLOADING', $4, $4, $5, now(), now())",
                *(TENANT, campaign, device, attempt, heard),
            )
        reports = [
            DeviceReport(DeviceId(device), Report(CampaignId(campaign), ExecutionStatus.FAILED))
            for device in ("first", "last", "silent")
        ]
        async with tenant_transaction(pool, TENANT) as connection:
            effects = await executions.apply_reports(connection, TENANT, reports, TIMES, max_attempts=9)
    assert [each.retried for each in effects] == [True, False, False]
    assert [each.progress_timeout for each in effects] == [120.0] * 3


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"wavs": []}, "wavs: unknown key (did you mean waves?)"),
        ([], "must be a mapping of keys to values"),
        (None, "must be a mapping of keys to values"),
    ],
)
async def test_a_document_that_cannot_be_read_makes_the_policy_unreadable(
    database: str, pool: Pool, document: object, said: str
) -> None:
    async with connect(database) as host:
        campaign = await insert_campaign(host, 1)
        await follow(host, campaign, document)
        assert (await lock(pool, campaign)).unreadable == f"revision 1 of the policy cannot be read: {said}"


async def test_a_revision_that_does_not_exist_makes_the_policy_unreadable(database: str, pool: Pool) -> None:
    async with connect(database) as host:
        campaign = await insert_campaign(host, 1, policy_revision=3)
    assert (await lock(pool, campaign)).unreadable == "revision 3 of the policy does not exist"
    async with tenant_transaction(pool, TENANT) as connection:
        assert (await campaigns.get(connection, TENANT, campaign)).own_times is None
