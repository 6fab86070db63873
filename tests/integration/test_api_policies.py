"""Policies over HTTP: of campaigns, with their revisions, and those that a tenant stores."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from rollwave.domain.role import Role
from rollwave.store import broad_selectors
from rollwave.store.database import Pool
from tests.api import CAMPAIGNS, assert_problem, calling, create_campaign, prepare_campaign_body

YAML = {"Content-Type": "application/yaml"}
TWO_WAVES = {"waves": [{"name": "canary", "size": "5%"}, {"name": "rest"}], "pace": {"per_minute": 600}}


@pytest.fixture
async def north(pool: Pool) -> AsyncIterator[httpx2.AsyncClient]:
    async with calling(pool, "north") as client:
        yield client


async def create(client: httpx2.AsyncClient, policy: Any = None) -> str:
    """Create a campaign under a policy. Returns its path."""
    body = await prepare_campaign_body(client)
    answer = await client.post(CAMPAIGNS, json=body | {"policy": TWO_WAVES if policy is None else policy})
    assert answer.status_code == 201, answer.text
    assert answer.json()["policy_revision"] == 1
    return f"{CAMPAIGNS}/{answer.json()['id']}"


async def test_a_campaign_has_the_policy_it_was_created_with_as_revision_1(north: httpx2.AsyncClient) -> None:
    answer = await north.get(f"{await create(north)}/policy")
    found = answer.json()
    assert (answer.headers["ETag"], found["revision"], found["flat"], found["reason"]) == ('"1"', 1, False, None)
    assert found["policy"] == TWO_WAVES
    assert found["by"]
    assert found["at"]


async def test_an_edit_is_a_new_revision_with_who_and_why(north: httpx2.AsyncClient) -> None:
    path = await create(north)
    text = "waves:\n- {name: canary, size: 10}\n- {name: rest}\n"
    headers = YAML | {"If-Match": '"1"'}
    answer = await north.put(f"{path}/policy?reason=larger+canary", content=text, headers=headers)
    assert (answer.status_code, answer.headers["ETag"]) == (200, '"2"')
    assert answer.json()["policy"]["waves"][0] == {"name": "canary", "size": 10}
    assert answer.json().items() >= (await north.get(f"{path}/policy")).json().items()
    assert answer.json()["reason"] == "larger canary"
    assert (await north.get(f"{path}/policy?revision=1")).json()["policy"] == TWO_WAVES
    events = (await north.get(f"{path}/events")).json()["events"]
    assert [each["detail"] for each in events if each["event"] == "policy_edited"] == [
        {"reason": "larger canary", "revision": 2}
    ]
    assert_problem(await north.put(f"{path}/policy", content="}", headers=headers), 412, "outdated")
    assert_problem(await north.get(f"{path}/policy?revision=3"), 404, "not-found")


async def test_a_policy_is_shown_as_yaml_that_can_be_put_back(north: httpx2.AsyncClient) -> None:
    path = await create(north)
    shown = await north.get(f"{path}/policy?format=yaml")
    assert shown.headers["Content-Type"] == "application/yaml"
    assert shown.text == "waves:\n- name: canary\n  size: 5%\n- name: rest\npace:\n  per_minute: 600\n"
    headers = YAML | {"If-Match": shown.headers["ETag"]}
    assert (await north.put(f"{path}/policy", content=shown.text, headers=headers)).json()["policy"] == TWO_WAVES


async def test_what_is_wrong_is_named_with_line_and_column(north: httpx2.AsyncClient) -> None:
    path = await create(north)
    text = "waves:\n- {name: canary, sizze: 10}\n- {name: rest}\npace: {per_minute: 0}\n"
    problem = assert_problem(await north.put(f"{path}/policy", content=text, headers=YAML), 422, "invalid-input")
    assert [(each["field"], each["detail"]) for each in problem["errors"]] == [
        ("waves[0].sizze", "line 2, column 18: unknown key (did you mean size?)"),
        ("pace.per_minute", "line 4, column 20: must be a whole number from 1 to 2,147,483,647"),
    ]
    body = await prepare_campaign_body(north)
    problem = assert_problem(await north.post(CAMPAIGNS, json=body | {"policy": {"wavs": []}}), 422, "invalid-input")
    assert problem["errors"] == [
        {"location": "body", "field": "policy.wavs", "detail": "unknown key (did you mean waves?)"}
    ]
    assert_problem(
        await north.put(f"{path}/policy", content=text, headers={"Content-Type": "text/plain"}),
        415,
        "unsupported-media-type",
    )


@pytest.mark.parametrize("rule", [{"rollout_rate": 10}, {"rollout_strategy": "linear"}, {"retry_on": None}])
async def test_a_policy_and_a_flat_rule_exclude_each_other(north: httpx2.AsyncClient, rule: dict[str, Any]) -> None:
    body = await prepare_campaign_body(north) | {"policy": TWO_WAVES} | rule
    problem = assert_problem(await north.post(CAMPAIGNS, json=body), 422, "invalid-input")
    assert f"policy takes the place of {next(iter(rule))}" in problem["detail"]


async def test_bytes_need_firmware_of_known_size(north: httpx2.AsyncClient) -> None:
    body, policy = await prepare_campaign_body(north), {"pace": {"bytes": {"per_second": "1MiB"}}}
    problem = assert_problem(await north.post(CAMPAIGNS, json=body | {"policy": policy}), 422, "invalid-input")
    assert problem["errors"][0]["field"] == "policy.pace.bytes"
    path = await create(north)
    assert_problem(await north.put(f"{path}/policy", json=policy), 422, "invalid-input")


async def test_a_stored_policy_is_copied_and_a_preset_cannot_be_changed(north: httpx2.AsyncClient) -> None:
    stored = await north.put("/ota/policies/two-waves", json=TWO_WAVES)
    assert (stored.status_code, stored.json()["policy"], stored.json()["preset"]) == (200, TWO_WAVES, False)
    path = await create(north, "two-waves")
    listed = (await north.get("/ota/policies")).json()
    assert [each["name"] for each in listed["policies"]] == ["two-waves"]
    assert (listed["presets"], listed["total"]) == (["cautious", "standard", "emergency"], 1)

    await north.put("/ota/policies/two-waves", content="pace: {per_minute: 1}", headers=YAML)
    assert (await north.get("/ota/policies/two-waves?format=yaml")).text == "pace:\n  per_minute: 1\n"
    assert (await north.delete("/ota/policies/two-waves")).status_code == 204
    assert_problem(await north.get("/ota/policies/two-waves"), 404, "not-found")
    assert_problem(await north.delete("/ota/policies/two-waves"), 404, "not-found")
    assert (await north.get(f"{path}/policy")).json()["policy"] == TWO_WAVES

    assert (await north.get("/ota/policies/standard")).json()["preset"] is True
    await create(north, "emergency")
    assert_problem(await north.put("/ota/policies/standard", json=TWO_WAVES), 409, "conflict")
    assert_problem(await north.delete("/ota/policies/standard"), 409, "conflict")
    body = await prepare_campaign_body(north)
    assert_problem(await north.post(CAMPAIGNS, json=body | {"policy": "no-such"}), 422, "invalid-input")


async def test_policies_belong_to_one_tenant_and_viewers_read_them_only(pool: Pool, north: httpx2.AsyncClient) -> None:
    path = await create(north)
    await north.put("/ota/policies/mine", json=TWO_WAVES)
    async with calling(pool, "south") as south, calling(pool, "north", Role.VIEWER) as viewer:
        assert_problem(await south.get("/ota/policies/mine"), 404, "not-found")
        assert_problem(await south.put(f"{path}/policy", json=TWO_WAVES), 404, "not-found")
        assert (await viewer.get(f"{path}/policy")).status_code == 200
        assert_problem(await viewer.put(f"{path}/policy", json=TWO_WAVES), 403, "forbidden")
        assert_problem(await viewer.put("/ota/policies/mine", json=TWO_WAVES), 403, "forbidden")


async def test_flat_columns_are_shown_as_a_document_which_replaces_them_until_the_start(
    north: httpx2.AsyncClient,
) -> None:
    path = await create_campaign(north)
    shown = await north.get(f"{path}/policy")
    found = shown.json()
    assert (found["flat"], found["revision"]) == (True, None)
    assert found["policy"]["pace"] == {"per_minute": 60}
    headers = {"If-Match": shown.headers["ETag"]}
    assert (await north.put(f"{path}/policy", json=found["policy"], headers=headers)).json()["revision"] == 1
    assert_problem(await north.put(f"{path}/policy", json=found["policy"], headers=headers), 412, "outdated")

    started = await create_campaign(north)
    await north.post(f"{started}/start")
    assert_problem(await north.put(f"{started}/policy", json=TWO_WAVES), 409, "conflict")


async def test_only_waves_that_were_not_sent_to_may_change_and_nothing_once_the_campaign_ended(
    pool: Pool, north: httpx2.AsyncClient
) -> None:
    path = await create(north)
    first = {"name": "first", "size": 1}
    other = {"waves": [first, {"name": "rest"}]}
    assert (await north.put(f"{path}/policy", json=other)).status_code == 200
    await pool.execute("UPDATE ota_campaigns SET sent = 1")
    await pool.execute(
        "INSERT INTO ota_campaign_waves (tenant_id, campaign_id, number, name)"
        " SELECT tenant_id, id, 0, 'first' FROM ota_campaigns"
    )
    assert_problem(await north.put(f"{path}/policy", json=TWO_WAVES), 409, "conflict")
    other = {"waves": [first, {"name": "last"}]}
    assert (await north.put(f"{path}/policy", json=other)).status_code == 200
    await north.post(f"{path}/abort")
    assert_problem(await north.put(f"{path}/policy", json=other), 409, "conflict")


async def test_a_key_that_is_given_twice_is_refused_in_a_request_too(north: httpx2.AsyncClient) -> None:
    body = json.dumps(await prepare_campaign_body(north) | {"policy": TWO_WAVES}).replace(
        '"pace"', '"waves": [], "pace"'
    )
    answer = await north.post(CAMPAIGNS, content=body, headers={"Content-Type": "application/json"})
    assert "the key waves is given twice" in assert_problem(answer, 422, "invalid-input")["detail"]


async def test_a_dry_run_checks_everything_and_changes_nothing(north: httpx2.AsyncClient) -> None:
    body = await prepare_campaign_body(north)
    answer = await north.post(f"{CAMPAIGNS}?dry_run=true", json=body | {"policy": {"guardrails": []}})
    assert (answer.status_code, answer.json()["policy"], answer.json()["flat"]) == (200, {"guardrails": []}, False)
    assert len(answer.json()["warnings"]) == 2
    assert (await north.post(f"{CAMPAIGNS}?dry_run=true", json=body)).json()["flat"] is True
    missing = body | {"firmware_version_id": 999}
    assert_problem(await north.post(f"{CAMPAIGNS}?dry_run=true", json=missing), 404, "not-found")
    assert (await north.get(CAMPAIGNS)).json()["total"] == 0

    path = await create(north)
    answer = await north.put(f"{path}/policy?dry_run=true", json={"pace": {"per_minute": 7}})
    assert answer.json() == {
        "policy": {"pace": {"per_minute": 7}},
        "flat": False,
        "warnings": [],
        "waves": [{"name": "all", "devices": 3}],
        "segments": 1,
        "next_openings": [],
        "exposed_devices": 3,
        "at_start": {
            "text": "The first 3 devices are sent to at once, at most 7 a minute.",
            "at_once": True,
            "sends_at": None,
        },
        "also_in": [],
    }
    assert_problem(await north.put(f"{path}/policy?dry_run=true", json={"x": 1}), 422, "invalid-input")
    headers = {"If-Match": '"2"'}
    assert_problem(await north.put(f"{path}/policy?dry_run=true", json={"x": 1}, headers=headers), 412, "outdated")
    assert (await north.get(f"{path}/policy")).json()["revision"] == 1


async def test_saving_answers_warnings_and_the_next_five_openings(north: httpx2.AsyncClient) -> None:
    night = {"name": "night", "kind": "allow", "cron": "0 2 * * *", "duration": "2h"}
    policy = {"schedule": {"at_end": "stop", "windows": [night]}}
    body = await prepare_campaign_body(north) | {"policy": policy}
    created = await north.post(CAMPAIGNS, json=body)
    path = f"{CAMPAIGNS}/{created.json()['id']}/policy"
    stored = await north.put("/ota/policies/nights", json=policy)
    for saved in (
        created,
        stored,
        await north.put(path, json=policy),
        await north.put(f"{path}?dry_run=true", json=policy),
        await north.post(f"{CAMPAIGNS}?dry_run=true", json=body | {"policy": "nights"}),
        await north.post(CAMPAIGNS, json=body | {"policy": "nights"}),
    ):
        assert saved.is_success, saved.text
        assert [each.partition(" ")[0] for each in saved.json()["warnings"]] == ["pace", "schedule.at_end"]
        openings = saved.json()["next_openings"]
        assert len(openings) == 5
        assert openings[1]["start"].endswith("T02:00:00Z")
        assert openings[1]["end"].endswith("T04:00:00Z")
    flat = (await north.post(CAMPAIGNS, json=await prepare_campaign_body(north))).json()
    assert (flat["warnings"], flat["next_openings"]) == ([], [])


async def test_selectors_that_take_too_long_are_too_broad(
    north: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = await prepare_campaign_body(north, *(f"d{number}" for number in range(5000)))
    path = f"{CAMPAIGNS}/{(await north.post(CAMPAIGNS, json=body)).json()['id']}/policy"
    select = " or ".join(f"device_id like 'd*{number}*x'" for number in range(32))
    slow = {"waves": [{"select": select}, {}]}
    assert (await north.put(f"{path}?dry_run=true", json=slow)).status_code == 200
    monkeypatch.setattr(broad_selectors, "SECONDS_PER_MILLION_DEVICES", 0.001)
    for answer in (
        await north.post(CAMPAIGNS, json=body | {"policy": slow}),
        await north.post(f"{CAMPAIGNS}?dry_run=true", json=body | {"policy": slow}),
        await north.put(path, json=slow),
        await north.put(f"{path}?dry_run=true", json=slow),
    ):
        problem = assert_problem(answer, 422, "invalid-input")
        assert "too broad: to compare them with 5,000 devices takes more than 0.001 seconds" in problem["detail"]
    assert (await north.put(path, json=TWO_WAVES)).status_code == 200, "without selectors there is no limit"


async def test_the_policy_is_part_of_a_request_with_an_idempotency_key(north: httpx2.AsyncClient) -> None:
    body, key = await prepare_campaign_body(north), {"Idempotency-Key": "k"}
    first = await north.post(CAMPAIGNS, json=body | {"policy": TWO_WAVES}, headers=key)
    again = await north.post(CAMPAIGNS, json=body | {"policy": TWO_WAVES}, headers=key)
    assert first.json()["id"] == again.json()["id"]
    assert_problem(await north.post(CAMPAIGNS, json=body | {"policy": "standard"}, headers=key), 409, "conflict")
    assert_problem(await north.post(CAMPAIGNS, json=body, headers=key), 409, "conflict")


async def test_a_document_that_a_host_wrote_is_shown_as_it_is_and_can_be_replaced(
    pool: Pool, north: httpx2.AsyncClient
) -> None:
    path = await create(north)
    await pool.execute("UPDATE ota_campaign_policies SET document = $1::text::jsonb", json.dumps({"wavs": [1]}))
    shown = await north.get(f"{path}/policy")
    assert (shown.json()["policy"], shown.headers["ETag"]) == ({"wavs": [1]}, '"1"')
    headers = {"If-Match": '"1"'}
    assert (await north.put(f"{path}/policy", json=TWO_WAVES, headers=headers)).json()["revision"] == 2


async def test_the_schema_is_published_without_a_key(north: httpx2.AsyncClient) -> None:
    answer = await north.get("http://test/api/v1/schemas/policy", headers={"Authorization": ""})
    assert answer.json()["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    openapi = (await north.get("http://test/openapi.json")).json()
    assert openapi["components"]["schemas"]["Policy"]["properties"].keys() == answer.json()["properties"].keys()
