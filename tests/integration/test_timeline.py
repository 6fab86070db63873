"""The past of a campaign, written by a real worker while devices report."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest

from rollwave.domain.overview import plan
from rollwave.domain.overview.timeline import MAX_POINTS, SURPLUS_POINTS
from rollwave.domain.role import Role
from rollwave.embedded.broker import EmbeddedBroker
from rollwave.engine.upkeep.look import Upkeep
from rollwave.settings import Settings
from rollwave.store.database import Pool
from tests.api import calling, create_campaign
from tests.engine import (
    Connection,
    always_succeeds,
    campaign_ref,
    connect,
    devices,
    insert_campaign,
    never_answers,
    wait_for_ticks,
    wait_until_ended,
    worker,
)
from tests.integration import test_policy_waves as under_documents
from tests.support import eventually

STATES = {"pending": "PENDING", "downloading": "DOWNLOADING", "installing": "INSTALLING"} | {
    "succeeded": "SUCCESS",
    "failed": "FAILED",
    "skipped": "SKIPPED",
}


@pytest.fixture
async def host(database: str) -> AsyncIterator[Connection]:
    async with connect(database) as connection:
        yield connection


@pytest.fixture
async def client(pool: Pool) -> AsyncIterator[httpx2.AsyncClient]:
    async with calling(pool, role=Role.VIEWER) as client:
        yield client


async def timeline(client: httpx2.AsyncClient, campaign: int) -> dict[str, Any]:
    answer = await client.get(f"/ota/campaigns/{campaign}/timeline")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def stored(host: Connection, campaign: int) -> list[tuple[int, ...]]:
    rows = await host.fetch(
        f"SELECT {', '.join(STATES)} FROM ota_campaign_points WHERE campaign_id = $1 ORDER BY at", campaign
    )
    return [tuple(row) for row in rows]


def counters(point: dict[str, Any]) -> tuple[int, ...]:
    return tuple(point[each] for each in STATES)


async def test_the_series_of_a_campaign_ends_with_its_counters(
    host: Connection, client: httpx2.AsyncClient, database: str, broker: EmbeddedBroker, tmp_path: Path
) -> None:
    async with devices(broker.url, always_succeeds), worker(database, broker.url, tmp_path / "worker"):
        campaign = await insert_campaign(host, 60, rollout_rate=6)
        await wait_until_ended(host, campaign)
        await eventually(lambda: _ended(host, campaign))
    found = await timeline(client, campaign)
    points = found["points"]
    assert counters(points[-1]) == (0, 0, 0, 60, 0, 0)
    assert (await stored(host, campaign))[-1] == (0, 0, 0, 60, 0, 0), "also in the database"
    assert points[0]["pending"] == 60
    assert 3 <= len(points) <= 60
    assert all(sum(counters(each)) == 60 for each in points), "each point is one consistent snapshot"
    finished = [each["succeeded"] for each in points]
    assert finished == sorted(finished)
    assert found["forecast"]["text"].startswith("completed at ")
    assert [found["forecast"][each] for each in ("earliest", "latest", "band")] == [None, None, []]
    assert found["rate_per_minute"] is None
    assert len(found["recent"]) == 30
    assert sum(found["recent"]) > 0
    assert [each["kind"] for each in found["markers"]] == ["ended"]


async def _ended(host: Connection, campaign: int) -> bool:
    rows = await stored(host, campaign)
    return bool(rows) and rows[-1][:3] == (0, 0, 0)


async def test_flat_columns_have_a_plan_by_their_rate(
    host: Connection, client: httpx2.AsyncClient, database: str, broker: EmbeddedBroker, tmp_path: Path
) -> None:
    """6 devices in each tick of 0.2 seconds are 1,800 a minute: 60 devices take 2 seconds."""
    async with devices(broker.url, never_answers), worker(database, broker.url, tmp_path / "worker"):
        campaign = await insert_campaign(host, 60, rollout_rate=6)
        await eventually(lambda: _has_plan(client, campaign))
        plan = (await timeline(client, campaign))["plan"]
    first, last = plan[0], plan[-1]
    assert (first["devices"], last["devices"]) == (0, 60)
    assert datetime.fromisoformat(last["at"]) - datetime.fromisoformat(first["at"]) == timedelta(seconds=2)


async def _has_plan(client: httpx2.AsyncClient, campaign: int) -> bool:
    return bool((await timeline(client, campaign))["plan"])


async def test_nothing_is_written_while_the_counters_stay_the_same(
    host: Connection, database: str, broker: EmbeddedBroker, tmp_path: Path
) -> None:
    async with devices(broker.url, never_answers), worker(database, broker.url, tmp_path / "worker") as running:
        campaign = await insert_campaign(host, 5, rollout_rate=5)
        await eventually(lambda: _in_progress(host, campaign, 5))
        await host.execute("UPDATE ota_campaigns SET status = 'PAUSED' WHERE id = $1", campaign)
        await wait_for_ticks(running, 10)
        before = await stored(host, campaign)
        await wait_for_ticks(running, 20)
        assert await stored(host, campaign) == before


async def _in_progress(host: Connection, campaign: int, number: int) -> bool:
    rows = await stored(host, campaign)
    return bool(rows) and rows[-1][1] == number


async def test_a_long_series_is_thinned(host: Connection, pool: Pool) -> None:
    campaign = await insert_campaign(host, 3)
    upkeep = Upkeep(pool, Settings())
    await upkeep.look_after(campaign_ref(campaign))
    await host.execute(
        "INSERT INTO ota_campaign_points"
        " (tenant_id, campaign_id, at, pending, downloading, installing, succeeded, failed, skipped)"
        " SELECT 'north', $1, now() - interval '1 second' * n * 600, 3, 0, 0, 0, 0, 0"
        " FROM generate_series(1, 2000) AS n",
        campaign,
    )
    await host.execute("UPDATE ota_campaign_points SET at = at - interval '5 seconds'")
    first = await host.fetchval("SELECT min(at) FROM ota_campaign_points")
    await host.execute("UPDATE ota_campaigns SET pending = 2, skipped = 1 WHERE id = $1", campaign)
    await Upkeep(pool, Settings()).look_after(campaign_ref(campaign))
    rows = await stored(host, campaign)
    assert len(rows) <= MAX_POINTS
    assert rows[-1] == (2, 0, 0, 0, 0, 1)
    assert await host.fetchval("SELECT min(at) FROM ota_campaign_points") == first
    assert SURPLUS_POINTS < 100, "it is thinned before a chart gets slow"


async def test_an_edit_makes_another_plan(
    host: Connection, pool: Pool, client: httpx2.AsyncClient, database: str, broker: EmbeddedBroker, tmp_path: Path
) -> None:
    document = {"pace": {"per_minute": 60}}
    campaign = await under_documents.insert_campaign(host, document, {f"d{n}": {} for n in range(60)})
    async with (
        devices(broker.url, never_answers),
        worker(database, broker.url, tmp_path / "worker"),
        calling(pool, role=Role.OPERATOR) as operator,
    ):
        await eventually(lambda: _planned(host, campaign, 1))
        answer = await operator.put(f"/ota/campaigns/{campaign}/policy", json={"pace": {"per_minute": 120}})
        assert answer.status_code == 200, answer.text
        await eventually(lambda: _planned(host, campaign, 2))
    rows = await host.fetch(
        "SELECT EXTRACT(epoch FROM ends_at)::float8 - points_at[1] AS seconds, devices[1] AS sent"
        " FROM ota_campaign_plans ORDER BY revision"
    )
    assert [round(each["seconds"] * rate) for each, rate in zip(rows, (1, 2), strict=True)] == [
        60 - each["sent"] for each in rows
    ]
    plan = (await timeline(client, campaign))["plan"]
    assert plan[-1]["devices"] == 60
    times = [each["at"] for each in plan]
    assert times == sorted(times)


async def _planned(host: Connection, campaign: int, number: int) -> bool:
    plans: int = await host.fetchval("SELECT count(*) FROM ota_campaign_plans WHERE campaign_id = $1", campaign)
    return plans == number


async def test_a_plan_is_drawn_without_the_campaigns_lock_and_beside_the_event_loop(
    host: Connection, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    campaign = await insert_campaign(host, 3)
    drawing, go_on = threading.Event(), threading.Event()
    in_time: list[bool] = []

    def slow(facts: plan.PlanFacts) -> plan.Plan | None:
        drawing.set()
        in_time.append(go_on.wait(5))
        return ideal(facts)

    ideal = plan.ideal
    monkeypatch.setattr(plan, "ideal", slow)
    look = asyncio.create_task(Upkeep(pool, Settings()).look_after(campaign_ref(campaign)))
    await eventually(drawing.is_set, what="the plan is drawn")
    await host.execute("SELECT FROM ota_campaigns WHERE id = $1 FOR UPDATE NOWAIT", campaign)
    go_on.set()
    await look
    assert in_time == [True]
    assert await _planned(host, campaign, 1)


async def test_a_policy_without_a_pace_has_no_plan(host: Connection, pool: Pool, client: httpx2.AsyncClient) -> None:
    campaign = await under_documents.insert_campaign(host, {}, {"d1": {}})
    await Upkeep(pool, Settings()).look_after(campaign_ref(campaign))
    assert (await timeline(client, campaign))["plan"] is None


async def test_a_campaign_that_was_not_started_has_no_past(pool: Pool) -> None:
    async with calling(pool) as operator:
        path = await create_campaign(operator)
        found = (await operator.get(f"{path}/timeline")).json()
    assert (found["points"], found["plan"], found["recent"], found["markers"]) == ([], None, [], [])
    assert found["forecast"]["text"] == "no forecast: not started yet"


async def test_the_past_of_another_tenants_campaign_is_a_404(host: Connection, pool: Pool) -> None:
    campaign = await insert_campaign(host, 1)
    async with calling(pool, "south") as stranger:
        assert (await stranger.get(f"/ota/campaigns/{campaign}/timeline")).status_code == 404


async def test_points_and_plans_go_with_their_campaign(host: Connection, pool: Pool) -> None:
    campaign = await insert_campaign(host, 3)
    await Upkeep(pool, Settings()).look_after(campaign_ref(campaign))
    assert await stored(host, campaign)
    await host.execute("DELETE FROM ota_device_status WHERE campaign_id = $1", campaign)
    await host.execute("DELETE FROM ota_campaigns WHERE id = $1", campaign)
    for table in ("ota_campaign_points", "ota_campaign_plans"):
        assert not await host.fetchval(f"SELECT count(*) FROM {table}")


async def test_a_point_of_the_future_is_removed(host: Connection, pool: Pool) -> None:
    """The database's clock was set back."""
    campaign = await insert_campaign(host, 3)
    await Upkeep(pool, Settings()).look_after(campaign_ref(campaign))
    await host.execute("UPDATE ota_campaign_points SET at = now() + interval '1 hour'")
    await Upkeep(pool, Settings()).look_after(campaign_ref(campaign))
    latest: datetime = await host.fetchval("SELECT max(at) FROM ota_campaign_points")
    assert latest <= datetime.now(UTC) + timedelta(minutes=1)


