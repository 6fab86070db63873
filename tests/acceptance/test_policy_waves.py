"""Waves and gates of a policy, over the API and a real broker, with a database clock that is moved."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from rollwave.domain.role import Role
from rollwave.embedded.broker import EmbeddedBroker
from rollwave.fleet.faults import Fault
from tests.api import assert_problem
from tests.moved_clock import Clock
from tests.policy_story import HANGS, World, world
from tests.support import eventually

DEVICES = {f"dev-{number:02}": {"attributes": {"ring": "canary" if number < 4 else "prod"}} for number in range(12)}


@pytest.fixture
async def here(moved_database: str, broker: EmbeddedBroker, clock: Clock) -> AsyncIterator[World]:
    async with world(moved_database, broker.url, clock, DEVICES) as here:
        yield here


async def test_a_soak_begins_anew_at_a_failure_and_needs_the_databases_clock(here: World) -> None:
    """Two of three canaries are enough; the third fails during the soak."""
    waves = [
        {"name": "canary", "size": 3, "gate": {"min_finished": 2, "success_rate": "50%", "soak": "2h"}},
        {"name": "rest"},
    ]
    released = False
    late = ""

    def fault(device: str) -> Fault | None:
        nonlocal late
        if len(here.sent) <= 3 and not released and (late or device) == device:
            late = device
            return HANGS
        return None

    here.fault = fault
    campaign = await here.started({"waves": waves, "guardrails": [], "deadlines": {"progress": "30d"}})
    await campaign.wave_is("canary", "soaking")
    await here.sends(3)
    entries = await campaign.waits(wave=9)
    assert "the soak ends at" in entries["wave"]["text"]
    assert entries["wave"]["until"] is not None
    here.clock.forward(hours=1, minutes=50)
    await here.rests(3)
    assert (await campaign.wave("canary"))["state"] == "soaking"
    await here.report(late, 1, "FAILED")
    await campaign.counted(PENDING=9, SUCCESS=2, FAILED=1)

    async def begun_anew() -> bool:
        return bool((await campaign.waits(wave=9))["wave"]["until"] > entries["wave"]["until"])

    await eventually(begun_anew, timeout=15, what="the soak begins anew")
    here.clock.forward(minutes=20)
    await here.rests(3)
    assert (await campaign.wave("canary"))["state"] == "soaking"
    # A pause does not stop the soak. The wave opens when the campaign is started again.
    await campaign.do("pause")
    here.clock.forward(hours=1, minutes=45)
    await here.rests(3)
    released = True
    await campaign.start()
    shown = await campaign.is_("COMPLETED")
    assert [each["state"] for each in shown["waves"]] == ["passed", "passed"]
    assert [(each["size"], each["sent"], each["succeeded"], each["failed"]) for each in shown["waves"]] == [
        (3, 3, 2, 1),
        (9, 9, 9, 0),
    ]


async def test_an_approval_takes_another_key_with_the_role_approver(here: World) -> None:
    waves = [{"name": "canary", "select": "ring == canary", "gate": {"approval": True, "soak": "1h"}}, {"name": "rest"}]
    campaign = await here.started({"waves": waves})
    await here.sends(4)
    assert here.sent == {device for device in DEVICES if DEVICES[device]["attributes"]["ring"] == "canary"}
    await campaign.wave_is("canary", "soaking")
    assert_problem(await campaign.do("waves/rest/promote"), 409, "conflict")
    assert_problem(await campaign.do("waves/other/promote"), 404, "not-found")
    here.clock.forward(hours=1)
    await campaign.wave_is("canary", "awaiting_approval")
    entries = await campaign.waits(approval=8)
    assert entries["approval"]["until"] is None
    assert_problem(await campaign.do("waves/canary/promote"), 403, "forbidden")
    async with here.other_key() as editor, here.other_key() as approver, here.other_key(Role.OPERATOR) as operator:
        # An edit that changes no wave moves nobody, and its author may not approve.
        edited = await editor.put(f"{campaign.path}/policy", json={"waves": waves, "pace": {"max_in_flight": 100}})
        assert edited.status_code == 200, edited.text
        assert_problem(await campaign.do("waves/canary/promote", by=editor), 403, "forbidden")
        assert_problem(await campaign.do("waves/canary/promote", by=operator), 403, "forbidden")
        await campaign.do("pause")
        promoted = await campaign.do("waves/canary/promote", by=approver, reason="all is well")
        assert (promoted.status_code, promoted.json()["status"]) == (200, "PAUSED"), promoted.text
        again = await campaign.do("waves/canary/promote", by=approver)
        assert (again.status_code, again.json()) == (200, promoted.json())
        await here.rests(4)
        assert (await campaign.read())["status"] == "PAUSED"
        assert (await campaign.wave("canary"))["state"] == "passed"
        assert len(await campaign.history("wave_promoted")) == 1
        await campaign.start()
        await campaign.is_("COMPLETED")
        assert_problem(await campaign.do("waves/rest/promote", by=approver), 409, "conflict")


async def test_what_min_finished_left_over_goes_before_the_next_wave(here: World) -> None:
    waves = [{"name": "canary", "size": 6, "max_in_flight": 2, "gate": {"min_finished": "50%"}}, {"name": "rest"}]
    campaign = await here.started({"order": "id", "waves": waves, "pace": {"max_in_flight": 2}})
    await campaign.is_("COMPLETED")
    order = list(here.fleet.received)
    assert set(order[:6]) == {f"dev-{number:02}" for number in range(6)}, order


async def test_a_failed_gate_pauses_is_judged_anew_at_start_and_promote_passes_it(here: World) -> None:
    broken = True
    here.fault = lambda _: Fault(code="E_BOOT") if broken else None
    waves = [{"name": "canary", "size": "20%", "gate": {"success_rate": "90%"}}, {"name": "rest"}]
    campaign = await here.started({"waves": waves, "guardrails": []})
    shown = await campaign.is_("PAUSED")
    assert "canary" in shown["status_reason"]
    assert shown["waves"][0] == {**shown["waves"][0], "size": 3, "sent": 3, "failed": 3, "state": "failed"}
    await campaign.start()
    await campaign.is_("PAUSED")
    assert len(await campaign.history("paused")) == 2
    # A retry may change it.
    broken = False
    assert (await campaign.do("retry?code=E_NONE")).json()["devices"] == 0
    assert (await campaign.do("retry?code=E_BOOT")).json()["devices"] == 3
    await campaign.start()
    shown = await campaign.is_("COMPLETED")
    assert shown["status_breakdown"]["SUCCESS"] == 12


async def test_promote_passes_a_failed_gate(here: World) -> None:
    here.fault = lambda _: Fault() if len(here.sent) <= 3 else None
    waves = [{"name": "canary", "size": 3, "gate": {"success_rate": "90%"}}, {"name": "rest"}]
    campaign = await here.started({"waves": waves, "guardrails": []})
    await campaign.is_("PAUSED")
    promoted = await campaign.do("waves/canary/promote", reason="a faulty cable")
    assert promoted.json()["status"] == "PAUSED", promoted.text
    [event] = await campaign.history("wave_promoted")
    assert "0 of 3" in str(event), event
    await campaign.start()
    shown = await campaign.is_("COMPLETED")
    assert shown["succeeded"] == 9


async def test_on_fail_abort_ends_the_campaign(here: World) -> None:
    here.fault = lambda _: Fault()
    waves = [{"name": "canary", "size": 2, "gate": {"success_rate": "90%", "on_fail": "abort"}}, {"name": "rest"}]
    campaign = await here.started({"waves": waves, "guardrails": []})
    shown = await campaign.is_("ABORTED")
    await campaign.counted(FAILED=2, SKIPPED=10)
    assert "canary" in shown["status_reason"]


async def test_a_wave_that_nobody_matches_pauses_and_one_that_was_emptied_passes(here: World) -> None:
    mistyped = [{"name": "canary", "select": "ring == canery"}, {"name": "rest"}]
    campaign = await here.started({"waves": mistyped})
    shown = await campaign.is_("PAUSED")
    assert shown["status_reason"] == "the selector of wave canary matches no device"
    await here.rests(0)
    emptied = [
        {"name": "all-canaries", "select": "ring == canary"},
        {"name": "same", "select": "ring == canary", "gate": {"success_rate": "99%"}},
        {"name": "rest", "select": "ring == prod and device_id != dev-11"},
    ]
    assert (await campaign.edit({"waves": emptied})).status_code == 200
    await campaign.start()
    shown = await campaign.is_("COMPLETED")
    assert [each["size"] for each in shown["waves"]] == [4, 0, 7]
    assert shown["status_breakdown"] == {**shown["status_breakdown"], "SUCCESS": 11, "SKIPPED": 1}
    gate = await here.create({"waves": [{"name": "one", "size": 1}, {"name": "two", "gate": {"soak": "1h"}}]})
    assert "the last wave has no gate" in assert_problem(gate, 422, "invalid-input")["detail"]
