"""Where devices stand by a policy document: the wave, the segment and the position of each, as rows in the database."""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest

from rollwave.domain.campaign import CampaignRef, CampaignStatus
from rollwave.domain.execution import WAVE_BITS, Cell
from rollwave.domain.ids import CampaignId, TenantId
from rollwave.domain.policy.document.located import Located
from rollwave.domain.policy.document.problems import validate
from rollwave.domain.policy.document.text import Format
from rollwave.engine import policies
from rollwave.engine.new_campaign import create_campaign
from rollwave.engine.policies import Edit
from rollwave.engine.upkeep.counters import Counters
from rollwave.engine.upkeep.look import Upkeep
from rollwave.engine.upkeep.targeting import Targeter
from rollwave.errors import InvalidInput
from rollwave.settings import Settings
from rollwave.store import campaigns, counters, segments
from rollwave.store.campaign_rows import Campaign
from rollwave.store.database import Pool, tenant_transaction
from rollwave.store.new_campaigns import NewCampaign
from tests.engine import TENANT, UNUSED_VERSION, Connection, connect

BATCH = 10
LABELS: Mapping[str, Mapping[str, Any]] = {
    f"dev-{n:02}": {"ring": "canary" if n % 5 == 0 else "prod", "rack": n % 3 if n % 7 else "spare"} for n in range(40)
} | {f"dev-{n}": {} for n in range(40, 45)}


@pytest.fixture
async def host(database: str) -> AsyncIterator[Connection]:
    async with connect(database) as connection:
        await connection.execute("INSERT INTO tenants (tenant_id) VALUES ($1)", TENANT)
        await connection.execute("INSERT INTO device_groups (tenant_id, group_id) VALUES ($1, 'all')", TENANT)
        for device, labels in LABELS.items():
            await connection.execute(
                "INSERT INTO devices (tenant_id, device_id, attributes) VALUES ($1, $2, $3::text::jsonb)",
                *(TENANT, device, json.dumps(labels)),
            )
            await connection.execute(
                "INSERT INTO device_group_members (tenant_id, group_id, device_id) VALUES ($1, 'all', $2)",
                *(TENANT, device),
            )
        yield connection


async def create(host: Connection, pool: Pool, document: Mapping[str, Any], *, first_batch: int = BATCH) -> CampaignId:
    """Create a campaign under a document over all devices, and place them in batches."""
    campaign = await create_first_batch(host, pool, document, first_batch=first_batch)
    await place(pool, campaign)
    return campaign


async def create_first_batch(
    host: Connection, pool: Pool, document: Mapping[str, Any], *, first_batch: int = BATCH
) -> CampaignId:
    """Create a campaign under a document over all devices, of which only the first are targeted and placed."""
    firmware = await host.fetchval(
        "INSERT INTO firmware_versions (tenant_id, version, file_url)"
        f" SELECT $1::text, {UNUSED_VERSION}, 'https://a.invalid/f' RETURNING id",
        TENANT,
    )
    new, policy = NewCampaign("spring", firmware, "all"), validate(Located(dict(document)))
    return await create_campaign(pool, TENANT, new, actor="test", policy=policy, first_batch=first_batch)


async def place(pool: Pool, campaign: CampaignId) -> None:
    await Targeter(pool, batch=BATCH).target(CampaignRef(TenantId(TENANT), campaign, CampaignStatus.CREATED))


async def places(host: Connection, campaign: CampaignId) -> dict[str, tuple[int, int, int]]:
    """The wave, the segment and the order key of each device that is not skipped."""
    rows = await host.fetch(
        "SELECT device_id, position, segment FROM ota_device_status WHERE campaign_id = $1 AND status = 'PENDING'"
        " ORDER BY position, id",
        campaign,
    )
    key = (1 << WAVE_BITS) - 1
    return {
        row["device_id"]: ((row["position"] >> WAVE_BITS) - 1, row["segment"], row["position"] & key) for row in rows
    }


async def cells_agree(pool: Pool, campaign: CampaignId) -> bool:
    async with tenant_transaction(pool, TENANT) as connection:
        return not (await counters.compare(connection, TENANT, campaign)).cells


async def test_the_order_is_a_hash_of_campaign_and_device_and_waves_have_their_sizes(
    host: Connection, pool: Pool
) -> None:
    document = {"waves": [{"name": "a", "size": 3}, {"name": "b", "size": "10%"}, {"name": "rest"}]}
    campaign = await create(host, pool, document)
    found = await places(host, campaign)
    expected = {each: int(hashlib.md5(f"{campaign}:{each}".encode()).hexdigest()[:11], 16) for each in LABELS}
    assert {device: key for device, (_, _, key) in found.items()} == expected
    assert list(found) == sorted(LABELS, key=lambda each: (found[each][0], expected[each]))
    assert Counter(wave for wave, _, _ in found.values()) == {0: 3, 1: 5, 2: 37}
    assert sorted(expected, key=lambda each: expected[each])[:8] == list(found)[:8], "the first eight go first"
    assert await cells_agree(pool, campaign)


