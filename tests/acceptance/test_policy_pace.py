"""The pace of a policy, over the API and a real broker."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime

import pytest

from rollwave.embedded.broker import EmbeddedBroker
from tests.api import assert_problem
from tests.moved_clock import Clock
from tests.policy_story import HANGS, Fields, World, world

DEVICES: Fields = {f"dev-{number:02}": {} for number in range(40)}


@pytest.fixture
async def here(moved_database: str, broker: EmbeddedBroker, clock: Clock) -> AsyncIterator[World]:
    async with world(moved_database, broker.url, clock, DEVICES) as here:
        yield here


async def test_the_rate_is_never_exceeded_and_nothing_is_saved_up(here: World) -> None:
    """300 a minute are five a second: none more after a pause of ten minutes."""
    campaign = await here.started({"guardrails": [], "pace": {"per_minute": 300}})
    await here.sends(10)
    await campaign.do("pause")
    await here.still()
    before = len(here.sent)
    here.clock.forward(minutes=10)
    await campaign.start()
    await here.still(1.0)
    assert len(here.sent) - before <= 8, "at most five, and the share of a step at each end"
    await campaign.is_("COMPLETED", timeout=20)
    rows = (await campaign.get("/devices?limit=100"))["devices"]
    started = sorted(datetime.fromisoformat(each["started_at"]) for each in rows)
    late = [each for each in started if (each - started[0]).total_seconds() > 300]
    seconds = (late[-1] - late[0]).total_seconds()
    # Never more than the rate. A worker that the machine holds up is late, and what it could not send is not saved up.
    assert 2.5 <= (len(late) - 1) / seconds <= 5.5, seconds


async def test_a_ramp_gets_faster_with_success(here: World) -> None:
    """Sixty a minute at first; twice that after five devices, and so on up to 6,000."""
    ramp = {"from": 60, "factor": 10, "every_succeeded": 4}
    campaign = await here.started({"pace": {"per_minute": 6000, "ramp": ramp}})
    await here.sends(1)
    entries = {each["reason"]: each for each in (await campaign.get("/waiting"))["waiting"]}
    # On a busy machine the next device may be due, and be in a worker's hands (lease).
    assert entries.keys() <= {"pace", "lease"}, entries
    assert entries["pace"]["detail"]["per_minute"] == 60, entries
    await campaign.is_("COMPLETED")
    rows = (await campaign.get("/devices?limit=100"))["devices"]
    started = sorted(datetime.fromisoformat(each["started_at"]) for each in rows)
    assert (started[3] - started[0]).total_seconds() >= 2.5
    assert (started[-1] - started[4]).total_seconds() <= 5


async def test_bytes_below_one_file_let_one_device_go_and_need_a_known_size(here: World) -> None:
    here.fault = lambda _: HANGS
    policy = {"pace": {"bytes": {"in_flight": "1KiB"}}, "deadlines": {"progress": "1h"}}
    refused = assert_problem(await here.create(policy, size=None), 422, "invalid-input")
    assert "size of the firmware" in str(refused), refused
    campaign = await here.started(policy, size=5000)
    await here.rests(1)
    entries = await campaign.waits(bytes=39)
    assert entries["bytes"]["detail"]["size"] == 5000
    # An edit raises the limit, and is in force at the next claim.
    assert (await campaign.edit({"pace": {"bytes": {"in_flight": "10KiB"}}})).status_code == 200
    await here.rests(2)
    await campaign.waits(bytes=38)


async def test_caps_count_backoff_and_the_smaller_one_holds(here: World) -> None:
    here.fault = lambda _: HANGS
    waves = [{"name": "canary", "size": 10, "max_in_flight": 2}, {"name": "rest"}]
    policy = {"waves": waves, "pace": {"max_in_flight": 5}, "deadlines": {"progress": "1s"}, "guardrails": []}
    campaign = await here.started(policy | {"retry": {"max_attempts": 3, "delay": "1h", "max_delay": "1h"}})
    await here.sends(2)
    await campaign.waits(in_flight=8, wave=30)
    await here.still(3)  # their first attempt has failed, and they wait for the next one
    assert len(await campaign.history("attempt_failed")) == 2
    await here.rests(2)
    await campaign.waits(in_flight=8, wave=30)
    await campaign.do("waves/canary/promote")
    await here.rests(5)


async def test_start_jitter_is_part_of_the_command_and_cannot_change_after_it(here: World) -> None:
    campaign = await here.started({"pace": {"max_in_flight": 3, "start_jitter": "1h"}, "deadlines": {"progress": "2h"}})
    await campaign.counted(DOWNLOADING=3, PENDING=37)
    row = (await campaign.get("/devices?status=DOWNLOADING"))["devices"][0]
    left = datetime.fromisoformat(row["due_at"]) - here.clock.now
    assert 10_600 < left.total_seconds() <= 10_800, "an hour more than the deadline for the first report"
    changed = await campaign.edit({"pace": {"max_in_flight": 3, "start_jitter": "2h"}})
    assert_problem(changed, 409, "conflict")
    assert (await campaign.edit({"pace": {"max_in_flight": 4, "start_jitter": "60m"}})).status_code == 200
    await here.sends(4)
