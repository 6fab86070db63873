"""A host's sessions have their own settings, above all a time zone that its columns lack: times stay correct."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from rollwave.embedded.broker import EmbeddedBroker
from rollwave.mqtt.payload import encode_report
from rollwave.store.database import tenant_transaction
from rollwave.store.migrate import migrate
from tests.api import CAMPAIGNS, calling, prepare_campaign_body
from tests.engine import (
    Connection,
    always_succeeds,
    answer_with,
    breakdown,
    campaign_row,
    connect,
    devices,
    insert_campaign,
    wait_until_ended,
    worker,
)
from tests.host.platform import Host, make_host
from tests.host.pools import engine, host_pool
from tests.support import eventually

pytestmark = pytest.mark.parametrize("postgres", ["embedded", "debian"], indirect=True)

KOLKATA, LOS_ANGELES = "Asia/Kolkata", "America/Los_Angeles"

SETTINGS = {
    "TimeZone": KOLKATA,
    "DateStyle": "German, DMY",
    "IntervalStyle": "sql_standard",
    "bytea_output": "escape",
    "extra_float_digits": "0",
    "row_security": "off",
    "statement_timeout": "10000",
}
"""Settings that a host may choose for its own statements."""


@pytest.fixture(autouse=True)
def settings(broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MQTT_BROKER_URL", broker.url)
    monkeypatch.setenv("OTA_TICK_INTERVAL", "0.2")


@pytest.fixture
async def host(empty_database: str) -> Host:
    made = await make_host(empty_database, rows=False)
    await migrate(made.root, grant_to="host_service")
    return made


@pytest.mark.parametrize("isolation", ["serializable", "repeatable read"])
async def test_each_transaction_sets_the_settings_that_it_depends_on(host: Host, isolation: str) -> None:
    wanted = {"TimeZone": "UTC", "transaction_isolation": "read committed", "row_security": "on"}
    async with host_pool(host.service, server_settings=SETTINGS | {"default_transaction_isolation": isolation}) as pool:
        async with tenant_transaction(pool, "north") as connection:
            found = {name: await connection.fetchval("SELECT current_setting($1)", name) for name in wanted}
        async with pool.acquire() as connection:
            assert await connection.fetchval("SHOW TimeZone") == KOLKATA, (
                "the host's own statements keep their settings"
            )
    assert found == wanted


async def _left_by_the_host(connection: Any) -> None:
    """What a host's code may leave behind in a session. RESET ALL does not reset the role."""
    await connection.execute("SET ROLE pulse_app; SET TIME ZONE 'Asia/Kolkata'; SET app.tenant_id = 'south'")


@pytest.mark.parametrize(
    "how",
    [
        {"server_settings": SETTINGS},
        {"server_settings": {"default_transaction_isolation": "serializable"}},
        {"server_settings": {"default_transaction_isolation": "repeatable read"}},
        {"setup": _left_by_the_host},
    ],
    ids=["settings", "serializable", "repeatable read", "left behind"],
)
async def test_campaigns_complete_under_any_session_settings_of_the_host(
    host: Host, broker: EmbeddedBroker, how: dict[str, Any]
) -> None:
    async with (
        connect(host.root) as root,
        devices(broker.url, always_succeeds) as fleet,
        host_pool(host.service, **how) as pool,
        engine(pool),
    ):
        campaigns = [await insert_campaign(root, 40, tenant=tenant, rollout_rate=20) for tenant in ("north", "south")]
        for campaign, tenant in zip(campaigns, ("north", "south"), strict=True):
            await wait_until_ended(root, campaign, tenant=tenant)
            assert await campaign_row(root, campaign, tenant) == ("COMPLETED", 40, 0)
            assert len(fleet.commands_of(campaign, tenant)) == 40


async def _in_zone(host: Host, zone: str, *, of_role: bool = False) -> None:
    """From now on new sessions use ``zone``. Open sessions are ended."""
    name = host.root.partition("@/")[2].partition("?")[0]
    async with connect(host.root) as root:
        whose = f"ROLE host_service IN DATABASE {name}" if of_role else f"DATABASE {name}"
        await root.execute(f"ALTER {whose} SET timezone = '{zone}'")
        await root.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


