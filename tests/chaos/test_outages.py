"""Database and broker are unavailable, slow or crash repeatedly: no device fails, and the log stays short."""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest

from rollwave.embedded.postgres import EmbeddedPostgres
from rollwave.store.migrate import migrate
from tests.auditor import auditing
from tests.engine import (
    Connection,
    always_succeeds,
    breakdown,
    campaign_row,
    connect,
    devices,
    events,
    insert_campaign,
    only_once,
    wait_until_ended,
    worker,
)
from tests.servers import Mosquitto, crashable_postgres
from tests.support import Running, eventually, free_port

SETTINGS = {"ROLLWAVE_LEASE": "2", "ROLLWAVE_PUBLISH_TIMEOUT": "2", "ROLLWAVE_MQTT_KEEPALIVE": "2"}
EVENTS_OF_EVERY_TICK = {"ota_tick_start", "ota_devices_dispatched"}
"""Log events of every tick."""


@pytest.fixture
async def server() -> AsyncIterator[EmbeddedPostgres]:
    with crashable_postgres() as server:
        await migrate(server.url)
        yield server


def memory(running: Running) -> float:
    """Resident memory in MiB."""
    [line] = [
        each
        for each in Path(f"/proc/{running.process.pid}/status").read_text().splitlines()
        if each.startswith("VmRSS")
    ]
    return int(line.split()[1]) / 1024


def logged_events(running: Running, *, beside: int) -> Counter[str]:
    """The events it has logged, without those of every tick. ``beside``: the number of first lines to leave out."""
    lines = running.output().splitlines()[beside:]
    names = [line.split('"event": "')[1].split('"')[0] for line in lines if '"event": "' in line]
    return Counter(name for name in names if name not in EVENTS_OF_EVERY_TICK)


async def unready(port: int) -> dict[str, str]:
    """The checks of /readyz that are not ok. /livez must always be ok."""
    async with httpx2.AsyncClient(trust_env=False, timeout=15, base_url=f"http://127.0.0.1:{port}") as client:
        assert (await client.get("/livez")).json()["status"] == "ok"
        answer = await client.get("/readyz")
    checks: dict[str, str] = answer.json()["checks"]
    assert answer.is_success == all(each == "ok" for each in checks.values())
    return {name: each for name, each in checks.items() if each != "ok"}


async def test_an_outage_is_logged_once_and_named_by_readyz(
    server: EmbeddedPostgres, mosquitto: Mosquitto, tmp_path: Path, outage: float
) -> None:
    """Several campaigns and tenants, hundreds of tries: few lines when the outage begins, few when it ends."""
    port = free_port()
    async with (
        devices(mosquitto.url, always_succeeds, "fleet") as fleet,  # the broker keeps what it has for them
        worker(
            server.url, mosquitto.url, tmp_path / "log", "--port", str(port), OTA_TICK_INTERVAL="0.05", **SETTINGS
        ) as it,
    ):
        async with connect(server.url) as host:
            campaigns = {
                await insert_campaign(host, 50, tenant=tenant, rollout_rate=1): tenant
                for tenant in ("north", "south", "west")
                for _ in range(2)
            }
            await refuse_changes_of(host, await insert_campaign(host, 10, tenant="east"))
        await eventually(lambda: len(fleet.commands) > 50, what="some commands are sent")
        await eventually(lambda: ready(port), what="ready")
        before = memory(it)

        lines = len(it.output().splitlines())
        server.stop("immediate")
        await eventually(lambda: only(port, "database", "reports"), timeout=20, what="named")
        await lasts(outage)
        server.start()
        await eventually(lambda: ready(port), timeout=30, what="ready")
        database = logged_events(it, beside=lines)
        assert database.pop("ota_database_unavailable") == database.pop("ota_database_back") == 1
        del database["ota_campaign_completed"]  # Some may have ended by now.
        assert database.total() <= 4, database

        lines = len(it.output().splitlines())
        mosquitto.stop()
        await eventually(lambda: only(port, "broker", "reports"), timeout=20, what="named")
        await lasts(outage)
        mosquitto.start()
        await eventually(lambda: ready(port), timeout=30, what="ready")
        broker = logged_events(it, beside=lines)
        assert broker.total() <= 6 + len(campaigns), broker
        assert broker["ota_status_listener_disconnected"] <= 3

        async with connect(server.url) as host:
            for campaign, tenant in campaigns.items():
                await wait_until_ended(host, campaign, tenant=tenant, timeout=60)
                assert await campaign_row(host, campaign, tenant) == ("COMPLETED", 50, 0)
        assert memory(it) < before + 20
        # Of the campaign that cannot be changed: not while nothing could be sent, so again after each outage.
        assert 1 <= len(events(it, "ota_campaign_error")) <= 3
        [back] = events(it, "ota_database_back")
        assert back["away_for"] >= outage - 1


