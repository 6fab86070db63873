"""The page of a campaign: it is watched, paused, resumed, stopped and promoted, and it moves by itself."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Locator, expect

from rollwave.domain.role import Role
from rollwave.fleet import Fault, Stage
from rollwave.mqtt.payload import Command
from tests.browser.conftest import MakeTab
from tests.browsing.fleets import fleet
from tests.browsing.house import Tenant
from tests.browsing.tab import NARROW, Tab, bytes_transferred

DEVICES = tuple(f"pump-{number}" for number in range(1, 41))
GOOD, HANGS, FAILS = "2.0.0", "2.0.0-hangs", "2.0.0-fails"
SLOWLY: dict[str, Any] = {"policy": {"pace": {"per_minute": 60}}}
"""A campaign of 40 devices lasts longer than a test."""
CANARY: dict[str, Any] = {
    "policy": {
        "waves": [{"name": "canary", "size": 5, "gate": {"approval": True, "soak": "1s"}}, {"name": "rest"}],
    }
}
PAGE_BYTES = 60_000
"""A page with all it loads, compressed."""


def behaviour(_device: str, command: Command) -> Fault | None:
    if command.version == HANGS:
        return Fault(Stage.DOWNLOAD, silent=True)
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


async def test_the_page_moves_by_itself_to_the_end_of_the_campaign(tab: Tab, pumps: Tenant) -> None:
    campaign = await pumps.create("Spring release", await pumps.firmware(GOOD))
    await on_page(tab, pumps, campaign, role=Role.VIEWER)
    await tab.page.evaluate("window.kept = true")
    await pumps.start(campaign)
    await expect(tab.page.locator("#panel-head")).to_have_attribute("data-status", "COMPLETED", timeout=30_000)
    await expect(tab.page.locator("#panel-statebar")).to_contain_text("40")
    await expect(tab.page.locator("#panel-events")).to_contain_text(re.compile("completed", re.IGNORECASE))
    await expect(tab.page).to_have_title(re.compile("Spring release"))
    assert await tab.page.evaluate("window.kept"), "the page was loaded again"


async def test_a_release_that_fails_trips_its_guardrail_and_the_verdict_says_so(tab: Tab, pumps: Tenant) -> None:
    campaign = await pumps.create("Bad release", await pumps.firmware(FAILS))
    await on_page(tab, pumps, campaign)
    await pumps.start(campaign)
    await expect(tab.page.locator("#panel-head")).to_have_attribute("data-status", "ABORTED")
    await expect(tab.page.locator("#panel-verdict.verdict-stop")).to_be_visible()
    await expect(tab.page.locator("#panel-causes")).to_contain_text("E_BOOT")
    await expect(tab.page.locator("#panel-guardrails")).to_contain_text(re.compile("tripped", re.IGNORECASE))


async def test_a_campaign_is_aborted_after_a_question_whose_harmless_button_has_the_focus(
    tab: Tab, pumps: Tenant
) -> None:
    campaign = await pumps.create("Spring release", await pumps.firmware(HANGS), **SLOWLY)
    await pumps.start(campaign)
    await on_page(tab, pumps, campaign)
    await button(tab, "Stop…").click()
    dialog = tab.page.get_by_role("dialog")
    await expect(dialog).to_contain_text('Abort "Spring release"?')
    await expect(dialog.get_by_text("Keep running")).to_be_focused()
    await tab.page.keyboard.press("Escape")
    await expect(dialog).to_have_count(0)
    assert (await pumps.state(campaign))["status"] == "RUNNING"
    await button(tab, "Stop…").click()
    await dialog.get_by_role("button", name=re.compile("^Abort")).click()
    await expect(tab.page.locator("#panel-head")).to_have_attribute("data-status", "ABORTED")
    await expect(tab.page.locator("#notice")).to_contain_text("Aborted")


async def test_the_name_is_typed_to_abort_what_reaches_more_than_a_thousand_devices(tab: Tab, tenant: Tenant) -> None:
    await tenant.register({f"pump-{number}": {} for number in range(1, 1102)})
    campaign = await tenant.create("Spring release", await tenant.firmware(GOOD), **SLOWLY)
    await tenant.start(campaign)
    await on_page(tab, tenant, campaign)
    await button(tab, "Stop…").click()
    dialog = tab.page.get_by_role("dialog")
    abort = dialog.get_by_role("button", name=re.compile("^Abort"))
    await expect(abort).to_be_disabled()
    await dialog.get_by_role("textbox", name=re.compile("^Type")).fill("  SPRING release ")
    await abort.click()
    await expect(tab.page.locator("#panel-head")).to_have_attribute("data-status", "ABORTED")


async def test_a_wave_waits_for_an_approver_who_opens_the_next_one(make_tab: MakeTab, pumps: Tenant) -> None:
    campaign = await pumps.create("Spring release", await pumps.firmware(GOOD), **CANARY)
    await pumps.start(campaign)
    operator, approver = await make_tab(), await make_tab()
    await on_page(operator, pumps, campaign)
    await on_page(approver, pumps, campaign, role=Role.APPROVER)
    await expect(operator.page.locator("#panel-waves")).to_contain_text("needs an approver")
    await expect(operator.page.locator("#panel-verdict.verdict-watch")).to_be_visible()
    await button(approver, "Open rest…", "#panel-waves").click()
    await approver.page.get_by_role("dialog").get_by_role("button", name="Open rest").click()
    await expect(operator.page.locator("#panel-head")).to_have_attribute("data-status", "COMPLETED", timeout=30_000)


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


async def test_a_campaign_is_stopped_with_the_keyboard_alone(tab: Tab, pumps: Tenant) -> None:
    campaign = await pumps.create("Spring release", await pumps.firmware(GOOD), **SLOWLY)
    await pumps.start(campaign)
    await on_page(tab, pumps, campaign)
    await _tab_to(tab, "Pause")
    await tab.page.keyboard.press("Enter")
    await expect(tab.page.locator("#panel-head")).to_have_attribute("data-status", "PAUSED")
    await _tab_to(tab, "Stop…")
    await tab.page.keyboard.press("Enter")
    await expect(tab.page.get_by_role("dialog").get_by_role("button", name="Keep paused")).to_be_focused()
    await _tab_to(tab, "Abort")
    await tab.page.keyboard.press("Enter")
    await expect(tab.page.locator("#panel-head")).to_have_attribute("data-status", "ABORTED")


async def _tab_to(tab: Tab, name: str) -> None:
    """Press the tab key until the element with this text has the focus."""
    for _ in range(60):
        await tab.page.keyboard.press("Tab")
        focused = await tab.page.evaluate("document.activeElement.innerText || ''")
        if focused.strip().startswith(name):
            return
    raise AssertionError(f"the tab key does not reach {name}")


async def test_a_viewer_watches_and_has_no_button(tab: Tab, pumps: Tenant) -> None:
    campaign = await pumps.create("Spring release", await pumps.firmware(GOOD), **SLOWLY)
    await pumps.start(campaign)
    await on_page(tab, pumps, campaign, role=Role.VIEWER)
    await expect(tab.page.locator("#panel-head form")).to_have_count(0)
    await expect(tab.page.get_by_text("Stop…")).to_have_count(0)


@pytest.mark.parametrize("size", [(1400, 900), NARROW])
async def test_the_page_is_accessible_in_both_themes_and_fits(
    make_tab: MakeTab, pumps: Tenant, size: tuple[int, int]
) -> None:
    campaign = await pumps.create("Bad release", await pumps.firmware(FAILS), **SLOWLY)
    await pumps.start(campaign)
    tab = await make_tab(size=size)
    await on_page(tab, pumps, campaign)
    await expect(tab.page.locator("#panel-head")).to_have_attribute("data-status", "ABORTED")
    assert await tab.overflow() <= 0
    assert await tab.accessibility_faults() == []


async def test_the_page_with_all_it_loads_is_small(tab: Tab, pumps: Tenant) -> None:
    campaign = await pumps.create("Spring release", await pumps.firmware(GOOD))
    await pumps.start(campaign)
    await on_page(tab, pumps, campaign)
    received = await bytes_transferred(tab, f"/console/campaigns/{campaign}")
    assert any("/static/" in address for address in received)
    assert sum(received.values()) < PAGE_BYTES, received
