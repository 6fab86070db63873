"""What is hard on a page: a server that restarts under it, a large campaign, and hostile text from devices."""

from __future__ import annotations

import re

from playwright.async_api import Browser, expect

from rollwave.domain.role import Role
from rollwave.fleet import Fault
from rollwave.mqtt.payload import Command
from tests.browsing.fleets import fleet
from tests.browsing.house import Console, House, Tenant
from tests.browsing.tab import Tab, new_tab

SLOWLY = {"pace": {"per_minute": 60}}
MANY = 100_000
HOSTILE = "<script>window.stolen = 1</script><img src=x onerror='window.stolen = 2'>\x1b[31mred\x1b]0;title\x07\u202e"


async def test_an_open_page_survives_a_restart_of_its_server(
    browser: Browser, shared_house: House, tenant: Tenant
) -> None:
    await tenant.register({f"pump-{number}": {} for number in range(40)})
    campaign = await tenant.create("Spring release", await tenant.firmware("2.0.0"), policy=SLOWLY)
    await tenant.start(campaign)
    console = Console(shared_house.folder, shared_house.database, shared_house.broker)
    console.start()
    try:
        async with new_tab(browser, console.url, console.log) as tab:
            await tab.sign_in(tenant.keys[Role.OPERATOR], f"/console/campaigns/{campaign}")
            await expect(tab.page.locator("#news")).to_have_text("live")
            await tab.page.evaluate("window.kept = true")
            tab.expect("ERR_CONNECTION_REFUSED", "ERR_INCOMPLETE_CHUNKED", "ERR_EMPTY_RESPONSE", "ERR_CONNECTION_RESET")
            console.stop()
            await expect(tab.page.locator("#news")).to_contain_text("reconnecting", timeout=40_000)
            await tenant.call("POST", f"/ota/campaigns/{campaign}/pause")  # At the other server.
            console.start()
            await expect(tab.page.locator("#panel-head")).to_have_attribute("data-status", "PAUSED", timeout=40_000)
            await expect(tab.page.locator("#news")).to_have_text("live")
            await tab.page.locator("#panel-head").get_by_role("button", name="Resume").click()
            await expect(tab.page.locator("#panel-head")).to_have_attribute("data-status", "RUNNING")
    finally:
        console.stop()


async def test_a_campaign_of_a_hundred_thousand_devices_is_drawn_at_once(tab: Tab, tenant: Tenant) -> None:
    await tenant.call("PUT", "/device-groups/all", device_ids=[f"pump-{number:06}" for number in range(MANY)])
    campaign = await tenant.create("Large release", await tenant.firmware("2.0.0"), policy=SLOWLY)
    await tenant.start(campaign)
    page = f"/console/campaigns/{campaign}"
    await tab.sign_in(tenant.keys[Role.VIEWER], page)
    # Targeting goes on in the background.
    await expect(tab.page.locator("#panel-statebar")).to_contain_text(re.compile("99,9|100,000"), timeout=60_000)
    canvas = tab.page.locator("#device-field canvas")
    await expect(canvas).to_have_attribute("aria-label", re.compile("99,9|100,000"))
    paints = []
    for _ in range(3):
        await tab.open(page)
        await expect(canvas).to_be_visible()
        paints.append(
            await tab.page.evaluate("performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? 1e9")
        )
    assert min(paints) < 1000, paints
    elements = await tab.page.evaluate("document.querySelectorAll('*').length")
    assert elements < 3000, elements


def hostile(_device: str, _command: Command) -> Fault:
    return Fault(reason=HOSTILE)


async def test_what_a_device_reports_is_shown_and_not_run(tab: Tab, tenant: Tenant) -> None:
    devices = {f"pump-{number}": {"revision": "<b>B</b>\x1b[2J"} for number in range(5)}
    await tenant.register(devices)
    rules = {"guardrails": [{"scope": "segment", "per": ["revision"], "threshold": "90%", "action": "quarantine"}]}
    campaign = await tenant.create("Spring release", await tenant.firmware("2.0.0"), policy=rules)
    with fleet(tenant.house.broker, tenant.name, list(devices), behaviour=hostile):
        await tab.sign_in(tenant.keys[Role.OPERATOR], f"/console/campaigns/{campaign}")
        await tenant.start(campaign)
        await expect(tab.page.locator("#panel-events")).to_contain_text("<script>", timeout=30_000)
        await tab.open(f"/console/campaigns/{campaign}?status=FAILED")
        await expect(tab.page.locator("#panel-devices")).to_contain_text("<script>")
        for path in (f"/console/campaigns/{campaign}", "/console/devices/pump-1", "/console/campaigns"):
            await tab.open(path)
            shown = await tab.page.locator("body").inner_text() + await tab.page.title()
            assert not {"\x1b", "\x07", "\u202e"} & set(shown), path
            assert await tab.page.locator("b").get_by_text("B", exact=True).count() == 0, path
            assert await tab.page.evaluate("window.stolen") is None, path
