"""An edit of a policy moves devices that were sent to as well, with their quarantine."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

from rollwave.domain.campaign import CampaignRef, CampaignStatus
from rollwave.domain.ids import CampaignId, TenantId
from rollwave.domain.policy.document.text import Format
from rollwave.engine import operations, policies
from rollwave.engine.policies import Edit
from rollwave.engine.upkeep.counters import Counters
from rollwave.engine.upkeep.look import Upkeep
from rollwave.engine.upkeep.targeting import Targeter
from rollwave.settings import Settings
from rollwave.store.database import Pool
from tests.engine import TENANT, Connection
from tests.in_process import long_subscribed_listener
from tests.integration.test_placing import LABELS, cells_agree, create, create_first_batch, host, place, places
from tests.support import eventually

__all__ = ["host"]

SENT = [f"dev-{n:02}" for n in range(0, 30, 3)]
PER_RACK = {"name": "racks", "threshold": "50%", "scope": "segment", "per": ["rack"], "action": "quarantine"}
PER_RING = {"name": "rings", "threshold": "50%", "scope": "segment", "per": ["ring"], "action": "pause"}


async def send(host: Connection, pool: Pool, campaign: CampaignId, *, failed: int = 3) -> None:
    """Write rows as a claim leaves them: of these devices, the first ``failed`` have failed since."""
    await host.execute(
        "UPDATE ota_device_status SET attempt = 1, sent_attempt = 1, due_at = now() + '1 h', started_at = now(),"
        " status = CASE WHEN device_id = ANY ($3::text[]) THEN 'FAILED' ELSE 'DOWNLOADING' END"
        " WHERE campaign_id = $1 AND device_id = ANY ($2::text[])",
        *(campaign, SENT, SENT[:failed]),
    )
    await Counters(pool, Settings()).verify(CampaignRef(TenantId(TENANT), campaign, CampaignStatus.RUNNING))
    assert await cells_agree(pool, campaign)


async def edit(pool: Pool, campaign: CampaignId, document: Mapping[str, Any], *, then_place: bool = True) -> None:
    await policies.edit_policy(
        pool, Settings(), TENANT, campaign, Edit(json.dumps(document).encode(), Format.JSON), actor="test"
    )
    if then_place:
        await place(pool, campaign)
        assert await host_is_placed(pool, campaign)


async def host_is_placed(pool: Pool, campaign: CampaignId) -> bool:
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute("SELECT set_config('app.tenant_id', $1, true)", TENANT)
        return bool(
            await connection.fetchval("SELECT targeted_devices IS NULL FROM ota_campaigns WHERE id = $1", campaign)
        )


async def labels(host: Connection, campaign: CampaignId) -> dict[str, dict[str, Any]]:
    """The labels of the segment of each device."""
    rows = await host.fetch(
        "SELECT d.device_id, s.labels::text FROM ota_device_status d"
        " JOIN ota_campaign_segments s ON s.campaign_id = d.campaign_id AND s.number = d.segment"
        " WHERE d.campaign_id = $1",
        campaign,
    )
    return {row["device_id"]: json.loads(row["labels"]) for row in rows}


async def quarantined(host: Connection, campaign: CampaignId) -> dict[str, str]:
    """Why each segment is under quarantine, by its labels."""
    rows = await host.fetch(
        "SELECT labels::text, quarantined_because FROM ota_campaign_segments"
        " WHERE campaign_id = $1 AND quarantined_at IS NOT NULL",
        campaign,
    )
    return {row["labels"]: row["quarantined_because"] for row in rows}


def label(device: str, key: str) -> str | None:
    value = LABELS[device].get(key)
    return None if value is None else str(value)


async def test_devices_in_flight_and_failed_ones_get_the_segments_of_the_new_labels(
    host: Connection, pool: Pool
) -> None:
    campaign = await create(host, pool, {"order": "id"})
    await send(host, pool, campaign)
    before = await host.fetch("SELECT device_id, position FROM ota_device_status WHERE device_id = ANY ($1)", SENT)
    zone = {"name": "night", "kind": "allow", "cron": "0 2 * * *", "duration": "2h", "time_zone": "device"}
    await edit(pool, campaign, {"order": "id", "guardrails": [PER_RACK], "schedule": {"windows": [zone]}})
    of = await labels(host, campaign)
    assert {each: of[each] for each in SENT} == {
        each: {"rack": label(each, "rack"), "time_zone": None} for each in SENT
    }
    assert before == await host.fetch(
        "SELECT device_id, position FROM ota_device_status WHERE device_id = ANY ($1)", SENT
    )
    assert await cells_agree(pool, campaign)


async def test_a_device_that_its_former_segment_holds_is_due_when_it_is_moved(host: Connection, pool: Pool) -> None:
    """One that waits for its next attempt for another reason keeps waiting."""
    campaign = await create(host, pool, {"order": "id"})
    await send(host, pool, campaign, failed=0)
    await host.execute(
        "UPDATE ota_device_status SET failed_attempt = 1, started_at = now() - interval '3 h',"
        " due_at = now() + '50 min', stood_until = now() - interval '10 min',"
        " held_due_at = now() + CASE device_id WHEN $1 THEN interval '50 min' WHEN $2 THEN interval '40 min' END"
        " WHERE device_id = ANY ($3::text[])",
        *(SENT[0], SENT[1], SENT[:3]),
    )
    await edit(pool, campaign, {"order": "id", "guardrails": [PER_RACK]})
    due = await host.fetch(
        "SELECT device_id FROM ota_device_status WHERE attempt > 0 AND due_at <= now() AND campaign_id = $1", campaign
    )
    assert [row["device_id"] for row in due] == SENT[:1]


async def test_a_second_edit_while_devices_are_moved_moves_all_of_them_again(host: Connection, pool: Pool) -> None:
    """A worker is in the middle of the devices that were sent to when the second edit comes."""
    campaign = await create(host, pool, {"order": "id"})
    await send(host, pool, campaign)
    await edit(pool, campaign, {"order": "id", "guardrails": [PER_RACK]}, then_place=False)
    async with host.transaction():
        await host.execute("SELECT FROM ota_device_status WHERE device_id = $1 FOR UPDATE", SENT[5])
        first = asyncio.create_task(place(pool, campaign))

        async def waits() -> bool:
            return bool(await host.fetchval("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"))

        await eventually(waits, what="a worker that waits for the row")
        await edit(pool, campaign, {"order": "id", "guardrails": [PER_RING]}, then_place=False)
    await first
    await place(pool, campaign)
    of = await labels(host, campaign)
    assert of == {each: {"ring": label(each, "ring")} for each in LABELS}
    assert await cells_agree(pool, campaign)


async def test_an_abort_while_devices_are_placed_anew_skips_those_that_have_no_place_yet(
    host: Connection, pool: Pool
) -> None:
    campaign = await create(host, pool, {"order": "id"})
    await send(host, pool, campaign)
    await edit(pool, campaign, {"order": "id", "guardrails": [PER_RACK]}, then_place=False)
    await operations.abort_campaign(pool, TENANT, campaign, actor="test")
    cells = await host.fetch(
        "SELECT waiting, in_flight, succeeded + failed, skipped FROM ota_campaign_cells WHERE campaign_id = $1",
        campaign,
    )
    never_sent = len(LABELS) - len(SENT)
    assert [sum(column) for column in zip(*cells, strict=True)] == [0, len(SENT) - 3, 3, never_sent]
    assert not [cell for cell in cells if min(cell.values()) < 0]


async def test_only_a_release_ends_a_quarantine(host: Connection, pool: Pool) -> None:
    """Edits change the threshold, add a label, remove the first one, and remove both."""
    campaign = await create(host, pool, {"order": "id", "guardrails": [PER_RACK]})
    await send(host, pool, campaign)
    await host.execute(
        "UPDATE ota_campaign_segments SET quarantined_at = '2027-01-01 00:00Z', quarantined_because = 'bad'"
        " WHERE campaign_id = $1 AND labels ->> 'rack' = 'spare'",
        campaign,
    )
    of_rack = '{"rack": "spare"}'
    await edit(pool, campaign, {"order": "id", "guardrails": [PER_RACK | {"threshold": "60%"}]}, then_place=False)
    assert await quarantined(host, campaign) == {of_rack: "bad"}
    both = [PER_RACK | {"per": ["rack", "ring"]}]
    await edit(pool, campaign, {"order": "id", "guardrails": both})
    narrower = ['{"rack": "spare", "ring": "canary"}', '{"rack": "spare", "ring": "prod"}']
    assert await quarantined(host, campaign) == dict.fromkeys([of_rack, *narrower], "bad")
    since = await host.fetch(
        "SELECT DISTINCT quarantined_at::text FROM ota_campaign_segments WHERE quarantined_at > '2027-01-01'"
    )
    assert not since, "they are quarantined since the same moment"
    written = await host.fetchval("SELECT count(*) FROM ota_campaign_history WHERE event = 'segment_quarantined'")
    assert written == 2
    # The operator releases the canaries; placing the devices anew does not undo it.
    await host.execute(
        "UPDATE ota_campaign_segments SET quarantined_at = NULL, quarantined_because = NULL"
        " WHERE labels ->> 'ring' = 'canary'"
    )
    await edit(pool, campaign, {"order": "hash", "guardrails": both})
    assert narrower[0] not in await quarantined(host, campaign)
    await edit(pool, campaign, {"order": "hash", "guardrails": [PER_RING]})
    wider = (await quarantined(host, campaign))['{"ring": "prod"}']
    assert wider.startswith("has devices of segment "), wider
    assert wider.endswith(": bad")
    assert '{"ring": "canary"}' not in await quarantined(host, campaign)
    await edit(pool, campaign, {"order": "hash"})
    assert "{}" in await quarantined(host, campaign), "the segment of the whole campaign has some of these devices"


async def test_a_wave_whose_devices_went_with_an_earlier_one_is_not_mistyped_after_an_edit(
    host: Connection, pool: Pool
) -> None:
    select = " or ".join(f"device_id == '{each}'" for each in SENT[:2])
    first = {"name": "first", "size": 30}
    campaign = await create(host, pool, {"order": "id", "waves": [first, {"name": "rest"}]})
    await send(host, pool, campaign, failed=0)
    mine, none = {"name": "mine", "select": select}, {"name": "none", "select": "ring == typo"}
    await edit(pool, campaign, {"order": "id", "waves": [first, mine, none, {"name": "rest"}]})
    found = await host.fetch("SELECT name, matched FROM ota_campaign_waves WHERE campaign_id = $1 ORDER BY 1", campaign)
    assert [tuple(each) for each in found] == [("first", None), ("mine", 2), ("none", 0), ("rest", None)]


async def test_devices_that_other_sql_inserts_are_placed_alone(host: Connection, pool: Pool) -> None:
    """They wait for that; the others keep their places, and are sent to meanwhile."""
    waves = [{"name": "first", "size": 3}, {"name": "second", "size": 60}, {"name": "rest"}]
    document = {"order": "id", "waves": waves, "guardrails": [PER_RACK]}
    campaign = await create(host, pool, document)
    await host.execute(
        "UPDATE ota_campaign_segments SET quarantined_at = now(), quarantined_because = 'bad'"
        " WHERE labels ->> 'rack' = '1'"
    )
    await host.execute("UPDATE ota_campaigns SET status = 'RUNNING' WHERE id = $1", campaign)
    before = await places(host, campaign)
    for device in ("new-1", "new-2"):
        await host.execute(
            "INSERT INTO devices (tenant_id, device_id, attributes)"
            " VALUES ($1, $2, jsonb_build_object('rack', $3::text))",
            *(TENANT, device, device[-1]),
        )
        await host.execute(
            "INSERT INTO ota_device_status (tenant_id, campaign_id, device_id) VALUES ($1, $2, $3)",
            *(TENANT, campaign, device),
        )
    ref = CampaignRef(TenantId(TENANT), campaign, CampaignStatus.RUNNING)
    async with long_subscribed_listener(pool, host):
        look = await Upkeep(pool, Settings()).look_after(ref)
    assert (look.being_targeted, look.unplaced) == (False, True)
    assert await host_is_placed(pool, campaign)
    await Targeter(pool).place_inserted(ref)
    after = await places(host, campaign)
    assert {each: after[each] for each in before} == before
    assert {each: after[each][0] for each in ("new-1", "new-2")} == {"new-1": 1, "new-2": 1}, "the first wave is full"
    assert (await labels(host, campaign))["new-1"] == {"rack": "1"}
    assert await cells_agree(pool, campaign)
    sizes = await host.fetch("SELECT size FROM ota_campaign_waves WHERE campaign_id = $1 ORDER BY number", campaign)
    assert [each["size"] for each in sizes] == [3, len(LABELS) - 3 + 2, 0]


async def test_a_revision_that_other_sql_puts_in_force_while_the_group_is_targeted(
    host: Connection, pool: Pool
) -> None:
    """All members are targeted, and then placed by the new revision."""
    campaign = await create_first_batch(host, pool, {"waves": [{"name": "first", "size": 3}, {"name": "rest"}]})
    await host.execute(
        "INSERT INTO ota_campaign_policies (tenant_id, campaign_id, revision, document)"
        " VALUES ($1, $2, 2, $3::text::jsonb)",
        *(TENANT, campaign, json.dumps({"waves": [{"name": "canary", "select": "ring == canary"}, {"name": "rest"}]})),
    )
    await host.execute("UPDATE ota_campaigns SET policy_revision = 2 WHERE id = $1", campaign)
    await place(pool, campaign)
    await operations.start_campaign(pool, TENANT, campaign, actor="test")
    ref = CampaignRef(TenantId(TENANT), campaign, CampaignStatus.RUNNING)
    assert (await Upkeep(pool, Settings()).look_after(ref)).being_targeted
    await place(pool, campaign)
    found = await places(host, campaign)
    assert {each: wave for each, (wave, _, _) in found.items()} == {
        each: 0 if labels.get("ring") == "canary" else 1 for each, labels in LABELS.items()
    }
    assert await cells_agree(pool, campaign)
