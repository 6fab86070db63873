"""Rows and tables that a host keeps locked: other campaigns continue, and a worker can still be stopped."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from rollwave.embedded.broker import EmbeddedBroker
from tests.engine import (
    Connection,
    always_succeeds,
    campaign_row,
    connect,
    devices,
    insert_campaign,
    wait_until_ended,
    worker,
)
from tests.servers import Mosquitto
from tests.support import eventually


@pytest.fixture
async def host(database: str) -> AsyncIterator[Connection]:
    async with connect(database) as connection:
        yield connection


async def test_a_locked_campaign_row_delays_only_its_own_campaign(
    database: str, host: Connection, broker: EmbeddedBroker, tmp_path: Path
) -> None:
    async with (
        connect(database) as second,
        devices(broker.url, always_succeeds) as fleet,
        worker(database, broker.url, tmp_path / "log"),
    ):
        kept = await insert_campaign(host, 4, rollout_rate=1, max_in_flight=1)
        async with second.transaction():
            await second.execute("SELECT FROM ota_campaigns WHERE id = $1 FOR UPDATE", kept)
            other = await insert_campaign(host, 24, tenant="south", rollout_rate=4)
            # Six ticks of 0.2 s. Waiting for the lock in each would take half a minute.
            await wait_until_ended(host, other, tenant="south", timeout=20)
            assert await campaign_row(host, other, "south") == ("COMPLETED", 24, 0)
            assert len(fleet.commands_of(kept)) <= 1
        await wait_until_ended(host, kept)


async def test_sigterm_ends_a_worker_that_waits_for_a_locked_table(
    database: str, host: Connection, mosquitto: Mosquitto, tmp_path: Path
) -> None:
    async with devices(mosquitto.url) as fleet:
        campaign = await insert_campaign(host, 5)
        async with connect(database) as second, worker(database, mosquitto.url, tmp_path / "first") as running:
            await eventually(lambda: len(fleet.commands_of(campaign)) == 5, what="sent")
            async with second.transaction():
                await second.execute("LOCK TABLE ota_device_status")
                for command in fleet.commands_of(campaign):
                    fleet.report(command.device, campaign, "SUCCESS")
                await fleet.wait_until_delivered()
                await eventually(lambda: waits_for_a_lock(host), what="the reports wait")
                running.process.terminate()
                assert await asyncio.wait_for(running.process.wait(), 20) == 0, running.output()
        async with worker(database, mosquitto.url, tmp_path / "second"):
            await wait_until_ended(host, campaign)
    assert await campaign_row(host, campaign) == ("COMPLETED", 5, 0)


async def waits_for_a_lock(host: Connection) -> bool:
    return bool(
        await host.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%MATERIALIZED%'"
        )
    )
