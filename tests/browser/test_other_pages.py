"""The pages beside the campaign's: each opens without trouble in both themes, is accessible, and fits a phone."""

from __future__ import annotations

import asyncio
import re

import pytest
from playwright.async_api import expect

from rollwave.domain.role import Role
from tests.browser.conftest import MakeTab
from tests.browsing.house import Tenant
from tests.browsing.tab import NARROW, Tab

PAGES = (
    "/console/devices",
    "/console/devices/pump-1",
    "/console/groups",
    "/console/groups/all",
    "/console/firmware",
    "/console/firmware/new",
    "/console/brakes",
    "/console/brakes/halt",
    "/console/quarantine",
    "/console/keys",
    "/console/system",
    "/console/search?q=pump",
    "/console/campaigns/new",
)


async def furnish(tenant: Tenant) -> int:
    """Something on every page. Returns the id of a campaign."""
    await tenant.register({f"pump-{number}": {"site": "north" * 8} for number in range(12)})
    campaign = await tenant.create("Spring release " * 4, await tenant.firmware("2.0.0-rc.1+build.20261129"))
    await tenant.start(campaign)
    return campaign


@pytest.mark.parametrize("options", [{}, {"size": NARROW, "has_touch": True}], ids=["desk", "phone"])
async def test_every_page_opens_without_trouble_is_accessible_and_fits(
    make_tab: MakeTab, tenant: Tenant, options: dict[str, object]
) -> None:
    await furnish(tenant)
    tab = await make_tab(**options)
    await tab.sign_in(tenant.keys[Role.ADMIN])
    faults: dict[str, object] = {}
    for path in PAGES:
        answer = await tab.open(path)
        assert answer is not None
        assert answer.ok, path
        if found := await tab.accessibility_faults():
            faults[path] = found
        if wider := await tab.overflow():
            faults[f"{path} is wider by"] = wider
    assert faults == {}


async def test_a_viewer_sees_no_buttons_that_change_something(tab: Tab, tenant: Tenant) -> None:
    campaign = await furnish(tenant)
    await tab.sign_in(tenant.keys[Role.VIEWER])
    for path in ("/console/devices/pump-1", "/console/firmware", "/console/brakes", f"/console/campaigns/{campaign}"):
        await tab.open(path)
        await expect(tab.page.locator("main h1")).to_be_visible()
        assert await tab.page.locator("main form[method=post], main [data-dialog]").count() == 0, path


async def test_the_list_keeps_the_focus_and_the_selection_when_it_is_read_again(tab: Tab, tenant: Tenant) -> None:
    campaign = await furnish(tenant)
    await tab.sign_in(tenant.keys[Role.VIEWER])
    link = tab.page.locator(f"#campaign-{campaign}")
    await link.focus()
    await tab.page.evaluate("getSelection().selectAllChildren(document.querySelector('.campaigns-name .meta'))")
    before = await tab.page.evaluate("getSelection().toString()")
    assert before
    await tenant.call("POST", f"/ota/campaigns/{campaign}/pause")
    await expect(tab.page.locator("main tbody tr").first).to_contain_text("Paused", timeout=30_000)
    await expect(link).to_be_focused()
    assert await tab.page.evaluate("getSelection().toString()") == before


async def test_a_list_that_cannot_be_read_says_that_it_may_be_out_of_date(tab: Tab, tenant: Tenant) -> None:
    campaign = await furnish(tenant)
    tab.expect("ERR_FAILED", "Failed to fetch")
    await tab.sign_in(tenant.keys[Role.VIEWER])
    await tab.page.route("**/console/campaigns/rows*", lambda route: route.abort())
    await expect(tab.page.locator("#stale")).to_contain_text("may be out of date", timeout=40_000)
    await expect(tab.page.locator(f"#campaign-{campaign}")).to_be_visible()
    await tab.page.unroute("**/console/campaigns/rows*")
    await expect(tab.page.locator("#stale")).to_be_hidden()


async def test_a_halt_from_a_campaign_leads_back_to_it(tab: Tab, tenant: Tenant) -> None:
    campaign = await furnish(tenant)
    await tab.sign_in(tenant.keys[Role.OPERATOR], f"/console/campaigns/{campaign}")
    await tab.page.locator("#head-menu summary").click()
    await tab.page.get_by_role("button", name="Halt all sending…").click()
    await expect(tab.page.get_by_role("link", name="Back")).to_be_focused()
    await tab.page.get_by_role("button", name="Halt now").click()
    await expect(tab.page.locator(".flash")).to_contain_text("Halted: nothing is sent in 1 running campaign")
    await expect(tab.page).to_have_url(re.compile(f"/console/campaigns/{campaign}$"))
    await expect(tab.page.locator(".banner")).to_contain_text("All sending is halted")
    await tab.page.get_by_role("button", name="Lift the halt…").click()
    await tab.page.locator("dialog").get_by_role("button", name="Lift the halt").click()
    await expect(tab.page).to_have_url(re.compile(f"/console/campaigns/{campaign}$"))


