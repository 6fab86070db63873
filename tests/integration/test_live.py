"""Streams of a campaign: one read for all, news only when something changed, and how a stream ends."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing
from typing import Any

import pytest
from starlette.exceptions import HTTPException

from rollwave.api.app import create_app
from rollwave.api.live.hub import Hub, Limits
from rollwave.api.live.news import News, Snapshot
from rollwave.domain.role import Role
from rollwave.embedded.postgres import EmbeddedPostgres
from rollwave.errors import NotFound
from rollwave.settings import Settings
from rollwave.store import access
from rollwave.store.access import Grant
from rollwave.store.database import Pool, create_pool
from rollwave.store.migrate import migrate
from tests.api import calling, create_campaign
from tests.live import SECONDS, client_of, following, server
from tests.support import eventually

OVERVIEW = "overview"


async def a_campaign(pool: Pool, tenant: str = "north", *devices: str) -> str:
    async with calling(pool, tenant) as client:
        return await create_campaign(client, *devices)


def granted(key: str, role: Role = Role.OPERATOR) -> Grant:
    _, tenant, key_id, _ = key.split(".")
    return Grant(tenant, key_id, role)


async def test_a_stream_tells_of_changes_only(pool: Pool) -> None:
    path = await a_campaign(pool)
    key = await access.create(pool, "north", Role.OPERATOR)
    async with server(pool) as running, client_of(running, key) as client, following(client, f"{path}/live") as stream:
        assert stream.answer.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        assert stream.answer.headers["X-Accel-Buffering"] == "no"
        first = await stream.next()
        assert first is not None
        assert (first.name, first.data["status"]) == (OVERVIEW, "CREATED")
        shown = (await client.get(f"{path}/overview")).json()
        assert {**shown, "as_of": 0} == {**first.data, "as_of": 0}
        beat = await stream.next()
        assert beat is not None
        assert beat.name == "beat"  # nothing has changed
        await client.post(f"{path}/start")
        # The statements of one read may see a start that commits between them: then the next read corrects it.
        while (second := await stream.until(OVERVIEW)).data["status"] != "RUNNING":
            pass
        assert second.id != first.id
        async with following(client, f"{path}/live", Last_Event_ID=second.id) as resumed:
            again = await resumed.next()
            assert again is not None
            assert again.name == "beat"
        async with following(client, f"{path}/live", Last_Event_ID=first.id) as behind:
            assert (await behind.until(OVERVIEW)).data["status"] == "RUNNING"


async def test_a_thousand_streams_cost_one_read_a_tick(pool: Pool) -> None:
    campaign = int((await a_campaign(pool)).rpartition("/")[2])
    keys = [granted(await access.create(pool, "north", Role.VIEWER)) for _ in range(5)]
    app = create_app(pool, Settings())
    hub: Hub = app.state.hub
    hub.tick = 0.2
    statements: list[str] = []
    async with AsyncExitStack() as streams:
        opened = [await streams.enter_async_context(hub.follow(keys[number % 5], campaign)) for number in range(1000)]
        iterators = [await streams.enter_async_context(aclosing(each.news())) for each in opened]
        firsts = [await anext(each) for each in iterators]
        assert len({each.id for each in firsts if isinstance(each, Snapshot)}) == 1
        async with AsyncExitStack() as listening:
            for _ in range(pool.get_size()):
                connection = await listening.enter_async_context(pool.acquire())
                connection.add_query_logger(lambda record: statements.append(record.query))
        statements.clear()
        began = time.monotonic()
        await eventually(lambda: sum(each == "COMMIT" for each in statements) >= 5, what="reads")
        ticks = (time.monotonic() - began) / hub.tick
        reads = sum(each == "COMMIT" for each in statements)
        assert reads <= ticks + 1
        waiting = [asyncio.create_task(_running(each)) for each in iterators]
        async with calling(pool) as client:
            await client.post(f"/ota/campaigns/{campaign}/start")
        news = await asyncio.wait_for(asyncio.gather(*waiting), SECONDS)
        assert len({id(each) for each in news}) == 1  # the same snapshot for all, and so is what is made of it


async def test_page_loads_and_polling_tabs_at_the_same_time_share_a_read(pool: Pool) -> None:
    path = await a_campaign(pool)
    campaign = int(path.rpartition("/")[2])
    hub: Hub = create_app(pool, Settings()).state.hub
    loads = [hub.read("north", campaign) for _ in range(50)]
    tabs = [hub.look("north", campaign) for _ in range(50)]
    found = await asyncio.wait_for(asyncio.gather(*loads, *tabs), SECONDS)
    assert len({id(each) for each in found}) == 1
    with pytest.raises(NotFound):
        await hub.read("south", campaign)


async def test_a_page_after_an_action_does_not_share_a_read_that_began_before_it(pool: Pool) -> None:
    path = await a_campaign(pool)
    campaign = int(path.rpartition("/")[2])
    hub: Hub = create_app(pool, Settings()).state.hub
    async with pool.acquire() as holder, holder.transaction():
        await holder.execute("LOCK TABLE ota_campaign_points")  # a read has begun, and goes on after the action
        earlier = asyncio.create_task(hub.read("north", campaign))
        waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
        await eventually(lambda: pool.fetchval(waiting), what="a read has begun")
        async with calling(pool) as client:
            assert (await client.post(f"{path}/start")).status_code == 200
        tab, *later = [asyncio.create_task(each("north", campaign)) for each in (hub.look, hub.read, hub.read)]
        await asyncio.sleep(0)  # they ask before the read ends
    before, *after = [await each for each in (earlier, *later)]
    assert await tab is before
    assert before.document["status"] == "CREATED"
    assert len({id(each) for each in after}) == 1
    assert after[0].document["status"] == "RUNNING"


async def test_a_slow_reader_gets_the_newest_state_only(pool: Pool) -> None:
    path = await a_campaign(pool)
    grant = granted(await access.create(pool, "north", Role.VIEWER))
    hub: Hub = create_app(pool, Settings()).state.hub
    hub.tick = 0.05
    campaign = int(path.rpartition("/")[2])
    async with calling(pool) as client, hub.follow(grant, campaign) as stream, aclosing(stream.news()) as news:
        await anext(news)
        for action in ("start", "pause", "start", "pause", "start", "pause"):
            assert (await client.post(f"{path}/{action}")).status_code == 200
        await eventually(lambda: _events(stream) >= 6, what="the last state is read")
        newest = await anext(news)
        assert isinstance(newest, Snapshot)
        assert newest.document["status"] == "PAUSED"
        assert len(newest.document["events"]) >= 6


async def _running(news: AsyncGenerator[News]) -> Snapshot:
    async for each in news:
        if isinstance(each, Snapshot) and each.document["status"] == "RUNNING":
            return each
    raise AssertionError("the stream has ended")


def _events(stream: Any) -> int:
    return len(stream._channel.snapshot.document["events"])


async def test_a_revoked_key_ends_its_streams(pool: Pool) -> None:
    path = await a_campaign(pool)
    revoked, other = [await access.create(pool, "north", Role.VIEWER) for _ in range(2)]
    async with server(pool) as running, client_of(running, revoked) as client, client_of(running, other) as stays:
        running.hub.key_seconds = 0.2
        async with following(client, f"{path}/live") as stream, following(stays, f"{path}/live") as kept:
            await stream.until(OVERVIEW)
            await access.revoke(pool, "north", revoked.split(".")[-2])
            assert (await stream.until("end")).data == {"why": "signed out"}
            assert await stream.next() is None
            await kept.until(OVERVIEW)
            await kept.until("beat")
        async with following(client, f"{path}/live") as refused:
            assert refused.answer.status_code == 401


async def test_a_key_that_expires_ends_its_streams(pool: Pool) -> None:
    path = await a_campaign(pool)
    key = await access.create(pool, "north", Role.VIEWER)
    async with server(pool) as running, client_of(running, key) as client:
        running.hub.key_seconds = 0.2
        async with following(client, f"{path}/live") as stream:
            await stream.until(OVERVIEW)
            await pool.execute("UPDATE rollwave_api_keys SET expires_at = now()")
            assert (await stream.until("end")).data == {"why": "signed out"}


async def test_a_deleted_campaign_ends_its_streams(pool: Pool) -> None:
    path = await a_campaign(pool)
    key = await access.create(pool, "north", Role.VIEWER)
    async with server(pool) as running, client_of(running, key) as client:
        async with following(client, f"{path}/live") as stream:
            await stream.until(OVERVIEW)
            await pool.execute("DELETE FROM ota_device_status")
            await pool.execute("DELETE FROM ota_campaigns")
            assert (await stream.until("end")).data == {"why": "campaign deleted"}
        async with following(client, f"{path}/live") as missing:
            assert missing.answer.status_code == 404


async def test_a_campaign_of_another_tenant_has_no_stream(pool: Pool) -> None:
    path = await a_campaign(pool)
    await a_campaign(pool, "south")
    key = await access.create(pool, "south", Role.ADMIN)
    async with server(pool) as running, client_of(running, key) as client:
        async with following(client, f"{path}/live") as refused:
            of_both = refused.answer.status_code
        async with following(client, "/ota/campaigns/999999/live") as missing:
            assert (of_both, missing.answer.status_code) == (404, 404)
            assert refused.answer.json()["title"] == missing.answer.json()["title"]


async def test_twin_tenants_see_their_own_campaign(pool: Pool) -> None:
    """Campaigns with the same name in two tenants; each stream has only its own events."""
    paths = {tenant: await a_campaign(pool, tenant) for tenant in ("north", "south")}
    keys = {tenant: await access.create(pool, tenant, Role.OPERATOR) for tenant in paths}
    async with (
        server(pool) as running,
        client_of(running, keys["north"]) as north,
        client_of(running, keys["south"]) as south,
        following(north, f"{paths['north']}/live") as of_north,
        following(south, f"{paths['south']}/live") as of_south,
    ):
        await of_north.until(OVERVIEW)
        await of_south.until(OVERVIEW)
        assert (await north.post(f"{paths['north']}/start")).status_code == 200
        while (await of_north.until(OVERVIEW)).data["status"] != "RUNNING":
            pass
        beat = await of_south.next()
        assert beat is not None
        assert beat.name == "beat"


@pytest.mark.parametrize(
    ("limits", "status", "word"),
    [
        (Limits(of_key=2), 429, "key"),
        (Limits(of_tenant=2), 429, "tenant"),
        (Limits(of_process=2), 503, "server"),
    ],
)
async def test_too_many_streams_are_refused(pool: Pool, limits: Limits, status: int, word: str) -> None:
    campaign = int((await a_campaign(pool)).rpartition("/")[2])
    grant = granted(await access.create(pool, "north", Role.VIEWER))
    hub: Hub = create_app(pool, Settings()).state.hub
    hub.limits = limits
    async with AsyncExitStack() as streams:
        for _ in range(2):
            await streams.enter_async_context(hub.follow(grant, campaign))
        with pytest.raises(HTTPException) as refused:
            await streams.enter_async_context(hub.follow(grant, campaign))
        assert (refused.value.status_code, word in refused.value.detail) == (status, True)
        assert (refused.value.headers or {})["Retry-After"].isdecimal()
    async with hub.follow(grant, campaign):
        pass  # the closed ones do not count


async def test_the_refusal_is_a_problem(pool: Pool) -> None:
    path = await a_campaign(pool)
    key = await access.create(pool, "north", Role.VIEWER)
    async with server(pool) as running, client_of(running, key) as client:
        running.hub.limits = Limits(of_key=0)
        async with following(client, f"{path}/live") as refused:
            assert refused.answer.status_code == 429
            assert refused.answer.json()["type"] == "/problems/too-many-requests"
            assert refused.answer.headers["Retry-After"] == "30"


async def test_a_server_stops_with_open_streams_and_another_one_goes_on(pool: Pool) -> None:
    path = await a_campaign(pool)
    key = await access.create(pool, "north", Role.VIEWER)
    async with server(pool) as running, client_of(running, key) as client, AsyncExitStack() as streams:
        opened = [await streams.enter_async_context(following(client, f"{path}/live")) for _ in range(20)]
        first = [await each.until(OVERVIEW) for each in opened]
        began = time.monotonic()
        await running.stop()
        assert time.monotonic() - began < 5
        for each in opened:
            assert await each.next() is None  # no end event: the client connects again
    async with (
        server(pool, port=running.port) as other,
        client_of(other, key) as client,
        following(client, f"{path}/live", Last_Event_ID=first[0].id) as stream,
    ):
        found = await stream.next()
        assert found is not None
        assert found.name == "beat"  # the other process knows that nothing has changed


async def test_a_stream_says_that_the_database_is_unavailable_and_goes_on(postgres: EmbeddedPostgres) -> None:
    with EmbeddedPostgres(postgres.data_dir.with_name("live-away")) as database:
        await migrate(database.url)
        async with create_pool(database.url) as pool:
            path = await a_campaign(pool)
            key = await access.create(pool, "north", Role.VIEWER)
            async with server(pool) as running, client_of(running, key) as client:
                running.hub.key_seconds = 0.2
                async with following(client, f"{path}/live") as stream:
                    await stream.until(OVERVIEW)
                    database.stop("immediate")
                    assert (await stream.until("trouble")).data == {"text": "The database is unavailable"}
                    async with following(client, f"{path}/live") as refused:
                        assert refused.answer.status_code == 503
                    await stream.until("beat")
                    database.start()
                    assert (await stream.until("trouble")).data == {"text": ""}


async def test_changes_of_the_field(pool: Pool) -> None:
    path = await a_campaign(pool, "north", "d1", "d2", "d3", "d4")
    key = await access.create(pool, "north", Role.VIEWER)
    async with server(pool) as running, client_of(running, key) as client:
        whole = await client.get(f"{path}/field")
        generation, sequence = whole.headers["Rollwave-Generation"], int(whole.headers["Rollwave-Sequence"])
        async with following(client, f"{path}/live?field=true") as stream:
            start = await stream.until("field")
            assert (start.data["generation"], start.data["runs"]) == (generation, [])
            assert start.data["sequence"] >= sequence
            await pool.execute("UPDATE ota_device_status SET status = 'FAILED' WHERE device_id IN ('d2', 'd3')")
            news = await stream.until("field")
            assert news.data["since"] == start.data["sequence"]
            assert news.data["sequence"] > news.data["since"]
            changed = {first + place: code for first, number, code in news.data["runs"] for place in range(number)}
            states = bytearray(whole.content)
            for place, code in changed.items():
                states[place] = code
            assert bytes(states) == (await client.get(f"{path}/field")).content
            assert sorted(states) == [0, 0, 4, 4]


async def test_head_of_a_stream_ends(pool: Pool) -> None:
    path = await a_campaign(pool)
    key = await access.create(pool, "north", Role.VIEWER)
    async with server(pool) as running, client_of(running, key) as client:
        answer = await client.head(f"{path}/live", timeout=SECONDS)
        assert answer.status_code == 200
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        await eventually(lambda: not running.hub._streams, what="the stream is closed")


async def test_a_client_that_goes_leaves_nothing(pool: Pool) -> None:
    path = await a_campaign(pool)
    key = await access.create(pool, "north", Role.VIEWER)
    async with server(pool) as running, client_of(running, key) as client:
        async with following(client, f"{path}/live") as stream:
            await stream.until(OVERVIEW)
            assert len(running.hub._channels) == 1
        await eventually(lambda: not running.hub._streams and not running.hub._channels, what="nobody reads")
        metrics = await client.get(f"{running.url}/metrics")
        assert "rollwave_live_streams 0.0" in metrics.text
