"""What may be done to a campaign in its state, whoever asks. Roles are checked where it is done."""

from __future__ import annotations

from typing import Any

from rollwave.domain.campaign import Action, CampaignStatus, after
from rollwave.domain.overview.how_far import HowFar


def actions(status: CampaignStatus, devices: HowFar, *, cancelled: bool) -> dict[str, Any]:
    """The actions that change something now. ``retry``: number of failed devices that may get another attempt."""
    ended = status in {CampaignStatus.COMPLETED, CampaignStatus.ABORTED}
    return {
        "start": status is CampaignStatus.CREATED,
        "pause": after(status, Action.PAUSE) not in {None, status},
        "resume": status is CampaignStatus.PAUSED,
        "abort": not ended,
        "cancel": not ended or (status is CampaignStatus.ABORTED and not cancelled and devices.in_progress > 0),
        "retry": devices.failed if status in {CampaignStatus.RUNNING, CampaignStatus.PAUSED} else 0,
    }
