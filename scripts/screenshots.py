"""Takes pictures of the console: real servers, simulated devices and campaigns in every state, in a real browser.

python -m scripts.screenshots [words]    only the pictures whose name contains one of these words
python -m scripts.screenshots tutorial   those of docs/tutorial.md, which git keeps

Writes screenshots/<name>-<light|dark|narrow>.png, which git ignores. Those of the style guide are called styleguide.
"""

from __future__ import annotations

import asyncio
import functools
import http.server
import sys
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from playwright.async_api import Browser, async_playwright

from rollwave.domain.role import Role
from rollwave.fleet.faults import Fault
from rollwave.mqtt.payload import Command
from scripts import styleguide, tutorial_pictures
from scripts.console_samples import campaigns as sample_campaigns
from tests.api import CAMPAIGNS
from tests.browsing.fleets import fleet
from tests.browsing.house import House, Tenant, house
from tests.support import eventually

OUT = styleguide.ROOT / "screenshots"
SIZES = {"light": (1400, 900), "dark": (1400, 900), "narrow": (360, 740)}
PAGES = {
    "login": "/console/login",
    "campaigns": "/console/campaigns",
    "new-campaign": "/console/campaigns/new",
    "devices": "/console/devices",
    "device": "/console/devices/pump-017",
    "groups": "/console/groups",
    "group": "/console/groups/all",
    "firmware": "/console/firmware",
    "brakes": "/console/brakes",
    "halt": "/console/brakes/halt",
    "quarantine": "/console/quarantine",
    "keys": "/console/keys",
    "system": "/console/system",
    "search": "/console/search?q=pump",
}
WAVES = [{"name": "canary", "size": 12, "gate": {"success_rate": "90%"}}, {"name": "rest"}]
APPROVAL = [{"name": "canary", "size": 12, "gate": {"approval": True}}, {"name": "rest"}]


def _revision_b_fails(device_id: str, command: Command) -> Fault | None:
    """Firmware 2.2 does not boot on one revision; of 2.3, one device in thirty fails."""
    number = int(device_id[-3:])
    if command.version == "2.2.0" and number % 3 == 0:
        return Fault(reason="image does not boot, rolled back", code="E_BOOT")
    return Fault(code="E_DOWNLOAD", reason="connection reset") if number % 30 == 7 else None


@dataclass(frozen=True, slots=True)
class Shown:
    """A page to take a picture of."""

    name: str
    path: str
    role: Role = Role.ADMIN
    script: str = ""


async def main(words: Sequence[str]) -> None:
    """Take the pictures whose name contains one of ``words``; none: all of them."""
    if list(words) == ["tutorial"]:
        await tutorial_pictures.main()
        return
    OUT.mkdir(exist_ok=True)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        if not words or any("styleguide" in word for word in words):
            await _style_guide(browser)
        if not words or any("styleguide" not in word for word in words):
            await asyncio.to_thread(_in_a_house, words)
        await browser.close()


def _in_a_house(words: Sequence[str]) -> None:
    with house() as servers:
        asyncio.run(_pages(servers, words))


async def _pages(servers: House, words: Sequence[str]) -> None:
    tenant = await servers.tenant()
    async with async_playwright() as playwright, _campaigns(tenant) as campaigns:
        browser = await playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        shown = [Shown(name, path) for name, path in PAGES.items()]
        for name, number in campaigns.items():
            shown.append(Shown(f"campaign-{name}", f"/console/campaigns/{number}"))
        running = campaigns["running"]
        shown.append(Shown("viewer", f"/console/campaigns/{running}", Role.VIEWER))
        shown += [
            Shown(f"dialog-{each}", f"/console/campaigns/{running}/confirm/{each}") for each in ("abort", "cancel")
        ]
        for each in shown:
            if not words or any(word in each.name for word in words):
                await _picture(browser, tenant, each)
        await browser.close()


