"""``rollwave campaign release``: sends to a segment again that a guardrail put under quarantine."""

from __future__ import annotations

from typing import Annotated

import typer

from rollwave.cli.client import ApiKey, ApiUrl, CampaignArgument, connect
from rollwave.cli.output import say


def release(
    campaign_id: CampaignArgument,
    segment: Annotated[int, typer.Argument(metavar="SEGMENT", min=1, help="The number of the segment.")],
    reason: Annotated[str | None, typer.Option(help="Why, for the campaign's history.")] = None,
    api_url: ApiUrl = None,
    api_key: ApiKey = None,
) -> None:
    """Release a segment from quarantine, so that its devices are sent to again.

    A guardrail with the action quarantine stops sending to the devices of one segment while the others go on.
    Release the segment when you have found the cause. The guardrail then begins a new test, which counts only
    devices that are sent to after that.
    """
    with connect(api_url, api_key) as api:
        answer = api.post(
            f"/ota/campaigns/{campaign_id}/segments/{segment}/release", None if reason is None else {"reason": reason}
        )
    say(f"segment {segment} of campaign {answer['id']} is released; the campaign is {answer['status']}")
