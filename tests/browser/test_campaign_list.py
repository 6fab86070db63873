"""The list of campaigns: what needs an operator is first, and it changes without a reload."""

from __future__ import annotations

import re

from playwright.async_api import expect

from rollwave.domain.role import Role
from rollwave.fleet import Fault
from rollwave.mqtt.payload import Command
from tests.browser.conftest import MakeTab
from tests.browsing.fleets import fleet
from tests.browsing.house import Tenant
from tests.browsing.tab import NARROW, Tab

LIST = "/console/campaigns"
DEVICES = tuple(f"pump-{number}" for number in range(1, 13))


def breaks(_device: str, command: Command) -> Fault | None:
    return Fault() if command.version == "6.6.6" else None


async def test_a_tenant_without_campaigns_is_told_how_to_begin(tab: Tab, tenant: Tenant) -> None:
    await tab.sign_in(tenant.keys[Role.OPERATOR])
    main = tab.page.locator("main")
    await expect(main).to_contain_text("No campaigns yet.")
    await expect(main).to_contain_text("rollwave campaign create")


async def test_a_campaign_moves_on_the_page_and_one_that_stops_itself_comes_first(tab: Tab, tenant: Tenant) -> None:
    await tenant.register({device: {} for device in DEVICES})
    good = await tenant.create("Good release", await tenant.firmware("2.0.0"))
    bad = await tenant.create("Bad release", await tenant.firmware("6.6.6"))
    await tab.sign_in(tenant.keys[Role.OPERATOR])
    rows = tab.page.locator("main tbody tr")
    await expect(rows).to_have_count(2)
    await tab.page.evaluate("window.kept = true")
    with fleet(tenant.house.broker, tenant.name, DEVICES, behaviour=breaks):
        await tenant.start(good)
        await expect(rows.filter(has_text="Good release")).to_contain_text(re.compile("completed", re.IGNORECASE))
        await tenant.start(bad)
        await expect(rows.filter(has_text="Bad release")).to_contain_text(re.compile("aborted", re.IGNORECASE))
    assert await tab.page.evaluate("window.kept"), "the page was loaded again"


async def test_a_filter_is_part_of_the_address_and_can_be_cleared(tab: Tab, tenant: Tenant) -> None:
    await tenant.register({"pump-1": {}})
    await tenant.create("Not started", await tenant.firmware("2.0.0"))
    await tab.sign_in(tenant.keys[Role.VIEWER])
    await tab.page.locator("main a[href*='status=RUNNING']").first.click()
    await tab.page.wait_for_url("**/console/campaigns?status=RUNNING")
    await expect(tab.page.locator("main")).not_to_contain_text("Not started")
    await tab.page.get_by_role("link", name=re.compile("clear", re.IGNORECASE)).click()
    await expect(tab.page.locator("main")).to_contain_text("Not started")


async def test_the_list_with_campaigns_is_accessible_and_fits_a_phone(make_tab: MakeTab, tenant: Tenant) -> None:
    await tenant.register({"pump-1": {}})
    for number in range(3):
        await tenant.create(f"A release with a long name, number {number}", await tenant.firmware(f"2.0.{number}"))
    for options in ({}, {"size": NARROW}):
        tab = await make_tab(**options)
        await tab.sign_in(tenant.keys[Role.OPERATOR])
        assert await tab.overflow() <= 0
        assert await tab.accessibility_faults() == []
