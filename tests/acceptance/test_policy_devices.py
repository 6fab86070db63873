"""Labels, selectors, and what is done with devices of a campaign: waiting, explain, cancel, retry."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from rollwave.embedded.broker import EmbeddedBroker
from rollwave.fleet.faults import Fault, Stage
from tests.api import assert_problem
from tests.moved_clock import Clock
from tests.policy_story import HANGS, MUTE, World, world

DEVICES = {
    "a-1": {"attributes": {"site": "north", "floor": 2}, "version": "1.9.0", "device_type": "pump"},
    "a-2": {"attributes": {"site": "north", "floor": 10}, "version": "1.10.0", "device_type": "pump"},
    "a-3": {"attributes": {"site": "south", "version": "3.0"}, "time_zone": "Asia/Tokyo"},
    "b-1": {"attributes": {}},
    "b-2": {"attributes": {"site": "so*th"}},
}
STRANGER = "zz-stranger"


@pytest.fixture
async def here(moved_database: str, broker: EmbeddedBroker, clock: Clock) -> AsyncIterator[World]:
    async with world(moved_database, broker.url, clock, DEVICES | {STRANGER: {}}) as here:
        assert (await here.client.delete(f"/devices/{STRANGER}")).status_code in {204, 405}
        yield here


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ("site == north and floor < 9", {"a-1"}),
        ("site==north;floor=gt=9", {"a-2"}),
        ("version < 1.10.0", {"a-1"}),
        ("version >= 1.10.0", {"a-2", "a-3"}),
        ("site != north", {"a-3", "b-1", "b-2"}),
        ("not has(site)", {"b-1"}),
        ("site like 'so*'", {"a-3", "b-2"}),
        (r"site == 'so*th'", {"b-2"}),
        ("time_zone == Asia/Tokyo", {"a-3"}),
        ("device_id in (a-1, b-1) or device_type == pump", {"a-1", "a-2", "b-1"}),
        ("last_seen < -7d", set()),
    ],
)
async def test_the_same_devices_are_listed_and_placed(here: World, selector: str, expected: set[str]) -> None:
    listed = await here.client.get("/devices", params={"select": selector, "limit": 100})
    assert {each["device_id"] for each in listed.json()["devices"]} - {STRANGER} == expected, listed.text
    if expected:
        previewed = await here.create({"waves": [{"name": "some", "select": selector}, {"name": "rest"}]}, dry_run=True)
        strange = 1 if selector in {"site != north", "not has(site)"} else 0
        assert previewed.json()["waves"][0]["devices"] == len(expected) + strange, previewed.text
