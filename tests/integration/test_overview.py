"""The overview of a campaign, and its verdict: the same in the list, on the campaign's page and in the overview."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any

import httpx2
import pytest

from rollwave.domain.role import Role
from rollwave.engine.upkeep.from_versions import FromVersions
from rollwave.store.database import Pool
from tests.api import CAMPAIGNS, assert_problem, calling, create_campaign, prepare_campaign_body
from tests.engine import Connection, campaign_ref, connect, insert_campaign, subscribed_listener
from tests.integration import test_policy_waves as under_documents
from tests.integration.test_guardrails import BY_REVISION, SEQUENTIAL, Sent
from tests.integration.test_policy_in_force import follow
from tests.support import eventually


@pytest.fixture
async def north(pool: Pool) -> AsyncIterator[httpx2.AsyncClient]:
    async with calling(pool, "north") as client:
        yield client


@pytest.fixture
async def host(database: str) -> AsyncIterator[Connection]:
    async with connect(database) as connection:
        yield connection


@pytest.fixture
async def heard(pool: Pool) -> AsyncIterator[None]:
    async with subscribed_listener(pool):
        yield


async def seen(client: httpx2.AsyncClient, path: str) -> dict[str, Any]:
    """The overview, after a check that list and page have the same verdict."""
    overview = await client.get(f"{path}/overview")
    assert overview.status_code == 200, overview.text
    document: dict[str, Any] = overview.json()
    [row] = [
        each for each in (await client.get(CAMPAIGNS)).json()["campaigns"] if each["id"] == document["campaign_id"]
    ]
    page = (await client.get(path)).json()
    assert row["headline"] == page["headline"] == document["headline"]
    assert row["devices"] == document["devices"]
    return document


@pytest.mark.usefixtures("heard")
async def test_before_it_is_started_it_says_what_start_does(north: httpx2.AsyncClient) -> None:
    body = await prepare_campaign_body(north) | {"policy": {"version": 1, "pace": {"per_minute": 60}}}
    path = f"{CAMPAIGNS}/{(await north.post(CAMPAIGNS, json=body)).json()['id']}"
    found = await seen(north, path)
    assert found["waves"][0]["state"] == "waiting"  # not open: nothing was started
    assert found["at_start"]["text"] == "The first 3 devices are sent to at once, at most 60 a minute."
    await north.post(f"{path}/start")
    assert (await seen(north, path))["at_start"] is None


async def test_a_new_campaign_is_ok(north: httpx2.AsyncClient) -> None:
    path = await create_campaign(north)
    found = await seen(north, path)
    assert found["headline"] == {"level": "ok", "rule": "none", "text": "Not started; 3 devices wait"}
    assert found["rules"] == "all devices in one wave · 60 a minute · aborts over 10 % failed"
    assert found["devices"] == {
        "total": 3,
        "PENDING": 3,
        "DOWNLOADING": 0,
        "INSTALLING": 0,
        "SUCCESS": 0,
        "FAILED": 0,
        "SKIPPED": 0,
    }
    assert found["actions"] == {
        "start": True,
        "pause": False,
        "resume": False,
        "abort": True,
        "cancel": True,
        "retry": 0,
    }
    assert [each["text"] for each in found["events"]] == ["created for 3 devices"]
    assert [(each["reason"], each["devices"]) for each in found["waiting"]] == [("status", 3)]


async def test_a_running_campaign_without_a_listener_says_so(north: httpx2.AsyncClient) -> None:
    path = await create_campaign(north)
    await north.post(f"{path}/start")
    found = await seen(north, path)
    assert found["headline"]["level"] == "stop"
    assert found["headline"]["text"].startswith("No listener is subscribed")


async def test_another_tenants_campaign_is_not_found(north: httpx2.AsyncClient, pool: Pool) -> None:
    path = await create_campaign(north)
    async with calling(pool, "south") as south:
        assert_problem(await south.get(f"{path}/overview"), 404, "not-found")


async def counted(host: Connection, campaign: int, **columns: Any) -> str:
    """Set columns of a campaign, and its other counters to zero. Returns its path."""
    counters = dict.fromkeys(("pending", "downloading", "installing", "succeeded", "failed", "skipped"), 0)
    row = counters | columns
    changes = ", ".join(f"{name} = ${number}" for number, name in enumerate(row, start=2))
    await host.execute(f"UPDATE ota_campaigns SET {changes} WHERE id = $1", campaign, *row.values())
    return f"{CAMPAIGNS}/{campaign}"


@pytest.mark.usefixtures("heard")
@pytest.mark.parametrize(
    ("columns", "level", "rule", "text"),
    [
        (
            {"pending": 90, "succeeded": 10},
            "ok",
            "none",
            "Running; 10 of 100 devices finished, none failed",
        ),
        (
            {"pending": 90, "succeeded": 94, "failed": 6},
            "watch",
            "near_limit",
            "6 % failed (6 of 100); stops itself above 10 %, after 5 more failures in a row",
        ),
        (
            {"status": "ABORTED", "skipped": 43, "succeeded": 50, "failed": 7},
            "stop",
            "tripped",
            "Guardrail failures tripped: 7 of 57 failed (12.3 %, over 10 %); the campaign is aborted",
        ),
        (
            {"status": "ABORTED", "status_reason": "aborted by an operator", "skipped": 9, "succeeded": 1},
            "ok",
            "none",
            "Aborted by an operator; 1 of 10 devices runs 2.1.0, 9 skipped",
        ),
        (
            {"status": "PAUSED", "status_reason": "paused by an operator", "pending": 5},
            "ok",
            "none",
            "Paused by an operator",
        ),
        (
            {"status": "PAUSED", "status_reason": "abort_threshold 7.0 is not within 0 to 1", "pending": 5},
            "stop",
            "held",
            "Paused by the engine: abort_threshold 7.0 is not within 0 to 1",
        ),
        (
            {"status": "COMPLETED", "succeeded": 9, "failed": 1},
            "ok",
            "none",
            "Completed: 9 of 10 devices run 2.1.0, 1 failed",
        ),
    ],
)
async def test_the_verdict_follows_the_counters(
    north: httpx2.AsyncClient, host: Connection, columns: dict[str, Any], level: str, rule: str, text: str
) -> None:
    path = await counted(host, await insert_campaign(host, 0), **columns)
    if columns.get("status") in ("ABORTED", "COMPLETED"):
        # Rows of ended campaigns are counted, since their counters are no longer compared with them.
        await host.execute(
            "INSERT INTO ota_device_status (tenant_id, campaign_id, device_id, status) SELECT c.tenant_id, c.id,"
            " t.status || n, t.status FROM ota_campaigns c, LATERAL (VALUES ('SUCCESS', succeeded),"
            " ('FAILED', failed), ('SKIPPED', skipped)) AS t (status, devices), generate_series(1, t.devices) AS n"
        )
    assert (await seen(north, path))["headline"] == {"level": level, "rule": rule, "text": text}


@pytest.mark.usefixtures("heard")
async def test_a_brake_of_the_tenant_is_in_every_verdict(
    north: httpx2.AsyncClient, host: Connection, pool: Pool
) -> None:
    path = await counted(host, await insert_campaign(host, 0), pending=5, downloading=2)
    freeze = {"name": "year-end", "start": "2020-01-01T00:00:00Z", "end": "2127-01-01T00:00:00Z", "reason": "shops"}
    async with calling(pool, "north", Role.ADMIN) as admin:
        assert (await admin.post("/ota/freezes", json=freeze)).status_code == 201
        frozen = await seen(north, path)
        assert (await admin.post("/ota/halt", json={"reason": "no boot"})).status_code == 200
        halted = await seen(north, path)
    assert frozen["headline"] == {
        "level": "watch",
        "rule": "frozen",
        "text": "Stopped by the freeze year-end until 2127-01-01 00:00 UTC: shops; 2 in progress carry on",
    }
    assert [each["name"] for each in halted["stopped_by"]] == ["halt", "year-end"]
    assert halted["headline"] == {
        "level": "stop",
        "rule": "halted",
        "text": "All sending is halted: no boot; 2 in progress carry on",
    }


@pytest.mark.usefixtures("heard")
async def test_a_quarantined_segment_is_named_and_comes_first(
    north: httpx2.AsyncClient, host: Connection, pool: Pool
) -> None:
    sent = await Sent.start(pool, host, BY_REVISION, segments=[{"revision": "A"}, {"revision": "B"}])
    good, bad = await sent.send(40, segment=1), await sent.send(20, segment=2)
    await sent.report(good[:20], "SUCCESS")
    await sent.report(bad[:12], "FAILED")
    assert await sent.quarantined() == [2]
    found = await seen(north, f"{CAMPAIGNS}/{sent.id}")
    assert (found["headline"]["level"], found["headline"]["rule"]) == ("watch", "quarantined")
    assert found["headline"]["text"].startswith("Guardrail boots, revision=B, tripped: ")
    assert [(each["labels"], each["quarantined"]) for each in found["segments"]] == [
        ({"revision": "B"}, True),
        ({"revision": "A"}, False),
    ]
    [guardrail] = found["guardrails"]
    assert (guardrail["group"], guardrail["tripped"], guardrail["used"]) == ("revision=B", True, 1.0)
    [row] = (await north.get(CAMPAIGNS)).json()["campaigns"]
    assert row["trips_after"] is None  # it has tripped


@pytest.mark.usefixtures("heard")
async def test_a_guardrail_over_its_limit_is_told_before_it_may_trip(
    north: httpx2.AsyncClient, host: Connection, pool: Pool
) -> None:
    sent = await Sent.start(pool, host, SEQUENTIAL | {"min_finished": 50})
    await sent.report((await sent.send(40))[:12], "FAILED")
    found = await seen(north, f"{CAMPAIGNS}/{sent.id}")
    assert (found["headline"]["level"], found["headline"]["rule"]) == ("watch", "over_limit")
    assert found["headline"]["text"].startswith("Boots: 100 % failed (12 of 12), at least ")


@pytest.mark.usefixtures("heard")
async def test_a_trip_of_an_ended_campaign_stays_in_the_list(
    north: httpx2.AsyncClient, host: Connection, pool: Pool
) -> None:
    """Of ended campaigns, the list reads guardrails in short."""
    sent = await Sent.start(pool, host, SEQUENTIAL, SEQUENTIAL | {"name": "other", "codes": ["E_OTHER"]})
    await sent.report((await sent.send(40))[:12], "FAILED")
    assert await sent.status() == "ABORTED"
    found = await seen(north, f"{CAMPAIGNS}/{sent.id}")
    assert found["headline"]["rule"] == "tripped"
    assert [(each["name"], each["tripped"]) for each in found["guardrails"]] == [("boots", True), ("other", False)]


@pytest.mark.usefixtures("heard")
@pytest.mark.parametrize(
    ("state", "rule", "waits_for", "role"),
    [
        ("awaiting_approval", "approval", "approval", "approver"),
        ("soaking", "none", "soak", "approver"),
        ("failed", "gate_failed", "gate", "approver"),
    ],
)
async def test_the_gate_of_the_present_wave_is_in_the_verdict(
    north: httpx2.AsyncClient, host: Connection, state: str, rule: str, waits_for: str, role: str
) -> None:
    campaign = await insert_campaign(host, 0)
    gate = {"soak": "2h", "approval": True}
    await follow(host, campaign, {"waves": [{"name": "canary", "size": 5, "gate": gate}, {"name": "rest"}]})
    path = await counted(host, campaign, succeeded=5, pending=95, placed_revision=1)
    await host.execute(
        "INSERT INTO ota_campaign_waves (tenant_id, campaign_id, number, name, size, state, since, soak_from)"
        " VALUES ('north', $1, 0, 'canary', 5, $2, now(), '2127-01-01'),"
        " ('north', $1, 1, 'rest', 95, 'waiting', now(), NULL)",
        *(campaign, state),
    )
    found = await seen(north, path)
    wave = found["waves"][0]
    assert found["headline"]["rule"] == rule
    assert (wave["waits_for"], wave["needs_role"]) == (waits_for, role)
    if state == "soaking":
        assert found["headline"]["text"].startswith("Wave canary soaks until 2127-01-01 02:00 UTC; ")


class TestSilence:
    """No report for ten minutes, by the series of counters and by devices in progress."""

    async def rule(self, north: httpx2.AsyncClient, host: Connection, idle_until: str, **columns: Any) -> str:
        """The rule that holds, if devices have been in progress since that time."""
        campaign = await insert_campaign(host, 2)
        path = await counted(host, campaign, **{"pending": 3, "downloading": 2} | columns)
        await host.execute(
            "UPDATE ota_device_status SET status = 'DOWNLOADING', attempt = 1, sent_attempt = 1,"
            " due_at = now() + interval '30 min'"
        )
        await host.execute(
            "INSERT INTO ota_campaign_points (tenant_id, campaign_id, at, pending, downloading, installing, succeeded,"
            " failed, skipped) SELECT 'north', $1, now() - p.ago, 3, p.devices, 0, 0, 0, 0"
            " FROM (VALUES (interval '3 h', 0), ($2::text::interval, 0), (interval '5 s', 2)) AS p (ago, devices)",
            *(campaign, idle_until),
        )
        found = await seen(north, path)
        rule: str = found["headline"]["rule"]
        return rule

    @pytest.mark.usefixtures("heard")
    async def test_after_ten_minutes(self, north: httpx2.AsyncClient, host: Connection) -> None:
        assert await self.rule(north, host, "11 min") == "silent"

    @pytest.mark.usefixtures("heard")
    async def test_not_before(self, north: httpx2.AsyncClient, host: Connection) -> None:
        assert await self.rule(north, host, "9 min") == "none"

    @pytest.mark.usefixtures("heard")
    async def test_not_if_a_device_got_further(self, north: httpx2.AsyncClient, host: Connection) -> None:
        assert await self.rule(north, host, "2 h", succeeded=1) == "none"

    @pytest.mark.usefixtures("heard")
    async def test_not_if_a_device_in_progress_has_reported(self, north: httpx2.AsyncClient, host: Connection) -> None:
        campaign = await insert_campaign(host, 2)
        path = await counted(host, campaign, pending=3, downloading=2)
        await host.execute(
            "INSERT INTO ota_campaign_points (tenant_id, campaign_id, at, pending, downloading, installing, succeeded,"
            " failed, skipped) VALUES ('north', $1, now() - interval '2 h', 3, 0, 0, 0, 0, 0)",
            campaign,
        )
        reported = (
            "UPDATE ota_device_status SET status = 'DOWNLOADING', attempt = 1, sent_attempt = 1, heard_attempt = 1,"
            " due_at = now() + 1.1 * interval '30 min' - $1::text::interval"
        )
        await host.execute(reported, "11 min")
        assert (await seen(north, path))["headline"]["text"] == "No report for 11 min: 2 devices are in progress"
        await host.execute(reported, "1 min")
        assert (await seen(north, path))["headline"]["rule"] == "none"

    @pytest.mark.usefixtures("heard")
    async def test_unknown_without_the_series(self, north: httpx2.AsyncClient, host: Connection) -> None:
        path = await counted(host, await insert_campaign(host, 0), pending=3, downloading=2)
        assert (await seen(north, path))["headline"]["rule"] == "none"


@pytest.mark.usefixtures("heard")
async def test_a_campaign_that_is_not_counted_yet_has_a_verdict(north: httpx2.AsyncClient, host: Connection) -> None:
    campaign = await insert_campaign(host, 4, total_devices=4)
    found = (await north.get(CAMPAIGNS)).json()["campaigns"]
    assert [(each["id"], each["devices"]["PENDING"], each["headline"]["level"]) for each in found] == [
        (campaign, 4, "ok")
    ]


async def test_a_list_takes_as_many_statements_for_a_hundred_campaigns_as_for_one(pool: Pool, host: Connection) -> None:
    executed: list[str] = []

    def note(found: Any) -> None:
        executed.append(found.query)

    async with calling(pool, "north") as client:
        numbers, listed = [], 0
        for more in (1, 60):
            for _ in range(more):
                campaign = await insert_campaign(host, 0)
                await follow(host, campaign, {"guardrails": [SEQUENTIAL]})
            await client.get(CAMPAIGNS)
            executed.clear()
            async with pool.acquire() as connection:
                connection.add_query_logger(note)
            listed = len((await client.get(CAMPAIGNS)).json()["campaigns"])
            numbers.append(len(executed))
        assert listed == 61
    assert numbers[0] == numbers[1] > 0


async def test_versions_are_those_of_a_sample_when_the_campaign_is_first_sent(
    north: httpx2.AsyncClient, host: Connection, pool: Pool
) -> None:
    devices = [f"dev-{number}" for number in range(1, 5)]
    campaign = await insert_campaign(host, devices, total_devices=4)
    path = f"{CAMPAIGNS}/{campaign}"
    for device, version in zip(devices, ["2.3.0", "2.3.0", "2.2.0", None], strict=True):
        attributes = {"attributes": {"version": version} if version else {}}
        assert (await north.put(f"/devices/{device}", json=attributes)).is_success
    assert (await seen(north, path))["from_versions"] == []
    await FromVersions(pool).note(campaign_ref(campaign), being_targeted=False)
    known = [{"version": "2.3.0", "devices": 2}, {"version": "2.2.0", "devices": 1}]
    assert (await seen(north, path))["from_versions"] == known
    await north.put("/devices/dev-3", json={"attributes": {"version": "9"}})
    await FromVersions(pool).note(campaign_ref(campaign), being_targeted=False)
    assert (await seen(north, path))["from_versions"] == known, "later, a device says what it runs by then"
    [row] = (await north.get(CAMPAIGNS)).json()["campaigns"]
    assert row["from_versions"] == ["2.3.0", "2.2.0"]


@pytest.mark.parametrize(
    ("ask", "last_read"),
    [("/overview", "ota_campaign_history"), ("", "rollwave_listener_slots"), ("s", "rollwave_listener_slots")],
    ids=["overview", "page", "list"],
)
@pytest.mark.usefixtures("heard")
async def test_an_answer_is_of_one_moment(
    north: httpx2.AsyncClient, host: Connection, database: str, ask: str, last_read: str
) -> None:
    """A start that commits between two of its statements is in none of them."""
    path = await counted(host, await insert_campaign(host, 0, status="CREATED"), pending=3)
    path = CAMPAIGNS if ask == "s" else path + ask
    before = (await north.get(path)).json()
    async with connect(database) as other, other.transaction():
        await other.execute(f"LOCK TABLE {last_read}")
        asked = asyncio.create_task(north.get(path))
        await eventually(lambda: _one_waits(host), what="the answer has read its first statements")
        await other.execute("UPDATE ota_campaigns SET status = 'RUNNING', name = 'later'")
        await other.execute(
            "INSERT INTO ota_campaign_history (tenant_id, campaign_id, event, actor, detail)"
            " SELECT tenant_id, id, 'started', 'host', '{}' FROM ota_campaigns"
        )
    found, after = (await asked).json(), (await north.get(path)).json()
    for each in before, found, after:
        each.pop("as_of", None)
    assert found == before != after


async def _one_waits(host: Connection) -> bool:
    waits = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    return bool(await host.fetchval(f"SELECT EXISTS ({waits})"))


async def test_a_row_says_who_ended_the_campaign(north: httpx2.AsyncClient, host: Connection) -> None:
    aborted, completed, running = [await create_campaign(north) for _ in range(3)]
    await north.post(f"{aborted}/abort")
    await host.execute(
        "INSERT INTO ota_campaign_history (tenant_id, campaign_id, event, actor, detail)"
        " VALUES ('north', $1, 'completed', 'engine', '{}')",
        int(completed.rpartition("/")[2]),
    )
    await host.execute("UPDATE ota_campaigns SET status = 'COMPLETED' WHERE id = $1", int(completed.rpartition("/")[2]))
    rows = (await north.get(CAMPAIGNS)).json()["campaigns"]
    assert [f"{CAMPAIGNS}/{each['id']}" for each in rows] == [running, completed, aborted]
    assert [each["ended_by"] for each in rows] == [None, "engine", rows[2]["created_by"]]
    assert rows[2]["ended_by_name"] == rows[2]["created_by_name"]


@pytest.mark.usefixtures("heard")
async def test_an_abort_by_a_person_is_no_trip(north: httpx2.AsyncClient, host: Connection) -> None:
    """Even with a reason of their own, and more failures than the guardrail allows."""
    path = await counted(host, await insert_campaign(host, 0), succeeded=50, failed=7)
    await host.execute(
        "INSERT INTO ota_device_status (tenant_id, campaign_id, device_id, status) SELECT tenant_id, id, n::text,"
        " CASE WHEN n > 7 THEN 'SUCCESS' ELSE 'FAILED' END FROM ota_campaigns, generate_series(1, 57) AS n"
    )
    await north.post(f"{path}/abort", json={"reason": "the boss said so"})
    found = await seen(north, path)
    assert (found["headline"]["level"], found["headline"]["rule"]) == ("ok", "none")
    assert [(each["tripped"], each["trips_after"]) for each in found["guardrails"]] == [(False, None)]


@pytest.mark.usefixtures("heard")
async def test_a_running_row_has_the_forecast_of_the_overview(
    north: httpx2.AsyncClient, host: Connection, pool: Pool
) -> None:
    path = await counted(host, await insert_campaign(host, 0), pending=600, downloading=10, succeeded=1200)
    await host.execute(
        "INSERT INTO ota_campaign_points (tenant_id, campaign_id, at, pending, downloading, installing, succeeded,"
        " failed, skipped) SELECT 'north', $1, now() - m * interval '30 s', 600 + 10 * m, 10, 0, 1200 - 10 * m, 0, 0"
        " FROM generate_series(1, 120) AS m",
        int(path.rpartition("/")[2]),
    )
    created = f"{CAMPAIGNS}/{await insert_campaign(host, 0, status='CREATED')}"

    async def of_list() -> dict[str, Any]:
        rows = (await north.get(CAMPAIGNS)).json()["campaigns"]
        return {f"{CAMPAIGNS}/{each['id']}": each["forecast"] for each in rows}

    shown, expected = await of_list(), (await seen(north, path))["forecast"]
    assert shown[created] is None
    assert expected["text"].startswith("done "), expected
    assert shown[path]["text"][:8] == expected["text"][:8]
    ends = [datetime.fromisoformat(each["latest"]) for each in (shown[path], expected)]
    assert abs(ends[0] - ends[1]) <= timedelta(minutes=2)
    async with calling(pool, "north", Role.ADMIN) as admin:
        await admin.post("/ota/halt", json={"reason": "no boot"})
    assert (await of_list())[path] == (await seen(north, path))["forecast"]


async def test_versions_that_cannot_be_read_keep_no_campaign_from_being_sent(pool: Pool, host: Connection) -> None:
    campaign = await insert_campaign(host, ["dev-1"])
    await host.execute("ALTER FUNCTION rollwave_labels_of(text, text[]) RENAME TO rollwave_labels_gone")
    await FromVersions(pool).note(campaign_ref(campaign), being_targeted=False)
    assert await host.fetchval("SELECT from_versions FROM ota_campaigns WHERE id = $1", campaign) is None


async def test_an_event_that_other_sql_wrote_is_shown_without_its_detail(
    north: httpx2.AsyncClient, host: Connection
) -> None:
    campaign = await insert_campaign(host, ["dev-1"])
    await host.execute(
        "INSERT INTO ota_campaign_history (tenant_id, campaign_id, event, actor, detail)"
        " VALUES ('north', $1, 'noted', 'somebody', '[]')",
        campaign,
    )
    answer = await north.get(f"{CAMPAIGNS}/{campaign}/overview")
    assert answer.status_code == 200, answer.text
    [event] = answer.json()["events"]
    assert (event["event"], event["detail"]) == ("noted", {})


@pytest.mark.parametrize(
    "spoiled",
    [
        "since = 'infinity', soak_from = '-infinity'",
        "since = '-infinity', soak_from = 'infinity'",
        "name = NULL, size = NULL",
    ],
)
async def test_a_wave_that_was_spoiled_by_hand_is_unknown(host: Connection, pool: Pool, spoiled: str) -> None:
    waves = [{"name": "canary", "percent": 50, "gate": {"soak": "1h"}}, {"name": "rest"}]
    document = {"pace": {"per_minute": 60}, "waves": waves}
    campaign = await under_documents.insert_campaign(host, document, {f"d{n}": {} for n in range(4)})
    await host.execute(
        "INSERT INTO ota_campaign_waves (tenant_id, campaign_id, number, name, size, state, since)"
        " VALUES ('north', $1, 0, 'canary', 2, 'soaking', now()), ('north', $1, 1, 'rest', 2, 'waiting', NULL)",
        campaign,
    )
    await host.execute(f"UPDATE ota_campaign_waves SET {spoiled} WHERE number = 0")
    async with calling(pool, role=Role.VIEWER) as client:
        for part in ("", f"/{campaign}", f"/{campaign}/timeline", f"/{campaign}/overview"):
            shown = await client.get(f"/ota/campaigns{part}")
            assert shown.status_code == 200, (part, shown.text)
        wave = (await client.get(f"/ota/campaigns/{campaign}/overview")).json()["waves"][0]
        assert wave["name"] == ("wave 1" if "name" in spoiled else "canary")
        assert wave["until"] is None
