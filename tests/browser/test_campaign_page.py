"""The page of a campaign in a browser: it follows the campaign, and a person can act on it."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from playwright.async_api import expect

from rollwave.domain.role import Role
from rollwave.fleet.faults import Fault
from rollwave.fleet.population import Behaviour
from rollwave.mqtt.payload import Command
from rollwave.store import access
from rollwave.store.database import create_pool
from tests.api import CAMPAIGNS
from tests.browser.conftest import MakeTab
from tests.browsing.fleets import fleet
from tests.browsing.house import Tenant
from tests.browsing.tab import NARROW, Tab, bytes_transferred

SLOW: dict[str, Any] = {"policy": {"version": 1, "pace": {"per_minute": 60}}}
"""Rules of a campaign that lasts longer than a test."""

UNGUARDED: dict[str, Any] = {"policy": {"version": 1, "guardrails": [], "pace": {"per_minute": 120}}}


def page_of(campaign: int) -> str:
    return f"/console/campaigns/{campaign}"


async def prepare(tenant: Tenant, devices: int = 40, name: str = "Spring release", **rules: Any) -> int:
    """A campaign over new devices, of two revisions."""
    await tenant.register({f"pump-{number:04}": {"revision": "AB"[number % 2]} for number in range(devices)})
    return await tenant.create(name, await tenant.firmware("2.4.1"), **rules)


@asynccontextmanager
async def running(
    tenant: Tenant, devices: int = 40, *, behaviour: Behaviour | None = None, delay: float = 0.2, **rules: Any
) -> AsyncIterator[int]:
    """A started campaign whose devices answer."""
    campaign = await prepare(tenant, devices, **rules)
    names = [f"pump-{number:04}" for number in range(devices)]
    with fleet(tenant.house.broker, tenant.name, names, step_delay=delay, behaviour=behaviour):
        await tenant.start(campaign)
        yield campaign


async def test_the_page_follows_a_campaign_to_its_end_and_nothing_jumps(tab: Tab, tenant: Tenant) -> None:
    async with running(tenant, rollout_rate=5) as campaign:
        await tab.sign_in(tenant.keys[Role.VIEWER], page_of(campaign))
        await tab.page.evaluate(
            "new PerformanceObserver((list) => { for (const each of list.getEntries()) window.shifted ="
            " (window.shifted ?? 0) + (each.hadRecentInput ? 0 : each.value) }).observe({type: 'layout-shift'})"
        )
        await expect(tab.page.locator("#news")).to_have_text("live")
        await expect(tab.page.locator("#panel-verdict")).to_contain_text("Completed", timeout=30_000)
        await expect(tab.page.locator("#panel-head .sign")).to_have_text("Completed")
        await expect(tab.page).to_have_title(re.compile("100 % · Spring release"))
        await expect(tab.page.locator("#panel-waiting")).to_contain_text("Nothing waits.")
        await expect(tab.page.locator("canvas[role=img]")).to_have_attribute("aria-label", re.compile("40 succeeded"))
        shifted = await tab.page.evaluate("window.shifted ?? 0")
        assert shifted < 0.1, shifted
        assert await tab.page.locator("form button", has_text="Pause").count() == 0  # a viewer


async def test_pause_is_one_tap_and_the_answer_says_what_was_done(tab: Tab, tenant: Tenant) -> None:
    async with running(tenant, **SLOW) as campaign:
        await tab.sign_in(tenant.keys[Role.OPERATOR], page_of(campaign))
        await tab.page.locator(".head-actions").get_by_role("button", name="Pause").click()
        await expect(tab.page.locator(".flash")).to_contain_text("Paused.")
        await expect(tab.page.locator("#panel-head .sign")).to_have_text("Paused")
        assert (await tenant.state(campaign))["status"] == "PAUSED"
        await tab.page.locator(".head-actions").get_by_role("button", name="Resume").click()
        await expect(tab.page.locator(".flash")).to_contain_text("Resumed.")


async def test_a_campaign_is_aborted_with_the_keyboard_alone(tab: Tab, tenant: Tenant) -> None:
    async with running(tenant, **SLOW) as campaign:
        await tab.sign_in(tenant.keys[Role.OPERATOR], page_of(campaign))
        keys = tab.page.keyboard
        stop = tab.page.locator(".head-actions").get_by_role("button", name="Stop…")
        for _ in range(30):
            await keys.press("Tab")
            if await stop.evaluate("(each) => each === document.activeElement"):
                break
        await keys.press("Enter")
        await expect(tab.page.get_by_role("heading", name='Abort "Spring release"?')).to_be_visible()
        await expect(tab.page.get_by_role("button", name="Keep running")).to_be_focused()
        await keys.press("Escape")
        await expect(tab.page.locator("dialog")).to_have_count(0)
        await expect(stop).to_be_focused()
        await keys.press("Enter")
        await expect(tab.page.get_by_role("button", name="Pause instead")).to_be_visible()
        await keys.press("Tab")
        await keys.press("Tab")
        await expect(tab.page.get_by_role("button", name=re.compile("^Abort, skip"))).to_be_focused()
        await keys.press("Enter")
        await expect(tab.page.locator(".flash")).to_contain_text(re.compile(r"Aborted\. \d+ devices skipped"))
        assert (await tenant.state(campaign))["status"] == "ABORTED"


async def test_the_name_is_typed_where_many_devices_are_affected(tab: Tab, tenant: Tenant) -> None:
    campaign = await prepare(tenant, 1100)
    await tab.sign_in(tenant.keys[Role.OPERATOR], page_of(campaign))
    await tab.page.locator(".head-actions").get_by_role("button", name="Stop…").click()
    abort = tab.page.get_by_role("button", name="Abort, skip 1,100")
    await expect(abort).to_be_disabled()
    await tab.page.get_by_label(re.compile("Type Spring release")).fill("  spring RELEASE ")
    await abort.click()
    await expect(tab.page.locator("#panel-head .sign")).to_have_text("Aborted")


async def test_a_wave_is_opened_by_an_approver_and_an_operator_reads_that_it_needs_one(
    make_tab: MakeTab, tenant: Tenant
) -> None:
    waves = [{"name": "canary", "size": 4, "gate": {"approval": True}}, {"name": "rest"}]
    async with running(tenant, 12, policy={"version": 1, "waves": waves}) as campaign:
        operator, approver = await make_tab(), await make_tab()
        await operator.sign_in(tenant.keys[Role.OPERATOR], page_of(campaign))
        await expect(operator.page.locator("#panel-waves")).to_contain_text("needs an approver", timeout=30_000)
        await approver.sign_in(tenant.keys[Role.APPROVER], page_of(campaign))
        await approver.page.get_by_role("button", name="Open rest…").click()
        await expect(approver.page.locator("dialog")).to_contain_text("8 devices; approves wave canary.")
        await approver.page.get_by_role("button", name="Open rest", exact=True).click()
        await expect(approver.page.locator(".flash")).to_have_text("rest is open.")
        await expect(operator.page.locator("#panel-verdict")).to_contain_text("Completed", timeout=30_000)


def every_device_fails(_device_id: str, _command: Command) -> Fault:
    return Fault(code="E_BOOT")


def revision_b_fails(device_id: str, _command: Command) -> Fault | None:
    return Fault(code="E_BOOT") if int(device_id[-4:]) % 2 else None


async def test_failures_lead_to_their_devices_and_are_retried(tab: Tab, tenant: Tenant) -> None:
    rules = {"policy": {"version": 1, "guardrails": [], "pace": {"max_in_flight": 4}}}
    async with running(tenant, 30, behaviour=every_device_fails, delay=0.3, **rules) as campaign:
        await tab.sign_in(tenant.keys[Role.OPERATOR], page_of(campaign))
        link = tab.page.locator("#panel-causes td a").first
        await expect(link).to_be_visible(timeout=30_000)
        await tenant.call("POST", f"{CAMPAIGNS}/{campaign}/pause")
        await expect(tab.page.locator("#panel-head .sign")).to_have_text("Paused")
        await link.click()
        await expect(tab.page.locator("#panel-devices .chip")).to_be_visible()
        states = await tab.page.locator("#panel-devices tbody td .state").all_inner_texts()
        assert states
        assert all("failed" in each for each in states)
        await tab.page.get_by_role("link", name="Clear filters").click()
        await expect(tab.page.locator("#panel-devices .chip")).to_have_count(0)
        await tab.page.locator("#panel-causes").get_by_role("button", name=re.compile("Retry")).click()
        await tab.page.locator("dialog").get_by_role("button", name=re.compile("^Retry")).click()
        await expect(tab.page.locator(".flash")).to_contain_text("will be tried again")


async def test_the_device_table_moves_only_when_its_reader_wants_it(tab: Tab, tenant: Tenant) -> None:
    async with running(tenant, rollout_rate=5, delay=0.5) as campaign:
        await tab.sign_in(tenant.keys[Role.VIEWER], page_of(campaign))
        refresh = tab.page.locator("#devices-refresh")
        await expect(refresh).to_have_text(re.compile(r"^\d+ changed · refresh$"), timeout=30_000)
        await expect(refresh).to_be_visible()
        note, table = await refresh.bounding_box(), await tab.page.locator("#panel-devices .scroll").bounding_box()
        assert note is not None
        assert table is not None
        assert note["width"] > 0.9 * table["width"], "it stands over the whole table"
        assert 0 < table["y"] - note["y"] - note["height"] < 60, "right above the table"
        cells = tab.page.locator("#panel-devices tbody .state")
        before = await cells.all_inner_texts()
        await expect(tab.page.locator("#panel-verdict")).to_contain_text("Completed", timeout=30_000)
        assert await cells.all_inner_texts() == before
        await refresh.click()
        await expect(refresh).to_be_hidden()
        await expect(tab.page.locator("#panel-devices tbody")).not_to_contain_text("pending")


async def test_the_field_is_read_with_the_arrow_keys(tab: Tab, tenant: Tenant) -> None:
    campaign = await prepare(tenant)
    await tab.sign_in(tenant.keys[Role.VIEWER], page_of(campaign))
    await expect(tab.page.locator("canvas[role=img]")).to_have_attribute(
        "aria-label", re.compile("sending: 40 pending")
    )
    await tab.page.locator("canvas[role=img]").focus()
    await tab.page.keyboard.press("ArrowRight")
    await tab.page.keyboard.press("ArrowRight")
    await expect(tab.page.locator("#field-read")).to_contain_text("Device 2 of 40: pending · pump-")
    await tab.page.keyboard.press("End")
    await expect(tab.page.locator("#field-read")).to_contain_text("Device 40 of 40")


async def test_a_revoked_key_signs_the_open_page_out_and_it_keeps_its_address(tab: Tab, tenant: Tenant) -> None:
    async with running(tenant, **SLOW) as campaign:
        await tab.sign_in(tenant.keys[Role.OPERATOR], page_of(campaign))
        await expect(tab.page.locator("#news")).to_have_text("live")
        async with create_pool(tenant.house.database, size=1) as pool:
            await access.revoke(pool, tenant.name, tenant.keys[Role.OPERATOR].split(".")[2])
        await expect(tab.page.locator("#news")).to_contain_text("signed out", timeout=30_000)
        assert tab.page.url.endswith(page_of(campaign))


async def test_seven_tabs_of_a_browser_all_follow(tab: Tab, tenant: Tenant) -> None:
    async with running(tenant, rollout_rate=3) as campaign:
        await tab.sign_in(tenant.keys[Role.VIEWER], page_of(campaign))
        others = [await tab.page.context.new_page() for _ in range(6)]
        for each in others:
            await each.goto(tab.page.url)
        for each in (tab.page, *others):
            await expect(each.locator("#panel-verdict")).to_contain_text("Completed", timeout=60_000)


HOSTILE = "<script>window.stolen = 1</script>\x1b[31mred\u202e"


async def test_texts_of_people_and_devices_are_shown_and_not_run(tab: Tab, tenant: Tenant) -> None:
    campaign = await prepare(tenant, 3, name=HOSTILE)
    await tab.sign_in(tenant.keys[Role.OPERATOR], page_of(campaign))
    assert "<script>window.stolen" in await tab.text("h1")
    assert await tab.page.evaluate("window.stolen") is None
    assert not {"\x1b", "\u202e"} & set(await tab.page.locator("body").inner_text())
    assert not {"\x1b", "\u202e"} & set(await tab.page.title())


@pytest.mark.parametrize("size", [(1400, 900), NARROW])
async def test_the_page_is_accessible_and_fits(make_tab: MakeTab, tenant: Tenant, size: tuple[int, int]) -> None:
    async with running(tenant, behaviour=revision_b_fails, **UNGUARDED) as campaign:
        tab = await make_tab(size=size)
        await tab.sign_in(tenant.keys[Role.ADMIN], page_of(campaign))
        await expect(tab.page.locator("#news")).to_have_text("live")
        assert await tab.accessibility_faults() == []
        assert await tab.overflow() <= 0
        if size == NARROW:
            await expect(tab.page.locator(".action-bar").get_by_role("button", name="Pause")).to_be_in_viewport()
            await tab.page.locator(".action-bar").get_by_role("button", name="Stop…").click()
            await expect(tab.page.locator("dialog")).to_be_visible()
            assert await tab.accessibility_faults() == []


async def test_the_page_weighs_less_than_60_kilobytes(tab: Tab, tenant: Tenant) -> None:
    campaign = await prepare(tenant)
    await tab.sign_in(tenant.keys[Role.ADMIN])
    weights = await bytes_transferred(tab, page_of(campaign))
    assert sum(weights.values()) < 60_000, json.dumps(weights, indent=1)


async def test_an_open_page_finds_its_server_again_after_a_restart(tab: Tab, tenant: Tenant) -> None:
    tab.expect(
        "ERR_CONNECTION_REFUSED", "ERR_INCOMPLETE_CHUNKED_ENCODING", "ERR_CONNECTION_RESET", "ERR_EMPTY_RESPONSE"
    )
    async with running(tenant, **SLOW) as campaign:
        await tab.sign_in(tenant.keys[Role.OPERATOR], page_of(campaign))
        news = tab.page.locator("#news")
        await expect(news).to_have_text("live")
        tenant.console.stop()
        await expect(news).to_have_text(re.compile(r"no news for \d+ s, reconnecting"), timeout=30_000)
        await expect(tab.page.locator(".head-actions").get_by_role("button", name="Pause")).to_be_enabled()
        await asyncio.to_thread(tenant.console.start)
        await expect(news).to_have_text("live", timeout=60_000)
        await tenant.call("POST", f"{CAMPAIGNS}/{campaign}/pause")
        await expect(tab.page.locator("#panel-head .sign")).to_have_text("Paused")