async def refuse_changes_of(host: Connection, campaign: int) -> None:
    """Let a trigger of the host raise an error at each change of this campaign."""
    await host.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$;"
        f" CREATE TRIGGER refuse BEFORE UPDATE ON ota_campaigns FOR EACH ROW WHEN (old.id = {campaign})"
        " EXECUTE FUNCTION refuse()"
    )


async def lasts(seconds: float) -> None:
    over = time.monotonic() + seconds
    await eventually(lambda: time.monotonic() > over, timeout=seconds + 1, what="it has lasted")


async def ready(port: int) -> bool:
    return not await unready(port)


async def only(port: int, *names: str) -> bool:
    """Whether exactly these parts are named, each as unreachable and since when."""
    found = await unready(port)
    return found.keys() == set(names) and all(" for " in each for each in found.values())


async def test_campaigns_complete_over_a_slow_database_and_a_slow_broker(
    server: EmbeddedPostgres, mosquitto: Mosquitto, tmp_path: Path, outage: float
) -> None:
    """Statements time out and the broker is frozen: neither answers, and neither closes its connections."""
    async with (
        auditing(server.url),
        devices(mosquitto.url, always_succeeds) as fleet,
        worker(server.url, mosquitto.url, tmp_path / "log", **SETTINGS) as it,
        connect(server.url) as host,
    ):
        campaign = await insert_campaign(host, 100, rollout_rate=3)
        await eventually(lambda: len(fleet.commands) > 20, what="some commands are sent")
        lines = len(it.output().splitlines())
        async with host.transaction():
            await host.execute("LOCK TABLE ota_device_status IN ACCESS EXCLUSIVE MODE")
            await eventually(lambda: events(it, "ota_campaign_error"), timeout=20, what="cancelled")
            await lasts(outage)
        slow = logged_events(it, beside=lines)
        assert slow["ota_campaign_error"] == 1, slow
        assert slow.total() <= 4, slow
        before = len(fleet.commands)
        await eventually(lambda: len(fleet.commands) > before + 10, timeout=20, what="going on")
        mosquitto.send_signal(signal.SIGSTOP)
        try:
            await eventually(lambda: events(it, "ota_mqtt_publish_failed"), timeout=20, what="not acknowledged")
            await lasts(outage)
        finally:
            mosquitto.send_signal(signal.SIGCONT)
        await wait_until_ended(host, campaign, timeout=60)
        assert await campaign_row(host, campaign) == ("COMPLETED", 100, 0)
        assert await breakdown(host, campaign) == {"SUCCESS": 100}
        assert {command.attempt for command in fleet.commands} == {1}


async def test_a_database_that_crashes_every_few_seconds_loses_no_report(
    server: EmbeddedPostgres, mosquitto: Mosquitto, tmp_path: Path, outage: float
) -> None:
    """Devices report once: a report that was acknowledged and not stored would leave its device unfinished."""
    crashes = max(4, int(outage / 2))
    async with (
        auditing(server.url) as auditor,
        devices(mosquitto.url, only_once(always_succeeds)) as fleet,
        worker(server.url, mosquitto.url, tmp_path / "one", **SETTINGS),
        worker(server.url, mosquitto.url, tmp_path / "two", logs="ota_tick_start", **SETTINGS),
    ):
        async with connect(server.url) as host:
            campaign = await insert_campaign(host, 30 * crashes, rollout_rate=3)
        for crash in range(crashes):
            before = len(fleet.commands)
            await eventually(lambda: len(fleet.commands) > before + 8, timeout=30, what=f"going on after {crash}")  # noqa: B023
            await asyncio.to_thread(server.stop, "immediate")
            await asyncio.to_thread(server.start)
        async with connect(server.url) as host:
            await wait_until_ended(host, campaign, timeout=60)
            assert await campaign_row(host, campaign) == ("COMPLETED", 30 * crashes, 0)
            assert await breakdown(host, campaign) == {"SUCCESS": 30 * crashes}
    assert auditor.snapshots > 20
