"""`rollwave campaign waiting` and `explain`: why devices are not sent to now."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from rollwave.cli.client import CampaignArgument, connect, over_api
from rollwave.cli.complete import campaign_devices
from rollwave.cli.output import Column, Format, Output, moment, print_page, printed, say, table
from rollwave.domain.ids import in_path


@over_api
def waiting(
    campaign_id: CampaignArgument,
    output: Output = Format.TABLE,
) -> None:
    """Show what a campaign's PENDING devices wait for.

    Each device counts once, under the first gate that is closed to it. A gate is
    a rule that may keep a device from being sent to, such as pace or wave.
    """
    with connect() as api:
        answer = api.get(f"/ota/campaigns/{campaign_id}/waiting")
    columns: dict[str, Column] = {
        "WAIT FOR": "reason",
        "DEVICES": "devices",
        "UNTIL": lambda row: moment(row["until"]),
        "WHY": "text",
    }
    print_page(answer, output, "waiting", columns, empty="No device is PENDING.")


@over_api
def explain(
    campaign_id: CampaignArgument,
    device_id: Annotated[
        str, typer.Argument(metavar="DEVICE", help="The device's id.", autocompletion=campaign_devices)
    ],
    output: Output = Format.TABLE,
) -> None:
    """Show whether a device may be sent to now, and if not, why.

    Lists every gate that applies to it, open or closed, in the order in which
    they are checked, and its events so far. If the device has ended, it shows
    how.
    """
    with connect() as api:
        answer = api.get(f"/ota/campaigns/{campaign_id}/devices/{in_path(device_id)}/explain")
    if printed(answer, output, [answer["device_id"]]):
        return
    from rollwave.client.events import Event

    say(f"{answer['device_id']} is {answer['status']}, {_when(answer)}")
    table(
        ("GATE", "STATE", "UNTIL", "WHY"),
        [
            (row["gate"], "open" if row["open"] else "closed", moment(row["until"]), row["text"])
            for row in answer["checks"]
        ],
        empty="",
    )
    for event in answer["history"]:
        say(f"{moment(event['at'])}  {Event.read(event).sentence}")


def _when(answer: Mapping[str, Any]) -> str:
    if answer["may_go_now"]:
        return "and may be sent to now"
    at = answer["may_go_at"]
    return f"and may be sent to at {moment(at)} at the earliest" if at else "and is not sent to now"
