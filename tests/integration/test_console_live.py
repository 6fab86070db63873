"""The stream of a campaign's page: panels, rendered once for each role, with the token of each session."""

from __future__ import annotations

import re

import httpx2

from rollwave.domain.role import Role
from rollwave.store import access
from rollwave.store.database import Pool
from tests.api import calling, create_campaign
from tests.console import log_in
from tests.live import following, server

_TOKEN = re.compile(r'name="csrf_token" value="([0-9a-f]+)"')


async def test_panels_that_changed_are_sent_once_for_each_role(pool: Pool) -> None:
    async with calling(pool) as api:
        path = await create_campaign(api)
    page = f"/console/campaigns/{path.rpartition('/')[2]}"
    keys = {role: await access.create(pool, "north", role) for role in (Role.VIEWER, Role.OPERATOR)}
    async with (
        server(pool) as running,
        httpx2.AsyncClient(base_url=running.url, trust_env=False) as operator,
        httpx2.AsyncClient(base_url=running.url, trust_env=False) as viewer,
    ):
        await log_in(operator, keys[Role.OPERATOR])
        await log_in(viewer, keys[Role.VIEWER])
        async with following(operator, f"{page}/live") as of_operator, following(viewer, f"{page}/live") as of_viewer:
            token = ""
            for stream, may_start in ((of_operator, True), (of_viewer, False)):
                panels = {}
                while (event := await stream.next()) is not None and event.name == "panel":
                    panels[event.data["name"]] = event.data["html"]
                assert {"head", "verdict", "statebar", "waves", "guardrails", "waiting", "events"} <= set(panels)
                assert (f'action="{page}/start"' in panels["head"]) is may_start
                assert event is not None
                assert (event.name, event.data["text"]) == ("title", "0 % · spring")
                if may_start:
                    [token] = set(_TOKEN.findall("".join(panels.values())))
            started = await operator.post(f"{page}/start", data={"csrf_token": token})
            assert started.status_code == 303, started.text
            changed = set()
            while (event := await of_operator.next()) is not None and event.name != "title":
                changed |= {event.data["name"]} if event.name == "panel" else set()
            assert "head" in changed
            assert "causes" not in changed
            assert event is not None
            async with following(operator, f"{page}/live?after={event.id}") as resumed:
                beat = await resumed.next()
                assert beat is not None
                assert beat.name in {"field", "beat"}
        asked = (await viewer.get(f"{page}/live/panels")).json()
        assert asked["id"].endswith("-viewer")
        assert "csrf_token" not in "".join(asked["panels"].values())


async def test_a_stream_of_a_stranger_is_refused(pool: Pool) -> None:
    async with calling(pool) as api:
        path = await create_campaign(api)
    page = f"/console/campaigns/{path.rpartition('/')[2]}"
    async with server(pool) as running, httpx2.AsyncClient(base_url=running.url, trust_env=False) as stranger:
        answer = await stranger.get(f"{page}/live", headers={"Accept": "text/event-stream"})
        assert answer.status_code == 401
        other = await access.create(pool, "south", Role.ADMIN)
        await log_in(stranger, other)
        assert (await stranger.get(f"{page}/live")).status_code == 404


async def test_a_revoked_key_ends_the_stream_of_its_page(pool: Pool) -> None:
    async with calling(pool) as api:
        path = await create_campaign(api)
    page = f"/console/campaigns/{path.rpartition('/')[2]}"
    key = await access.create(pool, "north", Role.VIEWER)
    async with server(pool) as running, httpx2.AsyncClient(base_url=running.url, trust_env=False) as client:
        running.hub.key_seconds = 0.2
        await log_in(client, key)
        async with following(client, f"{page}/live") as stream:
            await stream.until("title")
            await access.revoke(pool, "north", key.split(".")[-2])
            assert (await stream.until("end")).data == {"why": "signed out"}
