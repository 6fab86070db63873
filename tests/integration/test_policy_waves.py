"""A campaign under a policy document, from rows inserted with psql to its end, over a real database and broker."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from rollwave import run_ota_campaign_tick, run_ota_status_listener, worker_loop
from rollwave.domain.role import Role
from rollwave.embedded.broker import EmbeddedBroker
from rollwave.engine import explain
from rollwave.engine.locked_campaign import lock_campaign
from rollwave.engine.promote import promote_wave
from rollwave.engine.upkeep import waves
from rollwave.engine.upkeep.look import Upkeep
from rollwave.engine.upkeep.targeting import Targeter
from rollwave.mqtt.broker import Broker
from rollwave.mqtt.client import Session
from rollwave.mqtt.payload import encode_report
from rollwave.mqtt.topics import status_topic
from rollwave.settings import Settings
from rollwave.store.database import Pool, tenant_transaction
from tests.engine import UNUSED_VERSION, Connection, campaign_ref, connect, incoming_report, make_claims
from tests.in_process import ingest, long_subscribed_listener
from tests.support import eventually

PER_RING = {"name": "rings", "threshold": "50%", "scope": "segment", "per": ["ring"], "action": "pause"}


@pytest.fixture
async def host(database: str) -> AsyncIterator[Connection]:
    async with connect(database) as connection:
        yield connection


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch, broker: EmbeddedBroker) -> None:
    monkeypatch.setenv("MQTT_BROKER_URL", broker.url)
    monkeypatch.setenv("OTA_TICK_INTERVAL", "0.2")


async def insert_campaign(
    host: Connection, document: Mapping[str, Any], devices: Mapping[str, Mapping[str, Any]]
) -> int:
    """Insert a campaign, its document and its devices by SQL. ``devices``: attributes by device id."""
    await host.execute("INSERT INTO tenants (tenant_id) VALUES ('north') ON CONFLICT DO NOTHING")
    firmware = await host.fetchval(
        "INSERT INTO firmware_versions (tenant_id, version, file_url, file_size_bytes, checksum_sha256)"
        f" SELECT $1::text, {UNUSED_VERSION}, 'https://files.invalid/fw.bin', 1000, '' RETURNING id",
        "north",
    )
    campaign: int = await host.fetchval(
        "INSERT INTO ota_campaigns (tenant_id, name, firmware_version_id, policy_revision)"
        " VALUES ('north', 'spring', $1, 1) RETURNING id",
        firmware,
    )
    await host.execute(
        "INSERT INTO ota_campaign_policies (tenant_id, campaign_id, revision, document)"
        " VALUES ('north', $1, 1, $2::text::jsonb)",
        *(campaign, json.dumps({"version": 1, **document})),
    )
    for device, attributes in devices.items():
        await host.execute(
            "INSERT INTO devices (tenant_id, device_id, attributes) VALUES ('north', $1, $2::text::jsonb)",
            *(device, json.dumps(attributes)),
        )
        await host.execute(
            "INSERT INTO ota_device_status (tenant_id, campaign_id, device_id) VALUES ('north', $1, $2)",
            *(campaign, device),
        )
    await host.execute("UPDATE ota_campaigns SET status = 'RUNNING' WHERE id = $1", campaign)
    return campaign


@asynccontextmanager
async def running(pool: Pool) -> AsyncIterator[None]:
    """Run the engine, embedded as in a host."""
    tasks = [
        asyncio.create_task(worker_loop(run_ota_campaign_tick, pool, interval=0.2)),
        asyncio.create_task(run_ota_status_listener(pool)),
    ]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def devices(broker: EmbeddedBroker, failing: set[str] = frozenset()) -> AsyncIterator[list[str]]:  # type: ignore[assignment]
    """Devices that report success, except those that fail. Yields the ids of those that got a command."""
    received: list[str] = []
    async with Session.connect(Broker.from_url(broker.url)) as session:
        await session.subscribe("tenant/+/device/+/ota")

        async def play() -> None:
            async for message in session.messages():
                _, tenant, _, device, _ = message.topic.split("/")
                received.append(device)
                campaign = json.loads(message.payload)["campaign_id"]
                status = "FAILED" if device in failing else "SUCCESS"
                receipt = await session.publish(status_topic(tenant, device), encode_report(campaign, status))
                await receipt.acknowledged()

        task = asyncio.create_task(play())
        try:
            yield received
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def silent_devices(broker: EmbeddedBroker) -> AsyncIterator[list[str]]:
    """Devices that never report. Yields the ids of those that got a command."""
    received: list[str] = []
    async with Session.connect(Broker.from_url(broker.url)) as session:
        await session.subscribe("tenant/+/device/+/ota")

        async def listen() -> None:
            async for message in session.messages():
                device = message.topic.split("/")[3]
                received.append(device)

        task = asyncio.create_task(listen())
        try:
            yield received
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def status_of(host: Connection, campaign: int) -> str:
    status: str = await host.fetchval("SELECT status FROM ota_campaigns WHERE id = $1", campaign)
    return status


async def waves_of(host: Connection, campaign: int) -> list[tuple[str, int, str]]:
    rows = await host.fetch(
        "SELECT name, size, state FROM ota_campaign_waves WHERE campaign_id = $1 ORDER BY number", campaign
    )
    return [tuple(row) for row in rows]


FLEET = {f"dev-{n:02}": {"ring": "canary" if n % 5 == 0 else "prod", "site": f"s{n % 4}"} for n in range(20)}


async def test_waves_by_selector_and_share_are_sent_one_after_the_other(
    host: Connection, pool: Pool, broker: EmbeddedBroker
) -> None:
    document = {
        "waves": [
            {"name": "canary", "select": "ring == canary"},
            {"name": "early", "size": "20%"},
            {"name": "rest"},
        ],
    }
    campaign = await insert_campaign(host, document, FLEET)
    async with devices(broker) as received, running(pool):
        await eventually(lambda: _is(host, campaign, "COMPLETED"), what="the campaign's end")
    assert await waves_of(host, campaign) == [("canary", 4, "passed"), ("early", 4, "passed"), ("rest", 12, "passed")]
    assert set(received[:4]) == {device for device, labels in FLEET.items() if labels["ring"] == "canary"}
    assert len(received) == 20
    cells = await host.fetch("SELECT * FROM ota_campaign_cells WHERE campaign_id = $1 ORDER BY wave", campaign)
    assert [(row["waiting"], row["in_flight"], row["succeeded"]) for row in cells] == [(0, 0, 4), (0, 0, 4), (0, 0, 12)]


async def test_the_value_of_a_label_orders_the_queue(host: Connection, pool: Pool, broker: EmbeddedBroker) -> None:
    document = {"order": "label:site", "pace": {"max_in_flight": 1}}
    sites = {"dev-1": {"site": "west"}, "dev-2": {"site": "east"}, "dev-3": {}, "dev-4": {"site": "north"}}
    campaign = await insert_campaign(host, document, sites)
    async with devices(broker) as received, running(pool):
        await eventually(lambda: _is(host, campaign, "COMPLETED"), what="the campaign ends")
    assert received == ["dev-2", "dev-4", "dev-1", "dev-3"]


async def test_waves_have_their_sizes_if_a_label_orders_devices_with_the_same_value(
    host: Connection, pool: Pool
) -> None:
    document = {
        "order": "label:site",
        "waves": [{"name": "first", "size": 2}, {"name": "second", "size": 3}, {"name": "rest"}],
    }
    sites: dict[str, dict[str, Any]] = {f"dev-{n}": {"site": "west"} if n < 5 else {} for n in range(9)}
    campaign = await insert_campaign(host, document, sites)
    async with running(pool):
        await eventually(lambda: waves_of(host, campaign), what="the devices are placed")
    assert [size for _, size, _ in await waves_of(host, campaign)] == [2, 3, 4]


async def test_a_gate_that_fails_pauses_the_campaign(host: Connection, pool: Pool, broker: EmbeddedBroker) -> None:
    document = {
        "order": "id",
        "guardrails": [],
        "waves": [{"name": "canary", "size": 5, "gate": {"success_rate": "90%"}}, {"name": "rest"}],
    }
    campaign = await insert_campaign(host, document, FLEET)
    async with devices(broker, {"dev-03"}) as received, running(pool):
        await eventually(lambda: _is(host, campaign, "PAUSED"), what="the pause")
    assert sorted(received) == [f"dev-{n:02}" for n in range(5)]
    reason = await host.fetchval("SELECT status_reason FROM ota_campaigns WHERE id = $1", campaign)
    assert reason == "the gate of wave canary failed: 4 of 5 finished devices succeeded (80.0%, under 90.0%)"
    assert await waves_of(host, campaign) == [("canary", 5, "failed"), ("rest", 15, "waiting")]
    assert not (await judged(pool, campaign)).to_verify, "a paused campaign's rows are not counted at every look"
    await host.execute("UPDATE ota_campaign_cells SET succeeded = 5, failed = 0 WHERE wave = 0")
    assert not (await judged(pool, campaign)).to_verify, "nor if its gate would open"
    await host.execute("UPDATE ota_campaigns SET status = 'RUNNING'")
    assert (await judged(pool, campaign)).to_verify


async def test_a_last_wave_whose_selector_matches_nothing_pauses_the_campaign(
    host: Connection, pool: Pool, broker: EmbeddedBroker
) -> None:
    document = {"waves": [{"name": "canary", "select": "ring == canary"}, {"name": "rest", "select": "ring == prdo"}]}
    campaign = await insert_campaign(host, document, FLEET)
    async with devices(broker) as received, running(pool):
        await eventually(lambda: _is(host, campaign, "PAUSED"), what="the pause")
    await Upkeep(pool, Settings()).look_after(campaign_ref(campaign))
    assert (await status_of(host, campaign), len(received)) == ("PAUSED", 4)
    reason = await host.fetchval("SELECT status_reason FROM ota_campaigns WHERE id = $1", campaign)
    assert reason == "the selector of wave rest matches no device"


async def judged(pool: Pool, campaign: int) -> waves.Judged:
    """What a look says about the gate of the present wave before it has compared the counters with the rows."""
    async with tenant_transaction(pool, "north", queues=True) as connection:
        locked = await lock_campaign(connection, campaign_ref(campaign), Settings())
        assert locked.policy.document is not None
        return await waves.judge(connection, locked, locked.policy.document, verified=False)


async def test_a_failed_gate_keeps_a_campaign_paused_that_has_no_device_left_until_it_is_promoted(
    host: Connection, pool: Pool, broker: EmbeddedBroker
) -> None:
    document = {
        "order": "id",
        "guardrails": [],
        "waves": [{"name": "canary", "size": 20, "gate": {"success_rate": "90%"}}, {"name": "rest"}],
    }
    campaign = await insert_campaign(host, document, FLEET)
    async with devices(broker, {"dev-03", "dev-04", "dev-05"}), running(pool):
        await eventually(lambda: _is(host, campaign, "PAUSED"), what="the pause")
    upkeep = Upkeep(pool, Settings())
    for _ in range(2):
        look = await upkeep.look_after(campaign_ref(campaign))
        assert (look.completed, look.stopped) == (False, None)
    assert await status_of(host, campaign) == "PAUSED", "its failed devices may still be retried"
    await promote_wave(pool, Settings(), "north", campaign, "canary", actor="key", role=Role.OPERATOR)
    for _ in range(3):
        await upkeep.look_after(campaign_ref(campaign))
    assert await status_of(host, campaign) == "COMPLETED"
    assert await waves_of(host, campaign) == [("canary", 20, "passed"), ("rest", 0, "passed")]


async def _is(host: Connection, campaign: int, status: str) -> bool:
    return await status_of(host, campaign) == status


@pytest.mark.parametrize("budgets", [[], [{"per": "ring", "max_in_flight": 9}]])
async def test_what_a_wave_left_over_goes_before_the_next_wave_in_every_segment(
    host: Connection, pool: Pool, budgets: list[Mapping[str, object]]
) -> None:
    document = {
        "order": "id",
        "waves": [{"name": "canary", "size": 8, "gate": {"min_finished": 2}}, {"name": "rest"}],
        "guardrails": [PER_RING],
        "budgets": budgets,
        "pace": {"max_in_flight": 3},
    }
    fleet = {f"dev-{n:02}": {"ring": "b" if 0 < n < 8 else "a"} for n in range(16)}
    campaign, sent = await insert_campaign(host, document, fleet), list[str]()
    ref = campaign_ref(campaign)
    async with long_subscribed_listener(pool, host):
        await Upkeep(pool, Settings()).look_after(ref)
        await Targeter(pool).target(ref)
        while len(sent) < len(fleet):
            batch = [each.device_id for each in (await make_claims(pool, Settings()).claim(ref)).commands]
            assert batch
            sent += sorted(batch)
            await ingest(pool, [incoming_report(each, campaign, "SUCCESS") for each in batch])
            await Upkeep(pool, Settings()).look_after(ref)
    canaries = sorted(fleet)[:8]
    assert set(sent[:8]) == set(canaries)


async def test_what_devices_of_a_document_wait_for_is_named(
    host: Connection, pool: Pool, broker: EmbeddedBroker
) -> None:
    document = {"order": "id", "waves": [{"name": "canary", "size": 5, "max_in_flight": 2}, {"name": "rest"}]}
    campaign = await insert_campaign(host, document, FLEET)
    async with silent_devices(broker) as received, running(pool):
        await eventually(lambda: len(received) == 2, what="two commands")
        await eventually(lambda: _count(host, campaign, "DOWNLOADING", 2), what="the acknowledgements recorded")
        found = await explain.waiting_devices(pool, Settings(), "north", campaign)
        assert [(each.verdict.gate, each.devices) for each in found.waiting] == [("wave", 15), ("in_flight", 3)]
        assert found.waiting[1].verdict.text == "2 devices of wave canary are in flight, of 2 at most"
        for device, closed in (("dev-02", ["in_flight"]), ("dev-05", ["wave"])):
            one = await explain.explain_device(pool, Settings(), "north", campaign, device)
            assert (one.may_go_now, [each.gate for each in one.checks if not each.open][:1]) == (False, closed)
            assert one.wave == ("canary" if device == "dev-02" else "rest")
        await promote_wave(pool, Settings(), "north", campaign, "canary", actor="key", role=Role.OPERATOR)
        await eventually(lambda: len(received) == 20, what="all commands")


async def _count(host: Connection, campaign: int, status: str, number: int) -> bool:
    query = "SELECT count(*) FROM ota_device_status WHERE campaign_id = $1 AND status = $2"
    return bool(await host.fetchval(query, campaign, status) == number)
