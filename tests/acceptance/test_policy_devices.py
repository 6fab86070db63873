"""Devices of a campaign under a policy: labels and selectors, why they wait, cancel, retry."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from rollwave.embedded.broker import EmbeddedBroker
from rollwave.fleet.faults import Fault, Stage
from tests.api import assert_problem
from tests.moved_clock import Clock
from tests.policy_story import HANGS, MUTE, Fields, World, world
from tests.support import eventually

DEVICES: Fields = {
    "a-1": {"attributes": {"site": "north", "floor": 2}, "version": "1.9.0", "device_type": "pump"},
    "a-2": {"attributes": {"site": "north", "floor": 10}, "version": "1.10.0", "device_type": "pump"},
    "a-3": {"attributes": {"site": "south", "version": "3.0"}, "time_zone": "Asia/Tokyo"},
    "b-1": {"attributes": {}},
    "b-2": {"attributes": {"site": "so*th"}},
}
STRANGER = "zz-stranger"


@pytest.fixture
async def here(moved_database: str, broker: EmbeddedBroker, clock: Clock) -> AsyncIterator[World]:
    async with world(moved_database, broker.url, clock, {**DEVICES, STRANGER: None}) as here:
        yield here


SELECTED = {
    "site == north and floor < 9": {"a-1"},
    "site==north;floor=gt=9": {"a-2"},
    "version < 1.10.0": {"a-1"},
    "version >= 1.10.0": {"a-2", "a-3"},
    "site != north": {"a-3", "b-1", "b-2", STRANGER},
    "not has(site)": {"b-1", STRANGER},
    "site like 'so*'": {"a-3", "b-2"},
    "site == 'so*th'": {"b-2"},
    "time_zone == 'Asia/Tokyo'": {"a-3"},
    "device_id in (a-1, b-1) or device_type == pump": {"a-1", "a-2", "b-1"},
    "last_seen < -7d": set(),
}


async def test_the_same_devices_are_listed_and_placed(here: World) -> None:
    for selector, expected in SELECTED.items():
        listed = await here.client.get("/devices", params={"select": selector, "limit": 100})
        assert listed.status_code == 200, listed.text
        found = {each["device_id"] for each in listed.json()["devices"]}
        assert found == expected, selector
        previewed = await here.create({"waves": [{"name": "some", "select": selector}, {"name": "rest"}]}, dry_run=True)
        assert previewed.status_code == 200, (selector, previewed.text)
        assert previewed.json()["waves"][0]["devices"] == len(expected), (selector, previewed.text)
    problem = assert_problem(await here.create({"waves": [{"select": "site = = north"}, {}]}), 422, "invalid-input")
    assert "expected: a value, in line 1, column 8" in str(problem), problem


async def test_a_device_that_nobody_registered_has_only_its_id_and_labels_are_read_once(here: World) -> None:
    """Its device id fits a wave. A label that changes later moves nobody."""
    waves = [{"name": "strange", "select": "not has(site) and device_id like 'zz*'"}, {"name": "rest"}]
    windows = [{"kind": "allow", "cron": "0 * * * *", "duration": "1h", "time_zone": "device"}]
    policy = {"order": "id", "waves": waves, "schedule": {"windows": windows}}
    campaign = await here.created(policy)
    await here.put(f"/devices/{STRANGER}", {"attributes": {"site": "north"}})
    await campaign.start()
    shown = await campaign.is_("COMPLETED")
    assert [each["sent"] for each in shown["waves"]] == [1, 5]
    assert next(iter(here.fleet.received)) == STRANGER
    zones = {each["labels"]["time_zone"] for each in (await campaign.get("/segments"))["segments"]}
    assert zones == {None, "Asia/Tokyo"}


async def test_every_waiting_device_is_counted_under_its_first_closed_gate(here: World) -> None:
    """Wave, cap, backoff and the campaign's own status; each device says the same of itself."""
    here.fault = lambda device: Fault() if device == "a-1" else HANGS
    waves = [{"name": "first", "select": "device_id like 'a-*'"}, {"name": "rest"}]
    policy = {
        "order": "id",
        "waves": waves,
        "guardrails": [],
        "pace": {"max_in_flight": 2},
        "retry": {"on": ["reported"], "delay": "1h", "max_delay": "1h"},
        "deadlines": {"progress": "1d"},
    }
    campaign = await here.started(policy)
    await here.sends(2)
    await campaign.waits(wave=3, in_flight=1)
    closed = {"b-1": "wave", "a-3": "in_flight", "a-1": "backoff", "a-2": "status"}

    async def named() -> dict[str, str]:
        found = {}
        for device in closed:
            checks = (await campaign.explains(device))["is"]["checks"]
            found[device] = next(each["gate"] for each in checks if not each["open"])
        return found

    async def agree() -> bool:
        return await named() == closed

    await eventually(agree, timeout=10, what=f"{closed}, not {await named()}")
    await campaign.do("pause")
    entries = await campaign.waits(status=4)
    assert entries["status"]["text"] == "the campaign is paused: paused by an operator"
    assert (await campaign.explains("b-2"))["may_go_now"] is False


