"""Nothing is sent without a listener: failures would not be heard, and the guardrail would not trip."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from rollwave.engine.dispatch.permission import admission_of
from rollwave.engine.upkeep.counters import Counters
from rollwave.settings import Settings
from rollwave.store import listeners
from rollwave.store.database import Pool, tenant_transaction
from tests.engine import (
    TENANT,
    Connection,
    always_succeeds,
    campaign_ref,
    connect,
    devices,
    events,
    insert_campaign,
    make_claims,
    subscribed_listener,
    wait_until_ended,
    worker,
)
from tests.integration.test_policy_in_force import follow
from tests.proxy import Do, proxy, subscribing
from tests.servers import Mosquitto
from tests.support import eventually, free_port

pytestmark = pytest.mark.parametrize("postgres", ["embedded", "debian"], indirect=True)


@pytest.fixture
async def host(database: str) -> AsyncIterator[Connection]:
    async with connect(database) as connection:
        yield connection


async def claimed(pool: Pool, campaign: int) -> int:
    batch = await make_claims(pool, Settings()).claim(campaign_ref(campaign))
    return len(batch.commands)


async def test_nothing_is_sent_before_the_first_listener_is_subscribed(pool: Pool, host: Connection) -> None:
    campaign = await insert_campaign(host, 60)
    assert await claimed(pool, campaign) == 0
    async with subscribed_listener(pool):
        assert await claimed(pool, campaign) == 10


@pytest.mark.parametrize(
    ("silent_for", "goes"),
    [(listeners.TAKEOVER_SECONDS - 5, True), (listeners.TAKEOVER_SECONDS + 1, False), (3600, False), (-3600, False)],
)
async def test_sending_continues_while_another_worker_takes_over_a_slot(
    pool: Pool, host: Connection, silent_for: float, goes: bool
) -> None:
    campaign = await insert_campaign(host, 60)
    async with subscribed_listener(pool):
        pass
    await host.execute(
        "UPDATE rollwave_listener_slots SET coming_at = coming_at - make_interval(secs => $1 + 10),"
        " alive_at = now() - make_interval(secs => $1)",
        silent_for,
    )
    assert await claimed(pool, campaign) == (10 if goes else 0)


async def test_nothing_is_sent_until_every_slot_has_a_listener(pool: Pool, host: Connection) -> None:
    campaign = await insert_campaign(host, 60)
    async with subscribed_listener(pool):
        batch = await make_claims(pool, Settings(ROLLWAVE_LISTENER_SLOTS=2)).claim(campaign_ref(campaign))
    assert not batch.commands


async def test_nothing_is_sent_while_a_listener_is_about_to_subscribe(pool: Pool, host: Connection) -> None:
    campaign = await insert_campaign(host, 60)
    async with subscribed_listener(pool):
        pass
    async with listeners.acquire_slot(pool, 0) as lock:
        assert lock is not None
        await lock.announce()
        assert await claimed(pool, campaign) == 0


async def test_nothing_is_sent_for_a_document_while_a_listener_of_an_earlier_version_is_subscribed(
    pool: Pool, host: Connection
) -> None:
    flat, under_document = await insert_campaign(host, 60), await insert_campaign(host, 1)
    await follow(host, under_document, {})
    await host.execute("UPDATE ota_campaigns SET placed_revision = policy_revision")
    await Counters(pool, Settings()).count(campaign_ref(under_document))

    async def closed() -> list[str]:
        async with tenant_transaction(pool, TENANT) as connection:
            found = await admission_of(connection, Settings(), TENANT, under_document)
        return [each.text for each in found.of_campaign if not each.open]

    async with subscribed_listener(pool):
        assert await closed() == []
        await host.execute("UPDATE rollwave_listener_slots SET documents_at = NULL")
        # A beat of an earlier version.
        await host.execute("UPDATE rollwave_listener_slots SET alive_at = statement_timestamp()")
        assert await closed() == [
            "no listener is subscribed, or one of an earlier version, which would judge reports by the flat columns"
        ]
        assert await claimed(pool, flat) == 10


def readiness(port: int) -> dict[str, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=10) as answer:
            body = answer.read()
    except urllib.error.HTTPError as error:
        body = error.read()
    except OSError:
        return {}
    checks: dict[str, str] = json.loads(body)["checks"]
    return checks


@pytest.mark.parametrize("trial", range(2))
async def test_commands_are_sent_once_a_refused_listener_is_subscribed(
    database: str, host: Connection, mosquitto: Mosquitto, tmp_path: Path, trial: int
) -> None:
    """The broker refuses the engine's subscriptions. Then its ACL is corrected, and it restarts."""
    port = free_port()
    refused = subscribing(lambda topic: "/ota/" in topic, Do.REFUSE)
    async with proxy(mosquitto.url) as mqtt_proxy, devices(mosquitto.url, always_succeeds, client_id="fleet") as fleet:
        mqtt_proxy.rules.append(refused)
        campaign = await insert_campaign(host, 60, rollout_rate=60)
        async with worker(
            database, mqtt_proxy.url, tmp_path / "log", "--port", str(port), logs="ota_sending_waits"
        ) as running:
            event = "ota_status_listener_disconnected"
            await eventually(lambda: len(events(running, event)) > 0, what="the refusal is logged")
            await eventually(lambda: mqtt_proxy.connections > 4 + 2 * trial, what="it tries again")
            checks = await asyncio.to_thread(readiness, port)
            assert checks["reports"].startswith("cannot be received: no listener is subscribed"), checks
            assert fleet.commands == [], "reports of devices would not be heard"
            mqtt_proxy.rules.remove(refused)
            await asyncio.to_thread(mosquitto.stop)
            await asyncio.to_thread(mosquitto.start)
            await eventually(lambda: events(running, "ota_status_listener_subscribed"), what="it listens")
            await wait_until_ended(host, campaign)
            assert (await asyncio.to_thread(readiness, port))["reports"] == "ok"
    assert set(fleet.times_sent(campaign).values()) == {1}
