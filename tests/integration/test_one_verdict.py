"""The verdict on a campaign is the same in the list, on its page, in its streams and in the terminal."""

from __future__ import annotations

import asyncio
import html
import re

import httpx2
import pytest

from rollwave.domain.role import Role
from rollwave.store import access, brakes
from rollwave.store.database import Pool
from tests.api import CAMPAIGNS
from tests.console import log_in
from tests.integration.test_console_campaign import prepare, start
from tests.live import client_of, following, server
from tests.support import rollwave


@pytest.mark.parametrize(("halted", "level"), [(False, "stop"), (True, "stop")], ids=["no listener", "halted"])
async def test_list_page_streams_and_terminal_agree(pool: Pool, halted: bool, level: str) -> None:
    page = await prepare(pool)
    campaign = page.rpartition("/")[2]
    await start(pool, page)
    if halted:
        await brakes.halt(pool, "north", actor="test", reason="smoke in the lab")
    key = await access.create(pool, "north", Role.VIEWER)
    async with server(pool) as running, client_of(running, key) as api:
        overview = (await api.get(f"{CAMPAIGNS}/{campaign}/overview")).json()["headline"]
        assert overview["level"] == level
        [row] = (await api.get(CAMPAIGNS)).json()["campaigns"]
        assert row["headline"] == overview
        assert (await api.get(f"{CAMPAIGNS}/{campaign}")).json()["headline"] == overview
        async with following(api, f"{CAMPAIGNS}/{campaign}/live") as stream:
            assert (await stream.until("overview")).data["headline"] == overview
        env = {"ROLLWAVE_API_URL": running.url, "ROLLWAVE_API_KEY": key}
        for command in (("campaign", "show", campaign), ("campaign", "list")):
            printed = await asyncio.to_thread(rollwave, *command, env=env)
            assert overview["text"] in re.sub(r"\s+", " ", printed.stdout), printed
        async with httpx2.AsyncClient(base_url=running.url, trust_env=False) as browser:
            await log_in(browser, key)
            for address in ("/console/campaigns", page):
                assert overview["text"] in html.unescape((await browser.get(address)).text)
            async with following(browser, f"{page}/live") as panels:
                while (panel := (await panels.until("panel")).data)["name"] != "verdict":
                    pass
                assert overview["text"] in html.unescape(panel["html"])
