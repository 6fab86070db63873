"""What a host's SQL does to a campaign under a policy document: rows without a place, and another revision in force."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Collection, Mapping
from typing import Any

import pytest

from rollwave.engine.retry import retry_failed
from rollwave.engine.upkeep.counters import Counters
from rollwave.engine.upkeep.look import Upkeep
from rollwave.engine.upkeep.targeting import Targeter
from rollwave.settings import Settings
from rollwave.store import counters, executions
from rollwave.store.database import Pool, tenant_transaction
from tests.engine import TENANT, Connection, campaign_ref, connect, incoming_report, make_claims
from tests.engine import insert_campaign as insert_flat
from tests.in_process import ingest, long_subscribed_listener
from tests.integration.test_policy_waves import insert_campaign, status_of, waves_of

SETTINGS = Settings()


@pytest.fixture
async def host(database: str) -> AsyncIterator[Connection]:
    async with connect(database) as connection:
        yield connection


@pytest.fixture(autouse=True)
async def listener(pool: Pool, host: Connection) -> AsyncIterator[None]:
    async with long_subscribed_listener(pool, host):
        yield


async def look(pool: Pool, campaign: int, times: int = 3) -> None:
    """Compare the counters with the rows, and look at the campaign as a worker does."""
    ref = campaign_ref(campaign)
    for _ in range(times):
        await Counters(pool, SETTINGS).verify(ref)
        found = await Upkeep(pool, SETTINGS).look_after(ref)
        if found.being_targeted:
            await Targeter(pool).target(ref)
        if found.unplaced:
            await Targeter(pool).place_inserted(ref)


async def send(pool: Pool, campaign: int) -> set[str]:
    """Claim devices, and record that the broker has their commands."""
    batch = await make_claims(pool, SETTINGS).claim(campaign_ref(campaign))
    if batch.commands:
        async with tenant_transaction(pool, TENANT, generic_plans=True) as connection:
            await executions.mark_sent(connection, TENANT, campaign, batch.commands, batch.times)
    return {each.device_id for each in batch.commands}


async def report(pool: Pool, campaign: int, devices: Collection[str], status: str) -> None:
    await ingest(pool, [incoming_report(each, campaign, status) for each in sorted(devices)])


async def agree(pool: Pool, campaign: int) -> bool:
    """Whether counters, cells and budgets are what the rows say."""
    async with tenant_transaction(pool, TENANT) as connection:
        return (await counters.compare(connection, TENANT, campaign)).agree


async def waves_of_devices(host: Connection, campaign: int) -> dict[str, int]:
    """The wave of each device that has a place."""
    rows = await host.fetch(
        "SELECT device_id, (position >> 44) - 1 AS wave FROM ota_device_status WHERE campaign_id = $1 AND segment <> 0",
        campaign,
    )
    return {row["device_id"]: row["wave"] for row in rows}


async def test_devices_that_a_host_has_sent_to_and_retried_ones_get_a_place(pool: Pool, host: Connection) -> None:
    """They count for budgets, waves and caps, are sent to again, and the campaign ends."""
    sites = {"first": "a", "second": "b", "working": "b", "set-back": "c", "failed": "d"}
    document = {
        "order": "id",
        "waves": [{"name": "canary", "size": 1}, {"name": "rest", "select": "site != c"}],
        "guardrails": [],
        "budgets": [{"per": "site", "max_in_flight": 1}],
    }
    campaign = await insert_campaign(host, document, {each: {"site": sites[each]} for each in ("first", "second")})
    await look(pool, campaign)
    for device, columns in {
        "working": "'INSTALLING', 0, NULL",
        "set-back": "'PENDING', 1, NULL",
        "failed": "'FAILED', 0, now()",
    }.items():
        await host.execute(
            "INSERT INTO devices (tenant_id, device_id, attributes) VALUES ($1, $2, $3::text::jsonb)",
            *(TENANT, device, json.dumps({"site": sites[device]})),
        )
        await host.execute(
            "INSERT INTO ota_device_status (tenant_id, campaign_id, device_id, status, attempt, completed_at)"
            f" VALUES ($1, $2, $3, {columns})",
            *(TENANT, campaign, device),
        )
    await look(pool, campaign)
    assert (await retry_failed(pool, TENANT, campaign, actor="test")).devices == 1
    await look(pool, campaign, times=1)
    assert await waves_of_devices(host, campaign) == {each: 0 if each == "first" else 1 for each in sites}, (
        "the first wave is full, and a device in flight is not skipped"
    )
    assert await agree(pool, campaign)
    assert await send(pool, campaign) == {"first", "set-back", "failed"}
    await report(pool, campaign, {"first", "set-back", "failed"}, "SUCCESS")
    await look(pool, campaign)
    assert not await send(pool, campaign), "a device of the same site is in flight"
    for _ in range(2):  # it is silent until its deadline, and then until its next attempt is due
        await host.execute("UPDATE ota_campaigns SET deadlines_from = NULL, suspended_lately = 0")
        await host.execute(
            "UPDATE ota_device_status SET due_at = now() - interval '1 s'"
            " WHERE device_id = 'working' AND due_at > now()"
        )
        await look(pool, campaign, times=1)
    assert await send(pool, campaign) == {"working"}
    await report(pool, campaign, {"working"}, "SUCCESS")
    await look(pool, campaign)
    assert await send(pool, campaign) == {"second"}
    await report(pool, campaign, {"second"}, "SUCCESS")
    await look(pool, campaign)
    assert await status_of(host, campaign) == "COMPLETED"
    assert await agree(pool, campaign)


async def follow(host: Connection, campaign: int, document: Mapping[str, Any], revision: int) -> None:
    """Put a revision in force, as a host's SQL does."""
    await host.execute(
        "INSERT INTO ota_campaign_policies (tenant_id, campaign_id, revision, document)"
        " VALUES ($1, $2, $3, $4::text::jsonb)",
        *(TENANT, campaign, revision, json.dumps(document)),
    )
    await host.execute("UPDATE ota_campaigns SET policy_revision = $2 WHERE id = $1", campaign, revision)


