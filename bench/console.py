"""The console: when a campaign of a million devices is on the screen, its weight, and the cost of many viewers."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from statistics import median
from typing import Any

import httpx2
from playwright.async_api import Page, async_playwright

from bench import load
from bench.lab import Database
from bench.load import TENANT, Key
from bench.session import Session
from rollwave.domain.role import Role
from rollwave.store import access
from tests.browsing.chromium import launch
from tests.browsing.tab import bytes_transferred, watched
from tests.support import eventually, free_port, rollwave_running

SMALL, LARGE = 1_000, 1_000_000
"""Devices of the two campaigns that are looked at."""
LIST = 100
"""Campaigns on one page of the list."""
WARM, ROUNDS = 2, 9
VIEWERS, PER_KEY = 1_000, 200
LOOK_SECONDS = 10.0

_READS = re.compile(r"^rollwave_live_reads_total (\S+)$", re.MULTILINE)


async def measure(session: Session) -> None:
    """Load a large and a small campaign, both paused so that nothing moves, and look at them."""
    session.say(f"console: loading {LARGE:,} devices")
    async with session.lab.database() as database:
        large = await load.many(database.pool, LARGE, status="PAUSED")
        [small] = await load.campaigns(database.pool, SMALL, status="PAUSED")
        await load.campaigns(database.pool, 10, each=LIST, status="PAUSED")
        keys = [await access.create(database.pool, TENANT, Role.OPERATOR) for _ in range(VIEWERS // PER_KEY)]
        async with _serving(session, database) as url:
            await _ask(session, url, keys[0], large, small)
            await _paint(session, url, keys[0], large, small)
            await _view(session, url, keys, large)


@asynccontextmanager
async def _serving(session: Session, database: Database) -> AsyncIterator[str]:
    port = free_port()
    log = session.lab.folder / f"console-{port}.log"
    with session.lab.broker() as at:
        env = {"DATABASE_URL": database.url, "MQTT_BROKER_URL": f"mqtt://127.0.0.1:{at.port}"}
        async with rollwave_running("serve", "--port", str(port), log=log, env=env) as running:
            await eventually(lambda: "ota_status_listener_subscribed" in running.output(), timeout=60)
            # The counters of rows that SQL inserted are made at the first look at each campaign.
            await _counted(f"http://127.0.0.1:{port}", database)
            yield f"http://127.0.0.1:{port}"


async def _counted(url: str, database: Database) -> None:
    async def done() -> bool:
        await asyncio.sleep(0.2)
        left = await database.pool.fetchval(
            "SELECT count(*) FROM ota_campaigns WHERE pending IS NULL AND status <> 'CREATED'"
        )
        return not left

    await eventually(done, timeout=120, what=f"{url} has counted every campaign")


async def _ask(session: Session, url: str, key: str, large: Key, small: Key) -> None:
    """The overview of both campaigns in turn, and the list."""
    session.say("console: overview and list")
    took: dict[str, list[float]] = {"large": [], "small": [], "list": [], "rows": []}
    paths = {
        "large": f"/ota/campaigns/{large.campaign}/overview",
        "small": f"/ota/campaigns/{small.campaign}/overview",
        "list": f"/ota/campaigns?limit={LIST}",
        "rows": f"/firmware?limit={LIST}",
    }
    async with httpx2.AsyncClient(
        base_url=f"{url}/customer", headers={"Authorization": f"Bearer {key}"}, timeout=60
    ) as client:
        for number in range(WARM + ROUNDS * 3):
            for name, path in paths.items():
                started = time.perf_counter()
                (await client.get(path)).raise_for_status()
                if number >= WARM:
                    took[name].append((time.perf_counter() - started) * 1000)
    medians = {name: median(each) for name, each in took.items()}
    session.report.add("console.overview", medians["large"])
    remark = f"{medians['small']:.1f} / {medians['large']:.1f} ms with {SMALL:,} / {LARGE:,} devices"
    session.report.add("console.overview.flat", medians["large"] / medians["small"], remark)
    remark = f"{medians['list']:.1f} ms; as many rows of firmware {medians['rows']:.1f} ms"
    session.report.add("console.list", medians["list"], remark)


async def _paint(session: Session, url: str, key: str, large: Key, small: Key) -> None:
    """Load both pages in turn, each with an empty cache, in one browser."""
    session.say("console: pages in a browser")
    took: dict[Key, list[float]] = {large: [], small: []}
    async with async_playwright() as playwright:
        browser = await launch(playwright)
        context = await browser.new_context(viewport={"width": 1400, "height": 900})
        tab = watched(await context.new_page(), url)
        await tab.sign_in(key)
        weights = await bytes_transferred(tab, f"/console/campaigns/{large.campaign}")
        for number in range(WARM + ROUNDS):
            for campaign in (large, small):
                painted = await _first_paint(tab.page, f"{url}/console/campaigns/{campaign.campaign}")
                if number >= WARM:
                    took[campaign].append(painted)
        assert not tab.unexpected, tab.unexpected
        await browser.close()
    session.report.add("console.paint", median(took[large]), f"slowest of {ROUNDS}: {max(took[large]):.0f} ms")
    remark = f"{median(took[small]):.0f} / {median(took[large]):.0f} ms with {SMALL:,} / {LARGE:,} devices"
    session.report.add("console.paint.flat", median(took[large]) / median(took[small]), remark)
    session.report.add("console.weight", sum(weights.values()) / 1000)


async def _first_paint(page: Page, url: str) -> float:
    """Milliseconds from the beginning of the navigation to the first content on the screen."""
    await page.goto(url)
    found: Any = await page.evaluate(
        "new Promise(done => new PerformanceObserver((list, me) => {"
        " const entry = list.getEntriesByName('first-contentful-paint')[0];"
        " if (entry) { me.disconnect(); done(entry.startTime); }"
        "}).observe({type: 'paint', buffered: true}))"
    )
    return float(found)


async def _view(session: Session, url: str, keys: Sequence[str], campaign: Key) -> None:
    """Reads of the campaign in some seconds, with one viewer and with many."""
    session.say(f"live: 1 and {VIEWERS:,} viewers of one campaign")
    path = f"/api/v1/customer/ota/campaigns/{campaign.campaign}/live"
    per_second = {}
    for viewers in (1, VIEWERS):
        streams = [await _open(url, path, keys[number // PER_KEY]) for number in range(viewers)]
        before, started = await _reads(url), time.perf_counter()
        await asyncio.sleep(LOOK_SECONDS)
        per_second[viewers] = (await _reads(url) - before) / (time.perf_counter() - started)
        for _, writer in streams:
            writer.close()
    remark = " / ".join(f"{each:.2f}" for each in per_second.values()) + f" reads a second with 1 / {VIEWERS:,} viewers"
    session.report.add("live.reads", per_second[VIEWERS] / per_second[1], remark)


async def _open(url: str, path: str, key: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open a stream, and wait for its first event."""
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {key}\r\n\r\n".encode())
    async with asyncio.timeout(60):
        head = await reader.readuntil(b"\r\n\r\n")
        assert b" 200 " in head.splitlines()[0], head
        await reader.readuntil(b"event: overview")
    return reader, writer


async def _reads(url: str) -> float:
    async with httpx2.AsyncClient(timeout=10) as client:
        found = _READS.search((await client.get(f"{url}/metrics")).text)
    assert found
    return float(found[1])
