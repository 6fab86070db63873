"""The commands of `rollwave campaign` that change what a campaign does: start, pause, abort, cancel, retry."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from rollwave.cli.client import CampaignArgument, connect, over_api
from rollwave.cli.output import say
from rollwave.domain.retry import Reason
from rollwave.errors import InvalidInput, RollwaveError

RETRY_TIMEOUT_SECONDS = 600.0
"""Maximum time for a retry: a million devices take a minute or two."""


@over_api
def start(campaign_id: CampaignArgument) -> None:
    """Start a new campaign, or continue a paused one."""
    _order(campaign_id, "start")


@over_api
def pause(campaign_id: CampaignArgument) -> None:
    """Stop sending commands until the campaign is started again. Reports still count."""
    _order(campaign_id, "pause")


@over_api
def abort(
    campaign_id: CampaignArgument,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
) -> None:
    """Stop a campaign for good.

    Devices that were never sent to become SKIPPED. This cannot be undone.
    """
    if not yes and not _confirmed(campaign_id, "abort"):
        raise RollwaveError("nothing was changed")
    _order(campaign_id, "abort")


@over_api
def cancel(
    campaign_id: CampaignArgument,
    reason: Annotated[str | None, typer.Option(help="Reason, which the campaign and its history show.")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
) -> None:
    """Abort a campaign, and tell its devices in progress to stop.

    A device that can still stop reports FAILED with the code CANCELLED. A
    device that already installs the firmware carries on. This cannot be undone.
    """
    if not yes and not _confirmed(campaign_id, "cancel"):
        raise RollwaveError("nothing was changed")
    _order(campaign_id, "cancel", {"reason": reason} if reason else None)


@over_api
def retry(
    campaign_id: CampaignArgument,
    reason: Annotated[Reason | None, typer.Option(help="Only devices whose last attempt failed for this.")] = None,
    code: Annotated[str | None, typer.Option(help="Only devices that reported this code with their failure.")] = None,
) -> None:
    """Give failed devices one more attempt each, also above the maximum number of attempts.

    The campaign must be running or paused. A paused campaign sends the attempts
    when it is started. The devices are in progress from then on, and shown as
    DOWNLOADING, also while a pause, a window or a quarantine keeps the attempt
    back.
    """
    query = {"reason": reason.value if reason else None, "code": code}
    with connect() as api:
        answer = api.post(f"/ota/campaigns/{campaign_id}/retry", query=query, timeout=RETRY_TIMEOUT_SECONDS)
    number = answer["devices"]
    get = "device gets" if number == 1 else "devices get"
    say(f"{number:,} {get} another attempt. Campaign {answer['id']} is {answer['status']}.")


def _confirmed(campaign_id: int, action: str) -> bool:
    if not sys.stdin.isatty():
        raise InvalidInput(
            f"the command {action} cannot be undone, and there is no terminal to ask for confirmation",
            hint="Add --yes to confirm.",
        )
    return typer.confirm(f"{action.capitalize()} campaign {campaign_id}? This cannot be undone.", err=True)


def _order(campaign_id: int, action: str, body: dict[str, Any] | None = None) -> None:
    with connect() as api:
        answer = api.post(f"/ota/campaigns/{campaign_id}/{action}", body)
    say(f"Campaign {answer['id']} is {answer['status']}.")
