"""Debian's Chromium, an installation that the tests of one process share, and a tenant and a tab for each test.

All tests of this folder run on one event loop: the browser belongs to it. Simulated devices have a thread of their own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Protocol

import pytest
import pytest_asyncio
from playwright.async_api import Browser, async_playwright, expect

from tests.browsing.chromium import launch
from tests.browsing.house import House, Tenant, house
from tests.browsing.tab import Tab, new_tab

HERE = Path(__file__).parent
PATIENCE = 30_000
"""Milliseconds that a page has to show what is expected. A list is read again every 5 s, and a busy machine is slow."""

expect.set_options(timeout=PATIENCE)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)


class MakeTab(Protocol):
    """Opens a tab, which is closed and checked at the end of the test."""

    async def __call__(self, **options: Any) -> Tab: ...


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        running = await launch(playwright)
        yield running
        await running.close()


@pytest.fixture(scope="session")
def shared_house() -> Iterator[House]:
    with house() as shared:
        yield shared


@pytest_asyncio.fixture(loop_scope="session")
async def tenant(shared_house: House) -> Tenant:
    return await shared_house.tenant()


@pytest_asyncio.fixture(loop_scope="session")
async def make_tab(browser: Browser, shared_house: House) -> AsyncIterator[MakeTab]:
    console = shared_house.console
    async with AsyncExitStack() as tabs:

        async def make(**options: Any) -> Tab:
            return await tabs.enter_async_context(new_tab(browser, console.url, console.log, **options))

        yield make


@pytest_asyncio.fixture(loop_scope="session")
async def tab(make_tab: MakeTab) -> Tab:
    """A tab of a desktop browser."""
    return await make_tab()