FLEET = {f"dev-{number:02}": {"site": f"s{number % 3}"} for number in range(12)}


async def test_devices_are_placed_anew_by_a_revision_that_a_hosts_sql_puts_in_force(
    pool: Pool, host: Connection
) -> None:
    """Before that, nothing is sent by it. Its guardrails begin anew."""
    rule = {"name": "bad", "threshold": "40%", "min_finished": 2, "action": "pause"}
    waves = [{"name": "one", "size": 2}, {"name": "rest"}]
    campaign = await insert_campaign(host, {"order": "id", "waves": waves, "guardrails": [rule]}, FLEET)
    await look(pool, campaign)
    await report(pool, campaign, await send(pool, campaign), "SUCCESS")
    await look(pool, campaign)
    assert await host.fetchval("SELECT wave FROM ota_campaigns WHERE id = $1", campaign) == 1
    sites = {"name": "sites", "threshold": "90%", "scope": "segment", "per": ["site"], "action": "quarantine"}
    more = [*waves[:1], {"name": "rest", "size": 3}, {"name": "late"}]
    await follow(host, campaign, {"order": "id", "waves": more, "guardrails": [rule, sites]}, revision=2)
    assert not await send(pool, campaign), "the devices stand by the former revision"
    await look(pool, campaign)
    assert sorted((await waves_of_devices(host, campaign)).values()) == [0] * 2 + [1] * 3 + [2] * 7
    tests = await host.fetch("SELECT guardrail, revision FROM ota_campaign_tests ORDER BY 1, number")
    assert {tuple(each) for each in tests} == {("bad", 2), ("sites", 2)}
    assert await send(pool, campaign) == {"dev-02", "dev-03", "dev-04"}
    assert await host.fetchval("SELECT count(DISTINCT segment) FROM ota_device_status WHERE attempt = 0") == 3
    assert await agree(pool, campaign)

    await follow(host, campaign, {"order": "id", "waves": [*more[:2], {"name": "last"}]}, revision=3)
    await Upkeep(pool, SETTINGS).look_after(campaign_ref(campaign))
    final = [*more[:2], {"name": "next", "size": 3}, {"name": "final"}]
    await follow(host, campaign, {"order": "id", "waves": final}, revision=4)  # while devices are placed by another
    await look(pool, campaign)
    assert sorted((await waves_of_devices(host, campaign)).values()) == [0] * 2 + [1] * 3 + [2] * 3 + [3] * 4
    await host.execute("UPDATE ota_campaigns SET policy_revision = NULL WHERE id = $1", campaign)
    await look(pool, campaign, times=1)
    assert await status_of(host, campaign) == "PAUSED"
    assert "revision 4" in await host.fetchval("SELECT status_reason FROM ota_campaigns WHERE id = $1", campaign)