@asynccontextmanager
async def _campaigns(tenant: Tenant) -> AsyncIterator[dict[str, int]]:
    """Campaigns in different states, by what they show, with devices that answer."""
    names = [f"pump-{number:03}" for number in range(360)]
    labels = {
        name: {"revision": "ABC"[int(name[-3:]) % 3], "site": ("north", "south")[int(name[-3:]) % 2]} for name in names
    }
    await tenant.register(labels)
    good, bad, other = [await tenant.firmware(version) for version in ("2.1.0", "2.2.0", "2.3.0")]
    segments = {
        "name": "each-revision", "threshold": "20%", "min_finished": 5,
        "scope": "segment", "per": ["revision"], "action": "quarantine",
    }  # fmt: skip
    tolerant = {"guardrails": [{"name": "failures", "threshold": "20%", "min_finished": 40}]}
    rules: dict[str, tuple[str, int, dict[str, object]]] = {
        "completed": ("2.1.0 to all pumps", good, {"waves": WAVES, "pace": {"per_minute": 6000}}),
        "aborted": ("2.2.0 to all pumps", bad, {"waves": WAVES, "pace": {"per_minute": 1200}}),
        "quarantined": ("2.2.0, by revision", bad, {"guardrails": [segments], "pace": {"per_minute": 600}}),
        "approval": ("Calibration of the pumps", other, {**tolerant, "waves": APPROVAL, "pace": {"per_minute": 600}}),
        "running": ("Faster start-up", other, {**tolerant, "waves": WAVES, "pace": {"per_minute": 48}}),
        "paused": ("Faster start-up, second site", other, {**tolerant, "pace": {"per_minute": 120}}),
        "created": ("Winter fix for all pumps", other, {"waves": WAVES}),
    }
    made: dict[str, int] = {}
    with fleet(tenant.house.broker, tenant.name, names, step_delay=1.0, behaviour=_revision_b_fails):
        for name, (title, firmware, policy) in rules.items():
            made[name] = await tenant.create(title, firmware, policy={"version": 1, **policy})
            if name != "created":
                await tenant.start(made[name])
            if name == "completed":
                await eventually(lambda: _is(tenant, made["completed"], "COMPLETED"), timeout=60, what="completed")
        await asyncio.sleep(20)  # a picture of something that has gone on for a while
        await tenant.call("POST", f"{CAMPAIGNS}/{made['paused']}/pause")
        yield made


async def _is(tenant: Tenant, campaign: int, status: str) -> bool:
    return bool((await tenant.state(campaign))["status"] == status)


async def _picture(browser: Browser, tenant: Tenant, shown: Shown) -> None:
    for look, (width, height) in SIZES.items():
        context = await browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme="dark" if look == "dark" else "light",
            device_scale_factor=2 if look == "narrow" else 1,
            reduced_motion="reduce",
        )
        page = await context.new_page()
        if shown.name != "login":
            await page.goto(f"{tenant.console.url}/console/login")
            await page.locator("input[name=key]").fill(tenant.keys[shown.role])
            await page.locator("main form button").click()
            await page.wait_for_url("**/console/campaigns")
        await page.goto(f"{tenant.console.url}{shown.path}")
        await page.wait_for_timeout(1500)
        await _save(page.screenshot, f"{shown.name}-{look}")
        await context.close()


async def _save(screenshot: object, name: str) -> None:
    assert callable(screenshot)
    await screenshot(path=str(OUT / f"{name}.png"), full_page=True)
    print(name)


@contextmanager
def _served(folder: Path) -> Iterator[str]:
    handler = functools.partial(_Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Log nothing."""


async def _style_guide(browser: Browser) -> None:
    folder = OUT / "styleguide"
    styleguide.write(folder)
    with _served(folder) as base:
        async with AsyncExitStack() as stack:
            for theme in styleguide.THEMES:
                context = await browser.new_context(viewport={"width": 1400, "height": 900}, reduced_motion="reduce")
                stack.push_async_callback(context.close)
                page = await context.new_page()
                for name in ("components", *(f"campaign-{each}" for each in sample_campaigns())):
                    await page.goto(f"{base}/{styleguide.PAGES}/{name}-{theme}.html")
                    await page.wait_for_timeout(500)
                    await _save(page.screenshot, f"styleguide-{name}-{theme}")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
