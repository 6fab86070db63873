"""What an operator does at the console: create, start, pause, resume and halt, and see a guardrail trip."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Any

import pytest_asyncio
from playwright.async_api import Locator, expect

from rollwave.domain.role import Role
from rollwave.fleet import Fault, Stage
from rollwave.mqtt.payload import Command
from tests.browsing.fleets import fleet
from tests.browsing.house import Tenant
from tests.browsing.tab import Tab

DEVICES = tuple(f"pump-{number}" for number in range(1, 41))
GOOD, FAILS = "2.0.0", "2.0.0-fails"
SLOWLY: dict[str, Any] = {"policy": {"pace": {"per_minute": 60}}}
"""A campaign of 40 devices lasts longer than a test."""


def behaviour(_device: str, command: Command) -> Fault | None:
    return Fault(Stage.INSTALL) if command.version == FAILS else None


@pytest_asyncio.fixture(loop_scope="session")
async def pumps(tenant: Tenant) -> AsyncIterator[Tenant]:
    """A tenant with forty simulated devices, of revision A and B."""
    await tenant.register(
        {device: {"revision": "AB"[number % 2], "site": "north"} for number, device in enumerate(DEVICES)}
    )
    with fleet(tenant.house.broker, tenant.name, DEVICES, behaviour=behaviour):
        yield tenant


async def on_page(tab: Tab, tenant: Tenant, campaign: int, *, role: Role = Role.OPERATOR) -> None:
    """Log in, and open the campaign's page."""
    await tab.sign_in(tenant.keys[role], f"/console/campaigns/{campaign}")


def button(tab: Tab, name: str, where: str = "#panel-head") -> Locator:
    return tab.page.locator(where).get_by_role("button", name=name)


async def test_an_operator_starts_pauses_and_resumes_without_a_question(tab: Tab, pumps: Tenant) -> None:
    campaign = await pumps.create("Spring release", await pumps.firmware(GOOD), **SLOWLY)
    await on_page(tab, pumps, campaign)
    head = tab.page.locator("#panel-head")
    await button(tab, "Start").click()
    await expect(head).to_have_attribute("data-status", "RUNNING")
    await button(tab, "Pause").click()
    await expect(head).to_have_attribute("data-status", "PAUSED")
    await expect(tab.page.locator("#notice")).to_contain_text("Paused")
    assert (await pumps.state(campaign))["status"] == "PAUSED"
    await button(tab, "Resume").click()
    await expect(head).to_have_attribute("data-status", "RUNNING")


async def test_a_release_that_fails_trips_its_guardrail_and_the_verdict_says_so(tab: Tab, pumps: Tenant) -> None:
    campaign = await pumps.create("Bad release", await pumps.firmware(FAILS))
    await on_page(tab, pumps, campaign)
    await pumps.start(campaign)
    await expect(tab.page.locator("#panel-head")).to_have_attribute("data-status", "ABORTED")
    await expect(tab.page.locator("#panel-verdict.verdict-stop")).to_be_visible()
    await expect(tab.page.locator("#panel-causes")).to_contain_text("E_BOOT")
    await expect(tab.page.locator("#panel-guardrails")).to_contain_text(re.compile("tripped", re.IGNORECASE))


async def test_all_sending_is_halted_from_the_page_and_the_halt_is_lifted(tab: Tab, pumps: Tenant) -> None:
    campaign = await pumps.create("Spring release", await pumps.firmware(GOOD), **SLOWLY)
    await pumps.start(campaign)
    await on_page(tab, pumps, campaign)
    await tab.page.locator("#head-menu summary").click()
    await tab.page.get_by_role("button", name="Halt all sending…").click()
    dialog = tab.page.get_by_role("dialog")
    await expect(dialog).to_contain_text(f"Halt all sending of tenant {pumps.name}?")
    await dialog.get_by_role("button", name="Halt now").click()
    await tab.open(f"/console/campaigns/{campaign}")
    banner = tab.page.locator("#panel-head .banner")
    await expect(banner).to_contain_text("All sending is halted")
    await expect(tab.page.locator("#panel-verdict.verdict-stop")).to_be_visible()
    await banner.get_by_role("button", name="Lift the halt…").click()
    await dialog.get_by_role("button", name="Lift the halt").click()
    await tab.open(f"/console/campaigns/{campaign}")
    await expect(banner).to_have_count(0)


async def test_a_campaign_with_a_canary_and_a_window_is_made_with_the_form(tab: Tab, pumps: Tenant) -> None:
    await pumps.firmware(GOOD)
    await tab.sign_in(pumps.keys[Role.OPERATOR])
    await tab.page.get_by_role("link", name="New", exact=False).first.click()
    await tab.page.get_by_label("Name").first.fill("Night release")
    await tab.page.get_by_label("Firmware", exact=True).select_option(index=1)
    await tab.page.get_by_label("Group", exact=True).select_option(value="all")
    await tab.page.get_by_label("Only in a window, such as at night").check()
    assert await tab.accessibility_faults() == []
    await tab.page.get_by_role("button", name="Preview").last.click()
    await expect(tab.page.locator("#preview")).to_contain_text("38")
    await tab.page.get_by_role("button", name=re.compile("^Create")).first.click()
    await expect(tab.page.locator("h1")).to_have_text("Night release")
    [made] = (await pumps.call("GET", "/ota/campaigns"))["campaigns"]
    policy = (await pumps.call("GET", f"/ota/campaigns/{made['id']}/policy"))["policy"]
    assert len(policy["waves"]) > 1
    assert policy["schedule"]["windows"][0]["kind"] == "allow"
