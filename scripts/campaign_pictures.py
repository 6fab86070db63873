"""Takes the pictures of a campaign's page for README.md and docs/howto/read-the-campaign-page.md.

python -m scripts.campaign_pictures   writes docs/images/campaign-<light|dark|phone>.png; takes two minutes
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import NamedTuple

from playwright.async_api import Browser, async_playwright

from rollwave.domain.role import Role
from rollwave.fleet.faults import Fault
from rollwave.mqtt.payload import Command
from tests.api import CAMPAIGNS
from tests.browsing.fleets import fleet
from tests.browsing.house import House, Tenant, house
from tests.support import eventually

OUT = Path(__file__).parents[1] / "docs" / "images"
DEVICES = 360
FINISHED = 150
"""Devices that have finished when the pictures are taken: the last wave is open."""
FIRST = {"pace": {"per_minute": 60_000}}
POLICY = {
    "version": 1,
    "pace": {"per_minute": 300},
    "waves": [
        {"name": "canary", "size": 40, "gate": {"success_rate": "80%"}},
        {"name": "early", "size": 60, "gate": {"success_rate": "80%"}},
        {"name": "rest"},
    ],
    "guardrails": [
        {"name": "failures", "threshold": "16%", "min_finished": 60},
        {"name": "revision", "threshold": "30%", "min_finished": 30, "scope": "segment", "per": ["revision"],
         "action": "quarantine"},
    ],
}  # fmt: skip


class Look(NamedTuple):
    """How a page is looked at: size in CSS pixels, theme, device pixels for each of them."""

    width: int
    height: int
    theme: str
    scale: float


LOOKS = {
    "light": Look(1400, 900, "light", 1),
    "dark": Look(1400, 900, "dark", 1),
    "phone": Look(360, 740, "light", 2),
}


def _some_fail(device_id: str, command: Command) -> Fault | None:
    """Of the second firmware, some devices of one revision do not boot, and a few have no space."""
    number = int(device_id[-3:])
    if command.version != "2.4.1":
        return None
    if number % 3 == 2 and number % 5 == 1:
        return Fault(reason="image does not boot, rolled back", code="E_BOOT")
    return Fault(reason="no space left", code="E_SPACE") if number % 60 == 7 else None


async def _take(servers: House) -> None:
    tenant = await servers.tenant()
    names = [f"pump-{number:03}" for number in range(DEVICES)]
    labels = {name: {"revision": "ABC"[int(name[-3:]) % 3]} for name in names}
    await tenant.register(labels)
    first, second = [await tenant.firmware(version) for version in ("2.3.0", "2.4.1")]
    with fleet(tenant.house.broker, tenant.name, names, step_delay=0.5, behaviour=_some_fail):
        before = await tenant.create("Winter release", first, policy={"version": 1, **FIRST})
        await tenant.start(before)
        await eventually(lambda: _is_completed(tenant, before), timeout=120, what="the first firmware on all devices")
        campaign = await tenant.create("Spring release", second, policy=POLICY)
        await tenant.start(campaign)
        await eventually(lambda: _finished(tenant, campaign), timeout=240, what=f"{FINISHED} devices to finish")
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
            for name, look in LOOKS.items():
                await _picture(browser, tenant, campaign, name, look)
            await browser.close()


async def _is_completed(tenant: Tenant, campaign: int) -> bool:
    return bool((await tenant.state(campaign))["status"] == "COMPLETED")


async def _finished(tenant: Tenant, campaign: int) -> bool:
    overview = await tenant.call("GET", f"{CAMPAIGNS}/{campaign}/overview")
    await asyncio.sleep(2)
    print(overview["headline"]["text"], flush=True)
    return bool(overview["devices"]["SUCCESS"] + overview["devices"]["FAILED"] >= FINISHED)


async def _picture(browser: Browser, tenant: Tenant, campaign: int, name: str, look: Look) -> None:
    context = await browser.new_context(
        viewport={"width": look.width, "height": look.height},
        color_scheme="dark" if look.theme == "dark" else "light",
        device_scale_factor=look.scale,
        reduced_motion="reduce",
    )
    page = await context.new_page()
    await page.goto(f"{tenant.console.url}/console/login")
    await page.locator("input[name=key]").fill(tenant.keys[Role.OPERATOR])
    await page.locator("main form button").click()
    await page.wait_for_url("**/console/campaigns")
    await page.goto(f"{tenant.console.url}/console/campaigns/{campaign}")
    await page.wait_for_timeout(2000)
    await page.screenshot(path=str(OUT / f"campaign-{name}.png"))
    print(f"campaign-{name}.png")
    await context.close()


def main() -> None:
    """Play a campaign and take the pictures."""
    with house() as servers:
        asyncio.run(_take(servers))


if __name__ == "__main__":
    main()
