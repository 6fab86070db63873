"""One HTML file about a campaign, with its charts, that needs no server and no script."""

from __future__ import annotations

from rollwave.client.report.page import page

__all__ = ["page"]