@pytest.mark.parametrize("zone_of", ["the database", "the role", "the pool"])
async def test_times_are_correct_to_the_second_under_any_session_settings(
    host: Host, broker: EmbeddedBroker, zone_of: str
) -> None:
    how: Mapping[str, Any] = {"server_settings": {"timezone": KOLKATA}} if zone_of == "the pool" else {}
    if not how:
        await _in_zone(host, KOLKATA, of_role=zone_of == "the role")
    began = datetime.now(UTC)
    async with connect(host.root) as root, devices(broker.url, always_succeeds), host_pool(host.service, **how) as pool:
        await root.execute("INSERT INTO tenants (tenant_id) VALUES ('north')")
        async with engine(pool), calling(pool) as client:
            made = (
                await client.post(CAMPAIGNS, json=await prepare_campaign_body(client) | {"rollout_strategy": "canary"})
            ).json()
            assert (await client.post(f"{CAMPAIGNS}/{made['id']}/start")).status_code == 200
            await wait_until_ended(root, made["id"])
        found = [await _times(host.root, made["id"]), await _times(host.service, made["id"], **how)]
    assert found[0] == found[1], "the same for each reader in each zone"
    ended = datetime.now(UTC)
    for name, text in found[0].items():
        assert text.endswith("Z"), (name, text)
        time = datetime.fromisoformat(text)
        assert began - timedelta(seconds=1) <= time <= ended + timedelta(seconds=1), (name, text, began)
    assert {name.partition(" ")[0] for name in found[0]} == {"campaign", "wave", "device", "event", "firmware"}


async def _times(url: str, campaign: int, **how: Any) -> dict[str, str]:
    """Every time that the API shows for a campaign, by its meaning."""
    async with host_pool(url, **how) as pool, calling(pool) as client:
        shown = (await client.get(f"{CAMPAIGNS}/{campaign}")).json()
        listed = (await client.get(f"{CAMPAIGNS}/{campaign}/devices")).json()["devices"]
        events = (await client.get(f"{CAMPAIGNS}/{campaign}/events")).json()["events"]
        firmware = (await client.get("/firmware")).json()["firmware_versions"]
    rows = {"campaign": [shown], "wave": shown["waves"], "device": listed, "event": events, "firmware": firmware}
    return {
        f"{kind} {number} {name}": value
        for kind, each in rows.items()
        for number, row in enumerate(each)
        for name, value in row.items()
        if (name == "at" or name.endswith("_at")) and value is not None
    }


async def test_a_time_zone_change_during_a_campaign_fails_no_device(
    host: Host, broker: EmbeddedBroker, tmp_path: Path
) -> None:
    """A time written in one zone is not 13 hours older in another."""
    await _in_zone(host, LOS_ANGELES)
    async with (
        devices(broker.url, answer_with("DOWNLOADING")) as fleet,
        worker(host.service, broker.url, tmp_path / "log", ROLLWAVE_DEVICE_TIMEOUT="7200"),
    ):
        async with connect(host.root) as root:
            campaign = await insert_campaign(root, 12)
            await eventually(lambda: _all(root, campaign, "DOWNLOADING"), what="all began")
        await _in_zone(host, KOLKATA)
        async with connect(host.root) as root:
            for status in ("INSTALLING", "SUCCESS"):
                for number in range(1, 13):
                    fleet.send(f"tenant/north/device/dev-{number}/ota/status", encode_report(campaign, status))
                await eventually(lambda status=status: _all(root, campaign, status), what=status)
                late = "SELECT count(*) FROM ota_device_status WHERE due_at <= now()"
                assert await root.fetchval(late) == 0
            await wait_until_ended(root, campaign)
            assert await campaign_row(root, campaign) == ("COMPLETED", 12, 0)


async def _all(root: Connection, campaign: int, status: str) -> bool:
    return set(await breakdown(root, campaign)) == {status}
