"""`rollwave campaign causes`, `timeline` and `report`: what has happened in a campaign so far."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from rollwave.cli.client import CampaignArgument, connect, over_api
from rollwave.cli.output import Column, Format, Output, complain, moment, print_page, say
from rollwave.errors import InvalidInput


@over_api
def causes(
    campaign_id: CampaignArgument,
    by: Annotated[
        str | None,
        typer.Option(
            metavar="PART,…",
            help="What failures are grouped by: code, label or label:KEY, from_version.  [default: all three]",
        ),
    ] = None,
    output: Output = Format.TABLE,
) -> None:
    """Show what the failed devices of a campaign have in common.

    Without `label:KEY`, the label that separates failed devices from others
    best is taken, if there is one.
    """
    with connect() as api:
        answer = api.get(f"/ota/campaigns/{campaign_id}/causes", by=by)
    columns: dict[str, Column] = {
        "DEVICES": "devices",
        "FAILURE": _failure,
        "LABEL": "label",
        "FROM VERSION": "from_version",
    }
    print_page(answer, output, "causes", columns, empty="No device has failed.", name="text")
    if output is Format.TABLE and answer["text"]:
        complain(answer["text"])


def _failure(row: Mapping[str, Any]) -> str:
    if row["code"] is not None:
        return str(row["code"])
    return str(row["message"] or (row["reason"] or "no code").replace("_", " "))


@over_api
def timeline(campaign_id: CampaignArgument, output: Output = Format.TABLE) -> None:
    """Show how many devices of a campaign were in each state over time."""
    with connect() as api:
        answer = api.get(f"/ota/campaigns/{campaign_id}/timeline")
    columns: dict[str, Column] = {
        "AT": lambda row: moment(row["at"]),
        "PENDING": "pending",
        "DOWNLOADING": "downloading",
        "INSTALLING": "installing",
        "SUCCEEDED": "succeeded",
        "FAILED": "failed",
        "SKIPPED": "skipped",
    }
    print_page(answer, output, "points", columns, empty="The campaign has no past yet.", name="at")


@over_api
def report(
    campaign_id: CampaignArgument,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE|-", help="Default: campaign-ID.html. -: standard output."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
) -> None:
    """Write one HTML file about a campaign, with its charts, to attach to a ticket.

    The file needs no server and no script. It follows the theme of the reader
    and can be printed.
    """
    from rollwave.client.report import page

    file = output or Path(f"campaign-{campaign_id}.html")
    to_stdout = str(file) == "-"
    if not to_stdout and file.exists() and not force:
        raise InvalidInput(f"{file} exists", hint="Add --force to replace it, or --output with another name.")
    with connect() as api:
        text = page(api, campaign_id)
    if to_stdout:
        say(text.rstrip("\n"))
        return
    try:
        with file.open("w" if force else "x", encoding="utf-8") as opened:
            opened.write(text)
    except OSError as error:
        raise InvalidInput(f"{file} cannot be written: {error.strerror}") from error
    complain(f"Wrote {file}.")
