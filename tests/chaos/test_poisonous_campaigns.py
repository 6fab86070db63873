"""Campaigns that cannot be processed, each for another reason, delay other campaigns by at most one tick."""

from __future__ import annotations

import itertools
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path

from rollwave.embedded.broker import EmbeddedBroker
from tests.auditor import record_commits, recorded_commits
from tests.engine import (
    always_succeeds,
    breakdown,
    campaign_row,
    connect,
    devices,
    events,
    insert_campaign,
    wait_until_ended,
    worker,
)
from tests.support import eventually

TICK = timedelta(seconds=1)
WINDOWS = 6

HOSTS_OWN_TRIGGER = """
    CREATE FUNCTION poison() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF NEW.device_id LIKE 'slow-%' THEN PERFORM pg_sleep(60); END IF;
        IF NEW.device_id LIKE 'raises-%' THEN RAISE EXCEPTION 'not today'; END IF;
        RETURN NEW;
    END $$;
    CREATE TRIGGER poison BEFORE UPDATE ON ota_device_status FOR EACH ROW EXECUTE FUNCTION poison()
"""


async def test_campaigns_that_fail_do_not_delay_other_campaigns(
    database: str, broker: EmbeddedBroker, tmp_path: Path
) -> None:
    settings = {"OTA_TICK_INTERVAL": str(TICK.total_seconds())}
    async with (
        connect(database) as host,
        connect(database) as holder,
        devices(broker.url, always_succeeds) as fleet,
        AsyncExitStack() as holding,
    ):
        await host.execute(HOSTS_OWN_TRIGGER)
        await record_commits(host)
        locked = await insert_campaign(host, 5)
        await holding.enter_async_context(holder.transaction())
        await holder.execute("SELECT FROM ota_campaigns WHERE id = $1 FOR UPDATE", locked)
        async with worker(database, broker.url, tmp_path / "log", **settings) as running:
            slow = await insert_campaign(host, ["slow-1", "slow-2"])
            raises = await insert_campaign(host, ["raises-1", "raises-2"])
            unreadable = await insert_campaign(host, 2, abort_threshold=float("nan"))
            async with host.transaction():
                no_address = await insert_campaign(host, 2)
                await host.execute(
                    "UPDATE firmware_versions SET file_url = '' FROM ota_campaigns c"
                    " WHERE c.firmware_version_id = firmware_versions.id AND c.id = $1",
                    no_address,
                )
            bad_ids = await insert_campaign(host, ["a/b", "#", "fine-1"])
            waits = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event = 'PgSleep')"
            await eventually(lambda: host.fetchval(waits), what="one statement gets no answer")
            neighbours = [
                (tenant, await insert_campaign(host, 3 * WINDOWS, tenant=tenant, rollout_rate=3))
                for tenant in ("north", "south")
            ]
            for tenant, neighbour in neighbours:
                await wait_until_ended(host, neighbour, tenant=tenant, timeout=2 * WINDOWS * TICK.total_seconds())
                assert await campaign_row(host, neighbour, tenant) == ("COMPLETED", 3 * WINDOWS, 0)
            assert await host.fetchval(waits), "the error was there the whole time"
            assert not fleet.commands_of(locked)
            await holding.aclose()
            await wait_until_ended(host, locked)
        for _, neighbour in neighbours:
            opened = sorted({each.interval for each in await recorded_commits(host, neighbour)})
            assert len(opened) == WINDOWS
            gaps = [later - earlier for earlier, later in itertools.pairwise(opened)]
            assert max(gaps) < 2 * TICK, "the delay is a tick, plus at most one more"
        for held in (unreadable, no_address):
            assert (await campaign_row(host, held))[0] == "PAUSED"
        assert await breakdown(host, bad_ids) == {"SUCCESS": 1, "SKIPPED": 2}
        assert await breakdown(host, slow) == await breakdown(host, raises) == {"PENDING": 2}
        assert raises in {event["campaign_id"] for event in events(running, "ota_campaign_error")}
