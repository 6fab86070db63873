"""An operator gives failed devices another attempt, above the maximum: counters, cells and history follow."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from rollwave.domain.campaign import CampaignStatus
from rollwave.domain.retry import Reason
from rollwave.embedded.broker import EmbeddedBroker
from rollwave.engine import operations
from rollwave.engine.retry import Retried, retry_failed
from rollwave.engine.upkeep.counters import Counters
from rollwave.engine.upkeep.look import Upkeep
from rollwave.settings import Settings
from rollwave.store.database import Pool
from rollwave.store.retries import Which
from tests.api import assert_problem, calling
from tests.engine import (
    TENANT,
    Command,
    Connection,
    answer_with,
    breakdown,
    campaign_ref,
    campaign_row,
    connect,
    device_row,
    devices,
    insert_campaign,
    mark_sent,
    wait_until_ended,
    worker,
)
from tests.in_process import long_subscribed_listener
from tests.support import eventually

PAUSED = CampaignStatus.PAUSED


@pytest.fixture
async def host(database: str) -> AsyncIterator[Connection]:
    async with connect(database) as connection:
        yield connection


async def failed_campaign(host: Connection, number: int = 3) -> int:
    """A campaign with this many devices in progress (``dev-1`` …), of which all but ``dev-1`` have failed."""
    campaign = await insert_campaign(host, number, abort_threshold=1.0, max_attempts=1)
    await mark_sent(host, campaign, [f"dev-{each}" for each in range(1, number + 1)])
    await host.execute(
        "UPDATE ota_device_status SET status = 'FAILED', failed_attempt = 1, failed_reason = 'reported',"
        " completed_at = now(), due_at = NULL, error_code = CASE device_id WHEN 'dev-2' THEN 'E_BOOT' END,"
        " segment = 1, position = 2 * (1::bigint << 44) + id WHERE campaign_id = $1 AND device_id <> 'dev-1'",
        campaign,
    )
    await host.execute(
        "UPDATE ota_campaigns SET failed = $2, downloading = 1, succeeded = 0 WHERE id = $1", campaign, number - 1
    )
    await host.execute(
        "INSERT INTO ota_campaign_cells (tenant_id, campaign_id, wave, segment, failed) VALUES ($1, $2, 1, 1, $3)",
        *(TENANT, campaign, number - 1),
    )
    return campaign


async def cell(host: Connection, campaign: int) -> tuple[int, int]:
    row = await host.fetchrow("SELECT in_flight, failed FROM ota_campaign_cells WHERE campaign_id = $1", campaign)
    assert row is not None
    return row["in_flight"], row["failed"]


async def test_failed_devices_get_one_attempt_above_the_maximum(
    pool: Pool, host: Connection, database: str, broker: EmbeddedBroker, tmp_path: Path
) -> None:
    campaign = await insert_campaign(host, 4, abort_threshold=1.0, max_attempts=1, max_in_flight=4)

    def answer(command: Command) -> Sequence[bytes]:
        if command.device == "dev-1":
            return ()
        return answer_with("FAILED" if command.attempt == 1 else "SUCCESS")(command)

    async def failed(number: int) -> bool:
        return await campaign_row(host, campaign) == ("RUNNING", 0, number)

    async with (
        calling(pool) as client,
        devices(broker.url, answer) as fleet,
        worker(database, broker.url, tmp_path / "worker", OTA_TICK_INTERVAL="0.2"),
    ):
        await eventually(lambda: failed(3))
        path = f"/ota/campaigns/{campaign}"
        assert_problem(await client.post(f"{path}/retry", params={"code": "e boot"}), 422, "invalid-input")
        nobody = await client.post(f"{path}/retry", params={"reason": "no_answer"})
        assert nobody.json() == {"id": campaign, "status": "RUNNING", "devices": 0}
        done = await client.post(f"{path}/retry", params={"reason": "rejected"})
        assert done.json() == {"id": campaign, "status": "RUNNING", "devices": 3}
        await eventually(lambda: len(fleet.commands) == 7)
        fleet.report("dev-1", campaign, "SUCCESS")
        await wait_until_ended(host, campaign)
        assert await campaign_row(host, campaign) == ("COMPLETED", 4, 0)
        assert (await device_row(host, campaign, "dev-2"))["attempt"] == 2
        found = [each for each in (await client.get(f"{path}/events")).json()["events"] if "retried" in each["event"]]
        assert [(each["event"], each["device_id"], each["detail"]) for each in found] == [
            ("devices_retried", None, {"devices": 3, "cause": "rejected"}),
            *(("retried", f"dev-{number}", {"attempt": 1}) for number in (2, 3, 4)),
        ]
        problem = assert_problem(await client.post(f"{path}/retry"), 409, "conflict")
        assert problem["detail"] == f"Cannot retry devices of campaign {campaign}: it is COMPLETED."


async def test_a_paused_campaign_stays_paused_and_its_cells_follow(pool: Pool, host: Connection) -> None:
    campaign = await failed_campaign(host, 6)
    await operations.pause_campaign(pool, TENANT, campaign, actor="a key")
    only = Which(code="E_BOOT")
    assert await retry_failed(pool, TENANT, campaign, actor="a key", which=only) == Retried(PAUSED, 1)
    assert await cell(host, campaign) == (1, 4)
    done = await retry_failed(pool, TENANT, campaign, actor="a key", which=Which(Reason.REPORTED), per_batch=2)
    assert done == Retried(PAUSED, 4)
    assert await cell(host, campaign) == (5, 0)
    assert await campaign_row(host, campaign) == ("PAUSED", 0, 0)
    assert await breakdown(host, campaign) == {"DOWNLOADING": 6}
    row = await device_row(host, campaign, "dev-3")
    assert (row["attempt"], row["started_at"], row["completed_at"]) == (1, None, None), "its time begins again"
    assert row["failed_before"] == ["reported:"]
    assert (await device_row(host, campaign, "dev-2"))["failed_before"] == ["reported:E_BOOT"]
    async with calling(pool) as client:
        said = (await client.get(f"/ota/campaigns/{campaign}/devices/dev-3/explain")).json()
    assert next(each["gate"] for each in said["checks"] if not each["open"]) == "status"
    assert said["checks"][-1]["gate"] == "backoff"


async def test_a_device_whose_retry_was_not_sent_when_the_campaign_is_aborted_has_failed(
    pool: Pool, host: Connection
) -> None:
    campaign = await failed_campaign(host)
    async with long_subscribed_listener(pool, host):
        await retry_failed(pool, TENANT, campaign, actor="a key")
        await operations.abort_campaign(pool, TENANT, campaign, actor="a key")

        async def given_up() -> bool:
            await Upkeep(pool, Settings()).look_after(campaign_ref(campaign))
            return await breakdown(host, campaign) == {"DOWNLOADING": 1, "FAILED": 2}

        await eventually(given_up)
    assert await cell(host, campaign) == (0, 2)
    assert (await device_row(host, campaign, "dev-2"))["failed_reason"] == "reported"


async def test_a_retry_before_a_hosts_devices_are_counted_leaves_the_counters_to_the_first_count(
    pool: Pool, host: Connection
) -> None:
    campaign = await failed_campaign(host)
    await host.execute(
        "UPDATE ota_campaigns SET succeeded = 0, failed = 0, pending = NULL, downloading = NULL, installing = NULL,"
        " skipped = NULL"
    )
    assert (await retry_failed(pool, TENANT, campaign, actor="key")).devices == 2
    assert await host.fetchval("SELECT failed FROM ota_campaigns") == 0, "it would be negative"
    await Counters(pool, Settings()).count(campaign_ref(campaign))
    counted = await host.fetchrow("SELECT failed, downloading FROM ota_campaigns")
    assert counted is not None
    assert tuple(counted) == (0, 3)
