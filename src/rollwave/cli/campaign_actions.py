"""The commands of `rollwave campaign` that change what a campaign does: start, pause, abort, cancel, retry."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from rollwave.cli.client import ApiKey, ApiUrl, CampaignArgument, connect
from rollwave.cli.output import say
from rollwave.domain.retry import Reason
from rollwave.errors import InvalidInput, RollwaveError

RETRY_TIMEOUT_SECONDS = 600.0
"""Maximum time for a retry: a million devices take a minute or two."""


def start(campaign_id: CampaignArgument, api_url: ApiUrl = None, api_key: ApiKey = None) -> None:
    """Start a new campaign, or continue a paused one."""
    _order(campaign_id, "start", api_url, api_key)


def pause(campaign_id: CampaignArgument, api_url: ApiUrl = None, api_key: ApiKey = None) -> None:
    """Stop sending commands until the campaign is started again. Reports still count."""
    _order(campaign_id, "pause", api_url, api_key)


def abort(
    campaign_id: CampaignArgument,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
    api_url: ApiUrl = None,
    api_key: ApiKey = None,
) -> None:
    """Stop a campaign for good.

    Devices that were never sent to become SKIPPED. This cannot be undone.
    """
    if not yes and not _confirmed(campaign_id, "abort"):
        raise RollwaveError("nothing was changed")
    _order(campaign_id, "abort", api_url, api_key)


def cancel(
    campaign_id: CampaignArgument,
    reason: Annotated[str | None, typer.Option(help="Reason, which the campaign and its history show.")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
    api_url: ApiUrl = None,
    api_key: ApiKey = None,
) -> None:
    """Abort a campaign, and tell its devices in progress to stop.

    A device that can still stop reports FAILED with the code CANCELLED. A device that already installs the firmware
    carries on. This cannot be undone.

    For example:

        rollwave campaign cancel 7 --reason 'battery drain seen in the lab'
    """
    if not yes and not _confirmed(campaign_id, "cancel"):
        raise RollwaveError("nothing was changed")
    _order(campaign_id, "cancel", api_url, api_key, {"reason": reason} if reason else None)


def retry(
    campaign_id: CampaignArgument,
    reason: Annotated[Reason | None, typer.Option(help="Only devices whose last attempt failed for this.")] = None,
    code: Annotated[str | None, typer.Option(help="Only devices that reported this code with their failure.")] = None,
    api_url: ApiUrl = None,
    api_key: ApiKey = None,
) -> None:
    """Give failed devices one more attempt each, also above the maximum number of attempts.

    The campaign must be running or paused. A paused campaign sends the attempts when it is started.
    The devices are in progress from then on, and shown as DOWNLOADING, also while a pause, a window or a quarantine
    keeps the attempt back.

    For example:

        rollwave campaign retry 7 --reason no_answer
    """
    query = {"reason": reason.value if reason else None, "code": code}
    with connect(api_url, api_key) as api:
        answer = api.post(f"/ota/campaigns/{campaign_id}/retry", query=query, timeout=RETRY_TIMEOUT_SECONDS)
    say(f"{answer['devices']:,} devices of campaign {answer['id']} get another attempt; it is {answer['status']}")


def _confirmed(campaign_id: int, action: str) -> bool:
    if not sys.stdin.isatty():
        raise InvalidInput(
            f"the command {action} cannot be undone, and there is no terminal to ask for confirmation",
            hint="Add --yes to confirm.",
        )
    return typer.confirm(f"{action.capitalize()} campaign {campaign_id}? This cannot be undone.", err=True)


def _order(
    campaign_id: int, action: str, api_url: str | None, api_key: str | None, body: dict[str, Any] | None = None
) -> None:
    with connect(api_url, api_key) as api:
        answer = api.post(f"/ota/campaigns/{campaign_id}/{action}", body)
    say(f"campaign {answer['id']} is {answer['status']}")
