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
from rollwave.demo.artifact import Artifact
from rollwave.demo.servers import TENANT, Servers
from rollwave.domain.campaign import CampaignStatus
from rollwave.domain.execution import ExecutionStatus
from rollwave.fleet import Fault, Fleet, FleetPlan, Stage
from rollwave.mqtt.broker import Broker
from rollwave.mqtt.payload import Command

GROUP = "all"
GOOD, BAD = "2.1.0", "2.2.0"
DEVICES = tuple(f"device-{number:03}" for number in range(1, 301))

_CANARY_PERCENT = 5.0
_STEP_DELAY_SECONDS = 1.0  # average time of a download, and of an installation
_POLL_SECONDS = 0.25
_CAMPAIGN_TIMEOUT_SECONDS = 90.0
_COMPARE_TIMEOUT_SECONDS = 5.0


def revision(device_id: str) -> str:
    """The hardware revision of a device. The first devices, which form the canary wave, are all of revision A."""
    number = int(device_id.rpartition("-")[2])
    return "B" if number > len(DEVICES) // 8 and number % 3 == 0 else "A"


def behaviour(device_id: str, command: Command) -> Fault | None:
    """The fault that a release causes on a device: the bad release does not boot on revision B."""
    if command.version == BAD and revision(device_id) == "B":
        return Fault(Stage.INSTALL, reason="image does not boot on hardware revision B, rolled back")
    return None


@dataclass(frozen=True, slots=True)
class Release:
    """One release, with the ``rules`` of its campaign and the text that introduces it."""

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
    rules=_canary(30),
    title=f"Firmware {GOOD} is good",
    text="It is sent to a canary wave of 15 devices first, and to the rest when all of these have succeeded.",
)
_BAD_RELEASE = Release(
    rules=_canary(12),
    title=f"Firmware {BAD} is bad",
    text="It does not boot on hardware revision B, and the canary wave has no such device. The guardrail must stop it.",
)
_PARTIAL_RELEASE = Release(
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


@dataclass(frozen=True, slots=True)
class Result:
    """The final state of the campaigns, and the number of devices that reported each outcome, by campaign id."""

    good: Snapshot
    bad: Snapshot
    partial: Snapshot
    reported: Mapping[int, Counter[ExecutionStatus]]

    @property
    def faults(self) -> list[str]:
        """What differs from the expected result. Empty: nothing."""
        found = []
        if self.good.status is not CampaignStatus.COMPLETED or self.good.succeeded != len(DEVICES):
            found.append(f"{GOOD} should be COMPLETED with {len(DEVICES)} updated, and is {_short(self.good)}")
        if self.bad.status is not CampaignStatus.ABORTED or not self.skipped:
            found.append(f"{BAD} should be ABORTED before all devices were sent to, and is {_short(self.bad)}")
        fits = sum(revision(each) == "A" for each in DEVICES)
        if self.partial.succeeded != fits or not self.partial.failed or not self.quarantined:
            found.append(f"{BAD} should be on the {fits} devices of revision A, and is {_short(self.partial)}")
        for each in (self.good, self.bad, self.partial):
            reported = self.reported.get(each.id, Counter())
            if (reported[ExecutionStatus.SUCCESS], reported[ExecutionStatus.FAILED]) != (each.succeeded, each.failed):
                found.append(f"{each.version}: counted {_short(each)}, but the devices reported {dict(reported)}")
        return found

    @property
    def skipped(self) -> int:
        """Number of devices to which the bad firmware was never sent."""
        return self.bad.by_state[ExecutionStatus.SKIPPED]

    @property
    def quarantined(self) -> int:
        """Number of devices that the quarantine kept from the bad firmware."""
        return self.partial.by_state[ExecutionStatus.SKIPPED]


def _short(snapshot: Snapshot) -> str:
    return f"{snapshot.status} with {snapshot.succeeded} succeeded and {snapshot.failed} failed"


def fleet(servers: Servers) -> Fleet:
    """The simulated devices. They run inside ``async with``."""
    plan = FleetPlan(tenant_id=TENANT, device_ids=DEVICES, seed=7, step_delay=_STEP_DELAY_SECONDS, behaviour=behaviour)
    return Fleet(Broker.from_url(servers.broker_url), plan)


async def play(servers: Servers, devices: Fleet, display: Display) -> Result:
    """Run the campaigns over the API, as an operator would.

    Raises:
        RollwaveError: the API refuses a request, or is unavailable.
    """
    with Api(servers.api_url, servers.api_key) as api:
        await devices.ready
        await asyncio.to_thread(_register_devices, api)
        artifacts = [servers.artifacts.make(version) for version in (GOOD, BAD)]
        works, fails = [await asyncio.to_thread(_register_firmware, api, each) for each in artifacts]
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


def _register_devices(api: Api) -> None:
    _abort_campaigns_of_earlier_demos(api)
    members = [{"device_id": each, "attributes": {"revision": revision(each)}} for each in DEVICES]
    api.put(f"/device-groups/{GROUP}", {"device_ids": [], "devices": members})


def _abort_campaigns_of_earlier_demos(api: Api) -> None:
    """Abort what an interrupted demo left in the same data folder: its firmware files are no longer served."""
    for status in (CampaignStatus.RUNNING, CampaignStatus.PAUSED):
        for campaign in list(api.pages("/ota/campaigns", "campaigns", status=status)):
            api.post(f"/ota/campaigns/{campaign['id']}/abort", {"reason": "left over by an earlier demo"})


async def _release(api: Api, firmware: Mapping[str, Any], display: Display, release: Release) -> Snapshot:
    display.heading(release.title, release.text)
    campaign_id = await asyncio.to_thread(_start, api, firmware, release.rules)
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


def _start(api: Api, firmware: Mapping[str, Any], rules: Mapping[str, Any]) -> int:
    campaign = api.post(
        "/ota/campaigns",
        {
            "name": f"{firmware['version']} to all devices",
            "firmware_version_id": firmware["id"],
            "target_group_id": GROUP,
            **rules,
        },
    )
    api.post(f"/ota/campaigns/{campaign['id']}/start")
    campaign_id: int = campaign["id"]
    return campaign_id


def _register_firmware(api: Api, artifact: Artifact) -> Mapping[str, Any]:
    registered: Mapping[str, Any] = api.post(
        "/firmware",
        {
            "version": artifact.version,
            "file_url": artifact.url,
            "checksum_sha256": artifact.sha256,
            "file_size_bytes": artifact.size,
        },
    )
    return registered
