"""Debian's Chromium, driven by Playwright."""

from __future__ import annotations

import os
import shutil

from playwright.async_api import Browser, Playwright


async def launch(playwright: Playwright) -> Browser:
    """Start the browser. It is an error if it is not installed."""
    program = shutil.which("chromium")
    assert program, "chromium is not installed: scripts/system-packages installs it"
    # Chromium's sandbox does not work as root, and the pages are our own.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    return await playwright.chromium.launch(executable_path=program, args=arguments)