async def test_a_revision_of_other_sql_is_not_followed_if_devices_were_sent_to_in_waves_that_it_does_not_have(
    pool: Pool, host: Connection
) -> None:
    """They would count in its first wave, whose selector does not fit them, and open its gate."""
    waves = [{"name": "internal", "size": 2}, {"name": "rest"}]
    campaign = await insert_campaign(host, {"order": "id", "waves": waves}, FLEET)
    await look(pool, campaign)
    await report(pool, campaign, await send(pool, campaign), "SUCCESS")
    await look(pool, campaign)
    canary = {"name": "canary", "size": 2, "select": "site == s2", "gate": {"success_rate": "100%"}}
    await follow(host, campaign, {"order": "id", "waves": [canary, {"name": "rest"}]}, revision=2)
    assert not await send(pool, campaign)
    await look(pool, campaign)
    assert await status_of(host, campaign) == "PAUSED"
    reason = await host.fetchval("SELECT status_reason FROM ota_campaigns WHERE id = $1", campaign)
    assert reason == "revision 2 has other waves than those in which devices were sent to"
    await host.execute("UPDATE ota_campaigns SET policy_revision = 1, status = 'RUNNING' WHERE id = $1", campaign)
    await look(pool, campaign)
    assert len(await send(pool, campaign)) == len(FLEET) - 2


async def test_a_campaign_with_flat_columns_is_placed_when_a_hosts_sql_gives_it_a_document(
    pool: Pool, host: Connection
) -> None:
    """Also its devices in flight: they count for budgets and caps, are sent to again, and the campaign ends."""
    campaign = await insert_flat(host, list(FLEET), rollout_rate=4)
    for device, attributes in FLEET.items():
        await host.execute(
            "INSERT INTO devices (tenant_id, device_id, attributes) VALUES ($1, $2, $3::text::jsonb)",
            *(TENANT, device, json.dumps(attributes)),
        )
    await look(pool, campaign)
    sent = await send(pool, campaign)
    assert len(sent) == 4
    done = min(sent)
    await report(pool, campaign, {done}, "SUCCESS")
    document = {"order": "id", "pace": {"max_in_flight": 5}, "budgets": [{"per": "site", "max_in_flight": 2}]}
    await follow(host, campaign, document, revision=1)
    assert not await send(pool, campaign), "the devices have no places"
    await look(pool, campaign)
    assert await waves_of_devices(host, campaign) == dict.fromkeys(FLEET.keys() - {done}, 0)
    assert await waves_of(host, campaign) == [("all", len(FLEET) - 1, "open")]
    assert await agree(pool, campaign)
    more = await send(pool, campaign)
    assert len(more) == 2, "three are in flight"
    for _ in range(8):
        await report(pool, campaign, sent | more, "SUCCESS")
        await look(pool, campaign, times=2)
        sent, more = more, await send(pool, campaign)
    assert await status_of(host, campaign) == "COMPLETED"
    assert await agree(pool, campaign)