async def test_a_change_after_a_long_rest_is_a_step_and_not_a_slope(host: Connection, pool: Pool) -> None:
    campaign = await insert_campaign(host, 3)
    upkeep = Upkeep(pool, Settings())
    await upkeep.look_after(campaign_ref(campaign))
    await host.execute("UPDATE ota_campaign_points SET at = at - interval '1 hour'")
    await host.execute("UPDATE ota_campaigns SET pending = 2, skipped = 1 WHERE id = $1", campaign)
    await Upkeep(pool, Settings()).look_after(campaign_ref(campaign))
    assert await stored(host, campaign) == [(3, 0, 0, 0, 0, 0), (3, 0, 0, 0, 0, 0), (2, 0, 0, 0, 0, 1)]
    ages = await host.fetch("SELECT EXTRACT(epoch FROM now() - at)::int AS age FROM ota_campaign_points ORDER BY at")
    assert 3590 < ages[0]["age"] < 3720
    assert ages[1]["age"] - ages[2]["age"] in range(5, 30), "as long as two looks may be apart"


async def test_the_last_point_has_the_counters_of_now(host: Connection, pool: Pool, client: httpx2.AsyncClient) -> None:
    """Also of reports that came after the last look, as on a campaign that was aborted long ago."""
    campaign = await insert_campaign(host, 3)
    await Upkeep(pool, Settings()).look_after(campaign_ref(campaign))
    await host.execute(
        "UPDATE ota_campaigns SET pending = 2, succeeded = 1, status = 'ABORTED', settled_at = now() WHERE id = $1",
        campaign,
    )
    points = (await timeline(client, campaign))["points"]
    assert [counters(each) for each in points] == [(3, 0, 0, 0, 0, 0), (2, 0, 0, 1, 0, 0)]


