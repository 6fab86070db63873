"""``rollwave campaign segments`` and ``release``: groups of devices, and their quarantine by a guardrail."""

from __future__ import annotations

from typing import Annotated

import typer

from rollwave.cli.client import CampaignArgument, connect, over_api
from rollwave.cli.output import Column, Format, Limit, Output, print_page, say
from rollwave.domain.ids import in_path


@over_api
def segments(
    campaign_id: CampaignArgument,
    limit: Limit = 50,
    output: Output = Format.TABLE,
) -> None:
    """List the segments of a campaign, with their devices by state.

    A segment is the devices with the same values of the labels that the
    policy's windows and guardrails mention, such as hardware_revision. A
    campaign without a policy document has none.
    """
    with connect() as api:
        answer = api.get(f"/ota/campaigns/{campaign_id}/segments", limit=limit)
    columns: dict[str, Column] = {
        "SEGMENT": "number",
        "LABELS": lambda row: ", ".join(f"{key}={value}" for key, value in row["labels"].items()) or "all devices",
        "WAITING": "waiting",
        "IN FLIGHT": "in_flight",
        "SUCCEEDED": "succeeded",
        "FAILED": "failed",
        "QUARANTINE": lambda row: (row["quarantined"] or {}).get("reason") or "",
    }
    print_page(answer, output, "segments", columns, empty="The campaign has no segments.")


@over_api
def promote(
    campaign_id: CampaignArgument,
    wave: Annotated[str, typer.Argument(metavar="WAVE", help="The name of the present wave.")],
    reason: Annotated[str | None, typer.Option(help="Why, for the campaign's history.")] = None,
) -> None:
    """Open the gate of the present wave now, whatever it still waits for.

    The next wave is sent to at once; a paused campaign stays paused. If the
    gate asks for an approval, the key needs the role approver, and must not be
    the one that created the campaign or edited its policy last.
    """
    with connect() as api:
        answer = api.post(
            f"/ota/campaigns/{campaign_id}/waves/{in_path(wave)}/promote",
            None if reason is None else {"reason": reason},
        )
    say(f"wave {wave} of campaign {answer['id']} is passed; the campaign is {answer['status']}")


@over_api
def release(
    campaign_id: CampaignArgument,
    segment: Annotated[int, typer.Argument(metavar="SEGMENT", min=1, help="The number of the segment.")],
    reason: Annotated[str | None, typer.Option(help="Why, for the campaign's history.")] = None,
) -> None:
    """Release a segment from quarantine, so that its devices are sent to again.

    A guardrail with the action quarantine stops sending to the devices of one
    segment while the others go on. Release the segment when you have found the
    cause. The guardrail then begins a new test, which counts only devices that
    are sent to after that.
    """
    path = f"/ota/campaigns/{campaign_id}/segments"
    with connect() as api:
        found = api.get(path, limit=1, cursor=segment - 1 or None)["segments"]
        answer = api.post(f"{path}/{segment}/release", None if reason is None else {"reason": reason})
    was = any(each["number"] == segment and each["quarantined"] for each in found)
    done = "is released" if was else "was not under quarantine"
    say(f"segment {segment} of campaign {answer['id']} {done}; the campaign is {answer['status']}")
