"""The console's login: its cookie, its forms, and who may do what."""

from __future__ import annotations

from rollwave.store import access
from rollwave.store.database import Pool
from tests.console import log_in, visiting


async def test_a_stranger_is_sent_to_login_and_back(pool: Pool) -> None:
    key = await access.create(pool, "north", "operator")
    async with visiting(pool) as client:
        sent = await client.get("/console/campaigns?status=RUNNING")
        assert (sent.status_code, sent.headers["Location"]) == (
            303,
            "/console/login?next=%2Fconsole%2Fcampaigns%3Fstatus%3DRUNNING",
        )
        back = await log_in(client, key, "/console/campaigns?status=RUNNING")
        assert (back.status_code, back.headers["Location"]) == (303, "/console/campaigns?status=RUNNING")
        page = await client.get("/console/campaigns")
        assert page.status_code == 200, page.text
        assert "No campaigns yet." in page.text
