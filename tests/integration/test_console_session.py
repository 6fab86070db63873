"""The console's login: its cookie, its forms, who may do what, and where it leads."""

from __future__ import annotations

import asyncio
import re
from datetime import timedelta

import pytest

from rollwave.console.session import Sealed, login_link
from rollwave.domain.role import Role
from rollwave.store import access, console_secret
from rollwave.store.access import Grant
from rollwave.store.database import Pool, system_transaction, tenant_transaction
from tests.api import calling, create_campaign
from tests.console import log_in, signed_in, submit, token, visiting

HOME = "/console/campaigns"


async def test_a_stranger_is_sent_to_login_and_back(pool: Pool) -> None:
    key = await access.create(pool, "north", Role.OPERATOR)
    async with visiting(pool) as client:
        sent = await client.get("/console/campaigns?status=RUNNING")
        assert (sent.status_code, sent.headers["Location"]) == (
            303,
            "/console/login?next=%2Fconsole%2Fcampaigns%3Fstatus%3DRUNNING",
        )
        back = await log_in(client, key, "/console/campaigns?status=RUNNING")
        assert (back.status_code, back.headers["Location"]) == (303, "/console/campaigns?status=RUNNING")
        page = await client.get(HOME)
        assert page.status_code == 200, page.text
        assert "No campaigns yet." in page.text


@pytest.mark.parametrize(
    "elsewhere",
    [
        "https://evil.example/console/campaigns",
        "//evil.example/console/campaigns",
        "/\\evil.example",
        "/\t/evil.example",
        "/console//evil.example",
        "/console/../metrics",
        "/console/%2e%2e/metrics",
        "javascript:alert(1)",
        "/metrics",
        "console/campaigns",
        "/console/login?next=/console/login",
        "/console/campaigns\r\nSet-Cookie: a=b",
    ],
)
async def test_login_leads_to_pages_of_the_console_only(pool: Pool, elsewhere: str) -> None:
    key = await access.create(pool, "north", Role.VIEWER)
    async with visiting(pool) as client:
        answer = await log_in(client, key, elsewhere)
        assert (answer.status_code, answer.headers["Location"]) == (303, HOME)


async def test_the_cookie_is_signed_and_out_of_reach_of_scripts(pool: Pool) -> None:
    key = await access.create(pool, "north", Role.VIEWER)
    async with visiting(pool) as client:
        answer = await log_in(client, key)
        [cookie] = [each for each in answer.headers.get_list("Set-Cookie") if each.startswith("rollwave_session=")]
        assert {"HttpOnly", "SameSite=lax", "Path=/console", "Max-Age=43200"} <= set(cookie.split("; "))
        assert "Secure" not in cookie  # this request came over plain HTTP
        assert key.rpartition(".")[2] not in cookie
        value = client.cookies["rollwave_session"]
        signed, _, signature = value.rpartition(".")
        other = ("A" if signature[0] != "A" else "B") + signature[1:]  # the last letter has bits that mean nothing
        for forged in (f"{signed}.{other}", value.partition(".")[0], "x", ""):
            client.cookies.set("rollwave_session", forged, domain="test.local", path="/console")
            client.cookies.clear()
            client.cookies.set("rollwave_session", forged)
            assert (await client.get(HOME)).status_code == 303, forged


async def test_the_cookie_is_secure_behind_tls(pool: Pool) -> None:
    key = await access.create(pool, "north", Role.VIEWER)
    async with visiting(pool) as client:
        client.base_url = "https://test"
        answer = await log_in(client, key)
        assert all("; Secure" in each for each in answer.headers.get_list("Set-Cookie") if "Max-Age=0" not in each)
        assert (await client.get(HOME)).status_code == 200


