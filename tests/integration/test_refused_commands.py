"""A broker that refuses all commands, or those to some devices."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from rollwave.engine.dispatch.session import CommandSession
from rollwave.mqtt.broker import Broker
from rollwave.settings import Settings
from rollwave.store.database import Pool
from tests.engine import (
    Connection,
    always_succeeds,
    breakdown,
    campaign_ref,
    campaign_row,
    connect,
    device_row,
    devices,
    events,
    insert_campaign,
    make_dispatch,
    wait_for_ticks,
    wait_until_ended,
    worker,
)
from tests.in_process import running_ticker
from tests.servers import Mosquitto
from tests.support import eventually

REFUSED = ("dev-1", "dev-2")
ALLOW_ALL = "topic readwrite #\n"
REFUSE_COMMANDS = "topic read #\ntopic write tenant/+/device/+/ota/status\n"


@pytest.fixture
async def host(database: str) -> AsyncIterator[Connection]:
    async with connect(database) as connection:
        yield connection


@pytest.fixture
def refusing(tmp_path: Path) -> Iterator[Mosquitto]:
    """A broker that refuses commands to some devices."""
    denied = "".join(f"topic deny tenant/+/device/{device}/ota\n" for device in REFUSED)
    (tmp_path / "acl").write_text(f"topic readwrite #\n{denied}")
    with Mosquitto(tmp_path, config=f"acl_file {tmp_path}/acl\n") as broker:
        yield broker


@pytest.fixture
def guarded(mosquitto: Mosquitto, tmp_path: Path) -> Mosquitto:
    """A broker whose ACL a test may change while it runs.

    Only for tests that need an ACL: with one, Mosquitto 2.0.11 queues nothing for a session restored after a restart.
    """
    (tmp_path / "acl").write_text(ALLOW_ALL)
    mosquitto.stop()
    with (tmp_path / "mosquitto.conf").open("a") as config:
        config.write(f"acl_file {tmp_path}/acl\n")
    mosquitto.start()
    return mosquitto


def allow(broker: Mosquitto, acl: str) -> None:
    """Make a running broker use another ACL."""
    (broker.log.parent / "acl").write_text(acl)
    broker.reload()


async def test_a_broker_that_refuses_every_command_fails_no_device(
    database: str, host: Connection, guarded: Mosquitto, tmp_path: Path
) -> None:
    allow(guarded, REFUSE_COMMANDS)
    async with devices(guarded.url, always_succeeds) as fleet, worker(database, guarded.url, tmp_path / "log") as it:
        campaign = await insert_campaign(host, 25)
        await wait_for_ticks(it)
        await eventually(lambda: events(it, "ota_mqtt_publish_failed"), what="the refusal is logged")
        assert await breakdown(host, campaign) == {"PENDING": 25}
        assert not await host.fetchval("SELECT count(*) FROM ota_device_status WHERE started_at IS NOT NULL")
        allow(guarded, ALLOW_ALL)
        await wait_until_ended(host, campaign)
        assert {command.attempt for command in fleet.commands} == {1}
        assert set(fleet.times_sent(campaign).values()) == {1}
    assert await campaign_row(host, campaign) == ("COMPLETED", 25, 0)


@pytest.mark.usefixtures("listener_subscribed")
async def test_sending_stops_early_when_the_broker_refuses_whole_batches(
    pool: Pool, host: Connection, guarded: Mosquitto
) -> None:
    allow(guarded, REFUSE_COMMANDS)
    campaign = await insert_campaign(host, 40, rollout_rate=1000)
    async with CommandSession(Broker.from_url(guarded.url)) as session:
        await make_dispatch(pool, session, Settings(ROLLWAVE_CLAIM_BATCH=4)).dispatch(campaign_ref(campaign))
    refused = await host.fetchval("SELECT count(*) FROM ota_device_status WHERE refusals > 0")
    assert 4 <= refused <= 12, "the turn ends soon"
    leases = "SELECT count(*) FROM ota_device_status WHERE refusals = 0 AND due_at > now()"
    assert await host.fetchval(leases) == 0, "devices claimed ahead are released"


async def test_devices_whose_commands_are_refused_do_not_delay_the_others(
    database: str, host: Connection, guarded: Mosquitto, tmp_path: Path
) -> None:
    refused = [f"dev-{number}" for number in range(1, 6)]
    allow(guarded, ALLOW_ALL + "".join(f"topic deny tenant/north/device/{device}/ota\n" for device in refused))
    async with devices(guarded.url, always_succeeds), worker(database, guarded.url, tmp_path / "log"):
        campaign = await insert_campaign(host, 20, rollout_rate=5)

        async def others_are_done() -> bool:
            return await breakdown(host, campaign) == {"PENDING": 5, "SUCCESS": 15}

        await eventually(others_are_done, timeout=15, what="the others are done")
        assert await campaign_row(host, campaign) == ("RUNNING", 15, 0)
        assert (await device_row(host, campaign, "dev-1"))["started_at"] is None
        allow(guarded, ALLOW_ALL)
        await wait_until_ended(host, campaign)


@pytest.mark.usefixtures("listener_subscribed")
async def test_refused_devices_wait_longer_each_time_and_delay_no_others(
    pool: Pool, host: Connection, refusing: Mosquitto
) -> None:
    campaign = await insert_campaign(host, 12, rollout_rate=2)
    others_sent_after: list[int] = []
    deadlines: dict[int, float] = {}
    async with running_ticker(pool, refusing.url, 0.1) as ticker:
        for number in range(1, 100):
            await asyncio.sleep(max(0.1, await ticker.tick(quietly=True)))
            found = await breakdown(host, campaign)
            if found == {"PENDING": 2, "DOWNLOADING": 10}:
                others_sent_after.append(number)
            row = await device_row(host, campaign, "dev-2")
            deadlines[row["refusals"]] = row["due_at"].timestamp()
            if row["refusals"] >= 5 and others_sent_after:
                break
    assert others_sent_after[0] <= 14, "five ticks for ten devices, plus some for turns that refused devices took"
    for device in REFUSED:
        row = await device_row(host, campaign, device)
        assert (row["status"], row["attempt"], row["sent_attempt"]) == ("PENDING", 1, 0)
    for number in (2, 3, 4, 5):
        # A device is refused again only after its delay, and then waits twice as long.
        assert deadlines[number] - deadlines[number - 1] >= 0.1 * 2 ** (number - 1)
