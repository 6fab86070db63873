"""Another unfinished campaign that has devices of a new one: what a dry run says of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rollwave.domain.campaign import CampaignStatus
from rollwave.domain.overview.texts import are

_IS = {
    CampaignStatus.CREATED: "has not been started",
    CampaignStatus.RUNNING: "is running",
    CampaignStatus.PAUSED: "is paused",
}


@dataclass(frozen=True, slots=True)
class Overlap:
    """A campaign in which ``devices`` of a group wait or are in progress.

    ``looked_at``: number of members of the group that were looked up; ``all_looked_at``: these are all of them.
    """

    campaign_id: int
    name: str | None
    version: str | None
    status: CampaignStatus
    devices: int
    looked_at: int
    all_looked_at: bool

    @property
    def text(self) -> str:
        """The sentence for people."""
        of = f"the {self.looked_at:,} devices" if self.all_looked_at else f"the first {self.looked_at:,} devices"
        name = f' "{self.name}"' if self.name else ""
        version = f" ({self.version})" if self.version else ""
        which = f"campaign {self.campaign_id}{name}{version}"
        return (
            f"{self.devices:,} of {of} of the group {are(self.devices)} also in {which}, "
            f"which {_IS.get(self.status, self.status.value)}"
        )

    def to_json(self) -> dict[str, Any]:
        """An element of ``also_in`` of a dry run."""
        names = ("campaign_id", "name", "version", "status", "devices")
        return {**{name: getattr(self, name) for name in names}, "text": self.text}