async def test_a_session_ends_with_its_key(pool: Pool) -> None:
    revoked, expired = [await access.create(pool, "north", Role.VIEWER) for _ in range(2)]
    async with signed_in(pool, key=revoked) as client:
        assert (await client.get(HOME)).status_code == 200
        await access.revoke(pool, "north", revoked.split(".")[-2])
        answer = await client.get(HOME)
        assert (answer.status_code, answer.headers["Location"]) == (303, "/console/login?expired=1")
        assert "You are signed out" in (await client.get("/console/login?expired=1")).text
        part = await client.get("/console/campaigns/rows", headers={"HX-Request": "true"})
        assert (part.status_code, "You are signed out." in part.text) == (401, True)
    async with signed_in(pool, key=expired) as client:
        await pool.execute("UPDATE rollwave_api_keys SET expires_at = now() - interval '1 ms'")
        assert (await client.get(HOME)).status_code == 303


async def test_a_session_ends_after_twelve_hours(pool: Pool) -> None:
    sealed = Sealed(await console_secret.read(pool))
    text = sealed.seal("session", ["north", "0" * 16, "n", 0])
    assert sealed.open("session", text, timedelta(hours=12)) is not None
    assert sealed.open("session", text, timedelta(seconds=-1)) is None
    assert sealed.open("flash", text, timedelta(hours=12)) is None  # another purpose
    assert Sealed("another secret" * 4).open("session", text, timedelta(hours=12)) is None


async def test_all_processes_share_the_sessions(pool: Pool) -> None:
    async with signed_in(pool) as one, visiting(pool) as other:
        other.cookies = one.cookies
        assert (await other.get(HOME)).status_code == 200


async def test_logging_out_ends_the_session_of_the_browser(pool: Pool) -> None:
    async with signed_in(pool) as client:
        answer = await submit(client, "/console/logout")
        assert (answer.status_code, answer.headers["Location"]) == (303, "/console/login")
        assert (await client.get(HOME)).status_code == 303


async def test_a_form_needs_the_token_of_its_session(pool: Pool) -> None:
    async with signed_in(pool) as client, signed_in(pool) as other:
        of_other = token(await other.get(HOME))
        for given in ({}, {"csrf_token": ""}, {"csrf_token": "0" * 64}, {"csrf_token": of_other}):
            answer = await client.post("/console/theme", data={"theme": "dark", **given})
            assert answer.status_code == 403, given
            assert "out of date" in answer.text
        of_this = token(await client.get(HOME))
        for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://evil.example"}, {"Origin": "null"}):
            answer = await client.post("/console/theme", data={"csrf_token": of_this}, headers=headers)
            assert answer.status_code == 403, headers
        fine = {"Sec-Fetch-Site": "same-origin", "Origin": "https://the-name-before-the-proxy.example"}
        answer = await client.post("/console/theme", data={"csrf_token": of_this}, headers=fine)
        assert answer.status_code == 303


async def test_the_login_form_needs_a_token_too(pool: Pool) -> None:
    key = await access.create(pool, "north", Role.VIEWER)
    async with visiting(pool) as client:
        assert (await client.post("/console/login", data={"key": key})).status_code == 403
        await client.get("/console/login")
        assert (await client.post("/console/login", data={"key": key, "csrf_token": "0" * 64})).status_code == 403


@pytest.mark.parametrize("header", ["Referer", "HX-Current-URL"])
async def test_an_address_that_cannot_be_read_leads_to_the_list(pool: Pool, header: str) -> None:
    async with signed_in(pool) as client:
        shown = token(await client.get(HOME))
        form = {"csrf_token": shown, "theme": "dark"}
        answer = await client.post("/console/theme", data=form, headers={header: "http://["})
        assert (answer.status_code, answer.headers["Location"]) == (303, HOME)


async def test_a_form_from_an_origin_that_cannot_be_read_is_refused(pool: Pool) -> None:
    async with signed_in(pool) as client:
        shown = token(await client.get(HOME))
        answer = await client.post("/console/theme", data={"csrf_token": shown}, headers={"Origin": "http://["})
        assert answer.status_code == 403


async def test_a_stranger_cannot_send_a_large_form(pool: Pool) -> None:
    async with visiting(pool) as client:
        answer = await client.post("/console/login", data={"key": "x" * 100_000})
        assert answer.status_code == 413


