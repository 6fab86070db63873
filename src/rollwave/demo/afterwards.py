"""The campaigns that go on after the story: a bad release that an operator should stop, and one that waits for night.

They are for people who try the console. More firmware is registered, so that they can create campaigns of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from rollwave.client.api import Api
from rollwave.demo.devices import FREE, NEXT, NORTH, SOUTH, WORSE
from rollwave.demo.operator import Order, register_firmware, start
from rollwave.demo.servers import Servers

STEP_DELAY = 4.0
"""Average time of a download, and of an installation, in seconds. With it, some devices are always in progress."""

_NIGHT = 2
_ZONES = ("America/New_York", "Europe/Berlin", "Asia/Tokyo", "Pacific/Auckland")

SPREADING: Mapping[str, Any] = {
    "order": "hash",
    "pace": {"per_minute": 16},
    "guardrails": [{"name": "failures", "threshold": "50%", "min_finished": 20}],
}
"""A policy that lets a third of the devices fail: the release needs eleven minutes, and nothing stops it by itself."""


def begin(servers: Servers, api: Api, now: datetime) -> None:
    """Register the firmware and start both campaigns. ``now`` has a zone.

    Raises:
        RollwaveError: the API refuses a request, or is unavailable.
    """
    spreading, waiting, _ = [register_firmware(api, servers.artifacts.make(version)) for version in (WORSE, NEXT, FREE)]
    start(api, waiting, Order("Pump calibration, north", NORTH, {"policy": at_night(now)}))
    start(api, spreading, Order("Faster start-up, south", SOUTH, {"policy": SPREADING}))


def at_night(now: datetime) -> Mapping[str, Any]:
    """A policy that sends from 02:00 to 04:00, in the zone where the next night is the farthest away."""
    return {
        "pace": {"per_minute": 120},
        "schedule": {
            "time_zone": max(_ZONES, key=lambda zone: _until_night(now.astimezone(ZoneInfo(zone)))),
            "windows": [{"name": "night", "kind": "allow", "cron": f"0 {_NIGHT} * * *", "duration": "2h"}],
        },
    }


def _until_night(local: datetime) -> timedelta:
    opens = local.replace(hour=_NIGHT, minute=0, second=0, microsecond=0)
    ends = opens + timedelta(hours=2)
    if local >= ends:
        return opens + timedelta(days=1) - local
    return max(opens - local, timedelta())
