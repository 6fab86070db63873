"""Brakes over HTTP, emergencies that ignore freezes, and the end of a schedule."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest

from rollwave.domain.campaign import CampaignRef, CampaignStatus
from rollwave.domain.ids import CampaignId, TenantId
from rollwave.domain.role import Role
from rollwave.engine.upkeep.look import Upkeep
from rollwave.engine.upkeep.targeting import Targeter
from rollwave.settings import Settings
from rollwave.store.database import Pool
from tests.api import CAMPAIGNS, assert_problem, calling, prepare_campaign_body
from tests.engine import (
    Connection,
    breakdown,
    campaign_ref,
    campaign_row,
    connect,
    device_row,
    make_claims,
    mark_sent,
    subscribed_listener,
)
from tests.in_process import long_subscribed_listener

OTA = "/ota"
NOW = datetime.now(UTC)


def soon(**time: float) -> str:
    return (NOW + timedelta(**time)).isoformat()


@pytest.fixture
async def host(database: str) -> AsyncIterator[Connection]:
    async with connect(database) as connection:
        yield connection


@pytest.fixture
async def north(pool: Pool) -> AsyncIterator[httpx2.AsyncClient]:
    async with calling(pool, "north", Role.OPERATOR) as client:
        yield client


@pytest.fixture
async def approver(pool: Pool) -> AsyncIterator[httpx2.AsyncClient]:
    async with calling(pool, "north", Role.APPROVER) as client:
        yield client


async def campaign_under(client: httpx2.AsyncClient, pool: Pool, **schedule: object) -> str:
    """Create a campaign whose policy has this schedule, and place its devices. Returns its URL."""
    flat = {"rollout_strategy", "rollout_rate", "abort_threshold", "abort_min_completed", "canary_percent"}
    body = {key: value for key, value in (await prepare_campaign_body(client)).items() if key not in flat}
    answer = await client.post(CAMPAIGNS, json={**body, "policy": {"schedule": schedule}})
    assert answer.status_code == 201, answer.text
    number = answer.json()["id"]
    await look(pool, number)
    return f"{CAMPAIGNS}/{number}"


async def look(pool: Pool, number: int, status: CampaignStatus = CampaignStatus.RUNNING) -> None:
    """Look after a campaign as a worker does, until its devices are placed."""
    ref = CampaignRef(TenantId("north"), CampaignId(number), status)
    for _ in range(5):
        if not (await Upkeep(pool, Settings()).look_after(ref)).being_targeted:
            break
        await Targeter(pool).target(ref)


async def test_a_halt_over_http(north: httpx2.AsyncClient) -> None:
    nothing = {"halted": False, "since": None, "by": None, "by_name": None, "reason": None}
    assert (await north.get(f"{OTA}/halt")).json() == nothing
    assert_problem(await north.post(f"{OTA}/halt", json={}), 422, "invalid-input")
    first = (await north.post(f"{OTA}/halt", json={"reason": "bricked devices"})).json()
    assert (first["halted"], first["reason"]) == (True, "bricked devices")
    assert (await north.post(f"{OTA}/halt", json={"reason": "again"})).json() == first
    assert (await north.get(f"{OTA}/halt")).json() == first
    assert (await north.delete(f"{OTA}/halt", params={"reason": "fixed"})).json()["halted"] is False
    assert (await north.delete(f"{OTA}/halt")).json()["halted"] is False


async def test_freezes_over_http(north: httpx2.AsyncClient) -> None:
    body = {"name": "launch", "start": soon(hours=-1), "end": soon(hours=1), "reason": "the launch"}
    answer = await north.post(f"{OTA}/freezes", json=body)
    assert answer.status_code == 201, answer.text
    assert (answer.json()["name"], answer.json()["in_force"]) == ("launch", True)
    assert_problem(await north.post(f"{OTA}/freezes", json=body), 409, "conflict")
    for wrong in (
        {"name": "no name"},
        {"start": "tomorrow"},
        {"start": 7},
        {"end": soon(hours=-1)},
        {"end": soon(days=-1)},
    ):
        assert_problem(await north.post(f"{OTA}/freezes", json={**body, **wrong}), 422, "invalid-input")
    listed = (await north.get(f"{OTA}/freezes")).json()
    assert [each["name"] for each in listed["freezes"]] == ["launch"]
    assert (await north.delete(f"{OTA}/freezes/launch")).status_code == 204
    assert_problem(await north.delete(f"{OTA}/freezes/launch"), 404, "not-found")


async def test_a_viewer_reads_brakes_and_sets_none(pool: Pool) -> None:
    async with calling(pool, "north", Role.VIEWER) as viewer:
        assert (await viewer.get(f"{OTA}/halt")).status_code == 200
        assert (await viewer.get(f"{OTA}/freezes")).status_code == 200
        assert_problem(await viewer.post(f"{OTA}/halt", json={"reason": "no"}), 403, "forbidden")
        assert_problem(await viewer.delete(f"{OTA}/halt"), 403, "forbidden")


async def gates(client: httpx2.AsyncClient, url: str) -> list[str]:
    waiting: list[dict[str, Any]] = (await client.get(f"{url}/waiting")).json()["waiting"]
    return [each["reason"] for each in waiting]


async def test_an_approver_starts_an_emergency_which_a_freeze_does_not_stop_but_a_halt(
    pool: Pool, north: httpx2.AsyncClient, approver: httpx2.AsyncClient
) -> None:
    url = await campaign_under(north, pool, ignore_freezes=True)
    await north.post(f"{OTA}/freezes", json={"name": "launch", "start": soon(hours=-1), "end": soon(hours=1)})
    assert_problem(await north.post(f"{url}/start"), 403, "forbidden")
    assert (await approver.post(f"{url}/start")).json()["status"] == "RUNNING"
    assert (await north.post(f"{url}/start")).status_code == 200, "it runs already"
    await look(pool, int(url.rpartition("/")[2]))
    async with subscribed_listener(pool):
        assert "freeze" not in await gates(north, url)
        assert (await north.get(url)).json()["stopped_by"] == []
        await north.post(f"{OTA}/halt", json={"reason": "bricked devices"})
        assert await gates(north, url) == ["halted"]
        assert [each["kind"] for each in (await north.get(url)).json()["stopped_by"]] == ["halt"]


async def test_a_running_campaign_begins_to_ignore_freezes_only_by_an_approver(
    pool: Pool, north: httpx2.AsyncClient, approver: httpx2.AsyncClient
) -> None:
    url = await campaign_under(north, pool)
    await north.post(f"{url}/start")
    emergency = {"schedule": {"ignore_freezes": True}}
    assert_problem(await north.put(f"{url}/policy", json=emergency), 403, "forbidden")
    assert (await approver.put(f"{url}/policy", json=emergency)).status_code == 200


@pytest.mark.parametrize("at_end", ["stop", "cancel"])
async def test_at_the_end_of_its_schedule_a_campaign_is_aborted_and_pending_devices_are_skipped(
    pool: Pool, host: Connection, north: httpx2.AsyncClient, at_end: str
) -> None:
    url = await campaign_under(north, pool, end=soon(days=1), at_end=at_end)
    number = int(url.rpartition("/")[2])
    await north.post(f"{url}/start")
    await look(pool, number)
    [first, *_] = [row["device_id"] for row in await host.fetch("SELECT device_id FROM ota_device_status ORDER BY 1")]
    await mark_sent(host, number, [first])
    await look(pool, number)
    assert (await campaign_row(host, number))[0] == "RUNNING"
    await host.execute(
        "UPDATE ota_campaign_policies SET document = jsonb_set(document, '{schedule,end}', to_jsonb($1::text))",
        soon(minutes=-1),
    )
    await look(pool, number)
    assert (await campaign_row(host, number))[0] == "ABORTED"
    assert await breakdown(host, number) == {"DOWNLOADING": 1, "SKIPPED": 2}
    assert (await north.get(url)).json()["status_reason"] == "schedule ended"
    events = (await north.get(f"{url}/events")).json()["events"]
    ended = next(each for each in events if each["event"] == "aborted")
    assert (ended["actor"], ended["detail"]["reason"]) == ("engine", "schedule ended")
    assert ("cancelled" in {each["event"] for each in events}) is (at_end == "cancel")
    assert (await device_row(host, number, first))["status"] == "DOWNLOADING", "it may still finish"


async def test_the_end_of_a_schedule_ends_a_campaign_whose_devices_are_placed_anew(
    pool: Pool, host: Connection, north: httpx2.AsyncClient
) -> None:
    url = await campaign_under(north, pool, end=soon(days=1))
    number = int(url.rpartition("/")[2])
    await north.post(f"{url}/start")
    await host.execute("UPDATE ota_campaigns SET targeted_devices = 0")  # as an edit does
    await host.execute(
        "UPDATE ota_campaign_policies SET document = jsonb_set(document, '{schedule,end}', to_jsonb($1::text))",
        soon(minutes=-1),
    )
    ref = CampaignRef(TenantId("north"), CampaignId(number), CampaignStatus.RUNNING)
    assert (await Upkeep(pool, Settings()).look_after(ref)).schedule_ended
    assert (await campaign_row(host, number))[0] == "ABORTED"


async def test_a_campaign_that_is_started_after_the_end_of_its_schedule_sends_nothing(
    pool: Pool, host: Connection, north: httpx2.AsyncClient
) -> None:
    url = await campaign_under(north, pool, end=soon(minutes=-1))
    number = int(url.rpartition("/")[2])
    assert (await campaign_row(host, number))[0] == "CREATED", "its author may still edit the policy"
    assert (await north.post(f"{url}/start")).status_code == 200
    async with long_subscribed_listener(pool, host):
        assert not (await make_claims(pool, Settings()).claim(campaign_ref(number))).commands
    await look(pool, number)
    assert (await campaign_row(host, number))[0] == "ABORTED"
    assert (await breakdown(host, number)).keys() == {"SKIPPED"}
