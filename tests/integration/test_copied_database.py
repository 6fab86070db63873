"""A database is copied or moved: which one is the installation, and what the other one may do."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest

from rollwave import run_ota_campaign_tick, run_ota_status_listener, worker_loop
from rollwave.engine.dispatch.session import CommandSession
from rollwave.mqtt.broker import Broker
from rollwave.settings import Settings
from rollwave.store.database import Pool, create_pool
from tests.engine import (
    always_succeeds,
    breakdown,
    campaign_ref,
    campaign_row,
    connect,
    devices,
    events,
    insert_campaign,
    make_claims,
    make_dispatch,
    wait_until_ended,
    worker,
)
from tests.servers import Mosquitto
from tests.support import Running, eventually, free_port, our_records, psql, rollwave, rollwave_running

TOTAL = 40
UNDECIDED = "ota_identity_undecided"
SUBSCRIBED = "ota_status_listener_subscribed"
LOST = "ota_status_listener_disconnected"


@asynccontextmanager
async def copy_of(database: str) -> AsyncIterator[str]:
    """Copy the database in the same PostgreSQL. Returns the copy's URL. ``database`` may have no other connection."""
    name = psql(database, "SELECT current_database()")
    server = database.replace(f"/{name}?", "/postgres?")
    psql(server, f"CREATE DATABASE {name}_copy TEMPLATE {name}")
    try:
        yield database.replace(f"/{name}?", f"/{name}_copy?")
    finally:
        psql(server, f"DROP DATABASE {name}_copy WITH (FORCE)")


@asynccontextmanager
async def any_worker(database: str, broker_url: str, log: Path, *arguments: str) -> AsyncIterator[Running]:
    """Start a worker, without waiting for anything."""
    env = {"DATABASE_URL": database, "MQTT_BROKER_URL": broker_url, "OTA_TICK_INTERVAL": "0.2"}
    async with rollwave_running("worker", *arguments, log=log, env=env) as running:
        yield running


async def readiness(port: int) -> dict[str, str]:
    """The checks of /readyz. Empty before it answers."""
    async with httpx2.AsyncClient(trust_env=False) as client:
        try:
            answer = await client.get(f"http://127.0.0.1:{port}/readyz", timeout=15)
        except httpx2.TransportError:
            return {}
    checks: dict[str, str] = answer.json()["checks"]
    assert answer.is_success == (set(checks.values()) == {"ok"})
    return checks


async def begun(database: str, broker: Mosquitto, log: Path) -> int:
    """A running campaign of which a part has succeeded, without a worker."""
    async with connect(database) as host, devices(broker.url, always_succeeds), worker(database, broker.url, log):
        campaign = await insert_campaign(host, TOTAL, rollout_rate=2)

        async def campaign_under_way() -> bool:
            return (await campaign_row(host, campaign))[1] > 6

        await eventually(campaign_under_way, what="some devices have succeeded")
        await host.execute("UPDATE ota_campaigns SET status = 'PAUSED'")

        async def nothing_in_progress() -> bool:
            return not (await breakdown(host, campaign)).keys() & {"DOWNLOADING", "INSTALLING"}

        await eventually(nothing_in_progress, what="every device sent to has succeeded")
        await host.execute("UPDATE ota_campaigns SET status = 'RUNNING'")
    return campaign


async def test_a_copy_on_the_same_broker_does_nothing_until_it_is_decided(
    database: str, mosquitto: Mosquitto, tmp_path: Path
) -> None:
    campaign = await begun(database, mosquitto, tmp_path / "before")
    done = int(psql(database, "SELECT succeeded FROM ota_campaigns"))
    port = free_port()
    async with (
        copy_of(database) as copy,
        connect(database) as host,
        connect(copy) as staging,
        devices(mosquitto.url, always_succeeds) as fleet,
        any_worker(copy, mosquitto.url, tmp_path / "copy", "--port", str(port)) as copied,
        worker(database, mosquitto.url, tmp_path / "original") as original,
    ):
        await wait_until_ended(host, campaign)
        assert await campaign_row(host, campaign) == ("COMPLETED", TOTAL, 0)
        assert set(fleet.times_sent(campaign).values()) == {1}
        assert len(fleet.commands) == TOTAL - done
        await eventually(lambda: events(copied, UNDECIDED), what="the copy has logged why it sends nothing")
        assert events(original, LOST) == []
        assert events(copied, SUBSCRIBED) == events(copied, LOST) == []
        assert await campaign_row(staging, campaign) == ("RUNNING", done, 0)
        checks = await readiness(port)
        assert {"rollwave migrate --moved", "rollwave migrate --copy"} <= set(checks["identity"].split("`"))
        [event] = events(copied, UNDECIDED)
        assert event["level"] == "error"
        assert {"rollwave migrate --moved", "rollwave migrate --copy"} <= set(event["hint"].split("`"))
        assert copied.process.returncode is None


