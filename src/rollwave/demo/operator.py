"""What an operator of the demo does over the API: register devices and firmware, and start campaigns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rollwave.client.api import Api
from rollwave.demo.artifact import Artifact
from rollwave.demo.devices import groups
from rollwave.domain.campaign import CampaignStatus


@dataclass(frozen=True, slots=True)
class Order:
    """A campaign to be made: its name, its group of devices, and its ``rules`` as the API takes them."""

    name: str
    group: str
    rules: Mapping[str, Any]


def register_devices(api: Api) -> None:
    """Make the groups of devices, with the devices and their labels."""
    for group, members in groups():
        api.put(f"/device-groups/{group}", {"device_ids": [], "devices": list(members)})


def register_firmware(api: Api, artifact: Artifact) -> Mapping[str, Any]:
    """Register a firmware that is served. Returns it as the API shows it."""
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


def start(api: Api, firmware: Mapping[str, Any], order: Order) -> int:
    """Create a campaign and start it. Returns its id."""
    campaign = api.post(
        "/ota/campaigns",
        {
            "name": order.name,
            "firmware_version_id": firmware["id"],
            "target_group_id": order.group,
            **order.rules,
        },
    )
    api.post(f"/ota/campaigns/{campaign['id']}/start")
    campaign_id: int = campaign["id"]
    return campaign_id


def abort_campaigns_of_earlier_demos(api: Api) -> None:
    """Abort what an earlier demo left in the same data folder: its firmware files are no longer served."""
    for status in (CampaignStatus.RUNNING, CampaignStatus.PAUSED):
        for campaign in list(api.pages("/ota/campaigns", "campaigns", status=status)):
            api.post(f"/ota/campaigns/{campaign['id']}/abort", {"reason": "left over by an earlier demo"})
