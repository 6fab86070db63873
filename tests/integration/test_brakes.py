"""Halts and freezes stop all sending of a tenant, are written to history, and let deadlines stand still."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest

from rollwave.domain.campaign import CampaignRef
from rollwave.domain.ids import DeviceId, TenantId
from rollwave.domain.policy.words import GateName
from rollwave.engine.dispatch.resend import Resender
from rollwave.engine.dispatch.session import CommandSession
from rollwave.engine.explain import explain_device, waiting_devices
from rollwave.engine.upkeep.counters import Counters
from rollwave.engine.upkeep.look import Upkeep
from rollwave.errors import Conflict, InvalidInput, NotFound
from rollwave.mqtt.broker import Broker
from rollwave.mqtt.payload import NOTHING_TO_DO
from rollwave.settings import Settings
from rollwave.store import brakes
from rollwave.store.database import Pool
from tests.engine import (
    TENANT,
    Connection,
    breakdown,
    campaign_ref,
    campaign_shown,
    connect,
    device_row,
    devices,
    insert_campaign,
    make_claims,
    make_dispatch,
    mark_sent,
    worker,
)
from tests.in_process import long_subscribed_listener, move_times_back
from tests.integration.test_resend import collected
from tests.proxy import proxy
from tests.servers import Mosquitto
from tests.support import end, eventually, rollwave

SETTINGS = Settings()
HOUR = timedelta(hours=1)


@pytest.fixture
async def host(database: str) -> AsyncIterator[Connection]:
    async with connect(database) as connection:
        yield connection


@pytest.fixture
async def listener_subscribed(pool: Pool, host: Connection) -> AsyncIterator[None]:
    """A listener that has been subscribed for long."""
    async with long_subscribed_listener(pool, host):
        yield


async def freeze(pool: Pool, name: str = "launch", *, start: float = -1, end: float = 1) -> None:
    now = datetime.now(UTC)
    await brakes.add_freeze(
        pool, TENANT, name, now + start * HOUR, now + end * HOUR, actor="key-1", reason="the launch"
    )


async def halt(pool: Pool) -> None:
    await brakes.halt(pool, TENANT, actor="key-1", reason="bricked devices")


async def audit(host: Connection) -> list[tuple[str, str, str, str | None]]:
    rows = await host.fetch("SELECT kind, change, actor, reason FROM rollwave_brake_history ORDER BY id")
    return [tuple(row) for row in rows]


async def history(host: Connection, campaign: int) -> list[tuple[str, str]]:
    rows = await host.fetch(
        "SELECT event, actor FROM ota_campaign_history WHERE campaign_id = $1 AND event LIKE 'sending%' ORDER BY id",
        campaign,
    )
    return [tuple(row) for row in rows]


@pytest.mark.usefixtures("listener_subscribed")
@pytest.mark.parametrize(("brake", "gate"), [(halt, GateName.HALTED), (freeze, GateName.FREEZE)])
async def test_a_claim_takes_nothing_and_every_device_is_explained(
    pool: Pool, host: Connection, brake: object, gate: GateName
) -> None:
    campaign = await insert_campaign(host, 3)
    south = await insert_campaign(host, 3, tenant="south")
    await Counters(pool, SETTINGS).count(campaign_ref(campaign))
    assert callable(brake)
    await brake(pool)
    assert not (await make_claims(pool, SETTINGS).claim(campaign_ref(campaign))).commands
    waiting = await waiting_devices(pool, SETTINGS, TENANT, campaign)
    assert [(each.verdict.gate, each.devices) for each in waiting.waiting] == [(gate, 3)]
    found = await explain_device(pool, SETTINGS, TENANT, campaign, "dev-1")
    assert [each.gate for each in found.checks if not each.open] == [gate]
    [shown] = (await campaign_shown(pool, TENANT, campaign))["stopped_by"]
    assert (shown["kind"], shown["by"]) == (gate.value.replace("halted", "halt"), "key-1")
    others = await make_claims(pool, SETTINGS).claim(campaign_ref(south, "south"))
    assert len(others.commands) == 3, "another tenant sends on"


async def test_workers_of_an_earlier_version_leave_alone_what_they_do_not_know(pool: Pool, host: Connection) -> None:
    """They do not know documents, halts and freezes, and ask for the campaigns that are due by an earlier function."""
    await insert_campaign(host, 1)
    await insert_campaign(host, 1, policy_revision=1)
    await insert_campaign(host, 1, tenant="south")

    async def due(function: str) -> list[str]:
        return [row["tenant_id"] for row in await host.fetch(f"SELECT tenant_id FROM {function}() ORDER BY 1")]

    await freeze(pool, "later", start=1, end=2)
    assert await due("rollwave_due_campaigns_3") == ["north", "south"]
    for brake, lift in ((halt, brakes.lift), (freeze, partial(brakes.remove_freeze, name="launch"))):
        await brake(pool)
        assert await due("rollwave_due_campaigns_3") == ["south"]
        assert await due("rollwave_due_campaigns_4") == ["north", "north", "south"]
        await lift(pool, TENANT, actor="key-1")
    assert await due("rollwave_due_campaigns_3") == ["north", "south"]


@pytest.mark.usefixtures("listener_subscribed")
async def test_each_change_is_audited_and_shown_in_the_history_of_the_campaigns_that_it_stops(
    pool: Pool, host: Connection
) -> None:
    campaign = await insert_campaign(host, 3)
    paused = await insert_campaign(host, 3, status="PAUSED")
    upkeep = Upkeep(pool, SETTINGS)
    await halt(pool)
    await halt(pool)
    await freeze(pool)
    await freeze(pool, "later", start=1, end=2)
    for _ in range(2):
        await upkeep.look_after(campaign_ref(campaign))
        await upkeep.look_after(campaign_ref(paused))
    assert await brakes.lift(pool, TENANT, actor="key-2", reason="fixed")
    assert not await brakes.lift(pool, TENANT, actor="key-2")
    await upkeep.look_after(campaign_ref(campaign))
    await host.execute("UPDATE rollwave_brakes SET ends_at = now() WHERE name = 'launch'")
    await upkeep.look_after(campaign_ref(campaign))
    assert await audit(host) == [
        ("halt", "set", "key-1", "bricked devices"),
        ("freeze", "set", "key-1", "the launch"),
        ("freeze", "set", "key-1", "the launch"),
        ("halt", "lifted", "key-2", "fixed"),
    ]
    assert await history(host, campaign) == [
        ("sending_stopped", "key-1"),
        ("sending_stopped", "key-1"),
        ("sending_resumed", "key-2"),
        ("sending_resumed", "engine"),
    ]
    assert await history(host, paused) == [], "it sends nothing anyway"


async def test_what_a_freeze_must_be(pool: Pool, host: Connection) -> None:
    await insert_campaign(host, 1)
    with pytest.raises(InvalidInput, match="after start"):
        await freeze(pool, start=1, end=1)
    with pytest.raises(InvalidInput, match="over already"):
        await freeze(pool, start=-2, end=-1)
    await freeze(pool)
    with pytest.raises(Conflict, match="there is a freeze launch"):
        await freeze(pool)
    listed = await brakes.freezes(pool, TENANT, limit=10)
    assert [(row["name"], row["in_force"]) for row in listed.rows] == [("launch", True)]
    await brakes.remove_freeze(pool, TENANT, "launch", actor="key-2")
    with pytest.raises(NotFound):
        await brakes.remove_freeze(pool, TENANT, "launch", actor="key-2")


@pytest.mark.usefixtures("listener_subscribed")
async def test_deadlines_stand_still_and_then_every_device_has_its_progress_timeout(
    pool: Pool, host: Connection
) -> None:
    upkeep = Upkeep(pool, SETTINGS)
    campaign = await insert_campaign(host, 2, progress_timeout=1800, device_timeout=7200.0, max_attempts=5)
    await mark_sent(host, campaign, ["dev-1"])
    await host.execute("UPDATE ota_device_status SET due_at = now() + interval '30 minutes' WHERE due_at IS NOT NULL")
    await upkeep.look_after(campaign_ref(campaign))
    await move_times_back(host, campaign, 1799, looked_at=True)
    await halt(pool)
    await upkeep.look_after(campaign_ref(campaign))
    await move_times_back(host, campaign, 86_400)
    await upkeep.look_after(campaign_ref(campaign))
    await brakes.lift(pool, TENANT, actor="key-1")
    for _ in range(2):
        await upkeep.look_after(campaign_ref(campaign))
    assert (await device_row(host, campaign, "dev-1"))["failed_attempt"] == 0

    async def failed_attempts_after(seconds: float) -> int:
        await move_times_back(host, campaign, seconds, looked_at=True)
        await host.execute(
            "UPDATE ota_campaigns SET deadlines_from = deadlines_from - make_interval(secs => $1)", float(seconds)
        )
        await upkeep.look_after(campaign_ref(campaign))
        return int((await device_row(host, campaign, "dev-1"))["failed_attempt"])

    assert await failed_attempts_after(1700) == 0, "a second was left before, and it has half an hour"
    assert await failed_attempts_after(101) == 1
    assert (await device_row(host, campaign, "dev-1"))["failed_reason"] == "no_answer", "the day does not count"


@pytest.mark.usefixtures("listener_subscribed")
async def test_a_device_that_asks_gets_no_command_during_a_halt(
    pool: Pool, host: Connection, mosquitto: Mosquitto
) -> None:
    campaign = await insert_campaign(host, 1)
    await mark_sent(host, campaign, ["dev-1"])
    await host.execute("UPDATE ota_campaigns SET command = '{\"campaign_id\": 1}'")
    resender = Resender(pool, Settings(MQTT_BROKER_URL=mosquitto.url))
    answering = asyncio.create_task(resender.run())
    try:
        async with collected(mosquitto) as received:
            await halt(pool)
            resender.ask(TenantId(TENANT), DeviceId("dev-1"))
            await eventually(lambda: len(received) == 1, what="answered")
            assert received[0].payload == NOTHING_TO_DO
            await brakes.lift(pool, TENANT, actor="key-1")
            resender.ask(TenantId(TENANT), DeviceId("dev-1"))
            await eventually(lambda: len(received) == 2, what="answered")
            assert received[1].payload != NOTHING_TO_DO
    finally:
        await end(answering)


@pytest.mark.usefixtures("listener_subscribed")
async def test_a_halt_after_the_claim_stops_also_the_first_half_batch(
    pool: Pool, host: Connection, mosquitto: Mosquitto
) -> None:
    campaign = await insert_campaign(host, 20, rollout_rate=1000)
    async with CommandSession(Broker.from_url(mosquitto.url)) as session, collected(mosquitto) as received:
        dispatch = make_dispatch(pool, session, Settings(ROLLWAVE_CLAIM_BATCH=10))
        asked = dispatch.still_runs

        async def halted_first(ref: CampaignRef) -> bool:
            await halt(pool)
            return await asked(ref)

        dispatching = make_dispatch(pool, session, Settings(ROLLWAVE_CLAIM_BATCH=10), still_runs=halted_first)
        await dispatching.dispatch(campaign_ref(campaign))
        assert received == []
    assert await breakdown(host, campaign) == {"PENDING": 20}
    leases = "SELECT count(*) FROM ota_device_status WHERE due_at > now()"
    assert await host.fetchval(leases) == 0, "what was claimed is released"


async def test_a_halt_stops_commands_that_wait_in_the_sessions_queue_within_a_second(
    pool: Pool, host: Connection, database: str, tmp_path: Path, mosquitto: Mosquitto
) -> None:
    """A worker sends batches of 1,000 through a link on which each packet takes 0.05 s, so a batch takes long."""
    campaign = await insert_campaign(host, 3000, rollout_rate=3000)
    async with proxy(mosquitto.url) as link, devices(mosquitto.url) as fleet:
        link.delay = 0.05
        env = {"OTA_TICK_INTERVAL": "1"}
        async with worker(database, link.url, tmp_path / "worker.log", **env):
            await eventually(lambda: len(fleet.commands_of(campaign)) > 100, what="it sends")
            await halt(pool)
            halted_at = time.monotonic()
            number = len(fleet.commands_of(campaign))
            await eventually(lambda: released(host), what="what was not sent is released")
            last = max(each.at for each in fleet.commands_of(campaign))
            assert last - halted_at < 1.0
            sent = len(fleet.commands_of(campaign))
            assert sent < 3000
            await brakes.lift(pool, TENANT, actor="key-1")
            lifted_at = time.monotonic()
            await eventually(lambda: len(fleet.commands_of(campaign)) > sent, what="it sends again")
            first = min(each.at for each in fleet.commands_of(campaign)[sent:])
            print(
                f"{number} before, {sent - number} after, last {last - halted_at:.3f} s after the halt,"
                f" first {first - lifted_at:.3f} s after it was lifted"
            )


async def released(host: Connection) -> bool:
    claimed = "SELECT count(*) FROM ota_device_status WHERE status = 'PENDING' AND attempt > 0 AND due_at > now()"
    return not await host.fetchval(claimed)


async def test_a_halt_of_all_tenants_goes_on_after_an_error(host: Connection, database: str) -> None:
    for tenant in ("east", "north", "south"):
        await insert_campaign(host, 1, tenant=tenant)
    await host.execute("ALTER TABLE rollwave_brakes ADD CONSTRAINT not_east CHECK (tenant_id <> 'east')")
    done = await asyncio.to_thread(
        rollwave, "halt", "--all", "--reason", "bricked devices", env={"DATABASE_URL": database}
    )
    assert (done.returncode, done.stdout) == (1, "sending is halted for 2 tenants\n")
    assert done.stderr.startswith("Error: not halted for east: "), done.stderr
    halted = await host.fetch("SELECT tenant_id FROM rollwave_brakes ORDER BY 1")
    assert [row["tenant_id"] for row in halted] == ["north", "south"]
