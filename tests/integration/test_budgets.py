"""Budgets of a policy document: at most so many devices in flight with the same value of a label."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import pytest

from rollwave.embedded.broker import EmbeddedBroker
from rollwave.engine import explain
from rollwave.mqtt.broker import Broker
from rollwave.mqtt.client import Session
from rollwave.mqtt.payload import encode_report
from rollwave.mqtt.topics import status_topic
from rollwave.settings import Settings
from rollwave.store.database import Pool
from tests.engine import Connection, connect
from tests.integration.test_policy_waves import insert_campaign, running, status_of
from tests.support import eventually


@pytest.fixture
async def host(database: str) -> AsyncIterator[Connection]:
    async with connect(database) as connection:
        yield connection


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch, broker: EmbeddedBroker) -> None:
    monkeypatch.setenv("MQTT_BROKER_URL", broker.url)
    monkeypatch.setenv("OTA_TICK_INTERVAL", "0.2")


class Devices:
    """Devices that report only when a test says so. ``working``: those that have a command and have not reported."""

    def __init__(self, session: Session, campaign: int) -> None:
        self._session = session
        self._campaign = campaign
        self.received: list[str] = []
        self.working: list[str] = []
        self.together: list[frozenset[str]] = []

    async def listen(self) -> None:
        await self._session.subscribe("tenant/+/device/+/ota")
        async for message in self._session.messages():
            device = message.topic.split("/")[3]
            self.received.append(device)
            self.working.append(device)
            self.together.append(frozenset(self.working))

    async def report(self, device: str, status: str = "SUCCESS") -> None:
        self.working.remove(device)
        receipt = await self._session.publish(status_topic("north", device), encode_report(self._campaign, status))
        await receipt.acknowledged()


@asynccontextmanager
async def told_devices(broker: EmbeddedBroker, campaign: int) -> AsyncIterator[Devices]:
    async with Session.connect(Broker.from_url(broker.url)) as session:
        found = Devices(session, campaign)
        task = asyncio.create_task(found.listen())
        try:
            yield found
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


IN_FLIGHT = "(status IN ('DOWNLOADING', 'INSTALLING') OR status = 'PENDING' AND attempt > 0)"


async def in_flight(host: Connection, campaign: int) -> set[str]:
    rows = await host.fetch(f"SELECT device_id FROM ota_device_status WHERE campaign_id = $1 AND {IN_FLIGHT}", campaign)
    return {row["device_id"] for row in rows}


async def require_right_numbers(host: Connection, campaign: int) -> None:
    """What budgets and cells count agrees with the rows."""
    counted = await host.fetch(
        "SELECT budget, value, in_flight FROM ota_campaign_budget_values"
        " WHERE campaign_id = $1 AND in_flight <> 0 ORDER BY 1, 2",
        campaign,
    )
    rows = await host.fetch(
        "SELECT budget, value, count(*) AS in_flight FROM ota_device_status"
        " CROSS JOIN LATERAL unnest(budget_values) WITH ORDINALITY AS b (value, budget)"
        f" WHERE campaign_id = $1 AND value IS NOT NULL AND {IN_FLIGHT} GROUP BY 1, 2 ORDER BY 1, 2",
        campaign,
    )
    assert [tuple(row) for row in counted] == [tuple(row) for row in rows]
    held = await host.fetch(
        "SELECT device_id FROM ota_campaign_budget_held WHERE campaign_id = $1 ORDER BY device_id", campaign
    )
    marked = await host.fetch(
        "SELECT device_id FROM ota_device_status WHERE campaign_id = $1 AND segment < 0 ORDER BY device_id", campaign
    )
    assert [row["device_id"] for row in held] == [row["device_id"] for row in marked]
    of_cells = await host.fetchval("SELECT sum(held) FROM ota_campaign_cells WHERE campaign_id = $1", campaign)
    assert of_cells == len(held)


ONE_PER_SITE = {"name": "one-per-site", "per": "site", "max_in_flight": 1}


async def test_one_device_of_each_site_at_a_time(host: Connection, pool: Pool, broker: EmbeddedBroker) -> None:
    sites: Mapping[str, str | None] = {f"dev-{n}": f"s{n % 2}" for n in range(8)} | {"free-1": None, "free-2": None}
    fleet = {device: {"site": site} if site else {} for device, site in sites.items()}
    campaign = await insert_campaign(host, {"budgets": [ONE_PER_SITE], "order": "id", "guardrails": []}, fleet)
    async with running(pool), told_devices(broker, campaign) as devices:
        await eventually(lambda: set(devices.working) == {"dev-0", "dev-1", "free-1", "free-2"}, what="the first ones")
        await eventually(lambda: _held(host, campaign, 6), what="six devices are held")
        assert await in_flight(host, campaign) == set(devices.working), "devices without the label have no limit"
        await require_right_numbers(host, campaign)
        await eventually(lambda: _waits(pool, campaign, {"budget": 6}), what="six devices wait for the budget")
        device = await explain.explain_device(pool, Settings(), "north", campaign, "dev-2")
        [check] = [each for each in device.checks if not each.open]
        assert check.detail == {
            "budget": "one-per-site",
            "label": "site",
            "value": "s0",
            "in_flight": 1,
            "max_in_flight": 1,
        }
        await devices.report("free-1")
        for number in range(2, 8):
            await devices.report(f"dev-{number - 2}", "SUCCESS" if number % 3 else "FAILED")
            await eventually(lambda: f"dev-{number}" in devices.received, what=f"dev-{number} is next")  # noqa: B023
            await require_right_numbers(host, campaign)
        for device_id in list(devices.working):
            await devices.report(device_id)
        await eventually(lambda: _is_over(host, campaign), what="the end")
    most = [
        max(Counter(sites[each] for each in group if sites[each]).values(), default=0) for group in devices.together
    ]
    assert max(most) == 1, "never two of one site"
    assert devices.received.index("dev-2") < devices.received.index("dev-6"), "the order of the queue holds"
    await require_right_numbers(host, campaign)


async def _waits(pool: Pool, campaign: int, expected: Mapping[str, int]) -> bool:
    found = await explain.waiting_devices(pool, Settings(), "north", campaign)
    return {each.verdict.gate: each.devices for each in found.waiting} == expected


async def _held(host: Connection, campaign: int, number: int) -> bool:
    held = await host.fetchval("SELECT count(*) FROM ota_campaign_budget_held WHERE campaign_id = $1", campaign)
    return bool(held == number)


async def _is_over(host: Connection, campaign: int) -> bool:
    return await status_of(host, campaign) in {"COMPLETED", "ABORTED"}