@pytest.mark.parametrize("page", ["firmware", "campaigns", "quarantine", "devices/pump-1"])
async def test_a_row_number_that_is_too_large_is_no_defect(pool: Pool, page: str) -> None:
    async with signed_in(pool) as client:
        answer = await client.get(f"/console/{page}?cursor={10**20}")
        assert answer.status_code in {200, 404, 422}


async def test_a_wrong_key_is_refused_and_many_are_slowed_down(pool: Pool) -> None:
    key = await access.create(pool, "north", Role.VIEWER)
    async with visiting(pool) as client:
        for wrong in (key[:-1] + "!", "", "x", "rollwave.north.0.0", *["y"] * 6):
            answer = await log_in(client, wrong)
            assert (answer.status_code, "unknown, expired or revoked" in answer.text) == (403, True), wrong
            assert "rollwave_session" not in client.cookies
        slowed = await log_in(client, "z")
        assert slowed.status_code == 429
        assert 0 < int(slowed.headers["Retry-After"]) <= 60
        assert (await log_in(client, key)).status_code == 303  # others behind the same address


async def test_a_viewer_sees_no_buttons_and_may_post_nothing(pool: Pool) -> None:
    async with calling(pool) as api:
        path = await create_campaign(api)
        page = f"{HOME}/{path.rpartition('/')[2]}"
    async with signed_in(pool, role=Role.OPERATOR) as client:
        assert f'action="{page}/start"' in (await client.get(page)).text
    async with signed_in(pool, role=Role.VIEWER) as client:
        shown = (await client.get(page)).text
        actions = set(re.findall(r'<form[^>]* method="post"[^>]* action="([^"]*)"', shown))
        assert actions <= {"/console/theme", "/console/logout"}
        answer = await submit(client, f"{page}/start")
        assert answer.status_code == 403
        assert "This needs the role operator; your key is a viewer." in answer.text


async def test_a_login_link_may_be_used_again_and_leaves_the_address(pool: Pool) -> None:
    key = await access.create(pool, "north", Role.ADMIN)
    _, tenant, key_id, _ = key.split(".")
    link = await login_link(pool, Grant(tenant, key_id, Role.ADMIN), "http://test/")
    for _ in range(2):
        async with visiting(pool) as client:
            answer = await client.get(link)
            assert (answer.status_code, answer.headers["Location"]) == (303, HOME)
            assert "north · admin" in (await client.get(HOME)).text
    late = await login_link(pool, Grant(tenant, key_id, Role.ADMIN), "http://test", valid_for=timedelta(seconds=-1))
    async with visiting(pool) as client:
        for bad in (late, link[:-1], f"{link}x"):
            assert (await client.get(bad)).status_code == 403
        await access.revoke(pool, "north", key_id)
        assert (await client.get(link)).status_code == 403


async def test_no_transaction_of_a_tenant_sees_the_secret(pool: Pool) -> None:
    statement = "SELECT count(*) FROM rollwave_console_secret"
    async with tenant_transaction(pool, "north") as connection:
        assert await connection.fetchval(statement) == 0
    async with system_transaction(pool) as connection:
        assert await connection.fetchval(statement) == 1
        assert len(await connection.fetchval("SELECT secret FROM rollwave_console_secret")) == 64


async def test_two_tenants_see_their_own_campaigns(pool: Pool) -> None:
    for tenant in ("north", "south"):
        async with calling(pool, tenant) as api:
            await create_campaign(api)
    async with signed_in(pool, "north") as north, signed_in(pool, "south") as south:
        links = [re.findall(r'href="(/console/campaigns/\d+)"', (await each.get(HOME)).text) for each in (north, south)]
        assert len(links[0]) == len(links[1]) == 1
        if links[0] != links[1]:  # ids are counted for each tenant or for all
            answers = await asyncio.gather(north.get(links[1][0]), south.get(links[0][0]))
            assert [each.status_code for each in answers] == [404, 404]
