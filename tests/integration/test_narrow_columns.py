"""Error messages that are longer than the host's column."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from rollwave.embedded.broker import EmbeddedBroker
from rollwave.engine.upkeep.look import Upkeep
from rollwave.settings import Settings
from rollwave.store.database import Pool
from tests.engine import (
    Connection,
    breakdown,
    campaign_ref,
    campaign_row,
    connect,
    device_row,
    devices,
    incoming_report,
    insert_campaign,
    mark_sent,
    wait_until_ended,
    worker,
)
from tests.in_process import ingest


@pytest.fixture
async def host(database: str) -> AsyncIterator[Connection]:
    async with connect(database) as connection:
        yield connection


async def test_reports_are_applied_despite_narrow_columns_and_unreadable_rules(pool: Pool, host: Connection) -> None:
    await host.execute("ALTER TABLE ota_device_status ALTER error_message TYPE varchar(12)")
    campaign = await insert_campaign(host, 4, abort_threshold=1.0, progress_timeout=float("nan"))
    await mark_sent(host, campaign, ["dev-1", "dev-2", "dev-3"])
    await ingest(
        pool,
        [
            incoming_report("dev-1", campaign, "FAILED", error="x" * 500),
            incoming_report("dev-2", campaign, "FAILED", error="no space"),
            incoming_report("dev-3", campaign, "INSTALLING"),
        ],
    )
    assert (await device_row(host, campaign, "dev-1"))["error_message"].startswith("xxx")
    assert (await device_row(host, campaign, "dev-2"))["error_message"] == "no space"
    assert await breakdown(host, campaign) == {"FAILED": 2, "INSTALLING": 1, "PENDING": 1}
    await Upkeep(pool, Settings()).look_after(campaign_ref(campaign))
    assert await campaign_row(host, campaign) == ("PAUSED", 0, 2)
    assert "progress_timeout" in await host.fetchval("SELECT status_reason FROM ota_campaigns")


async def test_the_engines_error_messages_fit_a_narrow_column(
    database: str, host: Connection, broker: EmbeddedBroker, tmp_path: Path
) -> None:
    await host.execute("ALTER TABLE ota_device_status ALTER error_message TYPE varchar(12)")
    settings = {"OTA_PROGRESS_TIMEOUT": "0.3", "OTA_MAX_ATTEMPTS": "1"}
    async with devices(broker.url), worker(database, broker.url, tmp_path / "log", **settings):
        campaign = await insert_campaign(host, ["mute", "un/sendable", "mute-2", "mute-3"], rollout_rate=2)
        await wait_until_ended(host, campaign, "ABORTED")
    assert (await device_row(host, campaign, "mute"))["error_message"].startswith("no report")
