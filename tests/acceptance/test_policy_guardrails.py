"""Guardrails of a policy, over the API and a real broker: what counts, where, and what follows."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from rollwave.embedded.broker import EmbeddedBroker
from rollwave.fleet.faults import Fault, Stage
from tests.api import assert_problem
from tests.moved_clock import Clock
from tests.policy_story import MUTE, World, world

BOOT, FULL = Fault(code="E_BOOT"), Fault(Stage.COMMAND, code="E_FULL")
DEVICES = {
    f"dev-{number:02}": {"attributes": {"revision": "BC"[number % 2], "site": f"s{number % 3}"}} for number in range(24)
}
ONE_BY_ONE = {"max_in_flight": 1}


@pytest.fixture
async def here(moved_database: str, broker: EmbeddedBroker, clock: Clock) -> AsyncIterator[World]:
    async with world(moved_database, broker.url, clock, DEVICES) as here:
        yield here


def revision(device: str) -> str:
    return "BC"[int(device[4:]) % 2]


async def test_only_the_classes_and_codes_of_a_guardrail_count(here: World) -> None:
    """Silence and another code fail devices, and only the third E_BOOT pauses the campaign."""
    order = sorted(DEVICES)
    kinds = dict(zip(order, [MUTE, FULL, FULL, BOOT, FULL, BOOT, BOOT], strict=False))
    here.fault = lambda device: kinds.get(device)
    boot = {"name": "boot", "codes": ["E_BOOT"], "count": ["reported"], "threshold": "35%", "min_finished": 5}
    silent = {"name": "silent", "count": ["no_answer"], "threshold": "90%", "min_finished": 2}
    policy = {
        "order": "id",
        "pace": ONE_BY_ONE,
        "guardrails": [{**boot, "action": "pause"}, silent],
        "deadlines": {"answer": "1s", "progress": "1s"},
        "retry": {"on": []},
    }
    campaign = await here.started(policy)
    shown = await campaign.is_("PAUSED")
    assert shown["failed"] == 7
    numbers = {each["name"]: each for each in shown["guardrails"]}
    assert (numbers["boot"]["tripped"], numbers["silent"]["tripped"]) == (True, False)
    assert numbers["boot"]["value"] == pytest.approx(3 / 7)
    assert (numbers["boot"]["limit"], numbers["boot"]["threshold"]) == (None, 0.35)
    [trip] = await campaign.history("guardrail_tripped")
    assert (trip["guardrail"], sorted(trip["devices"])) == ("boot", [order[3], order[5], order[6]])
    # Start begins a new test: the earlier failures count no more.
    kinds.clear()
    await campaign.start()
    shown = await campaign.is_("COMPLETED")
    numbers = {each["name"]: each for each in shown["guardrails"]}
    assert (numbers["boot"]["tripped"], numbers["boot"]["value"]) == (False, 0)


async def test_a_sequential_guardrail_counts_those_in_flight_and_says_after_how_many_it_trips(here: World) -> None:
    here.fault = lambda _: BOOT
    rule = {"name": "sure", "method": "sequential", "threshold": "5%", "alpha": 0.05}
    campaign = await here.created({"order": "id", "pace": ONE_BY_ONE, "guardrails": [rule]})
    [before] = (await campaign.read())["guardrails"]
    assert (before["value"], before["limit"], before["tripped"]) == (0, 0, False)
    await campaign.start()
    shown = await campaign.is_("ABORTED")
    [after] = shown["guardrails"]
    assert shown["failed"] == 5, "by alpha 0.05 two are enough, and min_finished is 5"
    assert (after["value"], after["tripped"], after["trips_after"]) == (1.0, True, 0)
    assert after["limit"] > after["threshold"]
    assert after["evidence"]["limit"] == pytest.approx(after["limit"])
    await campaign.counted(FAILED=5, SKIPPED=19)


async def test_the_scope_wave_begins_anew_with_each_wave(here: World) -> None:
    order = sorted(DEVICES)
    failing = {order[0], order[10], order[11]}
    here.fault = lambda device: BOOT if device in failing else None
    waves: list[Any] = [{"name": "first", "size": 10, "gate": {}}, {"name": "rest"}]
    rule = {"name": "each", "threshold": "10%", "scope": "wave", "min_finished": 10, "action": "pause"}
    campaign = await here.started({"order": "id", "waves": waves, "pace": ONE_BY_ONE, "guardrails": [rule]})
    shown = await campaign.is_("PAUSED")
    assert (shown["wave"], shown["failed"], shown["succeeded"]) == (1, 3, 17)
    tripped = next(each for each in shown["guardrails"] if each["tripped"])
    assert (tripped["wave"], tripped["value"]) == (1, 0.2)


async def test_a_segment_is_quarantined_waits_and_is_released_for_a_new_test(here: World) -> None:
    broken = True
    here.fault = lambda device: BOOT if broken and revision(device) == "C" else None
    rule = {"name": "revision", "threshold": "40%", "min_finished": 2, "scope": "segment", "per": ["revision"]}
    policy = {"pace": {"max_in_flight": 2}, "guardrails": [{**rule, "action": "quarantine"}]}
    campaign = await here.started(policy)
    await campaign.counted(SUCCESS=12, FAILED=2, PENDING=10)
    await campaign.waits(quarantine=10)
    shown = await campaign.read()
    assert (shown["status"], shown["succeeded"], shown["failed"]) == ("RUNNING", 12, 2)
    segments = (await campaign.get("/segments"))["segments"]
    by_revision = {each["labels"]["revision"]: each for each in segments}
    assert by_revision["B"]["quarantined"] is None
    assert by_revision["C"]["quarantined"]["reason"]
    assert (by_revision["C"]["waiting"], by_revision["C"]["failed"]) == (10, 2)
    await here.rests(14)
    waiting = (await campaign.get("/devices?status=PENDING"))["devices"][0]["device_id"]
    one = await campaign.explains(waiting)
    assert not one["quarantine"]["open"]
    assert one["is"]["may_go_at"] is None
    assert_problem(await campaign.do("segments/7/release"), 404, "not-found")
    number = by_revision["C"]["number"]
    assert (await campaign.do(f"segments/{number}/release", reason="new bootloader")).json()["status"] == "RUNNING"
    # The new test needs two more failures, and finds them.
    await campaign.counted(SUCCESS=12, FAILED=4, PENDING=8)
    await campaign.waits(quarantine=8)
    assert (await campaign.read())["failed"] == 4
    broken = False
    assert (await campaign.do(f"segments/{number}/release")).status_code == 200
    shown = await campaign.is_("COMPLETED")
    assert (shown["succeeded"], shown["failed"]) == (20, 4)
    assert len(await campaign.history("segment_quarantined")) == 2
    assert len(await campaign.history("segment_released")) == 2


async def test_no_guardrail_is_the_contracts_and_an_empty_list_is_none(here: World) -> None:
    here.fault = lambda device: BOOT if device == "dev-00" else None
    campaign = await here.started({"order": "id", "pace": ONE_BY_ONE})
    shown = await campaign.is_("ABORTED")
    assert (shown["failed"], shown["succeeded"]) == (1, 0), "over 10 %, of one device at least"
    campaign = await here.started({"order": "id", "pace": ONE_BY_ONE, "guardrails": []})
    shown = await campaign.is_("COMPLETED")
    assert (shown["failed"], shown["guardrails"]) == (1, [])


async def test_a_guardrail_under_min_finished_acts_at_the_gate(here: World) -> None:
    """Guardrails are judged first, and a ratio for any number of devices; then the success rate."""
    here.fault = lambda device: BOOT
    waves = [{"name": "canary", "size": 2, "gate": {"success_rate": "100%", "on_fail": "pause"}}, {"name": "rest"}]
    rule = {"name": "failures", "threshold": "10%", "min_finished": 20, "action": "abort"}
    campaign = await here.started({"waves": waves, "guardrails": [rule]})
    shown = await campaign.is_("ABORTED")
    assert "2 of 2" in shown["status_reason"], shown["status_reason"]
