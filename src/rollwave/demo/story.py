"""What happens in the demo: an operator, over the API, releases a good firmware and then a bad one."""

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
from rollwave.demo.stage import TENANT, Stage
from rollwave.domain.campaign import CampaignStatus
from rollwave.domain.execution import ExecutionStatus
from rollwave.fleet import Fault, Fleet, FleetPlan
from rollwave.fleet import Stage as At
from rollwave.mqtt.broker import Broker
from rollwave.mqtt.payload import Command

GROUP = "all"
GOOD, BAD = "2.1.0", "2.2.0"
DEVICES = tuple(f"device-{number:03}" for number in range(1, 301))

_CANARY_PERCENT = 5.0
_STEP_DELAY = 1.0  # seconds, about, for each of downloading and installing
_LOOK_EVERY = 0.25
_PATIENCE = 90.0
_MOMENT = 5.0


def revision(device_id: str) -> str:
    """The hardware of a device. The first of them, which a canary wave takes, happen to be all of revision A."""
    number = int(device_id.rpartition("-")[2])
    return "B" if number > len(DEVICES) // 8 and number % 3 == 0 else "A"


def behaviour(device_id: str, command: Command) -> Fault | None:
    """The bug of the bad release: it does not start on revision B."""
    if command.version == BAD and revision(device_id) == "B":
        return Fault(At.INSTALL, reason="image does not boot on hardware revision B, rolled back")
    return None


@dataclass(frozen=True, slots=True)
class Chapter:
    """One release. ``rate`` is devices per tick."""

    rate: int
    title: str
    text: str


_GOOD_NEWS = Chapter(
    rate=30,
    title=f"Firmware {GOOD} is good",
    text="It goes to a canary wave of 15 devices first; when all of those do well, to the rest.",
)
_BAD_NEWS = Chapter(
    rate=12,
    title=f"Firmware {BAD} is bad",
    text="It does not boot on hardware revision B, and no canary is one. The guardrail has to notice.",
)


class Audience(Protocol):
    """Who is told the story."""

    def chapter(self, title: str, text: str) -> None:
        """Something begins."""

    def watch(self, look: Look, meter: Meter) -> None:
        """A campaign as it is now."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How both campaigns ended, and what each device said of them, by campaign id."""

    good: Snapshot
    bad: Snapshot
    said: Mapping[int, Counter[ExecutionStatus]]

    @property
    def faults(self) -> list[str]:
        """What went other than it should; empty when the story came out right."""
        found = []
        if self.good.status is not CampaignStatus.COMPLETED or self.good.succeeded != len(DEVICES):
            found.append(f"{GOOD} should be COMPLETED with {len(DEVICES)} updated, and is {_short(self.good)}")
        if self.bad.status is not CampaignStatus.ABORTED or not self.spared:
            found.append(f"{BAD} should be ABORTED with devices spared, and is {_short(self.bad)}")
        for each in (self.good, self.bad):
            said = self.said.get(each.id, Counter())
            if (said[ExecutionStatus.SUCCESS], said[ExecutionStatus.FAILED]) != (each.succeeded, each.failed):
                found.append(f"{each.version}: counted {_short(each)}, but the devices said {dict(said)}")
        return found

    @property
    def spared(self) -> int:
        """Devices that the guardrail kept the bad firmware from."""
        return self.bad.by_state[ExecutionStatus.SKIPPED]


def _short(snapshot: Snapshot) -> str:
    return f"{snapshot.status} with {snapshot.succeeded} succeeded and {snapshot.failed} failed"


def fleet(stage: Stage) -> Fleet:
    """The devices, to be brought to life with ``async with``."""
    plan = FleetPlan(tenant_id=TENANT, device_ids=DEVICES, seed=7, step_delay=_STEP_DELAY, behaviour=behaviour)
    return Fleet(Broker.from_url(stage.broker_url), plan)


async def play(stage: Stage, devices: Fleet, audience: Audience) -> Ending:
    """Tell the story over the API, as an operator would.

    Raises:
        RollwaveError: the API refuses something, or is away.
    """
    with Api(stage.api_url, stage.api_key) as api:
        await devices.ready
        await asyncio.to_thread(_register_devices, api)
        good = await _release(api, stage.artifacts.make(GOOD), audience, _GOOD_NEWS)
        bad = await _release(api, stage.artifacts.make(BAD), audience, _BAD_NEWS)
    return await _ending(good, bad, devices)


async def _ending(good: Snapshot, bad: Snapshot, devices: Fleet) -> Ending:
    """Compare with the devices' own count, which may be a moment behind: they count what the broker acknowledged."""
    deadline = time.monotonic() + _MOMENT
    while True:
        said = {campaign_id: Counter(by_device.values()) for campaign_id, by_device in devices.outcomes.items()}
        ending = Ending(good, bad, said)
        if not ending.faults or time.monotonic() > deadline:
            return ending
        await asyncio.sleep(_LOOK_EVERY)


def _register_devices(api: Api) -> None:
    _end_what_is_left(api)
    members = [{"device_id": each, "attributes": {"revision": revision(each)}} for each in DEVICES]
    api.put(f"/device-groups/{GROUP}", {"device_ids": [], "devices": members})


def _end_what_is_left(api: Api) -> None:
    """A demo over the data of an earlier one, broken off: its artifacts are gone."""
    for status in (CampaignStatus.RUNNING, CampaignStatus.PAUSED):
        for campaign in list(api.pages("/ota/campaigns", "campaigns", status=status)):
            api.post(f"/ota/campaigns/{campaign['id']}/abort", {"reason": "left over by an earlier demo"})


async def _release(api: Api, artifact: Artifact, audience: Audience, chapter: Chapter) -> Snapshot:
    audience.chapter(chapter.title, chapter.text)
    campaign_id = await asyncio.to_thread(_start, api, artifact, chapter.rate)
    follower = Follower(api, campaign_id)
    deadline = time.monotonic() + _PATIENCE
    while True:
        look = await asyncio.to_thread(follower.look)
        audience.watch(look, follower.meter)
        if look.snapshot.settled or time.monotonic() > deadline:
            return look.snapshot
        await asyncio.sleep(_LOOK_EVERY)


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