async def test_a_copy_gets_an_identity_of_its_own_and_its_campaigns_are_paused(
    database: str, mosquitto: Mosquitto, tmp_path: Path
) -> None:
    campaign = await begun(database, mosquitto, tmp_path / "before")
    port = free_port()
    async with (
        copy_of(database) as copy,
        connect(database) as host,
        connect(copy) as staging,
        devices(mosquitto.url, always_succeeds) as fleet,
        any_worker(copy, mosquitto.url, tmp_path / "copy", "--port", str(port)) as copied,
    ):
        other = await insert_campaign(staging, 2, tenant="south")
        await eventually(lambda: events(copied, UNDECIDED), what="the copy waits for a decision")
        decided = await asyncio.to_thread(rollwave, "migrate", "--copy", env={"DATABASE_URL": copy})
        assert decided.returncode == 0, decided.stderr
        assert "2 RUNNING campaigns are paused" in decided.stdout
        await eventually(lambda: events(copied, SUBSCRIBED), what="the same worker listens")
        async with worker(database, mosquitto.url, tmp_path / "original") as original:
            await wait_until_ended(host, campaign)
            assert set(fleet.times_sent(campaign).values()) == {1}
            assert events(original, LOST) == events(copied, LOST) == []
        assert set((await readiness(port)).values()) == {"ok"}
        assert len(events(copied, UNDECIDED)) == 1
        assert await identity(copy) != await identity(database)
        for tenant, id_ in (("north", campaign), ("south", other)):
            row = await staging.fetchrow(
                "SELECT status, status_reason FROM ota_campaigns WHERE (tenant_id, id) = ($1, $2)", tenant, id_
            )
            assert row is not None
            assert row["status"] == "PAUSED"
            assert "copy" in row["status_reason"]
            [written] = await staging.fetch(
                "SELECT event, actor, detail FROM ota_campaign_history"
                " WHERE (tenant_id, campaign_id) = ($1, $2) AND event = 'paused'",
                tenant,
                id_,
            )
            assert written["actor"] == "rollwave migrate"
            assert json.loads(written["detail"]) == {
                "from": "RUNNING",
                "to": "PAUSED",
                "reason": row["status_reason"],
            }
        assert len(fleet.commands_of(other, "south")) == 0


async def test_a_moved_database_keeps_its_identity_and_continues(
    database: str, mosquitto: Mosquitto, tmp_path: Path
) -> None:
    campaign = await begun(database, mosquitto, tmp_path / "before")
    async with (
        copy_of(database) as moved,
        connect(moved) as host,
        devices(mosquitto.url, always_succeeds) as fleet,
        any_worker(moved, mosquitto.url, tmp_path / "moved") as running,
    ):
        await eventually(lambda: events(running, UNDECIDED), what="it waits to be told")
        migrated = await asyncio.to_thread(rollwave, "migrate", env={"DATABASE_URL": moved})
        assert migrated.returncode == 0
        assert {"rollwave migrate --moved", "rollwave migrate --copy"} <= set(migrated.stderr.split("`"))
        assert events(running, SUBSCRIBED) == []
        assert fleet.commands == []
        decided = await asyncio.to_thread(rollwave, "migrate", "--moved", env={"DATABASE_URL": moved})
        assert decided.returncode == 0, decided.stderr
        await wait_until_ended(host, campaign)
        assert await campaign_row(host, campaign) == ("COMPLETED", TOTAL, 0)
        assert set(fleet.times_sent(campaign).values()) == {1}
        [subscribed] = events(running, SUBSCRIBED)
        assert subscribed["session_present"], "the broker kept the session and its reports under the same client id"
        assert await identity(moved) == await identity(database)


