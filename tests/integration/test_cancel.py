"""A cancelled campaign is aborted, and its devices in progress are told so: at least once, past every gate."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from rollwave.embedded.broker import EmbeddedBroker
from rollwave.engine import failpoints, operations
from rollwave.engine.dispatch.cancel import DEVICES_PER_BATCH, SECONDS_PER_BATCH, Cancels
from rollwave.engine.dispatch.permission import ASK_AGAIN_SECONDS
from rollwave.engine.dispatch.session import CommandSession
from rollwave.engine.failpoints import Failpoint
from rollwave.engine.stop import skip_rest
from rollwave.errors import Conflict
from rollwave.fleet import Fleet, FleetPlan
from rollwave.mqtt.broker import Broker
from rollwave.mqtt.client import Session
from rollwave.mqtt.payload import NOTHING_TO_DO
from rollwave.settings import Settings
from rollwave.store import brakes
from rollwave.store.database import Pool
from tests.api import calling
from tests.engine import (
    TENANT,
    Connection,
    breakdown,
    campaign_ref,
    campaign_row,
    connect,
    insert_campaign,
    mark_sent,
    wait_until_ended,
    worker,
)
from tests.integration.test_engine_end_to_end import running
from tests.integration.test_resend import ask, collected
from tests.proxy import Do, proxy, publishing
from tests.servers import Mosquitto
from tests.support import eventually


@pytest.fixture
async def host(database: str) -> AsyncIterator[Connection]:
    async with connect(database) as connection:
        yield connection


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    yield
    failpoints.arm(None)


async def cancel(pool: Pool, campaign: int) -> None:
    await operations.cancel_campaign(pool, TENANT, campaign, actor="a key", reason="no")


async def in_progress(host: Connection, devices: int) -> int:
    """A campaign of which all devices were sent to just now."""
    campaign = await insert_campaign(host, devices)
    await mark_sent(host, campaign, [f"dev-{number}" for number in range(1, devices + 1)])
    return campaign


async def told(host: Connection, campaign: int) -> int:
    query = "SELECT count(*) FROM ota_device_status WHERE campaign_id = $1 AND cancel_sent_at IS NOT NULL"
    number: int = await host.fetchval(query, campaign)
    return number


def body(campaign: int) -> bytes:
    return b'{"action": "cancel", "campaign_id": %d}' % campaign


async def test_devices_in_progress_are_told_and_the_others_are_skipped(
    pool: Pool, host: Connection, broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MQTT_BROKER_URL", broker.url)
    monkeypatch.setenv("OTA_TICK_INTERVAL", "0.2")
    campaign = await insert_campaign(host, 30, max_in_flight=20, rollout_rate=20)
    plan = FleetPlan(TENANT, [f"dev-{number}" for number in range(1, 31)], download=False, step_delay=600)
    async with running(pool), collected(broker) as messages, Fleet(Broker.from_url(broker.url), plan) as fleet:
        await fleet.ready

        async def download() -> bool:
            return await breakdown(host, campaign) == {"DOWNLOADING": 20, "PENDING": 10}

        await eventually(download, what="20 devices download")
        async with calling(pool) as client:
            path = f"/ota/campaigns/{campaign}"
            for _ in range(2):
                answer = await client.post(f"{path}/cancel", json={"reason": "battery drain"})
                assert (answer.status_code, answer.json()) == (200, {"id": campaign, "status": "ABORTED"})
            await wait_until_ended(host, campaign, "ABORTED")
            found = (await client.get(f"{path}/events")).json()["events"]
            assert (await client.get(path)).json()["cancelled_at"]
        async with Session.connect(Broker.from_url(broker.url)) as session:
            await ask(session, "dev-1")
            await eventually(lambda: messages[-1].payload == NOTHING_TO_DO, what="it has nothing to do")
    assert await breakdown(host, campaign) == {"FAILED": 20, "SKIPPED": 10}
    assert await campaign_row(host, campaign) == ("ABORTED", 0, 20)
    cancels = [each for each in messages if json.loads(each.payload)["action"] == "cancel"]
    assert {each.payload for each in cancels} == {body(campaign)}
    assert len({each.topic for each in cancels}) == len(cancels) == 20, "each once, since each was acknowledged"
    assert not any(each.retain for each in cancels)
    reasons = await host.fetch(
        "SELECT DISTINCT error_message, error_code FROM ota_device_status WHERE status = 'FAILED'"
    )
    assert [tuple(row) for row in reasons] == [("the campaign was cancelled", "CANCELLED")]
    assert [(each["event"], each["detail"]) for each in found if each["device_id"] is None] == [
        ("aborted", {"from": "RUNNING", "to": "ABORTED", "reason": "battery drain"}),
        ("cancelled", {"devices": 20, "reason": "battery drain"}),
    ]


async def test_an_aborted_campaign_is_cancelled_too_and_a_completed_one_is_not(
    pool: Pool, host: Connection, broker: EmbeddedBroker
) -> None:
    campaign = await in_progress(host, 2)
    await operations.abort_campaign(pool, TENANT, campaign, actor="a key")
    settings = Settings(MQTT_BROKER_URL=broker.url)
    async with collected(broker) as messages, CommandSession(Broker.from_url(broker.url)) as session:
        cancels = Cancels(pool, session, settings)
        await cancels.tell(campaign_ref(campaign))
        await cancel(pool, campaign)
        await cancels.tell(campaign_ref(campaign))
        await eventually(lambda: len(messages) == 2)
        await cancel(pool, campaign)
        assert await cancels.tell(campaign_ref(campaign)) == float("inf"), "silent devices are not told again"
    assert {each.payload for each in messages} == {body(campaign)}
    await host.execute("UPDATE ota_campaigns SET status = 'COMPLETED' WHERE id = $1", campaign)
    with pytest.raises(Conflict, match="Cannot abort campaign"):
        await cancel(pool, campaign)


async def test_a_device_is_told_after_the_worker_that_was_sending_to_it(
    pool: Pool, host: Connection, broker: EmbeddedBroker
) -> None:
    """The update may be with the broker, although no acknowledgement was recorded."""
    campaign = await insert_campaign(host, 1)
    lease = "UPDATE ota_device_status SET attempt = 1, due_at = now() + $2 * interval '1 s' WHERE campaign_id = $1"
    await host.execute(lease, campaign, 60)
    await cancel(pool, campaign)
    async with collected(broker) as messages, CommandSession(Broker.from_url(broker.url)) as session:
        cancels = Cancels(pool, session, Settings(MQTT_BROKER_URL=broker.url))
        assert 1 < await cancels.tell(campaign_ref(campaign)) <= 60
        await host.execute(lease, campaign, -1)
        assert await skip_rest(pool, campaign_ref(campaign))
        assert await breakdown(host, campaign) == {"PENDING": 1}
        await cancels.tell(campaign_ref(campaign))
        await eventually(lambda: [each.payload for each in messages] == [body(campaign)])
    assert await skip_rest(pool, campaign_ref(campaign))
    assert await breakdown(host, campaign) == {"SKIPPED": 1}


@pytest.mark.parametrize("point", [Failpoint.CLAIMED, Failpoint.PUBLISHED, Failpoint.MARK_WRITTEN])
async def test_a_worker_that_dies_is_followed_by_another_when_its_lease_ends(
    pool: Pool, host: Connection, broker: EmbeddedBroker, point: Failpoint
) -> None:
    campaign = await in_progress(host, 5)
    await cancel(pool, campaign)
    settings = Settings(MQTT_BROKER_URL=broker.url, ROLLWAVE_LEASE=1)
    died: list[Failpoint] = []

    async def die(reached: Failpoint) -> None:
        if reached is point and not died:
            died.append(reached)
            raise KeyboardInterrupt

    failpoints.arm(die)
    async with collected(broker) as messages, CommandSession(Broker.from_url(broker.url)) as session:
        with pytest.raises(KeyboardInterrupt):
            await Cancels(pool, session, settings).tell(campaign_ref(campaign))
        assert await told(host, campaign) == 0
        async with CommandSession(Broker.from_url(broker.url)) as other:
            after = Cancels(pool, other, settings)

            async def all_told() -> bool:
                await after.tell(campaign_ref(campaign))
                return await told(host, campaign) == 5

            await eventually(all_told)
        await eventually(lambda: len({each.topic for each in messages}) == 5)


async def test_the_rate_holds_and_an_outage_of_the_broker_delays_the_rest(
    pool: Pool, host: Connection, broker: EmbeddedBroker
) -> None:
    devices = 2 * DEVICES_PER_BATCH + 1
    campaign = await in_progress(host, devices)
    await cancel(pool, campaign)
    async with proxy(broker.url) as broken, collected(broker) as messages:
        settings = Settings(MQTT_BROKER_URL=broken.url, ROLLWAVE_PUBLISH_TIMEOUT=1)
        async with CommandSession(Broker.from_url(broken.url)) as session:
            cancels = Cancels(pool, session, settings)
            broken.rules.append(
                lambda packet: (
                    Do.RESET if publishing(lambda _: len(messages) >= DEVICES_PER_BATCH, Do.RESET)(packet) else None
                )
            )
            await cancels.tell(campaign_ref(campaign))
            broken.refusing = True
            assert DEVICES_PER_BATCH <= await told(host, campaign) < devices
            assert await cancels.tell(campaign_ref(campaign)) == 1.0, "nothing is claimed meanwhile"
            broken.refusing = False
            broken.rules.clear()
            begun, before = time.monotonic(), await told(host, campaign)

            async def all_told() -> bool:
                await cancels.tell(campaign_ref(campaign))
                return await told(host, campaign) == devices

            await eventually(all_told)
            batches = -(-(devices - before) // DEVICES_PER_BATCH)
            assert time.monotonic() - begun >= (batches - 1) * SECONDS_PER_BATCH
        await eventually(lambda: len({each.topic for each in messages}) == devices)


async def test_a_killed_worker_is_followed_by_another(
    pool: Pool, host: Connection, database: str, mosquitto: Mosquitto, tmp_path: Path
) -> None:
    devices = 3 * DEVICES_PER_BATCH
    campaign = await in_progress(host, devices)
    async with collected(mosquitto) as messages:
        async with worker(database, mosquitto.url, tmp_path / "first", ROLLWAVE_LEASE="1") as first:
            await cancel(pool, campaign)
            await eventually(lambda: len(messages) >= DEVICES_PER_BATCH // 2)
            first.process.kill()
            await first.process.wait()
        assert await told(host, campaign) < devices
        async with worker(database, mosquitto.url, tmp_path / "second", logs="ota_tick_start", ROLLWAVE_LEASE="1"):

            async def all_told() -> bool:
                return await told(host, campaign) == devices

            await eventually(all_told)
        await eventually(lambda: len({each.topic for each in messages}) == devices)
    assert {each.payload for each in messages} == {body(campaign)}
    assert len(messages) <= devices + DEVICES_PER_BATCH


async def test_a_halt_does_not_stop_cancel_commands_that_the_broker_acknowledges_slowly(
    pool: Pool, host: Connection, mosquitto: Mosquitto
) -> None:
    campaign = await in_progress(host, 3)
    await brakes.halt(pool, TENANT, actor="key-1", reason="bricked devices")
    await cancel(pool, campaign)
    async with proxy(mosquitto.url) as link, collected(mosquitto) as messages:
        async with CommandSession(Broker.from_url(link.url)) as session:
            await session.session()
            link.delay = ASK_AGAIN_SECONDS
            await Cancels(pool, session, Settings()).tell(campaign_ref(campaign))
        assert await told(host, campaign) == 3
        await eventually(lambda: len(messages) >= 3)
    assert len(messages) == len({each.topic for each in messages}) == 3, "each once"