async def test_a_plan_has_the_waves_and_soaks_of_its_document(
    host: Connection, client: httpx2.AsyncClient, database: str, broker: EmbeddedBroker, tmp_path: Path
) -> None:
    first = {"name": "canary", "size": 10, "gate": {"soak": "10m", "approval": True}}
    document = {"pace": {"per_minute": 60}, "waves": [first, {"name": "rest"}]}
    campaign = await under_documents.insert_campaign(host, document, {f"d{n}": {} for n in range(40)})
    async with devices(broker.url, never_answers), worker(database, broker.url, tmp_path / "worker"):
        await eventually(lambda: _planned(host, campaign, 1))
    plan = (await timeline(client, campaign))["plan"]
    begins = datetime.fromisoformat(plan[0]["at"])
    corners = [(round((datetime.fromisoformat(each["at"]) - begins).total_seconds()), each["devices"]) for each in plan]
    assert corners == [(0, 0), (10, 10), (610, 10), (640, 40)]
    await host.execute("UPDATE ota_campaign_waves SET state = 'awaiting_approval' WHERE number = 0")
    assert (await timeline(client, campaign))["forecast"]["text"] == "no forecast: wave canary waits for approval"
    overview = (await client.get(f"/ota/campaigns/{campaign}/overview")).json()
    assert overview["plan"]["ends_at"] == plan[-1]["at"]
    assert overview["forecast"]["text"] == "no forecast: wave canary waits for approval"


