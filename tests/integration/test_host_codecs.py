"""A host's pool converts values for its own code, and Rollwave uses it: campaigns, history, everything that is read."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from rollwave.domain.role import Role
from rollwave.embedded.broker import EmbeddedBroker
from rollwave.engine import identity, operations
from rollwave.errors import ConfigurationError
from rollwave.mqtt.payload import encode_report
from rollwave.mqtt.topics import status_topic
from rollwave.store import access, quarantine
from rollwave.store.database import Pool, create_pool
from tests.api import CAMPAIGNS, calling, prepare_campaign_body
from tests.engine import Command, Connection, always_succeeds, connect, devices, insert_campaign, wait_until_ended
from tests.host.platform import make_host
from tests.host.pools import Row, all_codecs, engine, host_pool, usual_codecs
from tests.installation import installed
from tests.support import eventually

pytestmark = pytest.mark.parametrize("postgres", ["embedded", "debian"], indirect=True)

SINGLE = "SELECT bool_and(jsonb_typeof(detail) = 'object') FROM ota_campaign_history WHERE campaign_id = $1"


@pytest.fixture(autouse=True)
def settings(broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MQTT_BROKER_URL", broker.url)
    monkeypatch.setenv("OTA_TICK_INTERVAL", "0.2")


def every_third_fails(command: Command) -> Sequence[bytes]:
    """Devices whose number is divisible by 3 fail each attempt with a message. All begin with an invalid report."""
    if int(command.device.rpartition("-")[2]) % 3:
        return [b"\xff\x00", *always_succeeds(command)]
    return [encode_report(command.campaign, "DOWNLOADING"), encode_report(command.campaign, "FAILED", error="no space")]


@pytest.mark.parametrize(
    "how",
    [{"init": usual_codecs}, {"init": all_codecs}, {"init": all_codecs, "record_class": Row}],
    ids=["usual codecs", "all codecs", "all codecs and a record class"],
)
async def test_campaigns_run_over_a_pool_with_codecs(
    empty_database: str, broker: EmbeddedBroker, how: dict[str, Any], tmp_path: Path
) -> None:
    host = await make_host(empty_database, rows=False)
    host.migrate("--grant-to", "host_service")
    async with (
        connect(host.root) as root,
        devices(broker.url, every_third_fails),
        host_pool(host.service, **how) as pool,
        engine(pool),
    ):
        tried_again: dict[str, Any] = {"retry_on": ["reported", "rejected"], "max_attempts": 2, "retry_delay": 0.1}
        done = await insert_campaign(root, 12, abort_threshold=0.9, **tried_again)
        stopped = await insert_campaign(root, 30, tenant="south", abort_threshold=0.2, abort_min_completed=3)
        staged = await insert_campaign(root, 8, rollout_strategy="canary", canary_percent=25.0, abort_threshold=0.9)
        for campaign, tenant, status in (
            (done, "north", "COMPLETED"), (stopped, "south", "ABORTED"), (staged, "north", "COMPLETED"),
        ):  # fmt: skip
            await wait_until_ended(root, campaign, status, tenant=tenant)
            assert await root.fetchval(SINGLE, campaign), "history is encoded as JSON once"
        reported = await _events(pool, done)
        assert {each["event"] for each in reported} >= {"attempt_failed", "completed"}
        assert all(isinstance(each["detail"], dict) for each in reported)
        await _operated(pool, root)
        await _shown(host.root, broker.url, done, tmp_path)


async def _events(pool: Pool, campaign: int) -> list[dict[str, Any]]:
    async with calling(pool) as client:
        answer = await client.get(f"{CAMPAIGNS}/{campaign}/events", params={"limit": 1000})
    assert answer.status_code == 200, answer.text
    events: list[dict[str, Any]] = answer.json()["events"]
    return events


async def _operated(pool: Pool, root: Connection) -> None:
    """A campaign started and stopped by the host's own code. Each change is in history, with its reason."""
    campaign = await insert_campaign(root, 3, status="CREATED", rollout_rate=0)
    await operations.start_campaign(pool, "north", campaign, actor="host")
    await operations.pause_campaign(pool, "north", campaign, actor="host")
    await operations.abort_campaign(pool, "north", campaign, actor="host", reason="wrong file")
    history = [(each["event"], each["detail"].get("reason")) for each in await _events(pool, campaign)]
    assert [each for each in history if each[0] in {"running", "paused", "aborted"}] == [
        ("running", None),
        ("paused", "paused by an operator"),
        ("aborted", "wrong file"),
    ]
    assert await root.fetchval(SINGLE, campaign)


async def _shown(database: str, broker: str, campaign: int, folder: Path) -> None:
    """`campaign watch` on a campaign whose history the host's worker wrote."""
    async with installed(database, broker, folder / "serve") as installation:
        watched = await asyncio.to_thread(installation.do, "campaign", "watch", str(campaign))
    assert "COMPLETED" in watched


