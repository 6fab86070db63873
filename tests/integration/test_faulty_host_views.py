"""A host's view of its devices that cannot be used: no device is placed by it, and *waiting* says why."""

from __future__ import annotations

import re

import pytest

from rollwave.domain.ids import CampaignId
from rollwave.engine import explain
from rollwave.settings import Settings
from rollwave.store.database import Pool
from rollwave.store.labels import LabelsUnavailable
from tests.engine import TENANT, Connection
from tests.integration.test_edited_segments import edit, host_is_placed
from tests.integration.test_placing import create, create_first_batch, host, place

__all__ = ["host"]

VIEW = """
CREATE TABLE things (tenant text, name text, zone text, extra jsonb);
INSERT INTO things SELECT tenant_id, device_id, 'Asia/Tokyo', attributes FROM devices;
CREATE VIEW rollwave_devices WITH (security_invoker) AS
SELECT tenant AS tenant_id, name AS device_id, NULL::text AS device_type, NULL::text AS version, zone AS time_zone,
       NULL::timestamp AS last_seen, extra AS labels
FROM things;
GRANT SELECT ON things, rollwave_devices TO pulse_app;
"""
FAULTS = [
    (
        "INSERT INTO things VALUES ('north', 'dev-44')",
        "has the device dev-44 twice",
        "DELETE FROM things WHERE zone IS NULL",
    ),
    (
        "UPDATE things SET zone = 'Mars' WHERE name = 'dev-44'",
        "has the time zone 'Mars', which is unknown",
        "UPDATE things SET zone = 'UTC' WHERE name = 'dev-44'",
    ),
    (
        "UPDATE things SET zone = '', extra = '{\"time_zone\": \"x\"}' WHERE name = 'dev-44'",
        "has the time zone 'x', which is unknown",
        "UPDATE things SET extra = '{}' WHERE name = 'dev-44'",
    ),
    (
        "REVOKE SELECT ON things FROM pulse_app",
        "cannot be read: permission denied for table things",
        "GRANT SELECT ON things TO pulse_app",
    ),
    (
        "ALTER VIEW rollwave_devices RENAME tenant_id TO t",
        "cannot be read: column v.tenant_id does not exist",
        "ALTER VIEW rollwave_devices RENAME t TO tenant_id",
    ),
]
DOCUMENT = {"waves": [{"name": "canary", "select": "ring == canary"}, {"name": "rest"}]}


@pytest.mark.parametrize(("fault", "reason", "mend"), FAULTS)
async def test_a_faulty_view_holds_targeting_until_it_is_mended(
    host: Connection, pool: Pool, fault: str, reason: str, mend: str
) -> None:
    await host.execute(VIEW)
    campaign = await create_first_batch(host, pool, DOCUMENT)
    await host.execute("UPDATE ota_campaigns SET status = 'RUNNING'")
    await host.execute(fault)
    with pytest.raises(LabelsUnavailable, match=re.escape(reason)):
        await create(host, pool, DOCUMENT)
    await require_held(pool, campaign, reason)
    await host.execute(mend)
    await place(pool, campaign)
    assert await host_is_placed(pool, campaign)

    # After an edit, devices in flight are moved first.
    await host.execute(
        "UPDATE ota_device_status SET attempt = 1, sent_attempt = 1, due_at = now() WHERE device_id = 'dev-44'"
    )
    await host.execute("UPDATE ota_campaigns SET sent = 1")
    await edit(pool, campaign, {"waves": [{"name": "canary", "size": 3}, {"name": "rest"}]}, then_place=False)
    await host.execute(fault)
    await require_held(pool, campaign, reason)
    await host.execute(mend)
    await place(pool, campaign)
    assert await host_is_placed(pool, campaign)


async def require_held(pool: Pool, campaign: CampaignId, reason: str) -> None:
    await place(pool, campaign)
    assert not await host_is_placed(pool, campaign)
    waiting = await explain.waiting_devices(pool, Settings(), TENANT, campaign)
    assert any(reason in each.verdict.text for each in waiting.waiting), waiting