async def test_selected_waves_take_their_devices_and_what_fits_none_is_skipped(host: Connection, pool: Pool) -> None:
    document = {
        "waves": [
            {"name": "one", "size": 2, "select": "ring == canary"},
            {"name": "lab", "select": "rack == spare"},
            {"name": "prod", "select": "has(ring)"},
        ]
    }
    campaign = await create(host, pool, document)
    found = await places(host, campaign)
    waves = {name: {each for each, (wave, _, _) in found.items() if wave == name} for name in range(3)}
    assert len(waves[0]) == 2
    assert all(LABELS[each]["ring"] == "canary" for each in waves[0])
    assert waves[1] == {each for each, labels in LABELS.items() if labels.get("rack") == "spare"} - waves[0]
    assert waves[2] == {each for each, labels in LABELS.items() if labels} - waves[0] - waves[1]
    skipped = await host.fetch(
        "SELECT device_id, error_message FROM ota_device_status WHERE campaign_id = $1 AND status = 'SKIPPED'", campaign
    )
    assert {row["device_id"] for row in skipped} == {each for each, labels in LABELS.items() if not labels}
    assert {row["error_message"] for row in skipped} == {"the device fits no wave of the policy"}
    assert await cells_agree(pool, campaign)


async def test_a_queue_in_the_order_of_a_label_has_numbers_then_texts_then_devices_without_it(
    host: Connection, pool: Pool
) -> None:
    campaign = await create(host, pool, {"order": "label:rack"})
    order = [LABELS[each].get("rack") for each in await places(host, campaign)]
    assert order == sorted(order, key=lambda rack: ([int, str, type(None)].index(type(rack)), str(rack)))
    assert not await host.fetchval("SELECT count(*) FROM ota_campaign_ranks")
    by_id = await create(host, pool, {"order": "id"})
    assert list(await places(host, by_id)) == sorted(LABELS)


async def test_devices_are_split_by_the_labels_of_guardrails(host: Connection, pool: Pool) -> None:
    rule = {"name": "racks", "scope": "segment", "per": ["rack"], "action": "quarantine"}
    campaign = await create(host, pool, {"guardrails": [rule]})
    rows = await host.fetch("SELECT number, labels FROM ota_campaign_segments WHERE campaign_id = $1", campaign)
    labels = {row["number"]: json.loads(row["labels"])["rack"] for row in rows}
    assert sorted(labels.values(), key=str) == ["0", "1", "2", None, "spare"]
    for device, (_, segment, _) in (await places(host, campaign)).items():
        rack = LABELS[device].get("rack")
        assert labels[segment] == (None if rack is None else str(rack))


async def test_an_edit_places_devices_never_sent_to_anew_and_keeps_the_others(host: Connection, pool: Pool) -> None:
    campaign = await create(host, pool, {"order": "id", "waves": [{"name": "first", "size": 4}, {"name": "rest"}]})
    await host.execute(
        "UPDATE ota_device_status SET attempt = 1, sent_attempt = 1, status = 'DOWNLOADING', due_at = now() + '1 h'"
        " WHERE campaign_id = $1 AND device_id IN ('dev-00', 'dev-01')",
        campaign,
    )
    await Counters(pool, Settings()).verify(CampaignRef(TenantId(TENANT), campaign, CampaignStatus.RUNNING))
    document = {"waves": [{"name": "first", "size": 3}, {"name": "lab", "select": "rack == spare"}, {"name": "rest"}]}
    edit = Edit(json.dumps(document).encode(), Format.JSON)
    await policies.edit_policy(pool, Settings(), TENANT, campaign, edit, actor="test")
    assert await host.fetchval("SELECT targeted_devices FROM ota_campaigns WHERE id = $1", campaign) == 0
    await place(pool, campaign)
    found = await places(host, campaign)
    sizes = await host.fetch(
        "SELECT name, size FROM ota_campaign_waves WHERE campaign_id = $1 ORDER BY number", campaign
    )
    waves = Counter(wave for wave, _, _ in found.values())
    assert waves[0] == 1, "two of three were sent to"
    assert [tuple(row) for row in sizes] == [("first", 3), ("lab", waves[1]), ("rest", waves[2])]
    assert sum(waves.values()) == len(LABELS) - 2
    assert await cells_agree(pool, campaign)


