"""A tab of the browser. It notes what no page may cause: errors, blocked content, failed requests."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, TypeAlias

from playwright.async_api import Browser, ConsoleMessage, Page, Request, Response

Theme: TypeAlias = Literal["light", "dark"]

DESKTOP, NARROW = (1400, 900), (360, 740)
"""Sizes of the window: that of an operator's desk, and that of a phone."""

_AXE = (files("axe_playwright_python") / "axe.min.js").read_text("utf-8")
_NOTED = {"error", "warning"}
_SERIOUS = {"serious", "critical"}
_THEMES: tuple[Theme, ...] = ("light", "dark")


@dataclass(slots=True)
class Tab:
    """One page of a browser, with what went wrong on it."""

    page: Page
    base: str
    troubles: list[str] = field(default_factory=list)
    requested: list[str] = field(default_factory=list)
    _expected: list[str] = field(default_factory=list)

    def expect(self, *patterns: str) -> None:
        """Accept troubles that contain one of these regular expressions: the test causes them."""
        self._expected += patterns

    @property
    def unexpected(self) -> list[str]:
        """The troubles that the test did not announce."""
        return [each for each in self.troubles if not any(re.search(pattern, each) for pattern in self._expected)]

    async def open(self, path: str) -> Response | None:
        """Load a page of the server, by its path."""
        return await self.page.goto(f"{self.base}{path}")

    async def sign_in(self, key: str, path: str = "/console/campaigns") -> None:
        """Open ``path`` as a stranger, type the key into the login page, and arrive at ``path``."""
        await self.open(path)
        await self.page.locator("input[name=key]").fill(key)
        await self.page.locator("main form button[type=submit]").click()
        await self.page.wait_for_url(re.compile(re.escape(self.base + path)))

    async def theme(self, theme: Theme) -> None:
        """Show the page as on a system with this theme."""
        await self.page.emulate_media(color_scheme=theme, reduced_motion="reduce")

    async def accessibility_faults(self) -> list[str]:
        """The serious findings of axe, in both themes."""
        found = []
        for theme in _THEMES:
            await self.theme(theme)
            await self.page.evaluate(_AXE)
            results: dict[str, Any] = await self.page.evaluate("axe.run({resultTypes: ['violations']})")
            found += [
                f"{theme}: {each['id']}: {each['help']}: {node['html'][:200]}"
                for each in results["violations"]
                if each["impact"] in _SERIOUS
                for node in each["nodes"]
            ]
        return found

    async def text(self, selector: str) -> str:
        """The text of an element as a person reads it."""
        return re.sub(r"\s+", " ", await self.page.locator(selector).first.inner_text()).strip()

    async def overflow(self) -> int:
        """How many pixels the page is wider than the window."""
        width: int = await self.page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
        return width


async def bytes_transferred(tab: Tab, path: str) -> dict[str, int]:
    """Load a page with an empty cache. Returns what came over the network by address: head and body, as compressed."""
    devtools = await tab.page.context.new_cdp_session(tab.page)
    addresses: dict[str, str] = {}
    received: dict[str, int] = {}

    def answered(event: dict[str, Any]) -> None:
        addresses[event["requestId"]] = event["response"]["url"].removeprefix(tab.base)

    def finished(event: dict[str, Any]) -> None:
        if event["requestId"] in addresses:  # A stream never finishes, and so is not counted.
            received[addresses[event["requestId"]]] = int(event["encodedDataLength"])

    devtools.on("Network.responseReceived", answered)
    devtools.on("Network.loadingFinished", finished)
    await devtools.send("Network.enable")
    await devtools.send("Network.setCacheDisabled", {"cacheDisabled": True})
    await tab.open(path)
    await tab.page.wait_for_load_state("load")
    await devtools.detach()
    return received


@asynccontextmanager
async def new_tab(
    browser: Browser, base: str, log: Path, *, size: tuple[int, int] = DESKTOP, **options: Any
) -> AsyncIterator[Tab]:
    """A tab with cookies of its own. The test fails if anything unexpected went wrong on it.

    ``log``: the server's, whose errors are shown then.
    """
    width, height = size
    context = await browser.new_context(viewport={"width": width, "height": height}, **options)
    try:
        context.set_default_timeout(20_000)
        tab = watched(await context.new_page(), base)
        yield tab
    finally:
        await context.close()
    assert not tab.unexpected, "\n".join([*tab.unexpected, *_errors(log)])


def _errors(log: Path) -> list[str]:
    return [line[-2000:] for line in log.read_text("utf-8", "replace").splitlines() if '"error"' in line][-3:]


def watched(page: Page, base: str) -> Tab:
    """Note the troubles of ``page`` from now on."""
    tab = Tab(page, base)

    def console(message: ConsoleMessage) -> None:
        if message.type in _NOTED:
            tab.troubles.append(f"{message.type}: {message.text} ({message.location.get('url', '')})")

    def failed(request: Request) -> None:
        if request.failure != "net::ERR_ABORTED":  # The page itself, or leaving it, ended the request.
            tab.troubles.append(f"request failed: {request.method} {request.url}: {request.failure}")

    def answered(response: Response) -> None:
        tab.requested.append(response.url)
        if response.status >= 400:
            tab.troubles.append(f"status {response.status}: {response.request.method} {response.url}")
        if not response.url.startswith((base, "data:")):
            tab.troubles.append(f"another server: {response.url}")

    page.on("console", console)
    page.on("pageerror", lambda error: tab.troubles.append(f"exception: {error}"))
    page.on("requestfailed", failed)
    page.on("response", answered)
    return tab
