"""A large group is targeted in batches: each device exactly once, whatever is killed, stopped or changed meanwhile."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path

import asyncpg
import pytest

from rollwave import run_ota_campaign_tick
from rollwave.embedded.broker import EmbeddedBroker
from rollwave.engine import failpoints
from rollwave.engine.dispatch.session import CommandSession
from rollwave.engine.failpoints import Failpoint
from rollwave.engine.new_campaign import create_campaign
from rollwave.engine.operations import abort_campaign, pause_campaign, start_campaign
from rollwave.engine.stop import skip_rest
from rollwave.engine.timing import SOON_SECONDS
from rollwave.engine.upkeep.look import Upkeep
from rollwave.engine.upkeep.targeting import Targeter
from rollwave.errors import Conflict
from rollwave.mqtt.broker import Broker
from rollwave.settings import Settings
from rollwave.store import campaigns, counters
from rollwave.store.database import Pool, tenant_transaction
from rollwave.store.new_campaigns import NewCampaign
from rollwave.store.queries import load
from tests.engine import (
    TENANT,
    Connection,
    always_succeeds,
    breakdown,
    campaign_ref,
    campaign_row,
    campaign_shown,
    connect,
    devices,
    events,
    insert_campaign,
    make_dispatch,
    wait_until_ended,
    worker,
)
from tests.groups import (
    BATCH,
    add_members,
    create,
    device_names,
    targeted,
    targeting_held_after_first_batch,
    targeting_progress,
)
from tests.support import eventually

on_both = pytest.mark.parametrize("postgres", ["embedded", "debian"], indirect=True)

EVERYONE = device_names(1, 35)


@pytest.fixture
async def host(database: str) -> AsyncIterator[Connection]:
    async with connect(database) as connection:
        await add_members(connection, EVERYONE)
        yield connection


@pytest.fixture
def targeter(pool: Pool) -> Targeter:
    return Targeter(pool, batch=BATCH)


async def counters_match_rows(pool: Pool, campaign: int) -> bool:
    """Whether the counters equal the rows."""
    async with tenant_transaction(pool, TENANT) as connection:
        return (await counters.compare(connection, TENANT, campaign)).agree


async def history(host: Connection, campaign: int) -> list[tuple[str, object]]:
    rows = await host.fetch(
        "SELECT event, detail FROM ota_campaign_history WHERE campaign_id = $1 ORDER BY id", campaign
    )
    return [(row["event"], json.loads(row["detail"]).get("devices")) for row in rows]


@contextmanager
def held_open() -> Iterator[tuple[asyncio.Event, asyncio.Event]]:
    """Hold each batch before its commit. The first event says that it is written, the second one lets it commit."""
    written, go_on = asyncio.Event(), asyncio.Event()

    async def wait(point: Failpoint) -> None:
        if point is Failpoint.CAMPAIGN_WRITTEN:
            written.set()
            await go_on.wait()

    failpoints.arm(wait)
    try:
        yield written, go_on
    finally:
        failpoints.arm(None)


@pytest.mark.parametrize("first_batch", [len(EVERYONE), len(EVERYONE) + 1])
async def test_a_group_that_fits_one_batch_is_complete_when_it_is_created(
    host: Connection, pool: Pool, first_batch: int
) -> None:
    campaign = await create(host, pool, first_batch=first_batch)
    assert await targeted(host, campaign) == EVERYONE
    assert await targeting_progress(host, campaign) == (35, None, None)
    assert await campaigns.due(pool) == []


async def test_a_larger_group_is_targeted_batch_by_batch(host: Connection, pool: Pool, targeter: Targeter) -> None:
    campaign = await create(host, pool)
    assert await targeted(host, campaign) == device_names(1, 10)
    assert await targeting_progress(host, campaign) == (35, 10, "dev-00010")
    seen = await campaign_shown(pool, TENANT, campaign)
    assert (seen["total_devices"], seen["targeted_devices"], seen["status_breakdown"]["PENDING"]) == (35, 10, 10)
    [ref] = await campaigns.due(pool)
    assert (ref.campaign_id, ref.status) == (campaign, "CREATED")
    assert await targeter.target(ref) == 0
    assert await targeted(host, campaign) == EVERYONE
    assert await targeting_progress(host, campaign) == (35, None, None)
    assert await history(host, campaign) == [("created", 35), ("targeted", 35)]
    assert await counters_match_rows(pool, campaign)
    assert await campaigns.due(pool) == []
    assert await targeter.target(ref) == 0, "no work is left"
    assert len(await targeted(host, campaign)) == 35


async def test_targeting_ends_for_a_group_that_is_a_multiple_of_the_batch(host: Connection, pool: Pool) -> None:
    campaign = await create(host, pool, first_batch=7)
    await Targeter(pool, batch=7).target(campaign_ref(campaign))
    assert await targeted(host, campaign) == EVERYONE
    assert await targeting_progress(host, campaign) == (35, None, None)


async def test_many_workers_target_each_device_once(host: Connection, pool: Pool) -> None:
    more = device_names(36, 1000)
    await add_members(host, more)
    campaign = await create(host, pool)

    async def work() -> None:
        while await campaigns.due(pool):
            await Targeter(pool, batch=BATCH).target(campaign_ref(campaign))

    await asyncio.gather(*(work() for _ in range(4)))
    assert await targeted(host, campaign) == EVERYONE + more
    assert (await targeting_progress(host, campaign))[0] == 1000
    assert [event for event, _ in await history(host, campaign)] == ["created", "targeted"]


async def test_a_targeting_batch_that_was_rolled_back_is_repeated(
    host: Connection, pool: Pool, targeter: Targeter
) -> None:
    campaign = await create(host, pool)

    async def die(point: Failpoint) -> None:
        raise ConnectionResetError(point)

    failpoints.arm(die)
    try:
        with pytest.raises(ConnectionResetError):
            await targeter.target(campaign_ref(campaign))
    finally:
        failpoints.arm(None)
    assert await targeting_progress(host, campaign) == (35, 10, "dev-00010")
    await targeter.target(campaign_ref(campaign))
    assert await targeted(host, campaign) == EVERYONE


async def test_an_execution_that_a_host_inserted_is_left_unchanged(
    host: Connection, pool: Pool, targeter: Targeter
) -> None:
    campaign = await create(host, pool)
    await host.execute(
        "INSERT INTO ota_device_status (tenant_id, campaign_id, device_id, status, completed_at)"
        " VALUES ($1, $2, 'dev-00012', 'SKIPPED', now())",
        *(TENANT, campaign),
    )
    await targeter.target(campaign_ref(campaign))
    assert sorted(await targeted(host, campaign)) == EVERYONE
    assert await breakdown(host, campaign) == {"PENDING": 34, "SKIPPED": 1}
    assert await targeting_progress(host, campaign) == (35, None, None)


async def test_a_targeting_batch_does_not_block_a_host_that_writes_one_of_its_devices(
    host: Connection, pool: Pool, targeter: Targeter
) -> None:
    """The host then changes the campaign, whose row lock the batch holds. This must not deadlock."""
    campaign = await create(host, pool)
    async with host.transaction():
        await host.execute(
            "INSERT INTO ota_device_status (tenant_id, campaign_id, device_id) VALUES ($1, $2, 'dev-00012')",
            *(TENANT, campaign),
        )
        targeting = asyncio.create_task(targeter.target(campaign_ref(campaign)))
        await eventually(lambda: waits_for_a_lock(pool), what="the batch waits for the host's device")
        await host.execute("UPDATE ota_campaigns SET name = 'renamed' WHERE id = $1", campaign)
        assert await targeting == SOON_SECONDS
        assert await targeting_progress(host, campaign) == (35, 10, "dev-00010")
    assert await targeter.target(campaign_ref(campaign)) == 0
    assert sorted(await targeted(host, campaign)) == EVERYONE


@pytest.mark.usefixtures("listener_subscribed")
async def test_a_campaign_started_during_targeting_waits_until_it_is_targeted(
    host: Connection, pool: Pool, targeter: Targeter, broker: EmbeddedBroker
) -> None:
    campaign = await create(host, pool, rollout_strategy="canary", canary_percent=20.0)
    assert await start_campaign(pool, TENANT, campaign, actor="test") == "RUNNING"
    await host.execute("UPDATE ota_device_status SET status = 'SKIPPED', completed_at = now()")
    settings = Settings(MQTT_BROKER_URL=broker.url)
    async with CommandSession(Broker.from_url(broker.url)) as session:
        dispatch = make_dispatch(pool, session, settings)
        await Upkeep(pool, settings).look_after(campaign_ref(campaign))
        assert await campaign_row(host, campaign) == ("RUNNING", 0, 0), "all devices targeted so far have ended"
        await host.execute("UPDATE ota_device_status SET status = 'PENDING', completed_at = NULL")
        await dispatch.dispatch(campaign_ref(campaign))
        assert not await host.fetchval("SELECT sum(attempt) FROM ota_device_status")
        assert not await host.fetchval("SELECT count(*) FROM ota_campaign_waves")
        await targeter.target(campaign_ref(campaign))
        await dispatch.dispatch(campaign_ref(campaign))
    assert await breakdown(host, campaign) == {"DOWNLOADING": 7, "PENDING": 28}, (
        "a fifth of all devices, not of the first batch"
    )


async def test_workers_of_an_older_version_see_a_campaign_only_once_targeted(
    host: Connection, pool: Pool, targeter: Targeter
) -> None:
    """They ignore the mark of targeting: they would plan waves over the first batch, send it, and end the campaign."""
    campaign = await create(host, pool)
    assert await due_to_an_older_version(host) == []
    for move, status in ((start_campaign, "RUNNING"), (pause_campaign, "PAUSED"), (start_campaign, "RUNNING")):
        await move(pool, TENANT, campaign, actor="test")
        assert await due_to_an_older_version(host) == []
        assert [each.status for each in await campaigns.due(pool)] == [status]
    await targeter.target(campaign_ref(campaign))
    assert await due_to_an_older_version(host) == [(TENANT, campaign, "RUNNING")]
    aborted = await create(host, pool)
    await abort_campaign(pool, TENANT, aborted, actor="test")
    assert (TENANT, aborted, "ABORTED") in await due_to_an_older_version(host), "it may skip the rest"


async def due_to_an_older_version(host: Connection) -> list[tuple[object, ...]]:
    async with host.transaction():
        await host.execute("SET LOCAL ROLE pulse_app; SET LOCAL app.tenant_id = ''")
        return [tuple(row) for row in await host.fetch("SELECT * FROM rollwave_due_campaigns()")]


async def test_a_campaign_paused_during_targeting_is_targeted_to_the_end(
    host: Connection, pool: Pool, targeter: Targeter
) -> None:
    campaign = await create(host, pool)
    await start_campaign(pool, TENANT, campaign, actor="test")
    await pause_campaign(pool, TENANT, campaign, actor="test")
    await targeter.target(campaign_ref(campaign))
    assert await targeted(host, campaign) == EVERYONE
    assert await campaign_row(host, campaign) == ("PAUSED", 0, 0)


async def test_a_campaign_aborted_during_targeting_is_targeted_no_further(
    host: Connection, pool: Pool, targeter: Targeter
) -> None:
    campaign = await create(host, pool)
    with held_open() as (written, go_on):
        targeting = asyncio.create_task(targeter.target(campaign_ref(campaign)))
        await written.wait()
        aborting = asyncio.create_task(abort_campaign(pool, TENANT, campaign, actor="test"))
        await eventually(lambda: waits_for_a_lock(host), what="the abort waits for the batch")
        go_on.set()
        assert await aborting == "ABORTED"
        await targeting
    await targeter.target(campaign_ref(campaign))
    reached = len(await targeted(host, campaign))
    assert reached in {20, 30, 35}
    [ref] = await campaigns.due(pool)
    await skip_rest(pool, ref)
    await Upkeep(pool, Settings()).look_after(ref)
    assert await breakdown(host, campaign) == {"SKIPPED": reached}
    assert await campaigns.due(pool) == [], "settled"


async def waits_for_a_lock(host: Connection | Pool) -> bool:
    return bool(await host.fetchval("SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)"))


async def test_an_aborted_campaign_shows_how_many_devices_were_targeted(
    host: Connection, pool: Pool, targeter: Targeter
) -> None:
    campaign = await create(host, pool)
    await abort_campaign(pool, TENANT, campaign, actor="test")
    await targeter.target(campaign_ref(campaign))
    assert await targeted(host, campaign) == device_names(1, 10)
    seen = await campaign_shown(pool, TENANT, campaign)
    assert (seen["total_devices"], seen["targeted_devices"], seen["status_breakdown"]["SKIPPED"]) == (35, 10, 10)


async def test_devices_in_the_group_throughout_are_targeted(host: Connection, pool: Pool, targeter: Targeter) -> None:
    campaign = await create(host, pool)
    joined = ["dev-00001x", "dev-00034x", "dev-00034y", "dev-00034z"]
    await add_members(host, joined)
    await host.execute("DELETE FROM device_group_members WHERE device_id IN ('dev-00002', 'dev-00020')")
    await targeter.target(campaign_ref(campaign))
    found = await targeted(host, campaign)
    stayed = set(EVERYONE) - {"dev-00002", "dev-00020"}
    assert stayed <= set(found) <= {*EVERYONE, *joined}
    assert len(found) == len(set(found)) == (await targeting_progress(host, campaign))[0]


async def test_emptying_the_group_during_targeting_ends_it(host: Connection, pool: Pool, targeter: Targeter) -> None:
    campaign = await create(host, pool)
    await host.execute("DELETE FROM device_group_members")
    await host.execute("DELETE FROM device_groups")
    await targeter.target(campaign_ref(campaign))
    assert await targeting_progress(host, campaign) == (10, None, None)


async def test_devices_of_another_type_are_skipped_in_every_batch(
    host: Connection, pool: Pool, targeter: Targeter
) -> None:
    pumps = ["pump-1", "pump-2"]
    await add_members(host, pumps, kind="pump")
    campaign = await create(host, pool, fits="pump")
    await targeter.target(campaign_ref(campaign))
    assert await targeted(host, campaign) == EVERYONE + pumps
    assert await breakdown(host, campaign) == {"SKIPPED": 35, "PENDING": 2}
    assert await counters_match_rows(pool, campaign)
    why = "SELECT DISTINCT error_message FROM ota_device_status WHERE status = 'SKIPPED' AND completed_at IS NOT NULL"
    assert await host.fetchval(why) == "device type gateway does not match the firmware's, pump"
    await host.execute("UPDATE devices SET device_type = NULL WHERE device_id = 'dev-00035'")
    assert (await targeter_of_all(host, pool, fits="pump")) == {"SKIPPED": 34, "PENDING": 3}


async def targeter_of_all(host: Connection, pool: Pool, *, fits: str) -> dict[str, int]:
    campaign = await create(host, pool, fits=fits)
    await Targeter(pool, batch=BATCH).target(campaign_ref(campaign))
    return await breakdown(host, campaign)


async def test_a_large_group_without_a_matching_device_is_a_conflict(host: Connection, pool: Pool) -> None:
    with pytest.raises(Conflict, match="no device that this firmware fits"):
        await create(host, pool, fits="pump")
    assert not await host.fetchval("SELECT count(*) FROM ota_campaigns")
    assert not await host.fetchval("SELECT count(*) FROM ota_device_status")


async def test_searching_a_large_group_for_matching_devices_may_take_long(host: Connection, database: str) -> None:
    """The wait at the last device stands for a search of millions, longer than the timeout of other statements."""
    await host.execute("""
        CREATE FUNCTION takes_long() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN
            ASSERT current_setting('statement_timeout')::interval > '5 min', 'cancelled';
            RETURN pg_sleep(2.3) IS NOT NULL;
        END $$;
        CREATE POLICY last_takes_long ON devices AS RESTRICTIVE USING (device_id <> 'dev-00035' OR takes_long());
    """)
    async with asyncpg.create_pool(database, min_size=0, command_timeout=2) as hurried:
        with pytest.raises(Conflict, match="no device that this firmware fits"):
            await create(host, hurried, fits="pump")


async def test_an_idempotency_key_reused_during_targeting_names_the_same_campaign(host: Connection, pool: Pool) -> None:
    campaign = await create(host, pool)
    row = await host.fetchrow("SELECT firmware_version_id FROM ota_campaigns")
    assert row
    new = NewCampaign("keyed", row["firmware_version_id"], "all")
    asked = [create_campaign(pool, TENANT, new, actor="test", idempotency_key="k", first_batch=BATCH) for _ in range(4)]
    assert len({campaign, *await asyncio.gather(*asked)}) == 2
    assert await host.fetchval("SELECT count(*) FROM ota_device_status") == 2 * BATCH


async def test_a_worker_finishes_targeting_and_the_campaign(
    host: Connection, database: str, pool: Pool, broker: EmbeddedBroker, tmp_path: Path
) -> None:
    campaign = await create(host, pool)
    await start_campaign(pool, TENANT, campaign, actor="test")
    async with devices(broker.url, always_succeeds) as fleet, worker(database, broker.url, tmp_path / "log") as running:
        await wait_until_ended(host, campaign)
        assert sorted(each.device for each in fleet.commands) == EVERYONE
        [ref] = await eventually(lambda: events(running, "ota_campaign_targeted"))
    assert (ref["campaign_id"], ref["tenant_id"], ref["devices"]) == (campaign, TENANT, 35)
    assert ref["seconds"] > 0


async def test_targeting_does_not_delay_other_campaigns(
    host: Connection, database: str, pool: Pool, broker: EmbeddedBroker, tmp_path: Path
) -> None:
    large = await create(host, pool)
    async with devices(broker.url, always_succeeds), AsyncExitStack() as held:
        await held.enter_async_context(targeting_held_after_first_batch(database))
        async with worker(database, broker.url, tmp_path / "log"):
            await wait_until_ended(host, await insert_campaign(host, 20, rollout_rate=100))
            assert await targeting_progress(host, large) == (35, BATCH, EVERYONE[BATCH - 1])
            await held.aclose()
            await eventually(lambda: is_targeted(host, large), timeout=30, what="targeted")


async def is_targeted(host: Connection, campaign: int) -> bool:
    return (await targeting_progress(host, campaign))[1] is None


async def test_a_hosts_own_tick_targets_too(
    host: Connection, pool: Pool, broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MQTT_BROKER_URL", broker.url)
    campaign = await create(host, pool)
    await run_ota_campaign_tick(pool)
    assert await targeted(host, campaign) == EVERYONE
    assert await campaign_row(host, campaign) == ("CREATED", 0, 0)


@on_both
async def test_a_targeting_batch_costs_the_same_at_any_position(host: Connection) -> None:
    """The position is in the index condition, members are not sorted, and each device's type is looked up."""
    # Unknown statistics stay unknown until ANALYZE.
    await host.execute("ALTER TABLE device_group_members SET (autovacuum_enabled = off)")
    await add_members(host, device_names(100, 20_000))
    for name in ("half", "third"):
        await host.execute("INSERT INTO device_groups (tenant_id, group_id) VALUES ($1, $2)", TENANT, name)
        await host.execute(
            "INSERT INTO device_group_members (tenant_id, group_id, device_id)"
            " SELECT tenant_id, $1, device_id FROM devices",
            name,
        )
    await host.execute(f"PREPARE batch (text, bigint, text, text, text, int) AS {load('targets')['insert']}")
    for known, plans in itertools.product(("SELECT 1", "ANALYZE"), ("force_generic_plan", "force_custom_plan")):
        await host.execute(known)
        async with host.transaction():
            await host.execute("SET LOCAL ROLE pulse_app; SET LOCAL app.tenant_id = 'north'")
            await host.execute(f"SET LOCAL plan_cache_mode = {plans}")
            rows = await host.fetch("EXPLAIN EXECUTE batch ('north', 7, 'all', 'gateway', 'dev-00500', 1000)")
        plan = "\n".join(row[0] for row in rows)
        assert "Seq Scan" not in plan, plan
        batch = plan[: plan.index("CTE targeted")]
        assert "Sort" not in batch, plan
        assert re.search(r"Index Cond: .*group_id = .* AND \(device_id >= ", batch), plan