async def test_an_edit_gives_segments_that_stay_their_time_zone(host: Connection, pool: Pool) -> None:
    await host.execute(
        "UPDATE devices SET attributes = attributes || jsonb_build_object('time_zone', 'Asia/Tokyo')"
        " WHERE device_id = 'dev-07'"
    )
    rules = [{"name": "zones", "scope": "segment", "per": ["time_zone"], "action": "quarantine"}]
    night = {"kind": "allow", "cron": "0 2 * * *", "duration": "2h", "time_zone": "device"}
    campaign = await create(host, pool, {"guardrails": rules})

    async def described() -> dict[str, str | None]:
        """The time zones that a process knows of the segments, by their label."""
        async with tenant_transaction(pool, TENANT) as connection:
            row = await campaigns.get(connection, TENANT, campaign)
            found = await segments.described(connection, row, [1, 2, 3])
        return {str(each.labels["time_zone"]): each.time_zone for each in found.values()}

    assert await described() == {"None": None, "Asia/Tokyo": None}
    for schedule, zone in (({"windows": [night]}, "Asia/Tokyo"), ({}, None)):
        edit = Edit(json.dumps({"guardrails": rules, "schedule": schedule}).encode(), Format.JSON)
        await policies.edit_policy(pool, Settings(), TENANT, campaign, edit, actor="test")
        await described()  # before the devices are placed: nothing of that may be kept
        await place(pool, campaign)
        rows = await host.fetch(
            "SELECT time_zone FROM ota_campaign_segments WHERE campaign_id = $1 ORDER BY labels->>'time_zone' DESC",
            campaign,
        )
        assert [row["time_zone"] for row in rows] == [None, zone]
        assert await described() == {"None": None, "Asia/Tokyo": zone}


async def test_a_segment_that_is_read_with_an_outdated_row_is_not_kept(host: Connection, pool: Pool) -> None:
    await host.execute("UPDATE devices SET attributes = attributes || jsonb_build_object('time_zone', 'Asia/Tokyo')")
    rules = [{"name": "zones", "scope": "segment", "per": ["time_zone"], "action": "quarantine"}]
    night = {"kind": "allow", "cron": "0 2 * * *", "duration": "2h", "time_zone": "device"}
    campaign = await create(host, pool, {"guardrails": rules})

    async def zone(row: Campaign | None = None) -> str | None:
        async with tenant_transaction(pool, TENANT) as connection:
            row = row or await campaigns.get(connection, TENANT, campaign)
            return (await segments.described(connection, row, [1]))[1].time_zone

    async with tenant_transaction(pool, TENANT) as connection:
        outdated = await campaigns.get(connection, TENANT, campaign)
    document = {"guardrails": rules, "schedule": {"windows": [night]}}
    edit = Edit(json.dumps(document).encode(), Format.JSON)
    await policies.edit_policy(pool, Settings(), TENANT, campaign, edit, actor="test")
    await place(pool, campaign)
    assert await zone(outdated) == "Asia/Tokyo"
    await host.execute("UPDATE ota_campaigns SET policy_revision = 1, status = 'RUNNING' WHERE id = $1", campaign)
    await Upkeep(pool, Settings()).look_after(CampaignRef(TenantId(TENANT), campaign, CampaignStatus.RUNNING))
    await place(pool, campaign)
    assert await zone() is None


async def test_the_queue_of_devices_without_labels_is_read_with_the_campaign(host: Connection, pool: Pool) -> None:
    waves = {"waves": [{"name": "first", "size": 3}, {"name": "rest"}]}
    racks = {"guardrails": [{"name": "racks", "scope": "segment", "per": ["rack"], "action": "quarantine"}]}
    for document, unsplit in ((waves, {Cell(0, 1): 3}), ({}, {Cell(0, 1): len(LABELS)}), (waves | racks, {})):
        campaign = await create(host, pool, document)
        # Rows that other SQL wrote, with a segment and no position, are in no wave: nothing is sent to them.
        await host.execute(
            "INSERT INTO ota_campaign_cells (tenant_id, campaign_id, wave, segment, waiting) VALUES ($1, $2, -1, 1, 5)",
            *(TENANT, campaign),
        )
        async with tenant_transaction(pool, TENANT) as connection:
            assert (await campaigns.get(connection, TENANT, campaign)).unsplit == unsplit


async def test_labels_that_make_too_many_segments_are_refused_with_their_number(
    host: Connection, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rollwave.engine.placing.MAX_SEGMENTS", 4)
    rule = {"name": "racks", "scope": "segment", "per": ["rack"], "action": "quarantine"}
    with pytest.raises(InvalidInput, match="into 5 segments, and at most 4"):
        await create(host, pool, {"guardrails": [rule]})


async def test_a_label_too_long_for_an_index_makes_a_segment_and_an_order(host: Connection, pool: Pool) -> None:
    """Random text: PostgreSQL would compress any other."""
    rack = random.Random(1).randbytes(5000).hex()
    await host.execute(
        "UPDATE devices SET attributes = jsonb_build_object('rack', $1::text) WHERE device_id = 'dev-01'", rack
    )
    rule = {"name": "racks", "threshold": "5%", "scope": "segment", "per": ["rack"], "action": "quarantine"}
    campaign = await create(host, pool, {"order": "label:rack", "guardrails": [rule]})
    assert len(await places(host, campaign)) == len(LABELS)
    numbers = "SELECT count(*) FROM ota_campaign_segments WHERE campaign_id = $1 AND labels ->> 'rack' LIKE $2"
    assert await host.fetchval(numbers, campaign, f"{rack[:80]}#%") == 1
