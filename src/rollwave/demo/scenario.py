"""The scenario of the demo: an operator releases a good firmware and then a bad one, over the API."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from rollwave.client.api import Api
from rollwave.client.follow import Follower, Look
from rollwave.client.progress import Meter, Snapshot
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
    """One release, with the text that introduces it. ``rate`` is in devices per tick."""

    rate: int
    title: str
    text: str


_GOOD_RELEASE = Release(
    rate=30,
    title=f"Firmware {GOOD} is good",
    text="It is sent to a canary wave of 15 devices first, and to the rest when all of these have succeeded.",
)
_BAD_RELEASE = Release(
    rate=12,
    title=f"Firmware {BAD} is bad",
    text="It does not boot on hardware revision B, and the canary wave has no such device. The guardrail must stop it.",
)


class Display(Protocol):
    """Shows the scenario while it runs."""

    def heading(self, title: str, text: str) -> None:
        """Show that a release begins."""

    def watch(self, look: Look, meter: Meter) -> None:
        """Show the current state of a campaign."""


@dataclass(frozen=True, slots=True)
class Result:
    """The final state of both campaigns, and the number of devices that reported each outcome, by campaign id."""

    good: Snapshot
    bad: Snapshot
    reported: Mapping[int, Counter[ExecutionStatus]]

    @property
    def faults(self) -> list[str]:
        """What differs from the expected result. Empty: nothing."""
        found = []
        if self.good.status is not CampaignStatus.COMPLETED or self.good.succeeded != len(DEVICES):
            found.append(f"{GOOD} should be COMPLETED with {len(DEVICES)} updated, and is {_short(self.good)}")
        if self.bad.status is not CampaignStatus.ABORTED or not self.skipped:
            found.append(f"{BAD} should be ABORTED before all devices were sent to, and is {_short(self.bad)}")
        for each in (self.good, self.bad):
            reported = self.reported.get(each.id, Counter())
            if (reported[ExecutionStatus.SUCCESS], reported[ExecutionStatus.FAILED]) != (each.succeeded, each.failed):
                found.append(f"{each.version}: counted {_short(each)}, but the devices reported {dict(reported)}")
        return found

    @property
    def skipped(self) -> int:
        """Number of devices to which the bad firmware was never sent."""
        return self.bad.by_state[ExecutionStatus.SKIPPED]


def _short(snapshot: Snapshot) -> str:
    return f"{snapshot.status} with {snapshot.succeeded} succeeded and {snapshot.failed} failed"


def fleet(servers: Servers) -> Fleet:
    """The simulated devices. They run inside ``async with``."""
    plan = FleetPlan(tenant_id=TENANT, device_ids=DEVICES, seed=7, step_delay=_STEP_DELAY_SECONDS, behaviour=behaviour)
    return Fleet(Broker.from_url(servers.broker_url), plan)


async def play(servers: Servers, devices: Fleet, display: Display) -> Result:
    """Run both campaigns over the API, as an operator would.

    Raises:
        RollwaveError: the API refuses a request, or is unavailable.
    """
    with Api(servers.api_url, servers.api_key) as api:
        await devices.ready
        await asyncio.to_thread(_register_devices, api)
        good = await _release(api, servers.artifacts.make(GOOD), display, _GOOD_RELEASE)
        bad = await _release(api, servers.artifacts.make(BAD), display, _BAD_RELEASE)
    return await _result(good, bad, devices)


async def _result(good: Snapshot, bad: Snapshot, devices: Fleet) -> Result:
    """Compare the campaigns with the devices' own count, once that is complete.

    The fleet counts an outcome when the broker has acknowledged the report. The engine may have counted it before.
    """
    deadline = time.monotonic() + _COMPARE_TIMEOUT_SECONDS
    while True:
        reported = {campaign_id: Counter(by_device.values()) for campaign_id, by_device in devices.outcomes.items()}
        result = Result(good, bad, reported)
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


async def _release(api: Api, artifact: Artifact, display: Display, release: Release) -> Snapshot:
    display.heading(release.title, release.text)
    campaign_id = await asyncio.to_thread(_start, api, artifact, release.rate)
    follower = Follower(api, campaign_id)
    deadline = time.monotonic() + _CAMPAIGN_TIMEOUT_SECONDS
    while True:
        look = await asyncio.to_thread(follower.look)
        display.watch(look, follower.meter)
        if look.snapshot.counters_final or time.monotonic() > deadline:
            return look.snapshot
        await asyncio.sleep(_POLL_SECONDS)


def _start(api: Api, artifact: Artifact, rate: int) -> int:
    firmware = api.post("/firmware", _firmware(artifact))
    campaign = api.post(
        "/ota/campaigns",
        {
            "name": f"{artifact.version} to all devices",
            "firmware_version_id": firmware["id"],
            "target_group_id": GROUP,
            "rollout_strategy": "canary",
            "canary_percent": _CANARY_PERCENT,
            "rollout_rate": rate,
            "abort_threshold": 0.1,
        },
    )
    api.post(f"/ota/campaigns/{campaign['id']}/start")
    campaign_id: int = campaign["id"]
    return campaign_id


def _firmware(artifact: Artifact) -> dict[str, Any]:
    return {
        "version": artifact.version,
        "file_url": artifact.url,
        "checksum_sha256": artifact.sha256,
        "file_size_bytes": artifact.size,
    }