async def test_the_markers_of_a_campaign(pool: Pool) -> None:
    async with calling(pool) as operator:
        path = await create_campaign(operator)
        for action in ("start", "pause", "start", "abort"):
            assert (await operator.post(f"{path}/{action}")).status_code == 200
        found = (await operator.get(f"{path}/timeline")).json()
    assert [each["kind"] for each in found["markers"]] == ["started", "pause", "resume", "ended"]
    assert found["markers"][1]["text"] == "PAUSED: paused by an operator"


async def test_the_look_that_completes_a_campaign_writes_its_end_in_any_case(host: Connection, pool: Pool) -> None:
    """Also if the point before it was written a moment ago."""
    campaign = await insert_campaign(host, 1)
    upkeep = Upkeep(pool, Settings())
    await upkeep.look_after(campaign_ref(campaign))
    await host.execute("UPDATE ota_campaign_points SET at = now()")
    await host.execute(
        "UPDATE ota_device_status SET status = 'SUCCESS', attempt = 1, sent_attempt = 1, completed_at = now()"
    )
    await host.execute("UPDATE ota_campaigns SET pending = 0, succeeded = 1, sent = 1")
    look = await upkeep.look_after(campaign_ref(campaign))
    assert look.completed
    assert (await stored(host, campaign))[-1] == (0, 0, 0, 1, 0, 0)
