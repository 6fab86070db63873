"""The scenario of the demo: an operator releases a good firmware, a bad one, and the bad one again under a policy.

All over the API. The policy puts the devices that the bad one does not fit under quarantine.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from rollwave.client.api import Api
from rollwave.client.follow import Follower, Look
from rollwave.client.progress import Snapshot
from rollwave.demo.devices import ALL, BAD, GOOD
from rollwave.demo.operator import (
    Order,
    abort_campaigns_of_earlier_demos,
    register_devices,
    register_firmware,
    start,
)
from rollwave.demo.result import Result
from rollwave.demo.servers import Servers
from rollwave.domain.campaign import CampaignStatus
from rollwave.fleet import Fleet

STEP_DELAY = 1.0
"""Average time of a download, and of an installation, in seconds."""

_CANARY_PERCENT = 5.0
_POLL_SECONDS = 0.25
_CAMPAIGN_TIMEOUT_SECONDS = 90.0
_COMPARE_TIMEOUT_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Release:
    """One release: the ``name`` and the ``rules`` of its campaign, and the text that introduces it."""

    name: str
    rules: Mapping[str, Any]
    title: str
    text: str


def _canary(rate: int) -> Mapping[str, Any]:
    """The flat rules of a campaign with a canary wave. ``rate`` is in devices per tick."""
    return {
        "rollout_strategy": "canary",
        "canary_percent": _CANARY_PERCENT,
        "rollout_rate": rate,
        "abort_threshold": 0.1,
    }


POLICY: Mapping[str, Any] = {
    "waves": [{"name": "canary", "size": "10%"}, {"name": "rest"}],
    "pace": {"per_minute": 2400},
    "guardrails": [
        {
            "name": "each-revision",
            "scope": "segment",
            "per": ["revision"],
            "threshold": "10%",
            "min_finished": 4,
            "action": "quarantine",
        }
    ],
}
"""The policy of the third release: each hardware revision is judged by itself."""

_GOOD_RELEASE = Release(
    name=f"{GOOD} to all devices",
    rules=_canary(30),
    title=f"Firmware {GOOD} is good",
    text="It is sent to a canary wave of 15 devices first, and to the rest when all of these have succeeded.",
)
_BAD_RELEASE = Release(
    name=f"{BAD} to all devices",
    rules=_canary(12),
    title=f"Firmware {BAD} is bad",
    text="It does not boot on hardware revision B, and the canary wave has no such device. The guardrail must stop it.",
)
_PARTIAL_RELEASE = Release(
    name=f"{BAD} under a policy",
    rules={"policy": POLICY},
    title=f"Firmware {BAD} again, under a policy",
    text="It is sent to a wave of 30 devices first. A guardrail judges each hardware revision by itself, and puts "
    "revision B under quarantine when it fails. Revision A gets the firmware.",
)


class Display(Protocol):
    """Shows the scenario while it runs."""

    def heading(self, title: str, text: str) -> None:
        """Show that a release begins."""

    def note(self, text: str) -> None:
        """Show what the demo does next."""

    def watch(self, look: Look) -> None:
        """Show the current state of a campaign."""


async def play(servers: Servers, devices: Fleet, display: Display) -> Result:
    """Run the campaigns over the API, as an operator would.

    Raises:
        RollwaveError: the API refuses a request, or is unavailable.
    """
    with Api(servers.api_url, servers.api_key) as api:
        await devices.ready
        await asyncio.to_thread(abort_campaigns_of_earlier_demos, api)
        await asyncio.to_thread(register_devices, api)
        artifacts = [servers.artifacts.make(version) for version in (GOOD, BAD)]
        works, fails = [await asyncio.to_thread(register_firmware, api, each) for each in artifacts]
        good = await _release(api, works, display, _GOOD_RELEASE)
        bad = await _release(api, fails, display, _BAD_RELEASE)
        partial = await _release(api, fails, display, _PARTIAL_RELEASE)
    return await _result(good, bad, partial, devices)


async def _result(good: Snapshot, bad: Snapshot, partial: Snapshot, devices: Fleet) -> Result:
    """Compare the campaigns with the devices' own count, once that is complete.

    The fleet counts an outcome when the broker has acknowledged the report. The engine may have counted it before.
    """
    deadline = time.monotonic() + _COMPARE_TIMEOUT_SECONDS
    while True:
        reported = {campaign_id: Counter(by_device.values()) for campaign_id, by_device in devices.outcomes.items()}
        result = Result(good, bad, partial, reported)
        if not result.faults or time.monotonic() > deadline:
            return result
        await asyncio.sleep(_POLL_SECONDS)


async def _release(api: Api, firmware: Mapping[str, Any], display: Display, release: Release) -> Snapshot:
    display.heading(release.title, release.text)
    order = Order(release.name, ALL, release.rules)
    campaign_id = await asyncio.to_thread(start, api, firmware, order)
    follower = Follower(api, campaign_id)
    deadline = time.monotonic() + _CAMPAIGN_TIMEOUT_SECONDS
    while True:
        look = await asyncio.to_thread(follower.look)
        display.watch(look)
        if look.snapshot.counters_final or time.monotonic() > deadline:
            return look.snapshot
        if "policy" in release.rules and look.snapshot.status is CampaignStatus.RUNNING:
            left = await asyncio.to_thread(_left_under_quarantine, api, campaign_id)
            if left:
                display.note(f"The demo now ends the campaign: {left} devices of revision B stay on {GOOD}.")
                why = f"hardware revision B waits for the release after {BAD}"
                await asyncio.to_thread(api.post, f"/ota/campaigns/{campaign_id}/abort", {"reason": why})
        await asyncio.sleep(_POLL_SECONDS)


def _left_under_quarantine(api: Api, campaign_id: int) -> int:
    """The number of devices under quarantine, once nothing else is left of the campaign. Until then 0."""
    breakdown = api.get(f"/ota/campaigns/{campaign_id}")["status_breakdown"]
    if breakdown["DOWNLOADING"] or breakdown["INSTALLING"]:
        return 0
    found = api.get(f"/ota/campaigns/{campaign_id}/waiting")
    reasons = {each["reason"] for each in found["waiting"]}
    return int(found["pending"]) if reasons == {"quarantine"} else 0
