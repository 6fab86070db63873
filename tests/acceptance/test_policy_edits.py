"""Edits of a policy, over the API, while devices are sent to over a real broker."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest

from rollwave.embedded.broker import EmbeddedBroker
from tests.api import CAMPAIGNS, assert_problem
from tests.moved_clock import Clock
from tests.policy_story import HANGS, MUTE, World, world
from tests.support import eventually

DEVICES = {
    f"dev-{number:02}": {"attributes": {"ring": "canary" if number < 3 else "prod", "line": number}}
    for number in range(12)
}


@pytest.fixture
async def here(moved_database: str, broker: EmbeddedBroker, clock: Clock) -> AsyncIterator[World]:
    async with world(moved_database, broker.url, clock, DEVICES) as here:
        yield here


async def test_each_edit_is_a_revision_and_if_match_guards_it(here: World) -> None:
    campaign = await here.created({"pace": {"max_in_flight": 1}})
    first = await here.client.get(f"{campaign.path}/policy")
    assert (first.json()["revision"], first.headers["ETag"], first.json()["flat"]) == (1, '"1"', False)
    edited = await here.client.put(
        f"{campaign.path}/policy?reason=faster",
        content="pace: {max_in_flight: 2}\n",
        headers={"If-Match": '"1"', "Content-Type": "application/yaml"},
    )
    assert (edited.status_code, edited.json()["revision"], edited.headers["ETag"]) == (200, 2, '"2"'), edited.text
    assert (edited.json()["reason"], edited.json()["by"]) == ("faster", (await campaign.read())["created_by"])
    # Stale, and checked before the document is.
    stale = await here.client.put(
        f"{campaign.path}/policy", content="{", headers={"If-Match": '"1"', "Content-Type": "application/json"}
    )
    assert_problem(stale, 412, "outdated")
    wrong = await here.client.put(
        f"{campaign.path}/policy", content="pace:\n  per_minutes: 5\n", headers={"Content-Type": "application/yaml"}
    )
    problem = assert_problem(wrong, 422, "invalid-input")
    assert "line 2" in str(problem), problem
    assert "per_minute" in str(problem)
    old = await campaign.get("/policy?revision=1")
    assert (old["revision"], old["policy"]["pace"]) == (1, {"max_in_flight": 1})
    text = await here.client.get(f"{campaign.path}/policy?format=yaml")
    assert "max_in_flight: 2" in text.text
    dry = await here.client.put(f"{campaign.path}/policy?dry_run=true", json={"waves": [{"size": 2}, {}]})
    assert [each["devices"] for each in dry.json()["waves"]] == [2, 10], dry.text
    assert (await campaign.get("/policy"))["revision"] == 2
    [event] = await campaign.history("policy_edited")
    assert (event["reason"], event["revision"]) == ("faster", 2)


async def test_passed_and_current_waves_stay_and_a_size_below_what_was_sent_is_full(here: World) -> None:
    here.fault = lambda device: HANGS if device == "dev-05" else None
    waves = [{"name": "a", "size": 2}, {"name": "b", "size": 6}, {"name": "c"}]
    policy = {"order": "id", "deadlines": {"progress": "1d"}}
    campaign = await here.started(policy | {"waves": waves})
    await campaign.counted(SUCCESS=7, DOWNLOADING=1, PENDING=4)
    for wrong in (
        [{"name": "a", "size": 2}, {"name": "renamed", "size": 6}, {"name": "c"}],
        [{"name": "b", "size": 6}, {"name": "a", "size": 2}, {"name": "c"}],
        [{"name": "b", "size": 6}, {"name": "c"}],
    ):
        assert_problem(await campaign.edit(policy | {"waves": wrong}), 409, "conflict")
    assert_problem(await campaign.edit(policy), 409, "conflict")
    shorter = [{"name": "a", "size": 1}, {"name": "b", "size": 3}, {"name": "new", "size": 1}, {"name": "c"}]
    assert (await campaign.edit(policy | {"waves": shorter})).status_code == 200
    await campaign.waits(wave=4)
    shown = await campaign.read()
    assert [(each["name"], each["size"], each["sent"]) for each in shown["waves"]] == [
        ("a", 2, 2),
        ("b", 6, 6),
        ("new", 1, 0),
        ("c", 3, 0),
    ]
    await here.report("dev-05", 1, "SUCCESS")
    shown = await campaign.is_("COMPLETED")
    assert {each["state"] for each in shown["waves"]} == {"passed"}


async def test_an_edit_places_devices_never_sent_to_anew(here: World) -> None:
    """The canary grows while it is sent to; then the order is turned round by a label."""
    here.fault = lambda _: HANGS
    policy = {"pace": {"max_in_flight": 3}, "deadlines": {"progress": "1d"}, "guardrails": []}
    campaign = await here.started(
        policy | {"waves": [{"name": "canary", "select": "ring == canary"}, {"name": "rest"}]}
    )
    await here.sends(3)
    wider = [{"name": "canary", "select": "ring == canary or line > 9"}, {"name": "rest", "select": "line != 8"}]
    edited = await campaign.edit({**policy, "pace": {"max_in_flight": 4}, "order": "label:line", "waves": wider})
    assert edited.status_code == 200, edited.text
    await here.rests(4)
    assert here.sent == {"dev-00", "dev-01", "dev-02", "dev-10"}
    await campaign.waits(wave=6, in_flight=1)
    shown = await campaign.read()
    assert [(each["name"], each["size"]) for each in shown["waves"]] == [("canary", 5), ("rest", 6)]
    assert shown["status_breakdown"]["SKIPPED"] == 1, "dev-08 fits no wave any more"
    assert len(await campaign.history("placed")) == 1


async def test_devices_held_by_a_closed_gate_are_sent_to_again_at_once_when_it_opens(here: World) -> None:
    """An edit closes the window of all devices for a day, and another opens it. Then a segment is released."""
    here.fault = lambda _: MUTE
    policy = {
        "deadlines": {"answer": "2s", "progress": "2s"},
        "retry": {"on": ["no_answer"], "max_attempts": 9, "delay": "0s"},
        "guardrails": [
            {"name": "lines", "scope": "segment", "per": ["ring"], "action": "quarantine", "threshold": "99%"}
        ],
    }
    campaign = await here.started(policy)
    await here.sends(12)
    closed = [{"kind": "deny", "start": "2020-01-01T00:00:00Z", "end": "2099-01-01T00:00:00Z"}]
    assert (await campaign.edit(policy | {"schedule": {"windows": closed}})).status_code == 200
    await _are_held(here, for_seconds=3000)
    before = sum(here.fleet.received.values())
    assert (await campaign.edit(policy)).status_code == 200
    await _receive_another(here, 12, before)
    await here.pool.execute("UPDATE ota_campaign_segments SET quarantined_at = now(), quarantined_because = 'bad'")
    await _are_held(here, for_seconds=30)
    before = sum(here.fleet.received.values())
    for segment in (await campaign.get("/segments"))["segments"]:
        assert (await campaign.do(f"segments/{segment['number']}/release")).status_code == 200
    await _receive_another(here, 12, before)


async def _are_held(here: World, *, for_seconds: float) -> None:
    """Wait until no device is due for this time."""

    async def held() -> bool:
        return bool(
            await here.pool.fetchval(
                "SELECT min(due_at) > now() + make_interval(secs => $1) FROM ota_device_status", for_seconds
            )
        )

    await eventually(held, timeout=15, what="devices that are held")


async def _receive_another(here: World, devices: int, before: int) -> None:
    """Wait until this many commands have been received since."""
    await eventually(
        lambda: sum(here.fleet.received.values()) >= before + devices, timeout=15, what=f"{devices} further commands"
    )


async def test_a_queue_is_ordered_by_a_label(here: World) -> None:
    """Numbers go by their size; devices without the label are last."""
    await here.put("/devices/dev-03", {"attributes": {"line": 100}})
    await here.put("/devices/dev-04", {"attributes": {}})
    campaign = await here.started({"order": "label:line", "pace": {"max_in_flight": 1}})
    await campaign.is_("COMPLETED")
    rest = [f"dev-{number:02}" for number in range(12) if number not in {3, 4}]
    assert list(here.fleet.received) == [*rest, "dev-03", "dev-04"]


async def test_a_document_that_other_sql_made_unreadable_holds_the_campaign(here: World) -> None:
    here.fault = lambda _: HANGS
    campaign = await here.started({"pace": {"max_in_flight": 1}, "deadlines": {"progress": "1d"}})
    await here.sends(1)
    await here.pool.execute(
        "INSERT INTO ota_campaign_policies (tenant_id, campaign_id, revision, document)"
        " VALUES ('north', 1, 2, $1::text::jsonb)",
        json.dumps({"pace": {"max_in_flight": "many"}}),
    )
    await here.pool.execute("UPDATE ota_campaigns SET policy_revision = 2, max_in_flight = 100")
    shown = await campaign.is_("PAUSED")
    assert "pace.max_in_flight" in shown["status_reason"], shown["status_reason"]
    await here.rests(1)
    assert (await campaign.edit({"pace": {"max_in_flight": 2}})).status_code == 200
    await campaign.start()
    await here.rests(2)


async def test_flat_rules_are_shown_as_a_document_and_stand_alone(here: World) -> None:
    await here.created({})
    body = {"name": "flat", "firmware_version_id": 1, "target_group_id": "all"}
    both = await here.client.post(CAMPAIGNS, json=body | {"policy": {}, "rollout_rate": 5})
    assert "policy takes the place of rollout_rate" in str(assert_problem(both, 422, "invalid-input"))
    flat = {"rollout_strategy": "canary", "canary_percent": 10, "rollout_rate": 5, "abort_threshold": 0.2}
    made = await here.client.post(CAMPAIGNS, json=body | flat)
    shown = (await here.client.get(f"{CAMPAIGNS}/{made.json()['id']}/policy")).json()
    assert (shown["flat"], shown["revision"]) == (True, None)
    policy = shown["policy"]
    assert policy["order"] == "id"
    assert policy["pace"]["per_minute"] == 5 * 60 / 0.2
    assert [each.get("size") for each in policy["waves"]] == ["10%", None]
    assert policy["guardrails"][0]["threshold"] == "20%"


async def test_policies_are_stored_copied_and_named(here: World) -> None:
    stored = await here.client.put("/ota/policies/ours", json={"pace": {"max_in_flight": 7}})
    assert stored.status_code == 200, stored.text
    campaign = await here.created("ours")
    await here.client.put("/ota/policies/ours", json={"pace": {"max_in_flight": 9}})
    assert (await campaign.get("/policy"))["policy"]["pace"] == {"max_in_flight": 7}
    preset = await here.created("cautious")
    assert len((await preset.get("/policy"))["policy"]["waves"]) == 3
    assert_problem(await here.client.put("/ota/policies/cautious", json={}), 409, "conflict")
    assert_problem(await here.create("nothing"), 422, "invalid-input")
    assert (await here.client.delete("/ota/policies/ours")).status_code == 204
    assert_problem(await here.client.get("/ota/policies/ours"), 404, "not-found")
