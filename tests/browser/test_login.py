"""Log in with a key, and out again; strangers, viewers and keys that have ended."""

from __future__ import annotations

import re

import pytest

from rollwave.domain.role import Role
from rollwave.store import access
from rollwave.store.database import create_pool
from tests.browser.conftest import MakeTab
from tests.browsing.house import Tenant
from tests.browsing.tab import NARROW, Tab

LIST = "/console/campaigns"


async def test_a_stranger_logs_in_and_arrives_where_they_wanted_to_go(tab: Tab, tenant: Tenant) -> None:
    await tab.open(f"{LIST}?status=RUNNING")
    assert "/console/login" in tab.page.url
    await tab.page.locator("input[name=key]").fill(tenant.keys[Role.VIEWER])
    await tab.page.keyboard.press("Enter")
    await tab.page.wait_for_url(f"**{LIST}?status=RUNNING")
    assert tenant.name in await tab.text("header")


async def test_a_wrong_key_is_refused_with_a_sentence(tab: Tab) -> None:
    tab.expect("status 403: POST .*/console/login", "403")
    await tab.open("/console/login")
    await tab.page.locator("input[name=key]").fill("rollwave.nobody.0123456789abcdef.wrong")
    await tab.page.keyboard.press("Enter")
    assert "unknown, expired or revoked" in await tab.text("[role=alert]")


async def test_a_viewer_sees_no_button_that_changes_something_and_an_operator_does(
    make_tab: MakeTab, tenant: Tenant
) -> None:
    for role, may in ((Role.VIEWER, False), (Role.OPERATOR, True)):
        tab = await make_tab()
        await tab.sign_in(tenant.keys[role])
        assert (await tab.page.get_by_role("link", name="New campaign").count() > 0) is may


async def test_logging_out_ends_the_session_of_this_browser(tab: Tab, tenant: Tenant) -> None:
    await tab.sign_in(tenant.keys[Role.OPERATOR])
    await tab.page.get_by_label("Session and theme").click()
    await tab.page.get_by_role("button", name="Log out").click()
    await tab.page.wait_for_url("**/console/login**")
    await tab.open(LIST)
    assert "/console/login" in tab.page.url


async def test_a_revoked_key_ends_its_sessions(tab: Tab, tenant: Tenant) -> None:
    key = tenant.keys[Role.OPERATOR]
    await tab.sign_in(key)
    async with create_pool(tenant.house.database, size=1) as pool:
        await access.revoke(pool, tenant.name, key.split(".")[2])
    await tab.open(LIST)
    assert "/console/login" in tab.page.url


async def test_the_session_cookie_is_out_of_reach_of_scripts(tab: Tab, tenant: Tenant) -> None:
    await tab.sign_in(tenant.keys[Role.OPERATOR])
    cookies = {each["name"]: each for each in await tab.page.context.cookies()}
    session = cookies["rollwave_session"]
    assert session["httpOnly"]
    assert session["sameSite"] == "Lax"
    assert tenant.keys[Role.OPERATOR].rpartition(".")[2] not in str(cookies)


@pytest.mark.parametrize("path", ["/console/login", LIST])
async def test_the_first_pages_are_accessible_and_fit_a_phone(make_tab: MakeTab, tenant: Tenant, path: str) -> None:
    tab = await make_tab(size=NARROW)
    if path == LIST:
        await tab.sign_in(tenant.keys[Role.OPERATOR])
    await tab.open(path)
    assert await tab.overflow() <= 0
    assert await tab.accessibility_faults() == []


async def test_a_theme_is_kept_and_drawn_by_the_server(tab: Tab, tenant: Tenant) -> None:
    await tab.sign_in(tenant.keys[Role.VIEWER])
    for theme in ("dark", "light"):
        await tab.page.get_by_label("Session and theme").click()
        await tab.page.get_by_role("button", name=f"{theme} theme").click()
        await tab.page.locator(f"html[data-theme={theme}]").wait_for()
        assert re.search(f'data-theme="{theme}"', await (await tab.page.context.request.get(tab.page.url)).text())