async def test_a_question_is_in_the_window_wherever_the_page_is_scrolled_to(make_tab: MakeTab, tenant: Tenant) -> None:
    campaign = await furnish(tenant)
    tab = await make_tab(size=NARROW, has_touch=True)
    await tab.sign_in(tenant.keys[Role.OPERATOR], f"/console/campaigns/{campaign}")
    await tab.page.evaluate("scrollTo(0, document.body.scrollHeight)")
    await tab.page.locator(".action-bar").get_by_role("button", name="Stop…").click()
    await expect(tab.page.locator("dialog h2")).to_be_in_viewport(ratio=1)
    await expect(tab.page.get_by_role("button", name="Keep running")).to_be_focused()


async def test_states_stay_apart_where_the_system_forces_its_colours(make_tab: MakeTab, tenant: Tenant) -> None:
    campaign = await furnish(tenant)
    tab = await make_tab(forced_colors="active")
    await tab.sign_in(tenant.keys[Role.VIEWER], f"/console/campaigns/{campaign}")
    colours = "import(document.querySelector('script[src$=\"base.js\"]').src.replace('base.js', 'colours.js'))"
    seen = await tab.page.evaluate(
        f"{colours}.then((m) => ['pending', 'success', 'failed', 'skipped'].map((each) => m.rgb(each).join()))"
    )
    assert len(set(seen)) == 4, seen


async def test_a_failed_picture_is_asked_for_again(tab: Tab, tenant: Tenant) -> None:
    campaign = await furnish(tenant)
    await tab.sign_in(tenant.keys[Role.VIEWER])
    tab.expect("ERR_FAILED", "status 503", "503")
    page = f"**/console/campaigns/{campaign}"
    for part in ("field", "timeline"):
        await tab.page.route(f"{page}/{part}", lambda route: route.fulfill(status=503), times=1)
    await tab.open(f"/console/campaigns/{campaign}")
    await expect(tab.page.locator("#field-read")).to_contain_text("could not be read")
    await expect(tab.page.locator("canvas[role=img]")).to_have_attribute("aria-label", re.compile("sending: 12"))
    await expect(tab.page.locator("#field-read")).to_have_text("")
    await expect(tab.page.locator("#burnup-chart canvas")).to_be_visible()


async def test_a_hidden_tab_closes_its_stream_and_opens_it_when_it_is_seen(tab: Tab, tenant: Tenant) -> None:
    campaign = await furnish(tenant)
    await tab.sign_in(tenant.keys[Role.VIEWER])
    # The wait of 30 s is shortened: the rest is as in a browser.
    await tab.page.add_init_script(
        "const later = window.setTimeout;"
        "window.setTimeout = (call, wait, ...more) => later(call, wait === 30000 ? 500 : wait, ...more);"
        "const Source = window.EventSource; window.sources = [];"
        "window.EventSource = class extends Source { constructor(...given) { super(...given); sources.push(this); } };"
    )
    await tab.open(f"/console/campaigns/{campaign}")
    await expect(tab.page.locator("#news")).to_have_text("live")
    see = (
        "(hidden) => { Object.defineProperty(document, 'hidden', {value: hidden, configurable: true});"
        " document.dispatchEvent(new Event('visibilitychange')); }"
    )
    await tab.page.evaluate(see, True)
    for _ in range(100):
        if await tab.page.evaluate("sources.at(-1).readyState === EventSource.CLOSED"):
            break
        await asyncio.sleep(0.1)
    else:
        pytest.fail("the stream of a hidden tab is open")
    await tenant.call("POST", f"/ota/campaigns/{campaign}/pause")
    await tab.page.evaluate(see, False)
    await expect(tab.page.locator("#panel-head .sign")).to_have_text("Paused")
    await expect(tab.page.locator("#news")).to_have_text("live")


@pytest.mark.parametrize(
    ("path", "row"), [("/console/devices/pump-1", "Spring release"), ("/console/devices", "pump-1")]
)
async def test_on_a_phone_a_row_of_a_table_is_a_card_within_the_screen(
    make_tab: MakeTab, tenant: Tenant, path: str, row: str
) -> None:
    await furnish(tenant)
    tab = await make_tab(size=NARROW)
    await tab.sign_in(tenant.keys[Role.VIEWER])
    await tab.open(path)
    cells = tab.page.locator("main table.cards tbody tr", has_text=row).first.locator("th, td")
    assert await cells.count() >= 4
    for cell in await cells.all():
        box = await cell.bounding_box()
        if box is not None:
            assert (box["x"] >= 0, box["x"] + box["width"] <= NARROW[0]) == (True, True), await cell.inner_text()