async def test_cancel_tells_devices_that_can_stop(here: World) -> None:
    policy = {"order": "id", "pace": {"max_in_flight": 3, "start_jitter": "1h"}, "deadlines": {"progress": "1d"}}
    campaign = await here.started(policy)
    await campaign.counted(DOWNLOADING=3, PENDING=3)
    cancelled = await campaign.do("cancel", reason="wrong version")
    assert cancelled.json() == {"id": 1, "status": "ABORTED"}
    await campaign.counted(FAILED=3, SKIPPED=3)
    assert {each["error_code"] for each in (await campaign.get("/devices?status=FAILED"))["devices"]} == {"CANCELLED"}
    assert (await campaign.do("cancel")).json() == cancelled.json(), "asked again"
    assert dict(here.fleet.cancels) == {"a-1": 1, "a-2": 1, "a-3": 1}
    assert_problem(await campaign.do("retry"), 409, "conflict")
    assert_problem(await campaign.do("start"), 409, "conflict")


async def test_retry_gives_one_attempt_above_the_maximum_and_keeps_the_dispatch_number(here: World) -> None:
    faults = {"a-1": Fault(code="E_BOOT"), "a-2": Fault(Stage.COMMAND), "b-2": MUTE, STRANGER: HANGS}
    here.fault = faults.get
    deadlines = {"answer": "1s", "progress": "2s", "total": "1d"}
    policy = {"order": "id", "guardrails": [], "deadlines": deadlines, "retry": {"max_attempts": 1}}
    campaign = await here.started(policy)
    await campaign.counted(SUCCESS=2, FAILED=4)
    await campaign.is_("COMPLETED")
    assert_problem(await campaign.do("retry"), 409, "conflict")
    campaign = await here.started(policy | {"waves": [{"select": "has(site)", "gate": {"approval": True}}, {}]})
    await campaign.counted(SUCCESS=1, FAILED=3, PENDING=2)
    numbers = await dispatch_numbers(here, 2)
    faults.clear()
    assert (await campaign.do("retry?code=E_BOOT")).json()["devices"] == 1
    assert (await campaign.do("retry?reason=no_answer")).json()["devices"] == 1
    assert (await campaign.do("retry")).json()["devices"] == 1
    await campaign.counted(SUCCESS=4, PENDING=2)
    rows = (await campaign.get("/devices?status=SUCCESS"))["devices"]
    assert {each["device_id"]: each["attempt"] for each in rows} == {"a-1": 2, "a-2": 2, "a-3": 1, "b-2": 2}
    assert await dispatch_numbers(here, 2) == numbers


async def dispatch_numbers(here: World, campaign: int) -> dict[str, int]:
    query = "SELECT device_id, dispatch_number FROM ota_device_status WHERE campaign_id = $1"
    return {row["device_id"]: row["dispatch_number"] for row in await here.pool.fetch(query, campaign)}
