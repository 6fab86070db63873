"""Commands that were read before an edit of the policy: the devices may be in other segments since."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from rollwave.domain.campaign import CampaignRef
from rollwave.domain.ids import CampaignId, DeviceId
from rollwave.engine.dispatch.permission import closed_to
from rollwave.engine.dispatch.session import CommandSession
from rollwave.mqtt.broker import Broker
from rollwave.mqtt.topics import command_topic
from rollwave.settings import Settings
from rollwave.store import executions
from rollwave.store.database import Pool, tenant_transaction
from tests.engine import TENANT, Connection, breakdown, campaign_ref, make_dispatch
from tests.in_process import long_subscribed_listener
from tests.integration.test_edited_segments import SENT, edit, send
from tests.integration.test_placing import create, host
from tests.integration.test_resend import collected
from tests.servers import Mosquitto
from tests.support import eventually

__all__ = ["host"]

DEVICE = DeviceId(SENT[0])


@pytest.fixture
async def campaign(pool: Pool, host: Connection) -> AsyncIterator[CampaignId]:
    """A running campaign over devices of Tokyo, without windows."""
    await host.execute("""UPDATE devices SET attributes = attributes || '{"time_zone": "Asia/Tokyo"}'""")
    campaign = await create(host, pool, {"order": "id", "guardrails": []})
    await host.execute("UPDATE ota_campaigns SET status = 'RUNNING'")
    async with long_subscribed_listener(pool, host):
        yield campaign


async def close_window_of_tokyo(pool: Pool, campaign: CampaignId) -> None:
    """A window that is open now in UTC, by the zone of each device."""
    hour = (datetime.now(UTC) - timedelta(hours=1)).hour
    window = {"name": "day", "kind": "allow", "cron": f"0 {hour} * * *", "duration": "3h", "time_zone": "device"}
    await edit(pool, campaign, {"order": "id", "guardrails": [], "schedule": {"windows": [window]}})


async def test_a_batch_that_was_claimed_before_is_given_back(
    pool: Pool, host: Connection, campaign: CampaignId, mosquitto: Mosquitto
) -> None:
    edited: list[CampaignRef] = []

    async def edited_first(ref: CampaignRef) -> bool:
        if not edited:
            edited.append(ref)
            await close_window_of_tokyo(pool, campaign)
        return True

    async with CommandSession(Broker.from_url(mosquitto.url)) as session, collected(mosquitto) as received:
        dispatch = make_dispatch(pool, session, Settings(), still_runs=edited_first)
        await dispatch.dispatch(campaign_ref(campaign))
        await (await (await session.session()).publish(command_topic(TENANT, "last"), b"")).acknowledged()
        await eventually(lambda: received and received[-1].topic == command_topic(TENANT, "last"))
    assert edited
    assert len(received) == 1, "only the message after them"
    assert (await breakdown(host, campaign)).keys() == {"PENDING"}
    assert not await host.fetchval("SELECT count(*) FROM ota_device_status WHERE due_at > now()"), "no lease is left"


async def test_an_answer_that_was_read_before_is_not_sent(pool: Pool, host: Connection, campaign: CampaignId) -> None:
    await send(host, pool, campaign, failed=0)
    await host.execute("UPDATE ota_campaigns SET command = '{}'")
    async with tenant_transaction(pool, TENANT) as connection:
        answer = (await executions.current(connection, TENANT, [DEVICE]))[DEVICE]
    await close_window_of_tokyo(pool, campaign)
    async with tenant_transaction(pool, TENANT) as connection:
        asked = connection, Settings(), TENANT, campaign, {answer.segment}
        assert await closed_to(*asked, revision=answer.revision) is None
        now = (await executions.current(connection, TENANT, [DEVICE]))[DEVICE]
        asked = connection, Settings(), TENANT, campaign, {now.segment}
        assert await closed_to(*asked, revision=now.revision) == {now.segment}, "the window of Tokyo"