async def test_a_pool_with_codecs_reads_and_writes_every_value(database: str) -> None:
    """The API gives the same answers on a host's pool as on its own."""
    async with host_pool(database, init=all_codecs, record_class=Row) as pool, create_pool(database) as plain:
        key = await access.create(pool, "north", Role.OPERATOR, expires_in=timedelta(days=1))
        expiry = (await access.list_keys(pool, "north"))[0].expires_at
        assert expiry is not None
        assert abs(expiry - datetime.now(UTC) - timedelta(days=1)) < timedelta(minutes=1)
        async with calling(pool, key=key) as client:
            attributes = {"site": 'Ω \\ "x"', "floor": [1, None, {"deep": True}]}
            answer = await client.put("/devices/d1", json={"device_type": "pump", "attributes": attributes})
            assert answer.json()["attributes"] == attributes
            wanted = {"device_ids": [], "devices": [{"device_id": "d1", "attributes": attributes}, {"device_id": "d2"}]}
            assert (await client.put("/device-groups/described", json=wanted)).status_code in {200, 201}
            body = await prepare_campaign_body(client) | {"rollout_strategy": "canary"}
            made = [await client.post(CAMPAIGNS, json=body, headers={"Idempotency-Key": "once"}) for _ in range(2)]
            assert [each.status_code for each in made] == [201, 201]
            assert made[0].json()["id"] == made[1].json()["id"]
            begun = (await client.post("/device-groups/imported/imports")).json()["import_id"]
            part = f"/device-groups/imported/imports/{begun}"
            assert (await client.post(f"{part}/devices", json=wanted)).status_code == 200
            applied = [(await client.post(f"{part}/apply")).json() for _ in range(2)]
            assert applied[0] == applied[1]
            campaign = f"{CAMPAIGNS}/{made[0].json()['id']}"
            for action in ("start", "pause", "abort"):
                assert (await client.post(f"{campaign}/{action}")).status_code == 200
        paths = [
            CAMPAIGNS,
            campaign,
            f"{campaign}/devices",
            f"{campaign}/events",
            "/firmware",
            "/devices",
            "/devices/d1",
        ]
        paths += ["/device-groups", "/device-groups/described", "/device-groups/imported"]
        async with calling(pool, key=key) as client, calling(plain, key=key) as other:
            for path in paths:
                answer, same = await client.get(path), await other.get(path)
                assert (answer.status_code, answer.json()) == (200, same.json()), path
            for name in ("/livez", "/readyz"):
                assert (await client.get(f"http://test{name}")).status_code == 200


async def test_history_that_was_encoded_as_json_twice_is_read(pool: Pool, host: Connection) -> None:
    """As an earlier version wrote it on a pool with a jsonb codec."""
    campaign = await insert_campaign(host, 1)
    detail = {"from": "RUNNING", "to": "ABORTED", "reason": 'she said "no"'}
    for body in (json.dumps(detail), json.dumps(json.dumps(detail))):
        await host.execute(
            "INSERT INTO ota_campaign_history (tenant_id, campaign_id, event, actor, detail)"
            " VALUES ('north', $1, 'aborted', 'engine', $2)",
            campaign,
            body,
        )
    assert [each["detail"] for each in await _events(pool, campaign)] == [detail, detail]


async def test_an_invalid_report_is_stored_byte_for_byte_over_a_pool_with_codecs(
    database: str, broker: EmbeddedBroker
) -> None:
    payload = bytes(range(256))
    async with (
        connect(database) as host,
        host_pool(database, init=all_codecs) as pool,
        devices(broker.url) as fleet,
        engine(pool),
    ):
        await insert_campaign(host, 1)
        fleet.send(status_topic("north", "dev-1"), payload)
        await eventually(lambda: host.fetchval("SELECT count(*) FROM ota_quarantine"), what="kept")
        kept, total = await quarantine.newest(pool, "north", 10)
    assert ([each.payload for each in kept], total) == ([payload], 1)
    assert abs(kept[0].received_at - datetime.now(UTC)) < timedelta(minutes=1)


@pytest.fixture
async def host(database: str) -> AsyncIterator[Connection]:
    async with connect(database) as connection:
        yield connection


@pytest.mark.parametrize(
    ("name", "encoder", "decoder"),
    [
        ("text", str.upper, str),
        ("text", str, str.encode),
        ("varchar", str, str.strip),
        ("int8", str, float),
        ("float8", str, Decimal),
        ("bool", str, str),
        ("text", lambda value: value.decode(), str),
    ],
)
async def test_a_codec_that_changes_plain_values_is_named(
    database: str, name: str, encoder: Callable[[Any], str], decoder: Callable[[str], Any]
) -> None:
    """Nothing is sent and nothing is written on such a pool, since its values would be wrong."""

    async def init(connection: Any) -> None:
        await connection.set_type_codec(name, encoder=encoder, decoder=decoder, schema="pg_catalog")

    async with host_pool(database, init=init) as pool:
        with pytest.raises(ConfigurationError, match="codec") as refused:
            await identity.require(pool)
    assert "pool without this codec" in refused.value.hint
