"""When a policy lets devices be sent to, over the API and a real broker, with a database clock that is moved."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from rollwave.domain.role import Role
from rollwave.embedded.broker import EmbeddedBroker
from tests.api import assert_problem
from tests.moved_clock import Clock
from tests.policy_story import HANGS, MUTE, Campaign, Fields, World, world

ZONES = {"dev-ber": "Europe/Berlin", "dev-tok": "Asia/Tokyo", "dev-nyc": "America/New_York", "dev-none": None}
DEVICES: Fields = {device: {} if zone is None else {"time_zone": zone} for device, zone in ZONES.items()}
HALT, FREEZES = "/ota/halt", "/ota/freezes"


@pytest.fixture
async def here(moved_database: str, broker: EmbeddedBroker, clock: Clock) -> AsyncIterator[World]:
    clock.set("2027-01-11T12:00:00Z")  # a Monday
    async with world(moved_database, broker.url, clock, DEVICES) as here:
        yield here


async def test_windows_open_in_each_devices_zone_and_close_before_the_cutoff(here: World) -> None:
    """At night, from 02:00 to 04:00 where the device is. The last twenty minutes begin nothing new."""
    night = {"kind": "allow", "cron": "0 2 * * *", "duration": "2h", "cutoff": "20m", "time_zone": "device"}
    campaign = await here.started(
        {"order": "id", "schedule": {"time_zone": "UTC", "windows": [{"name": "night", **night}]}}
    )
    entries = await campaign.waits(window=4)
    assert entries["window"]["until"] == "2027-01-11T17:00:00Z", "Tokyo is first"
    one = await campaign.explains("dev-tok")
    assert not one["window"]["open"]
    assert one["window"]["text"] == "window night opens at 2027-01-12 02:00 in Asia/Tokyo (2027-01-11 17:00 UTC)"
    assert (one["may_go_now"], one["is"]["may_go_at"]) == (False, "2027-01-11T17:00:00Z")
    here.clock.set("2027-01-11T16:59:00Z")
    await here.rests(0)
    here.clock.set("2027-01-11T17:00:00Z")
    await here.sends(1)
    assert here.sent == {"dev-tok"}
    here.clock.set("2027-01-12T00:59:00Z")
    await here.rests(1)
    here.clock.set("2027-01-12T01:00:30Z")
    await here.sends(2)
    assert "dev-ber" in here.sent
    here.clock.set("2027-01-12T03:40:30Z")  # inside the window of devices without a zone, and after its cutoff
    await here.rests(2)
    assert (await campaign.waits(window=2))["window"]["until"] == "2027-01-12T07:00:00Z"
    here.clock.set("2027-01-12T07:00:30Z")
    await here.sends(3)
    here.clock.set("2027-01-13T03:39:00Z")
    shown = await campaign.is_("COMPLETED")
    assert shown["succeeded"] == 4


async def test_a_denied_time_wins_and_openings_add_up(here: World) -> None:
    windows = [
        {"name": "early", "kind": "allow", "cron": "0 13 * * *", "duration": "1h", "time_zone": "UTC"},
        {"name": "late", "kind": "allow", "cron": "0 14 * * *", "duration": "1h"},
        {"name": "lunch", "kind": "deny", "start": "2027-01-11T13:30:00Z", "end": "2027-01-11T14:30:00Z"},
    ]
    answer = await here.create({"schedule": {"windows": windows}}, dry_run=True)
    assert answer.status_code == 200, answer.text
    assert [(each["start"], each["end"]) for each in answer.json()["next_openings"]][:3] == [
        ("2027-01-11T13:00:00Z", "2027-01-11T13:30:00Z"),
        ("2027-01-11T14:30:00Z", "2027-01-11T15:00:00Z"),
        ("2027-01-12T13:00:00Z", "2027-01-12T15:00:00Z"),
    ]
    campaign = await here.started({"pace": {"max_in_flight": 2}, "schedule": {"windows": windows}})
    here.fault = lambda _: HANGS
    await campaign.waits(window=4)
    here.clock.set("2027-01-11T13:29:00Z")
    await here.sends(2)
    here.fault = lambda _: None
    here.clock.set("2027-01-11T13:31:00Z")
    for device in sorted(here.sent):
        await here.report(device, 1, "SUCCESS")
    entries = await campaign.waits(window=2)
    assert entries["window"]["text"] == "window lunch denies sending until 14:30 UTC"
    await here.rests(2)
    here.clock.set("2027-01-11T14:30:00Z")
    await campaign.is_("COMPLETED")


async def test_a_campaign_begins_at_its_start_and_its_end_skips_the_rest(here: World) -> None:
    schedule = {"start": "2027-01-12T08:00:00Z", "end": "2027-01-13T08:00:00Z", "at_end": "cancel"}
    pace = {"max_in_flight": 2, "start_jitter": "1h"}
    policy = {"pace": pace, "schedule": schedule, "deadlines": {"progress": "7d", "total": "30d"}}
    campaign = await here.started(policy)
    entries = await campaign.waits(schedule=4)
    assert entries["schedule"]["until"] == "2027-01-12T08:00:00Z"
    await here.rests(0)
    here.clock.set("2027-01-12T08:00:00Z")
    await here.sends(2)
    here.clock.set("2027-01-13T07:59:00Z")
    await here.rests(2)
    await campaign.waits(in_flight=2)
    here.clock.set("2027-01-13T08:00:00Z")
    shown = await campaign.is_("ABORTED")
    assert shown["status_reason"] == "schedule ended"
    assert shown["cancelled_at"] is not None
    await campaign.counted(SKIPPED=2, FAILED=2)
    [*failed] = (await campaign.get("/devices?status=FAILED"))["devices"]
    assert {each["error_code"] for each in failed} == {"CANCELLED"}


async def test_the_end_also_stops_a_paused_campaign_and_leaves_devices_alone(here: World) -> None:
    here.fault = lambda _: HANGS
    schedule = {"end": "2027-01-13T08:00:00Z"}
    campaign = await here.started({"pace": {"max_in_flight": 1}, "schedule": schedule, "deadlines": {"progress": "7d"}})
    await here.sends(1)
    await campaign.do("pause")
    here.clock.set("2027-01-13T08:00:00Z")
    shown = await campaign.is_("ABORTED")
    assert shown["cancelled_at"] is None
    await campaign.counted(SKIPPED=3, DOWNLOADING=1)
    [device] = here.sent
    await here.report(device, 1, "SUCCESS")
    await campaign.counted(SKIPPED=3, SUCCESS=1)


async def test_freezes_and_halts_hold_every_campaign_and_an_emergency_ignores_only_freezes(here: World) -> None:
    freeze = {"name": "year-end", "start": "2027-01-11T11:00:00Z", "end": "2027-01-11T13:00:00Z", "reason": "shops"}
    assert (await here.client.post(FREEZES, json=freeze)).status_code == 201
    assert_problem(await here.client.post(FREEZES, json=freeze), 409, "conflict")
    campaign = await here.started({})
    assert (await campaign.waits(freeze=4))["freeze"]["until"] == "2027-01-11T13:00:00Z"
    [stopped] = (await campaign.read())["stopped_by"]
    assert stopped["name"] == "year-end"
    await campaign.do("pause")
    emergency = await here.created({"schedule": {"ignore_freezes": True}})
    assert_problem(await emergency.do("start"), 403, "forbidden")
    halted = await here.client.post(HALT, json={"reason": "2.0 does not boot"})
    assert halted.json()["halted"] is True, halted.text
    async with here.other_key() as approver:
        assert (await emergency.do("start", by=approver)).status_code == 200
    await emergency.waits(halted=4)
    await here.rests(0)
    assert (await here.client.delete(f"{HALT}?reason=fixed")).json()["halted"] is False
    await emergency.is_("COMPLETED")
    await campaign.start()
    before = dict(here.fleet.received)
    await campaign.waits(freeze=4)
    assert dict(here.fleet.received) == before
    here.clock.set("2027-01-11T13:00:00Z")
    await campaign.is_("COMPLETED")
    assert [each["name"] for each in await campaign.history("sending_stopped")] == ["year-end"]
    assert (await here.client.delete(f"{FREEZES}/year-end")).status_code == 204


async def test_deadlines_stand_while_a_window_is_closed_and_leave_progress_afterwards(here: World) -> None:
    """Open for three seconds, closed for three, then open. Devices have six seconds for each report."""
    here.fault = lambda _: HANGS
    here.clock.set("2027-01-11T12:00:00Z")
    windows = [
        {"kind": "allow", "start": "2027-01-11T11:00:00Z", "end": "2027-01-11T12:00:03Z"},
        {"kind": "allow", "start": "2027-01-11T12:00:06Z", "end": "2027-01-11T13:00:00Z"},
    ]
    deadlines = {"progress": "6s", "total": "7s"}
    policy = {"guardrails": [], "retry": {"on": []}, "deadlines": deadlines, "schedule": {"windows": windows}}
    campaign = await here.started(policy)
    await campaign.counted(DOWNLOADING=4)
    assert here.clock.now < datetime(2027, 1, 11, 12, 0, 3, tzinfo=UTC), "the machine is too slow for this test"
    failed = await ended_at(campaign)
    assert min(failed) >= datetime(2027, 1, 11, 12, 0, 12, tzinfo=UTC), failed


async def test_deadlines_stand_during_a_halt_and_leave_progress_afterwards(here: World) -> None:
    here.fault = lambda _: MUTE
    policy = {"guardrails": [], "retry": {"on": []}, "deadlines": {"answer": "3s", "progress": "4s", "total": "5s"}}
    campaign = await here.started(policy)
    await campaign.counted(DOWNLOADING=4)
    await here.client.post(HALT, json={"reason": "look"})
    await here.still(6)
    await campaign.counted(DOWNLOADING=4)
    lifted = here.clock.now
    await here.client.delete(HALT)
    failed = await ended_at(campaign)
    assert min(failed) >= lifted + timedelta(seconds=4), (lifted, failed)


async def ended_at(campaign: Campaign) -> list[datetime]:
    """Wait until all devices have failed. Returns when."""
    await campaign.counted(FAILED=4)
    rows = (await campaign.get("/devices"))["devices"]
    return [datetime.fromisoformat(each["completed_at"]) for each in rows]


async def test_a_viewer_changes_no_brake(here: World) -> None:
    async with here.other_key(Role.VIEWER) as viewer:
        assert_problem(await viewer.post(HALT, json={"reason": "no"}), 403, "forbidden")
        assert (await viewer.get(HALT)).json()["halted"] is False