async def identity(database: str) -> str:
    return psql(database, "SELECT id FROM rollwave_installation")


async def test_an_unchanged_installation_needs_no_decision(database: str, mosquitto: Mosquitto, tmp_path: Path) -> None:
    async with worker(database, mosquitto.url, tmp_path / "log"):
        pass
    before = psql(database, "TABLE rollwave_installation")
    moved = rollwave("migrate", "--moved", env={"DATABASE_URL": database})
    assert (moved.returncode, "nothing to decide" in moved.stdout) == (0, True), moved.stderr
    copied = rollwave("migrate", "--copy", env={"DATABASE_URL": database})
    assert (copied.returncode, "Traceback" in copied.stderr) == (1, False)
    assert "would lose its session" in copied.stderr
    both = rollwave("migrate", "--moved", "--copy", env={"DATABASE_URL": database})
    assert both.returncode == 2
    assert psql(database, "TABLE rollwave_installation") == before


@pytest.mark.parametrize("flag", ["--moved", "--copy"])
async def test_concurrent_decisions_take_turns(database: str, mosquitto: Mosquitto, tmp_path: Path, flag: str) -> None:
    await begun(database, mosquitto, tmp_path / "before")
    async with copy_of(database) as copy:
        event = await asyncio.gather(
            *(asyncio.to_thread(rollwave, "migrate", flag, env={"DATABASE_URL": copy}) for _ in range(2))
        )
        assert sorted(each.returncode for each in event) == ([0, 0] if flag == "--moved" else [0, 1])
        assert psql(copy, "SELECT count(*) FROM ota_campaign_history WHERE event = 'paused'") == (
            "0" if flag == "--moved" else "1"
        )


async def test_a_worker_redirected_to_a_copy_claims_nothing(
    database: str, mosquitto: Mosquitto, tmp_path: Path
) -> None:
    """It has read from the original database what is due. Its next connection leads to the copy."""
    campaign = await begun(database, mosquitto, tmp_path / "before")
    async with copy_of(database) as copy, create_pool(copy) as pool, devices(mosquitto.url, always_succeeds) as fleet:
        settings = Settings(MQTT_BROKER_URL=mosquitto.url)
        psql(copy, f"UPDATE ota_campaigns SET rollout_rate = {TOTAL}")  # The pace would allow it.
        batch = await make_claims(pool, settings).claim(campaign_ref(campaign))
        assert (batch.commands, batch.skipped) == ((), 0)
        async with CommandSession(Broker.from_settings(settings)) as session:
            dispatch = make_dispatch(pool, session, settings)
            assert not await dispatch.still_runs(campaign_ref(campaign))
            await dispatch.dispatch(campaign_ref(campaign))
        assert fleet.commands == []
        assert psql(copy, "SELECT count(*) FROM ota_device_status WHERE attempt > sent_attempt") == "0"


async def test_a_copy_embedded_in_a_host_does_nothing_until_it_is_decided(
    database: str,
    mosquitto: Mosquitto,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("MQTT_BROKER_URL", mosquitto.url)
    monkeypatch.setenv("OTA_TICK_INTERVAL", "0.2")
    caplog.set_level("INFO", "rollwave")
    campaign = await begun(database, mosquitto, tmp_path / "before")
    async with (
        copy_of(database) as copy,
        connect(copy) as host,
        create_pool(copy) as pool,
        devices(mosquitto.url, always_succeeds) as fleet,
        asyncio.TaskGroup() as group,
    ):
        ticks = 0

        async def tick(pool: Pool) -> None:
            nonlocal ticks
            await run_ota_campaign_tick(pool)
            ticks += 1

        running = [
            group.create_task(worker_loop(tick, pool, interval=0.1)),
            group.create_task(run_ota_status_listener(pool)),
        ]
        await eventually(lambda: ticks > 10, what="it goes on asking")
        assert fleet.commands == []
        assert [each.levelname for each in our_records(caplog) if each.message == UNDECIDED] == ["ERROR"]
        decided = await asyncio.to_thread(rollwave, "migrate", "--moved", env={"DATABASE_URL": copy})
        assert decided.returncode == 0, decided.stderr
        await wait_until_ended(host, campaign)
        assert len([each for each in caplog.records if each.message == "ota_identity_decided"]) == 1
        for each in running:
            each.cancel()
