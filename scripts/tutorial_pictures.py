"""Takes the pictures of docs/tutorial.md: plays the demo, and does in a browser what the tutorial says.

python -m scripts.tutorial_pictures   writes docs/images/tutorial-*.png; takes three minutes
"""

from __future__ import annotations

import asyncio
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.async_api import FloatRect, Page, async_playwright, expect

OUT = Path(__file__).parents[1] / "docs" / "images"
WIDTH, HEIGHT = 1200, 780
_START_SECONDS = 240.0
_FAILURES = 8
"""Failures of revision B in the south before the pictures are taken: the verdict has changed by then."""
_FAILED_OF_B = r"""(least) => {
  const causes = document.querySelector("#panel-causes")?.innerText ?? "";
  return Number(causes.match(/revision=B[^0-9]*[0-9.]*\s+(\d+)/)?.[1] ?? 0) >= least;
}"""


@contextmanager
def demo() -> Iterator[str]:
    """A demo that is kept running. Yields the link to its console once the story is over."""
    with tempfile.TemporaryFile("w+") as output:
        command = [sys.executable, "-u", "-m", "rollwave", "demo", "--keep"]
        running = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        try:
            yield _link(running, Path(f"/proc/self/fd/{output.fileno()}"))
        finally:
            running.send_signal(signal.SIGTERM)
            running.wait()


def _link(running: subprocess.Popen[bytes], output: Path) -> str:
    deadline = time.monotonic() + _START_SECONDS
    while running.poll() is None and time.monotonic() < deadline:
        text = output.read_text("utf-8")
        if "Ctrl-C stops them." in text:
            return next(line for line in text.splitlines() if line.startswith("http://"))
        time.sleep(0.5)
    raise SystemExit(f"the demo did not come up:\n{output.read_text('utf-8')}")


async def follow(page: Page, link: str) -> None:
    """Do what the tutorial says, and take its pictures."""
    await page.goto(link)
    await page.get_by_role("link", name="Faster start-up, south").click()
    await page.wait_for_function(
        _FAILED_OF_B,
        arg=_FAILURES,
        timeout=180_000,
    )
    await _save(page, "campaign")
    await page.get_by_role("link", name="Campaigns").first.click()
    await _save(page, "list", 400)
    await page.get_by_role("link", name="Faster start-up, south").click()
    await page.locator(".head-actions").get_by_role("button", name="Pause").click()
    await expect(page.locator("#panel-head")).to_have_attribute("data-status", "PAUSED")
    await page.locator(".head-actions").get_by_role("button", name="Stop…").click()
    await expect(page.get_by_role("dialog")).to_be_visible()
    await _save(page, "abort")
    await page.get_by_role("dialog").get_by_role("button", name=re.compile("^Abort")).click()
    await expect(page.locator("#panel-head")).to_have_attribute("data-status", "ABORTED")
    await page.locator("input[name=q]").fill("pump-17")
    await page.keyboard.press("Enter")
    await page.get_by_role("main").get_by_role("link", name="pump-17", exact=True).first.click()
    await _save(page, "device", 540)
    await _new_campaign(page)


async def _new_campaign(page: Page) -> None:
    await page.get_by_role("link", name="Campaigns").first.click()
    await page.get_by_role("link", name="New campaign").click()
    await page.get_by_label("Name").first.fill("Quieter pumps")
    firmware = page.get_by_label("Firmware", exact=True)
    label = next(each for each in await firmware.locator("option").all_inner_texts() if "2.4.0" in each)
    await firmware.select_option(label=label)
    await page.get_by_label("Group", exact=True).select_option(value="all")
    await page.get_by_label("Only in a window, such as at night").check()
    await page.get_by_role("button", name="Preview").last.click()
    await expect(page.locator("#preview")).to_contain_text("canary")
    await page.evaluate("scrollTo(0, 0)")
    await _save(page, "new")


async def _save(page: Page, name: str, height: float = HEIGHT) -> None:
    await page.wait_for_timeout(1000)
    clip: FloatRect = {"x": 0, "y": 0, "width": WIDTH, "height": height}
    await page.screenshot(path=str(OUT / f"tutorial-{name}.png"), clip=clip)
    print(f"tutorial-{name}.png")


async def main() -> None:
    """Play the demo and take the pictures."""
    with demo() as link:
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
            page = await browser.new_page(
                viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light", reduced_motion="reduce"
            )
            page.set_default_timeout(30_000)
            await follow(page, link)
            await browser.close()


if __name__ == "__main__":
    asyncio.run(main())
